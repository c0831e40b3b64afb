"""Rates between two snapshots: the one place where counters are subtracted and divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zpobs.snapshot import PoolView, Snapshot


@dataclass(frozen=True, slots=True)
class PoolRates:
    """Events per second of one pool; None where unknown.

    ``classes`` maps a column name (allocs, frees, moves) to rates by size
    class index.
    """

    allocs: float | None
    frees: float | None
    moves: float | None
    migrations: float | None
    classes: Mapping[str, Mapping[int, float]]


def rates(old: Snapshot | None, new: Snapshot) -> dict[int, PoolRates]:
    """Return the rates of every pool of the newer snapshot, by pool id.

    A pool that the older one does not hold began after it, its counters at zero.
    """
    if old is None or new.mono_ns <= old.mono_ns:
        return {}
    seconds = (new.mono_ns - old.mono_ns) / 1e9
    before = {pool.id: pool for pool in old.pools}
    return {pool.id: _pool_rates(before.get(pool.id), pool, seconds) for pool in new.pools}


def _pool_rates(old: PoolView | None, new: PoolView, seconds: float) -> PoolRates:
    def per_second(name: str) -> float | None:
        begin = getattr(old.counters, name) if old else 0
        end = getattr(new.counters, name)
        return None if begin is None or end is None else (end - begin) / seconds

    return PoolRates(
        allocs=per_second("allocs"),
        frees=per_second("frees"),
        moves=per_second("moves"),
        migrations=per_second("migrations"),
        classes={
            name: _class_rates(old, new, name, seconds) for name in ("allocs", "frees", "moves")
        },
    )


def _class_rates(
    old: PoolView | None, new: PoolView, name: str, seconds: float
) -> dict[int, float]:
    end = getattr(new.classes, name)
    before: dict[int, int] = {}
    if old is not None:
        begin = getattr(old.classes, name)
        if begin is None:
            return {}
        before = dict(zip(old.classes.index.tolist(), begin.tolist(), strict=True))
    if end is None:
        return {}
    return {
        index: (count - before.get(index, 0)) / seconds
        for index, count in zip(new.classes.index.tolist(), end.tolist(), strict=True)
    }
