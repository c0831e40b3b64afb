"""Rates: the one subtraction of counters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.factories import COUNTERS, LINES, UNCOUNTED, ints, make_classes, make_pool, make_snapshot
from zpobs.rates import rates


def test_a_rate_is_the_difference_over_the_time() -> None:
    """Every rate is the counter's growth divided by the monotonic seconds between the two."""
    grown = replace(COUNTERS, allocs=123_556, frees=123_456, moves=789, migrations=36)
    # The wall clock may jump; only monotonic time counts.
    old = replace(make_snapshot(make_pool()), time_ns=0)
    found = rates(old, make_snapshot(make_pool(counters=grown), at_s=4))
    assert set(found) == {1}
    pool = found[1]
    assert (pool.allocs, pool.frees, pool.moves, pool.migrations) == (25, 100, 0, 0.5)


def test_classes_have_rates_of_their_own() -> None:
    """Rates by class carry the class's index; a class that is new counts from zero."""
    old = make_classes(LINES[:3])
    new = make_classes(allocs=ints([31, 60, 96, 7]), frees=ints([20, 40, 60, 0]))
    found = rates(
        make_snapshot(make_pool(classes=old)), make_snapshot(make_pool(classes=new), at_s=2)
    )[1].classes
    assert found["allocs"] == {62: 0.5, 107: 0, 202: 3, 254: 3.5}
    assert found["frees"] == {62: 0, 107: 0, 202: 0, 254: 0}
    assert found["moves"] == {62: 0, 107: 0, 202: 0, 254: 20}


@pytest.mark.parametrize(("old", "new"), [(True, False), (False, True), (False, False)])
def test_what_nobody_counts_has_no_rate(old: bool, new: bool) -> None:
    """A counter or class column that is None in either snapshot has no rate."""
    uncounted = {"allocs": None, "frees": None, "moves": None}
    pools = [
        make_pool() if counted else make_pool(counters=UNCOUNTED, classes=make_classes(**uncounted))
        for counted in (old, new)
    ]
    pool = rates(make_snapshot(pools[0]), make_snapshot(pools[1], at_s=1))[1]
    assert (pool.allocs, pool.frees, pool.moves, pool.migrations) == (None,) * 4
    assert pool.classes == {"allocs": {}, "frees": {}, "moves": {}}


def test_a_new_pool_counts_from_zero_and_one_that_is_gone_has_no_rates() -> None:
    """All that a pool counted since the older snapshot, in which it was not, is its rate."""
    old = make_snapshot(make_pool(1), make_pool(2))
    new = make_snapshot(make_pool(2), make_pool(3), at_s=2)
    found = rates(old, new)
    assert set(found) == {2, 3}
    assert COUNTERS.allocs is not None
    assert found[3].allocs == COUNTERS.allocs / 2
    assert found[3].classes["allocs"][62] > found[2].classes["allocs"][62] == 0


@pytest.mark.parametrize("at_s", [0, -1])
def test_no_time_no_rates(at_s: float) -> None:
    """Without an older snapshot, or with one that is not older, there are no rates."""
    assert rates(None, make_snapshot(make_pool())) == {}
    assert rates(make_snapshot(make_pool()), make_snapshot(make_pool(), at_s=at_s)) == {}
