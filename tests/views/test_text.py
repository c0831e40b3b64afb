"""The text frame: whole screens compared with those in ``tests/golden/screens``.

``ZPOBS_UPDATE_GOLDEN=1 pytest tests/views`` writes the screens anew; read the
difference before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.factories import (
    COUNTERS,
    KERNEL,
    LINES,
    TIME_NS,
    UNCOUNTED,
    ints,
    make_classes,
    make_health,
    make_pool,
    make_snapshot,
)
from zpobs.rates import PoolRates, rates
from zpobs.snapshot import OwnerFigures, Snapshot
from zpobs.views.figures import in_bytes
from zpobs.views.live.classes import classes_table
from zpobs.views.live.scene import Scene
from zpobs.views.live.view import ViewState
from zpobs.views.text import SORTS, bar, class_rows, health_line, render
from zpobs.waste import pool_waste

SCREENS = Path(__file__).resolve().parent.parent / "golden" / "screens"
Frame = tuple[Snapshot, dict[int, PoolRates]]


def two_pools() -> Frame:
    """Two busy pools, two seconds after an older snapshot."""
    zswap = make_pool(2, "zswap1", LINES[:2], counters=replace(COUNTERS, failures=0))
    old = make_snapshot(make_pool(), zswap)
    later = make_classes(allocs=ints([12_030, 60, 92, 121]), frees=ints([20, 41, 60, 80]))
    grown = replace(COUNTERS, allocs=129_456, frees=123_057)
    new = make_snapshot(make_pool(classes=later, counters=grown), zswap, at_s=2)
    return new, rates(old, new)


def bounded_pool() -> Frame:
    """A pool some of whose records were lost."""
    reasons = ("17 records found the ring full", "3 probe runs were skipped by the kernel")
    health = make_health("bounded", lost=17, missed_runs=3, reasons=reasons)
    return make_snapshot(make_pool(status="bounded"), health=health), {}


def unknown_pool() -> Frame:
    """A pool older than the probes, and hooks that could not be attached."""
    reasons = ("pool 1 (zram0): its creation was not seen", "zs_malloc is not attached")
    health = make_health(
        "unknown", hooks=9, missed_hooks=("obj_malloc", "zs_malloc"), reasons=reasons
    )
    classes = make_classes(allocs=None, frees=None, moves=None, statuses=("unknown",) * 4)
    pool = make_pool(status="unknown", counters=UNCOUNTED, classes=classes)
    return make_snapshot(pool, health=health, kernel=replace(KERNEL, chain_size=0)), {}


def no_pools() -> Frame:
    """Nothing seen yet."""
    return make_snapshot(), {}


def many_classes() -> Frame:
    """A pool with more classes than a small terminal has lines."""
    lines = [(index, 16 * index + 32, 9, 2, 40 + index, 300) for index in range(40)]
    return make_snapshot(make_pool(lines=lines)), {}


FRAMES: dict[str, Callable[[], Frame]] = {
    each.__name__: each for each in (two_pools, bounded_pool, unknown_pool, no_pools, many_classes)
}
# Screen -> its frame, what the reader chose, rows and columns.
GOLDEN: dict[str, tuple[str, str]] = {
    "two-pools": ("two_pools", "waste"),
    "two-pools-by-size": ("two_pools", "size"),
    "bounded-pool": ("bounded_pool", "waste"),
    "unknown-pool": ("unknown_pool", "waste"),
    "no-pools": ("no_pools", "waste"),
    "many-classes": ("many_classes", "waste"),
}


@pytest.mark.parametrize(
    ("scans", "wanted", "line"),
    [
        (0, None, "no zsmalloc pool has been used or created since the probes attached"),
        (0, "zram7", "no pool called zram7 has been used or created since the probes attached"),
        (3, None, "no zsmalloc pool exists"),
        (3, "zram7", "no pool is called zram7 now"),
    ],
)
def test_a_frame_without_pools_says_what_it_looked_for(
    scans: int, wanted: str | None, line: str
) -> None:
    """That one pool is not there says nothing of others."""
    shot = make_snapshot(health=make_health(scans=scans))
    assert render(shot, {}, pool=wanted)[-1] == line


@pytest.mark.parametrize("name", GOLDEN)
def test_the_screen_is_as_it_was(name: str) -> None:
    """The frame equals the golden screen, character by character."""
    frame, sort = GOLDEN[name]
    lines = render(*FRAMES[frame](), sort=sort)
    golden = SCREENS / f"{name}.txt"
    if os.environ.get("ZPOBS_UPDATE_GOLDEN"):
        golden.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert "\n".join(lines) + "\n" == golden.read_text(encoding="utf-8")


def test_no_golden_screen_is_left_over() -> None:
    """Every file of golden screens belongs to a test."""
    assert {path.stem for path in SCREENS.iterdir()} == set(GOLDEN)


def test_the_main_table_fits_80_columns() -> None:
    """All columns of a usual frame are seen on a terminal of 80 columns, but for long sentences."""
    shot, per_second = two_pools()
    table = [line for line in render(shot, per_second) if "zram0" in line]
    assert max(map(len, table)) <= 80


# Sort key -> class indices of LINES in that order, with the rates below.
ORDERS = {
    "waste": [107, 202, 62, 254],
    "class": [62, 107, 202, 254],
    "size": [62, 107, 202, 254],
    "zspages": [254, 107, 62, 202],
    "pages": [254, 107, 202, 62],
    "objects": [107, 254, 62, 202],
    "used": [254, 107, 62, 202],
    "freeable": [107, 202, 62, 254],
    "allocs": [202, 62, 107, 254],
    "frees": [254, 107, 62, 202],
}
RATES = PoolRates(
    allocs=None,
    frees=None,
    moves=None,
    migrations=None,
    classes={"allocs": {62: 5, 107: 1, 202: 9}, "frees": {62: 1, 107: 2, 254: 3}},
)


def order(sort: str) -> list[int]:
    return [row.index for row in class_rows(make_pool(), RATES, KERNEL, sort)]


def test_every_sort_key_is_tested() -> None:
    """The table of orders has every key that the command line offers."""
    assert list(ORDERS) == list(SORTS)


@pytest.mark.parametrize("key", SORTS)
def test_classes_come_in_the_chosen_order(key: str) -> None:
    """The most of everything comes first but the smallest class and size."""
    assert order(key) == ORDERS[key]


def test_the_live_view_has_the_same_columns() -> None:
    """What --sort names is a column of both views."""
    scene = Scene(snapshot=make_snapshot(make_pool()))
    assert set(SORTS) <= set(classes_table(scene, ViewState(interval_s=1, pool=1)).sorts)


def test_equals_stand_by_class_index() -> None:
    """Classes with equal figures keep their order by index."""
    lines = [(index, 64, 4, 1, 10, 20) for index in (9, 3, 5)]
    rows = class_rows(make_pool(lines=lines), None, KERNEL, "pages")
    assert [row.index for row in rows] == [3, 5, 9]


def test_empty_classes_are_shown_while_something_happens_in_them() -> None:
    """A class without zspages is left out unless it had allocations or frees just now."""
    lines = [(index, 64, 4, 1, 0, 0) for index in (1, 2, 3)]
    some = replace(RATES, classes={"allocs": {1: 0.0, 2: 4.0}, "frees": {3: 1.0}})
    pool = make_pool(lines=lines)
    assert [row.index for row in class_rows(pool, some, KERNEL, "size")] == [2, 3]
    assert class_rows(pool, None, KERNEL, "waste") == []


@pytest.mark.parametrize(
    ("used", "capacity", "wanted"),
    [
        (0, 10, "[..........]   0%"),
        (1, 1000, "[..........]   0%"),
        (7, 10, "[#######...]  70%"),
        (999, 1000, "[#########.]  99%"),
        (10, 10, "[##########] 100%"),
        (0, 0, "[..........]    -"),
    ],
)
def test_bar_is_full_only_when_full(used: int, capacity: int, wanted: str) -> None:
    """A bar rounds down, so that 100% means full, and draws nothing for no capacity."""
    assert bar(used, capacity, 10) == wanted


def test_bar_keeps_its_width() -> None:
    """More than fits, as a bounded figure can say, does not widen the bar."""
    assert len(bar(25, 10)) == len(bar(10, 10))


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1.0 MiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 40, "5.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_bytes_are_told_in_binary_units(count: int, wanted: str) -> None:
    """The unit is the largest that leaves at least one of it, TiB at most."""
    assert in_bytes(count) == wanted


@pytest.mark.parametrize("count", [(1 << 20) - 1, (1 << 30) - 1, (1 << 40) - 1])
def test_rounding_never_shows_1024_of_a_unit(count: int) -> None:
    """One byte less than a unit is told as one of it, not as 1024.0 of the smaller one."""
    assert not in_bytes(count).startswith("1024")


def test_the_health_line_counts_hooks_and_losses() -> None:
    """Hooks that could not be had are counted in the total; scans are named if there were any."""
    health = make_health("bounded", hooks=9, missed_hooks=("a", "b"), lost=3, missed_runs=4)
    assert health_line(health, TIME_NS) == (
        "health bounded, hooks 9 of 11, lost 3, missed runs 4, scans 0"
    )
    scanned = make_health(scans=2, last_scan_ns=TIME_NS)
    assert health_line(scanned, TIME_NS + 1_500_000_000).endswith("scans 2, last 1.5 s ago")
    assert health_line(scanned, TIME_NS + 180 * 10**9).endswith("scans 2, last 3 min ago")


def test_the_time_is_utc() -> None:
    """The frame's time is the snapshot's wall-clock time in UTC."""
    assert TIME_NS == 1_767_323_045 * 10**9
    assert "2026-01-02 03:04:05 UTC" in render(make_snapshot(), {})[0]


def test_a_limit_leaves_out_size_classes_alone() -> None:
    """Of each pool the first so many are listed, in the order asked for, and how many are not."""
    shot = make_snapshot(make_pool(), make_pool(2, "zram1"))
    whole, cut = render(shot, {}, sort="size"), render(shot, {}, sort="size", limit=3)
    gone = [line for line in whole if line not in cut]
    assert [line.split()[0] for line in gone] == ["254", "254"]
    assert cut.count("(1 more)") == 2
    assert render(shot, {}, sort="size", limit=4) == whole


def test_reasons_fit_a_plain_terminal() -> None:
    """They are broken between words; all of their words are there."""
    reasons = ("no probe is attached (fentry: refused by the kernel); " * 3, "short")
    lines = render(make_snapshot(health=make_health("bounded", reasons=reasons)), {})
    assert max(map(len, lines)) <= 80
    told = " ".join(line.strip() for line in lines[2 : lines.index("")])
    assert told.split() == " ".join(reasons).split()


@pytest.mark.parametrize(("count", "words"), [(0, "0 size classes"), (1, "1 size class")])
def test_one_size_class_is_one(count: int, words: str) -> None:
    """The line above a pool's table counts in words that fit."""
    lines = render(make_snapshot(make_pool(lines=LINES[:count])), {})
    assert any(line.startswith(f"zram0: {words} in use") for line in lines)


def test_bounds_are_said_to_be_bounds() -> None:
    """A range of requested bytes names what it comes from; exact figures need no words."""
    bounded = make_pool()
    text = " ".join(render(make_snapshot(bounded), {}))
    assert "(bounded by class spacing)" in text
    requested = pool_waste(bounded, KERNEL).requested
    assert requested
    asked = (requested.low + requested.high) // 2
    told = OwnerFigures(requested_bytes=asked, objects=bounded.objects, steady=True)
    text = " ".join(render(make_snapshot(replace(bounded, owner_figures=told)), {}))
    assert "bounded" not in text
    assert f"requested {in_bytes(asked)} + rounding " in text
