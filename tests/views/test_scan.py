"""``zpobs scan``'s text and JSON; whole screens are those in ``tests/golden/scan``.

``ZPOBS_UPDATE_GOLDEN=1 pytest tests/views`` writes the screens anew; read the
difference before you commit it.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.factories import (
    KERNEL,
    LINES,
    TIME_NS,
    UNCOUNTED,
    ints,
    make_classes,
    make_health,
    make_pool,
    make_snapshot,
    make_zspages,
)
from tests.scan_records import CLASSES, FLAGS, ScanRecords, addresses, healthy
from zpobs import wire
from zpobs.descriptors import DescriptorDump, descriptor_dump
from zpobs.snapshot import PoolView, Snapshot, ZspageTable
from zpobs.views import scan
from zpobs.views.scan import Choice, Details, chosen, render, shares, warnings, write_json

SCREENS = Path(__file__).resolve().parent.parent / "golden" / "scan"


def table_of(dump: DescriptorDump) -> ZspageTable:
    """Return the zspages of a dump as the model publishes them, by rising address."""
    whole = np.flatnonzero(~dump.zspages.torn)
    order = whole[np.argsort(dump.zspages.address[whole])]
    mine = dump.zspages
    spans = [dump.descriptors.frame[slice(*mine.descriptor_start[[r, r + 1]])] for r in order]
    frames = np.concatenate([*spans, ints([])])
    return ZspageTable(
        address=mine.address[order],
        class_index=mine.class_index[order],
        inuse=mine.inuse[order],
        fullness=mine.fullness[order],
        huge=mine.huge[order],
        first_seen_ns=np.full(len(order), 11, dtype=np.uint64),
        last_seen_ns=np.full(len(order), 21, dtype=np.uint64),
        frame_start=ints([0, *np.cumsum([len(span) for span in spans])]),
        frames=frames.astype(np.uint64),
        freeobj=np.where(mine.freeobj[order] < 128, mine.freeobj[order], -1),
        scanned=np.arange(len(order)) != 1,
        locked=np.arange(len(order)) == 3,
        isolated=np.isin(np.arange(len(order)), [3, 4]),
        born=np.zeros(len(order), dtype=bool),
        nodes=np.zeros(len(frames), dtype=np.int64),
    )


def dumped_pool(pool_id: int = 1) -> tuple[PoolView, DescriptorDump]:
    """Return the pool of ``scan_records``, with one list that could not be followed."""
    torn = ScanRecords()
    torn.begin(CLASSES[0], 12, 5)
    torn.torn(0xFFFF888002000000, group=4, magic=0x11, links=wire.LINK_FOREIGN)
    end = np.flatnonzero(wire.kinds(healthy()) == wire.KIND_SCAN_END)[0]
    words = np.insert(healthy(), end, torn.words[1:], axis=0)
    dump = descriptor_dump(words, FLAGS)
    lines = [(62, 1024, 4, 1, 3, 5), (107, 1744, 7, 3, 3, 16), (202, 3264, 5, 4, 2, 7)]
    classes = make_classes([*lines, (254, 4096, 1, 1, 2, 1)], allocs=None, frees=None, moves=None)
    pool = make_pool(
        pool_id,
        classes=classes,
        counters=UNCOUNTED,
        zspage_list=table_of(dump),
        address=0xFFFF888000A00000,
        scan_ns=TIME_NS,
        kernel_pages=22,
        pages_compacted=3932,
    )
    return pool, dump


def two_pools() -> Snapshot:
    """Two pools at rest, one of them with zspages in several groups."""
    spread = make_classes(
        fullness=np.array(
            [
                [1, 0, 0, 2, 0, 0, 3, 0, 0, 0, 0, 4],
                [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 20, 179],
                [0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0],
                [0] * 11 + [1000],
            ]
        )
    )
    first = make_pool(classes=spread, kernel_pages=1622, pages_compacted=12_345)
    second = make_pool(2, "zswap1", LINES[:2], kernel_pages=610, pages_compacted=0)
    return make_snapshot(first, second, health=make_health(hooks=0, scans=1))


def busy_pool() -> Snapshot:
    """A pool that changed while it was scanned, on a kernel with four groups."""
    classes = make_classes(
        fullness=np.array([[1, 2, 3, 4], [0, 0, 0, 200], [0, 3, 0, 0], [0, 0, 0, 1000]]),
        statuses=("exact", "bounded", "unknown", "exact"),
    )
    pool = make_pool(status="unknown", classes=classes, kernel_pages=1630)
    reasons = ("zram0: 1 size class kept changing", "zswap is in use, but no pool was found")
    return make_snapshot(
        pool,
        health=make_health("unknown", reasons=reasons),
        kernel=replace(KERNEL, chain_size=0, fullness_groups=4, descriptor="page"),
    )


def no_pools() -> Snapshot:
    """A host whose zsmalloc serves nobody."""
    return make_snapshot(health=make_health(scans=1))


def empty_pool() -> Snapshot:
    """A pool that holds nothing."""
    lines = [(62, 1024, 4, 1, 0, 0)]
    return make_snapshot(make_pool(lines=lines, kernel_pages=0, pages_compacted=0))


def dumped() -> Snapshot:
    """The pool of scan_records."""
    return make_snapshot(dumped_pool()[0])


def details(snapshot: Snapshot) -> Details:
    return Details({pool.id: dumped_pool()[1] for pool in snapshot.pools}, FLAGS)


LISTED = Choice(zspages=True)
# Screen -> its snapshot, what is chosen of it, and whether with descriptors.
GOLDEN: dict[str, tuple[Callable[[], Snapshot], Choice, bool]] = {
    "two-pools": (two_pools, Choice(), False),
    "busy-pool": (busy_pool, Choice(), False),
    "no-pools": (no_pools, Choice(), False),
    "empty-pool": (empty_pool, Choice(), False),
    "zspages": (dumped, LISTED, False),
    "zspages-of-a-class": (dumped, Choice(True, class_index=107, limit=2), False),
    "zspages-of-no-class": (dumped, Choice(True, class_index=9), False),
    "descriptors": (dumped, LISTED, True),
    "descriptors-of-one": (dumped, Choice(True, zspage=addresses(4)[3]), True),
}


def shown(name: str) -> list[str]:
    snapshot, choice, detailed = GOLDEN[name]
    made = snapshot()
    return list(render(made, choice, details(made) if detailed else None))


@pytest.mark.parametrize("name", GOLDEN)
def test_the_screen_is_as_it_was(name: str) -> None:
    """The text equals the golden screen, character by character."""
    text = "\n".join(shown(name)) + "\n"
    golden = SCREENS / f"{name}.txt"
    if os.environ.get("ZPOBS_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_golden_screen_is_left_over() -> None:
    """Every file of golden screens belongs to a test."""
    assert {path.stem for path in SCREENS.iterdir()} == set(GOLDEN)


def test_the_tables_fit_80_columns() -> None:
    """Pools and size classes that are exact are seen on a terminal of 80 columns."""
    assert max(map(len, shown("two-pools"))) <= 80


def test_no_pools_is_said_as_surely_as_it_is_known() -> None:
    """Nothing found is told apart from nothing there, and from one pool that is not there."""
    unsure = make_snapshot(health=make_health("unknown", reasons=("zswap: no pool was found",)))
    assert list(render(no_pools(), Choice(), None))[-1].startswith("no pools: nothing on this host")
    assert list(render(unsure, Choice(), None))[-1] == "no pools were found"
    named = list(render(no_pools(), Choice(pool="zram3"), None))
    assert named[-1] == "no pools: none is called zram3 now"


@pytest.mark.parametrize(
    ("counts", "drawn"),
    [
        ([0, 0, 0], "..."),
        ([0, 7, 0], ".*."),
        ([1, 0, 99], "0.9"),
        ([1, 1, 0], "55."),
        ([10, 20, 70], "127"),
        ([], ""),
    ],
)
def test_shares(counts: list[int], drawn: str) -> None:
    """A group without zspages never looks like one with few, nor one with most like all."""
    assert shares(counts) == drawn


def test_an_exact_snapshot_warns_of_nothing() -> None:
    """Reasons are told where they cost something."""
    reasons = ("no probe is attached",)
    assert warnings(make_snapshot(health=make_health("exact", reasons=reasons))) == ()
    assert warnings(make_snapshot(health=make_health("bounded", reasons=reasons))) == reasons


# ---- which zspages ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        (Choice(True), 10),
        (Choice(True, class_index=107), 3),
        (Choice(True, class_index=99), 0),
        (Choice(True, zspage=addresses(10)[4]), 1),
        (Choice(True, class_index=62, zspage=addresses(10)[4]), 0),
        (Choice(True, zspage=2**64 - 1), 0),
    ],
)
def test_zspages_are_chosen_by_class_and_address(choice: Choice, count: int) -> None:
    """Choices narrow each other, and what nothing fits is empty."""
    pool, _ = dumped_pool()
    rows = chosen(pool, choice)
    assert len(rows) == count
    assert pool.zspage_list is not None
    if choice.class_index is not None:
        assert set(pool.zspage_list.class_index[rows].tolist()) <= {choice.class_index}


def test_a_pool_without_a_list_has_none_to_choose() -> None:
    """Without zspages nothing is chosen and nothing written of them."""
    assert len(chosen(make_pool(), LISTED)) == 0


# ---- JSON --------------------------------------------------------------------------


def written(snapshot: Snapshot, choice: Choice, more: Details | None = None) -> Any:
    out = io.StringIO()
    write_json(snapshot, choice, more, out)
    text = out.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    return json.loads(text)


@pytest.mark.parametrize("part", [1, 3, 4096])
@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_parts_make_the_snapshots_own_object(
    part: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written part by part is the same object, key by key, as made in one piece."""
    monkeypatch.setattr(scan, "PART_ZSPAGES", part)
    lists = [make_zspages(), dumped_pool()[0].zspage_list, None]
    pools = [make_pool(at, zspage_list=each) for at, each in enumerate(lists[:count])]
    snapshot = make_snapshot(*pools)
    made = written(snapshot, LISTED)
    assert made == snapshot.to_json()
    assert [list(pool) for pool in made["pools"]] == [
        list(pool) for pool in snapshot.to_json()["pools"]
    ]


