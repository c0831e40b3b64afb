"""Conditions that a flight recorder writes at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.factories import COUNTERS, make_pool, make_snapshot
from zpobs.capture.trigger import FIGURES, Trigger
from zpobs.errors import UsageError
from zpobs.snapshot import Snapshot
from zpobs.waste import pool_waste


@pytest.mark.parametrize(
    ("text", "figure", "above", "bound"),
    [
        ("waste>30", "waste", True, 30),
        (" pages < 5.5 ", "pages", False, 5.5),
        ("allocs-per-second>1000", "allocs-per-second", True, 1000),
        ("migration-failures>0", "migration-failures", True, 0),
    ],
)
def test_a_condition_is_understood(text: str, figure: str, above: bool, bound: float) -> None:
    found = Trigger.parse(text)
    assert (found.figure, found.above, found.bound) == (figure, above, bound)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "not a figure"),
        ("waste", "not a figure"),
        ("waste=3", "not a figure"),
        ("waste>-3", "not a figure"),
        ("waste>3 pages<2", "not a figure"),
        ("waste>nan", "not a figure"),
        ("colour>3", "none of its figures"),
        ("Waste>3", "not a figure"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, found: str) -> None:
    with pytest.raises(UsageError, match=found) as caught:
        Trigger.parse(text)
    assert all(figure in caught.value.hint for figure in FIGURES)


def at(at_s: float, **changed: Any) -> Snapshot:
    counters = replace(COUNTERS, **changed)
    return make_snapshot(make_pool(1, "zram7", counters=counters), at_s=at_s)


def test_counters_are_met_by_their_growth_alone() -> None:
    trigger = Trigger.parse("failures>2")
    # A pool that is new has all that it counted since the look before.
    assert trigger.met(at(0, failures=9)) == "failures of zram7 9 > 2"
    assert trigger.met(at(1, failures=11)) == ""
    assert trigger.met(at(2, failures=14)) == "failures of zram7 3 > 2"
    assert trigger.met(at(3, failures=14)) == ""


def test_rates_need_two_looks() -> None:
    trigger = Trigger.parse("allocs-per-second>10")
    assert trigger.met(at(0, allocs=1000)) == ""
    assert trigger.met(at(2, allocs=1030)) == "allocs-per-second of zram7 15 > 10"
    assert trigger.met(at(4, allocs=1050)) == ""


def test_what_is_not_known_meets_nothing() -> None:
    for text in ("failures>0", "failures<9"):
        trigger = Trigger.parse(text)
        assert trigger.met(at(0, failures=None)) == ""
        assert trigger.met(at(1, failures=None)) == ""


def test_levels_are_met_on_either_side_of_their_bound() -> None:
    shot = at(0)
    pool = shot.pools[0]
    for figure, value in (("pages", pool.pages), ("objects", pool.objects)):
        assert Trigger.parse(f"{figure}>{value - 1}").met(shot)
        assert not Trigger.parse(f"{figure}>{value}").met(shot)
        assert Trigger.parse(f"{figure}<{value + 1}").met(shot)
        assert not Trigger.parse(f"{figure}<{value}").met(shot)


def test_waste_is_a_share_of_the_pools_pages() -> None:
    shot = at(0)
    pool = shot.pools[0]
    total = pool_waste(pool, shot.kernel).total
    assert total is not None
    percent = 100 * total / (pool.pages * shot.kernel.page_size)
    assert Trigger.parse(f"waste>{percent - 0.01:.4f}").met(shot)
    assert not Trigger.parse(f"waste>{percent + 0.01:.4f}").met(shot)


def test_any_pool_will_do_and_is_named() -> None:
    shot = make_snapshot(make_pool(1, "zram1", pages=5), make_pool(2, "zram2", pages=50))
    assert Trigger.parse("pages>20").met(shot) == "pages of zram2 50 > 20"
    assert Trigger.parse("pages>99").met(shot) == ""
