"""Forecasts beside outcomes: each run gets the newest that was made before it began."""

from __future__ import annotations

from dataclasses import replace

from tests.factories import (
    COUNTERS,
    TIME_NS,
    UNCOUNTED,
    make_forecast,
    make_pool,
    make_runs,
    make_snapshot,
)
from zpobs.compaction import PoolForecast
from zpobs.forecasts import ForecastBook
from zpobs.runs import Expected, PoolRuns, Run
from zpobs.snapshot import Counters, Snapshot

SECOND_NS = 10**9
AS_FORECAST, OTHER = (replace(run, expected=None) for run in make_runs().recent)


def runs_of(*runs: Run) -> PoolRuns:
    return replace(make_runs(), recent=runs)


def later(run: Run, seconds: float) -> Run:
    return replace(run, begin_ns=TIME_NS + int(seconds * SECOND_NS))


def frame(
    book: ForecastBook,
    at_s: float,
    *runs: Run,
    operations: int = 0,
    counters: Counters = COUNTERS,
    forecast: PoolForecast | None = None,
) -> tuple[Expected | None, ...]:
    """Take a frame whose forecast is made a moment later; return what is beside its runs."""
    if counters.allocs is not None:
        counters = replace(counters, allocs=counters.allocs + operations)
    shot = make_snapshot(make_pool(runs=runs_of(*runs), counters=counters), at_s=at_s)

    def made() -> Snapshot:
        forecast_now = forecast or make_forecast()
        return make_snapshot(make_pool(compaction=forecast_now), at_s=at_s + 0.1)

    (pool,) = book.added_to(shot, made).pools
    assert pool.compaction == (forecast or make_forecast())
    assert pool.runs is not None
    return tuple(run.expected for run in pool.runs.recent)


def test_a_run_as_forecast() -> None:
    book = ForecastBook()
    assert frame(book, 0) == ()
    (expected,) = frame(book, 2, later(AS_FORECAST, 1))
    assert expected == Expected(TIME_NS + SECOND_NS // 10, make_forecast(), 0, "")
    # It stays, whatever is forecast and done later.
    assert frame(book, 4, later(AS_FORECAST, 1), operations=9) == (expected,)


def test_a_run_that_no_forecast_preceded() -> None:
    """Neither before the first frame, nor while the first forecast was made."""
    book = ForecastBook()
    assert frame(book, 0, later(AS_FORECAST, -1)) == (None,)
    assert frame(book, 2, later(AS_FORECAST, -1), later(AS_FORECAST, 0.05)) == (None, None)


def test_a_run_while_the_newest_was_made_has_the_one_before() -> None:
    book = ForecastBook()
    frame(book, 0)
    frame(book, 2)
    (expected,) = frame(book, 4, later(AS_FORECAST, 2.05), operations=7)
    assert expected is not None
    assert (expected.made_ns, expected.operations) == (TIME_NS + SECOND_NS // 10, 7)


def test_why_an_outcome_differs() -> None:
    """Operations since, another run since, no more than a bound, or nothing that is known."""

    def why(*, bounded: bool = False, counters: Counters = COUNTERS, operations: int = 0) -> str:
        book = ForecastBook()
        frame(book, 0, forecast=make_forecast(bounded=bounded), counters=counters)
        (expected,) = frame(book, 2, later(OTHER, 1), operations=operations, counters=counters)
        assert expected is not None
        return expected.differs

    assert why(operations=1234) == "up to 1,234 allocations and frees since the forecast"
    assert why(counters=UNCOUNTED).startswith("it is not counted what was allocated")
    assert why(bounded=True).startswith("the forecast tells what could be freed at most")
    assert why() == "zspages were read or locked meanwhile, or its locks were wanted"
    book = ForecastBook()
    frame(book, 0)
    _, expected = frame(book, 2, later(AS_FORECAST, 1), later(OTHER, 1.5))
    assert expected is not None
    assert expected.differs == "1 other run since the forecast"


def test_totals_that_are_equal_by_chance_are_not_the_same() -> None:
    """Class by class it must be as forecast."""
    book = ForecastBook()
    frame(book, 0)
    first, *rest = AS_FORECAST.classes
    changed = replace(first, index=first.index + 1)
    (expected,) = frame(book, 2, later(replace(AS_FORECAST, classes=(changed, *rest)), 1))
    assert expected is not None
    assert expected.differs


def test_a_pool_that_is_gone_is_forgotten() -> None:
    """Another with its number begins anew, and one that was not found has no forecast."""
    book = ForecastBook()
    frame(book, 0)
    book.added_to(make_snapshot(), make_snapshot)
    assert frame(book, 2, later(AS_FORECAST, 1)) == (None,)
    (pool,) = book.added_to(make_snapshot(make_pool()), make_snapshot).pools
    assert (pool.compaction, pool.runs) == (None, None)