def test_an_empty_list_is_there() -> None:
    """A pool that holds no zspage has an empty zspage_list where it was asked for."""
    pool, _ = dumped_pool()
    made = written(make_snapshot(pool), Choice(True, class_index=1))
    assert made["pools"][0]["zspage_list"] == []


def test_without_zspages_no_address_is_told() -> None:
    """Kernel addresses and frame numbers appear only where they were asked for."""
    pool, _ = dumped_pool()
    made = written(make_snapshot(pool), Choice())
    assert "0xffff" not in json.dumps(made)
    assert made == make_snapshot(replace(pool, zspage_list=None)).to_json()


def test_a_limit_is_of_each_pool() -> None:
    """The first zspages of each pool are listed; the pool's figures stay whole."""
    pools = [dumped_pool(1)[0], dumped_pool(2)[0]]
    made = written(make_snapshot(*pools), Choice(True, limit=3))
    whole = make_snapshot(*pools).to_json()
    for mine, all_of_it in zip(made["pools"], whole["pools"], strict=True):
        assert mine["zspage_list"] == all_of_it["zspage_list"][:3]
        assert mine["zspages"] == all_of_it["zspages"] == 10


DETAIL_KEYS = {"magic", "lock", "free_list", "list_group", "descriptors"}


@pytest.mark.parametrize("part", [3, 4096])
def test_descriptors_stand_in_their_zspage(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every zspage has the descriptors of its own chain, whatever the part it is in."""
    monkeypatch.setattr(scan, "PART_ZSPAGES", part)
    snapshot = dumped()
    (pool,) = written(snapshot, LISTED, details(snapshot))["pools"]
    plain = snapshot.to_json()["pools"][0]["zspage_list"]
    assert [{key: each[key] for key in plain[0]} for each in pool["zspage_list"]] == plain
    for each in pool["zspage_list"]:
        assert set(each) == set(plain[0]) | DETAIL_KEYS
        assert [found["pfn"] for found in each["descriptors"]] == each["pfns"]
        assert {found["zspage"] for found in each["descriptors"]} == {each["address"]}
        assert each["list_group"] == each["fullness"]


def test_a_zspage_without_details_has_nulls() -> None:
    """What the details do not show is null, as it can be born after that class was walked."""
    pool, dump = dumped_pool()
    assert pool.zspage_list is not None
    address = pool.zspage_list.address.copy()
    address[2] += 8
    pool = replace(pool, zspage_list=replace(pool.zspage_list, address=address))
    made = written(make_snapshot(pool), LISTED, Details({1: dump}, FLAGS))
    entries = made["pools"][0]["zspage_list"]
    assert [each["address"] for each in entries if each["descriptors"] is None] == [
        f"{int(address[2]):#x}"
    ]
    assert {entries[2][key] for key in DETAIL_KEYS} == {None}
    text = list(render(make_snapshot(pool), LISTED, Details({1: dump}, FLAGS)))
    assert len([line for line in text if "its descriptors were not seen" in line]) == 1


def test_a_pool_without_details_has_a_plain_list() -> None:
    """A pool that was found after the details were taken is listed without them."""
    pool, _ = dumped_pool()
    made = written(make_snapshot(pool), LISTED, Details({}, FLAGS))
    assert made == make_snapshot(pool).to_json()


def test_lists_that_could_not_be_followed_are_told() -> None:
    """Each place where a walk ended stands beside the list, in JSON and in the text."""
    snapshot = dumped()
    (pool,) = written(snapshot, LISTED, details(snapshot))["pools"]
    assert pool["torn_lists"] == [
        {
            "class": 62,
            "list_group": 4,
            "zspage": "0xffff888002000000",
            "magic": "0x11",
            "back_broken": False,
            "foreign": True,
        }
    ]
    assert any(
        "could not be followed from 0xffff888002000000" in line for line in shown("descriptors")
    )


def test_every_key_is_documented() -> None:
    """docs/scan.md names every key that descriptors add to the snapshot object."""
    snapshot = dumped()
    (pool,) = written(snapshot, LISTED, details(snapshot))["pools"]
    keys = set(DETAIL_KEYS) | {"torn_lists", *pool["torn_lists"][0]}
    for each in pool["zspage_list"]:
        keys.update(key for found in each["descriptors"] for key in found)
    text = (Path(__file__).resolve().parents[2] / "docs" / "scan.md").read_text(encoding="utf-8")
    assert [key for key in sorted(keys) if f'"{key}"' not in text and f"`{key}`" not in text] == []
