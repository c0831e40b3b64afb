"""Forecasts of compactions beside their outcomes: each run gets the newest that was made before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from zpobs.compaction import PoolForecast
from zpobs.runs import Expected, PoolRuns, Run
from zpobs.snapshot import PoolView, Snapshot

# Forecasts of a pool that are held: a run can have begun before the newest was made.
_HELD = 4


@dataclass(frozen=True, slots=True)
class _Held:
    """A forecast, and what allocations and frees there had been just before it was made."""

    made_ns: int
    forecast: PoolForecast
    operations: int | None


class ForecastBook:
    """By pool: the last forecasts, and those that runs were already put beside."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[_Held, ...]] = {}
        self._joined: dict[int, dict[int, Expected]] = {}

    def added_to(self, snapshot: Snapshot, make: Callable[[], Snapshot]) -> Snapshot:
        """Put forecasts beside the runs of a snapshot, and those that ``make`` makes beside pools.

        ``make`` scans: it is called when the snapshot has been taken, so that whatever
        happens between counts as later than the forecast.
        """
        shown = [replace(pool, runs=self._beside(pool)) for pool in snapshot.pools]
        made = make()
        by_id = {pool.id: pool.compaction for pool in made.pools}
        pools = []
        for pool in shown:
            forecast = by_id.get(pool.id)
            if forecast is not None:
                held = _Held(made.time_ns, forecast, _operations(pool))
                self._held[pool.id] = (*self._held.get(pool.id, ())[1 - _HELD :], held)
            pools.append(replace(pool, compaction=forecast))
        alive = {pool.id for pool in pools}
        for books in (self._held, self._joined):
            for gone in books.keys() - alive:
                del books[gone]
        return replace(snapshot, pools=tuple(pools))

    def _beside(self, pool: PoolView) -> PoolRuns | None:
        if pool.runs is None:
            return None
        known, held = self._joined.get(pool.id, {}), self._held.get(pool.id, ())
        joined: dict[int, Expected] = {}
        earlier: list[Run] = []
        runs = []
        for run in pool.runs.recent:
            expected = known.get(run.begin_ns) or _expected(run, held, earlier, pool)
            if expected is not None:
                joined[run.begin_ns] = expected
            earlier.append(run)
            runs.append(replace(run, expected=expected))
        self._joined[pool.id] = joined
        return replace(pool.runs, recent=tuple(runs))


def _operations(pool: PoolView) -> int | None:
    allocs, frees = pool.counters.allocs, pool.counters.frees
    return None if allocs is None or frees is None else allocs + frees


def _expected(
    run: Run, held: tuple[_Held, ...], earlier: list[Run], pool: PoolView
) -> Expected | None:
    before = [each for each in held if each.made_ns <= run.begin_ns]
    if not before:
        return None
    newest = before[-1]
    now = _operations(pool)
    operations = None if now is None or newest.operations is None else now - newest.operations
    differs = ""
    if not _same(run, newest.forecast):
        between = sum(1 for each in earlier if each.begin_ns > newest.made_ns)
        differs = _why(run, newest.forecast, operations, between)
    return Expected(newest.made_ns, newest.forecast, operations, differs)


def _same(run: Run, forecast: PoolForecast) -> bool:
    """Tell whether a run did what was forecast, in every class that is known of."""
    if (run.moves, run.pages) != (forecast.moves, forecast.pages):
        return False
    told = {each.index: (each.moves, each.pages) for each in run.classes}
    # A forecast has no class of which no page would be freed; objects move there all the same.
    return all(
        told.get(each.index) == (each.moves, each.pages) for each in forecast.classes
    ) or bool(run.reasons)


def _why(run: Run, forecast: PoolForecast, operations: int | None, between: int) -> str:
    """Return why an outcome is not what was forecast, as far as that is known."""
    reasons = []
    if forecast.moves is None:
        reasons.append("the forecast tells what could be freed at most, and no moves")
    elif forecast.status != "exact":
        reasons.append(f"the forecast is {forecast.status}")
    if between:
        reasons.append(f"{between} other run{'' if between == 1 else 's'} since the forecast")
    if operations is None:
        reasons.append("it is not counted what was allocated and freed since the forecast")
    elif operations:
        reasons.append(f"up to {operations:,} allocations and frees since the forecast")
    if run.reasons:
        reasons.append("not all of the run was told")
    return "; ".join(reasons) or "zspages were read or locked meanwhile, or its locks were wanted"
