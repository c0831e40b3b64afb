"""Counters that go on: sums by the name of a pool, whatever pools of that name come and go."""

from __future__ import annotations

from collections.abc import Iterable

# Of so many names of pools that are gone the sums are kept.
NAMES_KEPT = 1024

_Place = tuple[str, tuple[str, ...]]


class Ledger:
    """What counters came to, by name of pool; a place is a metric and values of its labels."""

    def __init__(self) -> None:
        self._last: dict[int, dict[_Place, float]] = {}
        self._sums: dict[str, dict[_Place, float]] = {}

    def count(self, pool: int, name: str, place: _Place, value: float) -> float:
        """Take what a pool (by id and name) counts at a place now; return the sum of its name.

        What a pool counts less than before it counts anew.
        """
        last = self._last.setdefault(pool, {})
        sums = self._sums.setdefault(name, {})
        before = last.get(place, 0.0)
        sums[place] = sums.get(place, 0.0) + (value - before if value >= before else value)
        last[place] = value
        return sums[place]

    def keep(self, pools: Iterable[tuple[int, str]]) -> None:
        """Forget pools that are gone, but not the sums of their names, unless these are too many.

        ``pools`` are those that there are, by id and name.
        """
        there = dict(pools)
        for pool in self._last.keys() - there.keys():
            del self._last[pool]
        for name in there.values():
            # Names in use come last, so the longest gone are first.
            if name in self._sums:
                self._sums[name] = self._sums.pop(name)
        for name in list(self._sums)[: max(len(self._sums) - NAMES_KEPT, 0)]:
            if name not in there.values():
                del self._sums[name]
