"""When a flight recorder writes by itself: a figure of a pool that passes a bound."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from zpobs.errors import UsageError
from zpobs.rates import PoolRates, rates
from zpobs.snapshot import PoolView, Snapshot
from zpobs.waste import pool_waste

_CONDITION = re.compile(r"\s*([a-z-]+)\s*([<>])\s*([0-9]+(?:\.[0-9]+)?)\s*")
# Counters: how much they grew since the look before.
_GROWING = {
    "failures": "failures",
    "migration-failures": "migration_failures",
    "compactions": "compactions",
}
_RATES = {"allocs": "allocs", "frees": "frees"}


@dataclass(slots=True)
class Trigger:
    """A condition on any pool; ``figure`` is one of :data:`FIGURES`."""

    figure: str
    above: bool
    bound: float
    _before: Snapshot | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Trigger:
        """Return the trigger that a text tells; raise UsageError if it tells none."""
        found = _CONDITION.fullmatch(text)
        if found is None or found[1] not in FIGURES:
            raise UsageError(
                f"--when {text!r} is no condition",
                found="none of its figures" if found else "not a figure, < or >, and a number",
                hint=f"{', '.join(FIGURES)}; such as 'waste>30'",
            )
        return cls(found[1], found[2] == ">", float(found[3]))

    def met(self, snapshot: Snapshot) -> str:
        """Return a sentence if a pool meets the condition in a new snapshot, else nothing."""
        before, self._before = self._before, snapshot
        per_second = rates(before, snapshot) if before is not None else {}
        earlier = {} if before is None else {pool.id: pool for pool in before.pools}
        for pool in snapshot.pools:
            look = _Look(pool, earlier.get(pool.id), per_second, snapshot)
            value = FIGURES[self.figure](look)
            if value is None:
                continue
            if value > self.bound if self.above else value < self.bound:
                sign = ">" if self.above else "<"
                return f"{self.figure} of {pool.name} {value:g} {sign} {self.bound:g}"
        return ""


@dataclass(frozen=True, slots=True)
class _Look:
    pool: PoolView
    before: PoolView | None
    per_second: Mapping[int, PoolRates]
    snapshot: Snapshot


def _grown(name: str) -> Callable[[_Look], float | None]:
    def value(look: _Look) -> float | None:
        now = getattr(look.pool.counters, name)
        before = 0 if look.before is None else getattr(look.before.counters, name)
        return None if now is None or before is None else float(now - before)

    return value


def _rate(name: str) -> Callable[[_Look], float | None]:
    def value(look: _Look) -> float | None:
        found = look.per_second.get(look.pool.id)
        told: float | None = getattr(found, name) if found is not None else None
        return told

    return value


def _waste(look: _Look) -> float | None:
    held = look.pool.pages * look.snapshot.kernel.page_size
    wasted = pool_waste(look.pool, look.snapshot.kernel).total
    return 100 * wasted / held if held and wasted is not None else None


# Of these only probes tell.
COUNTED = {*_GROWING, *(f"{name}-per-second" for name in _RATES)}
# What can be asked: counts of pages, percent of them, growth since the last look, events a second.
FIGURES: Mapping[str, Callable[[_Look], float | None]] = {
    "pages": lambda look: float(look.pool.pages),
    "objects": lambda look: float(look.pool.objects),
    "waste": _waste,
    **{name: _grown(counter) for name, counter in _GROWING.items()},
    **{f"{name}-per-second": _rate(counter) for name, counter in _RATES.items()},
}
