"""What the kernel's own counters say was done within a span: of pools that come and go, in all."""

from __future__ import annotations

import numpy as np

from zpobs import wire
from zpobs.model.inputs import CountersReading, Coverage, PoolReading

_OF_CLASSES = {
    "allocs": wire.CLASS_ALLOCS,
    "frees": wire.CLASS_FREES,
    "moves": wire.CLASS_MOVES,
}
_OF_POOLS = {
    "failures": wire.POOL_FAILURES,
    "migrations": wire.POOL_MIGRATIONS,
    "migration_failures": wire.POOL_MIGRATION_FAILURES,
    "compactions": wire.POOL_COMPACTIONS,
    "pages_freed": wire.POOL_PAGES_FREED,
}


class Tally:
    """Takes readings by rising time; ``pool`` is the name of the only one that counts, if any."""

    def __init__(self, pool: str | None = None) -> None:
        self._pool = pool
        self._first: dict[int, dict[str, int]] = {}
        self._last: dict[int, dict[str, int]] = {}
        self._names: dict[int, str] = {}
        self._uncounted: set[str] = set()
        self._began = False

    def cover(self, coverage: Coverage) -> None:
        """Take which counts no hook makes; what was not counted once is not counted in all."""
        if coverage.hooks:
            self._uncounted |= coverage.uncounted

    def follow(self, before: Tally) -> None:
        """Take over what is not counted."""
        self._uncounted |= before._uncounted

    def take(self, reading: CountersReading) -> None:
        """Take the next reading."""
        for pool in reading.pools:
            if self._pool not in (None, pool.name, str(pool.serial)):
                continue
            self._names[pool.serial] = pool.name
            counts = _counts(pool)
            if counts is None:
                continue
            if pool.serial not in self._first:
                # Of a pool that was counted only meanwhile all was done meanwhile.
                self._first[pool.serial] = dict.fromkeys(counts, 0) if self._began else counts
            self._last[pool.serial] = counts
        self._began = True

    @property
    def pools(self) -> list[str]:
        """The names of all pools that were there, in the order in which they came."""
        return [self._names[serial] for serial in sorted(self._names)]

    @property
    def operations(self) -> dict[str, int] | None:
        """What was done, None where no probe counted it."""
        if not self._last:
            return None
        return {
            name: sum(self._last[each][name] - self._first[each][name] for each in self._last)
            for name in (*_OF_CLASSES, *_OF_POOLS)
            if name not in self._uncounted
        }


def _counts(pool: PoolReading) -> dict[str, int] | None:
    if pool.class_counters is None or pool.pool_counters is None:
        return None
    sums = np.asarray(pool.class_counters).sum(axis=0, dtype=np.uint64)
    return {name: int(sums[word]) for name, word in _OF_CLASSES.items()} | {
        name: int(pool.pool_counters[word]) for name, word in _OF_POOLS.items()
    }
