"""Blocks of pages: sums by block, type and fill, and what is made unmovable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import ints, make_pool, make_snapshot, make_zspages
from zpobs.pageblocks import UNKNOWN, BlockTable, Pageblocks, blocks_of, joined, typed
from zpobs.views.pageblocks import pageblock_lines
from zpobs.views.scan import Choice, render

TABLE = BlockTable(
    ints([3, 8, 9, 40]),
    ints([512, 64, 65, 7]),
    ints([2, 0, 1, 7]),
    ("movable", "movable", "unmovable", "cma"),
)


def test_every_page_is_in_its_block() -> None:
    """Two frames of one zspage, in blocks of 16 pages; the other's chain is not known."""
    zspages = replace(make_zspages(), frames=np.array([31, 32], dtype=np.uint64))
    table = blocks_of(zspages, 4)
    assert (table.number.tolist(), table.pages.tolist()) == ([1, 2], [1, 1])
    assert table.types == (UNKNOWN, UNKNOWN)


def test_pages_of_a_locked_or_isolated_zspage_are_fixed() -> None:
    for field in ("locked", "isolated"):
        zspages = replace(make_zspages(), **{field: np.array([True, False])})
        assert blocks_of(zspages, 12).fixed.tolist() == [2]
    none = np.array([False, False])
    assert blocks_of(replace(make_zspages(), locked=none), 12).fixed.tolist() == [0]


@given(st.lists(st.lists(st.integers(0, 5000), max_size=30), min_size=1, max_size=5))
def test_pools_joined_are_all_their_frames(pools: list[list[int]]) -> None:
    """However frames are shared out among pools, the sums by block are the same."""

    def table(frames: list[int]) -> BlockTable:
        zspages = replace(
            make_zspages(),
            frame_start=ints([0, len(frames), len(frames)]),
            frames=np.array(frames, dtype=np.uint64),
        )
        return blocks_of(zspages, 6)

    whole, parts = table([each for pool in pools for each in pool]), joined(list(map(table, pools)))
    assert parts.number.tolist() == whole.number.tolist()
    assert parts.pages.tolist() == whole.pages.tolist()
    assert int(whole.pages.sum()) == sum(map(len, pools))


def test_types_are_found_by_number() -> None:
    part = BlockTable(ints([8, 40]), ints([1, 1]), ints([0, 0]), (UNKNOWN, UNKNOWN))
    assert typed(part, TABLE.number, TABLE.types).types == ("movable", "cma")


def test_sums() -> None:
    """By type, by eighths of a block, and what cannot be moved of movable blocks."""
    blocks = Pageblocks(9, TABLE, 3, movable=True)
    assert blocks.pages == 648
    assert blocks.by_type() == {"movable": (2, 576), "unmovable": (1, 65), "cma": (1, 7)}
    assert blocks.fill().tolist() == [2, 1, 0, 0, 0, 0, 0, 1]
    assert blocks.made_unmovable() == (2, 9)
    assert replace(blocks, movable=False).made_unmovable() == (3, 583)
    assert replace(blocks, why_unknown="no note").made_unmovable() is None


def test_json_tells_blocks_only_where_asked() -> None:
    blocks = Pageblocks(9, TABLE, 3, movable=True)
    told = blocks.to_json(blocks=True)
    assert told.pop("list")[1] == {"block": 8, "pages": 64, "fixed_pages": 0, "type": "movable"}
    assert told == blocks.to_json(blocks=False)
    assert told["made_unmovable"] == {"blocks": 2, "pages": 9}
    unknown = replace(blocks, why_unknown="no note").to_json(blocks=False)
    assert (unknown["made_unmovable"], unknown["why_unknown"]) == (None, "no note")


def test_text() -> None:
    blocks = Pageblocks(9, TABLE, 3, movable=True)
    assert pageblock_lines("zram0", blocks) == [
        "zram0: 648 pages in 4 pageblocks of 512 pages",
        "  3 more pages, of frames that are not known",
        "  MIGRATETYPE      BLOCKS      PAGES  OF THEIR PAGES",
        "  movable               2        576           56.2%",
        "  unmovable             1         65           12.7%",
        "  cma                   1          7            1.4%",
        "  full by          <=1/8   <=2/8   <=3/8   <=4/8   <=5/8   <=6/8   <=7/8   <=8/8",
        "  blocks               2       1       0       0       0       0       0       1",
        "  made unmovable: 2 movable blocks with 9 pages",
        "    by pages locked or isolated as they were scanned; this kernel migrates others",
    ]
    unmoved = pageblock_lines("zram0", replace(blocks, movable=False))
    assert unmoved[-1] == "    this kernel cannot migrate zsmalloc's pages"
    unknown = pageblock_lines("zram0", replace(blocks, why_unknown="no note"))
    assert unknown[2] == "  of unknown migratetype: no note"
    assert unknown[-1] == "  made unmovable: ?, as migratetypes are"


@pytest.mark.parametrize("pools", [1, 2])
def test_a_scan_shows_all_pools_together_where_there_are_several(pools: int) -> None:
    blocks = Pageblocks(9, TABLE, 0, movable=True)
    views = [make_pool(at + 1, f"zram{at}", pageblocks=blocks) for at in range(pools)]
    shot = make_snapshot(*views, pageblocks=blocks)
    choice = Choice(zspages=False, class_index=None, zspage=None, limit=None, pool=None)
    lines = [line for line in render(shot, choice, None) if "pageblocks of" in line]
    names = [line.partition(":")[0] for line in lines]
    assert names == (["all pools"] if pools > 1 else []) + [f"zram{at}" for at in range(pools)]
