"""What owners say of their pools, and the nodes of frames: made-up files of a host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.factories import make_pool, make_snapshot, make_zspages
from zpobs.footing import Owned, ZramFigures, ZswapFigures
from zpobs.snapshot import OwnerFigures, PoolView, Snapshot
from zpobs.sources.nodes import NodeMap
from zpobs.surroundings import Surroundings

PAGE = 4096
# 100 pages are stored, 7 of them of one value and 3 on a disk.
MM_STAT = "409600 300000 331776 0 340000 7 12 5 9\n"
FIGURES = OwnerFigures(requested_bytes=300_000, objects=90, steady=True)
ZSWAPPED = OwnerFigures(requested_bytes=None, objects=225, steady=True)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a host with one zram device and zswap."""
    device = tmp_path / "sys/block/zram0"
    for name, text in {
        "initstate": "1\n",
        "mm_stat": MM_STAT,
        "bd_stat": "3 0 3\n",
        "io_stat": "0 0 0 3\n",
        "stat": "1 2 3 4 50 60 70 80 0 90 100 11 12 13 14 15 16\n",
        "inflight": "0 0\n",
    }.items():
        write(device / name, text)
    write(tmp_path / "proc/meminfo", "MemTotal: 9 kB\nZswap:     264 kB\nZswapped:  900 kB\n")
    write(tmp_path / "proc/vmstat", "zswpin 1\nzswpout 2\nzswpwb 3\n")
    write(tmp_path / "sys/devices/system/node/online", "0\n")
    return tmp_path


def told(
    root: Path,
    *pools: PoolView,
    meanwhile: Callable[[], None] = lambda: None,
    zswap_objects: bool = True,
    names: tuple[str, ...] | None = None,
) -> list[OwnerFigures | None]:
    """Return the owners' figures of pools whose snapshot was taken while something happened."""
    nodes = NodeMap(PAGE, root / "sys/devices/system")
    around = Surroundings(PAGE, zswap_objects, nodes, root)
    before = around.owners()
    meanwhile()
    if names is None:
        names = tuple(pool.name for pool in pools)
    shot = around.added_to(make_snapshot(*pools), before, names)
    return [pool.owner_figures for pool in shot.pools]


def test_zram_tells_bytes_and_objects(root: Path) -> None:
    """Pages that became no object, or that are not there any more, are none."""
    assert told(root, make_pool(), make_pool(2, "zswap1")) == [FIGURES, ZSWAPPED]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("mm_stat", MM_STAT.replace("340000", "340001")),
        ("stat", "1 2 3 4 51 60 70 80 0 90 100 11 12 13 14 15 16\n"),
        ("inflight", "0 1\n"),
    ],
    ids=["used", "written", "being written"],
)
def test_a_device_in_use_is_not_steady(root: Path, file: str, text: str) -> None:
    """Whatever moved between both readings, or moves yet."""
    place = root / "sys/block/zram0" / file
    (figures,) = told(root, make_pool(), meanwhile=lambda: write(place, text))
    assert figures is not None
    assert figures.requested_bytes == 300_000
    assert not figures.steady


def test_a_write_that_began_before_and_has_not_ended_is_not_steady(root: Path) -> None:
    """Its object may be there and not be counted yet, all figures standing still."""
    write(root / "sys/block/zram0/inflight", "0 1\n")
    (figures,) = told(root, make_pool())
    assert figures is not None
    assert not figures.steady


def test_zswap_in_use_is_not_steady(root: Path) -> None:
    """A page that went in and out again shows as well."""
    vmstat = "zswpin 2\nzswpout 3\nzswpwb 3\n"
    (figures,) = told(
        root, make_pool(2, "zswap1"), meanwhile=lambda: write(root / "proc/vmstat", vmstat)
    )
    assert figures == OwnerFigures(None, 225, steady=False)


def test_several_pools_of_an_owner_cannot_be_told_apart(root: Path) -> None:
    """Also if only one of them is shown."""
    one = make_pool(2, "zswap1")
    assert told(root, one, make_pool(3, "zswap2")) == [None, None]
    assert told(root, one, names=("zswap1", "zswap2")) == [None]
    assert told(root, make_pool(), names=("zram0", "zram0")) == [None]


def test_zswap_that_keeps_pages_without_objects_tells_none(root: Path) -> None:
    """On such kernels the pages it counts are not those of its pool."""
    assert told(root, make_pool(2, "zswap1"), zswap_objects=False) == [None]
    write(root / "proc/meminfo", "Zswap: 264 kB\n")
    assert told(root, make_pool(2, "zswap1")) == [None]


def test_what_vanishes_meanwhile_tells_nothing(root: Path) -> None:
    """Nor does an owner that is not known."""
    device = root / "sys/block/zram0"
    assert told(root, make_pool(), meanwhile=(device / "mm_stat").unlink) == [None]
    assert told(root, make_pool(), meanwhile=(root / "proc/vmstat").unlink) == [None]
    write(device / "mm_stat", MM_STAT)
    assert told(root, make_pool(), meanwhile=lambda: write(device / "initstate", "0\n")) == [None]
    assert told(root, make_pool(1, "mine", owner="unknown")) == [None]


def test_zspages_get_the_nodes_of_their_frames(root: Path) -> None:
    """Where zspages are listed; the array is read-only like all others."""
    nodes = NodeMap(PAGE, root / "sys/devices/system")
    around = Surroundings(PAGE, True, nodes, root)
    shot = around.added_to(
        make_snapshot(make_pool(zspage_list=make_zspages()), make_pool(2)), around.owners(), ()
    )
    table = shot.pools[0].zspage_list
    assert table is not None
    assert table.nodes.tolist() == [0, 0]
    assert not table.nodes.flags.writeable
    assert shot.pools[1].zspage_list is None
    assert np.array_equal(table.frames, make_zspages().frames)


def owned(root: Path) -> Owned:
    around = Surroundings(PAGE, True, NodeMap(PAGE, root / "sys/devices/system"), root)
    shot: Snapshot = around.added_to(make_snapshot(), around.owners(), ())
    assert shot.owned is not None
    return shot.owned


def test_a_snapshot_has_what_owners_say(root: Path) -> None:
    """mm_stat by its names, what was written back, and zswap with what it may hold."""
    write(root / "sys/module/zswap/parameters/max_pool_percent", "20\n")
    found = owned(root)
    (zram,) = found.zram.values()
    assert isinstance(zram, ZramFigures)
    assert (zram.written_back, zram.mm_stat["mem_used_total"], zram.mm_stat["huge_pages"]) == (
        3,
        331776,
        5,
    )
    # A fifth of 9 KiB.
    assert found.zswap == ZswapFigures(264 << 10, 900 << 10, 9 * 1024 // 5)


def test_what_owners_do_not_say_is_not_there(root: Path) -> None:
    """No zswap, a device that tells something else, no limit that can be read."""
    assert owned(root).zswap == ZswapFigures(264 << 10, 900 << 10, None)
    write(root / "proc/meminfo", "MemTotal: 9 kB\n")
    write(root / "sys/block/zram0/mm_stat", "1 2\n")
    assert owned(root) == Owned()
