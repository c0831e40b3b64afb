"""The lives of a pool's zspages as plain text: a pure function of what a snapshot holds."""

from __future__ import annotations

import numpy as np

from zpobs.life import PoolLife

_GROUPS_PER_LINE = 6
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "us"))


def life_lines(name: str, life: PoolLife, now_ns: int) -> list[str]:
    """Return the block of one pool; ``now_ns`` is wall-clock time."""
    if life.status == "unknown":
        return [f"{name}: lives of zspages unknown", *(f"  {why}" for why in life.reasons)]
    sums = {
        what: int(getattr(life, what).sum())
        for what in ("started", "births", "found", "deaths", "vanished", "live")
    }
    lines = [
        f"{name}: lives of zspages, {life.status}, for {duration(now_ns - life.since_ns)}",
        *(f"  {why}" for why in life.reasons),
        f"  there before {sums['started']:,} + born {sums['births']:,} + found {sums['found']:,}"
        f" = dead {sums['deaths']:,} + vanished {sums['vanished']:,} + live {sums['live']:,}",
        *_time_in_groups(life),
        *_ages(life),
    ]
    unknown = [
        f"{what} {count:,}"
        for what, count in (("dead", life.lifetimes_unknown), ("live", life.ages_unknown))
        if count
    ]
    if unknown:
        lines.append(f"  birth not seen: {', '.join(unknown)}")
    return lines


def _time_in_groups(life: PoolLife) -> list[str]:
    """Return the share of zspages' time that each fullness group had."""
    by_group = life.group_ns.sum(axis=0)
    total = int(by_group.sum())
    if not total:
        return []
    shares = [
        f"{group:>3} {100 * spent / total:5.1f}%" for group, spent in enumerate(by_group.tolist())
    ]
    begins = range(0, len(shares), _GROUPS_PER_LINE)
    rows = ["  ".join(shares[at : at + _GROUPS_PER_LINE]) for at in begins]
    return [
        f"  {'time in group' if at == 0 else '':<14}{row}".rstrip() for at, row in enumerate(rows)
    ]


def _ages(life: PoolLife) -> list[str]:
    """Return how old zspages became, and how old those that live are."""
    lines = []
    known = int(life.lifetimes.sum())
    if known and life.shortest_ns is not None and life.longest_ns is not None:
        mean_ns = int(life.lifetime_ns.sum()) / known
        lines.append(
            f"  lifetimes     shortest {duration(life.shortest_ns)}, mean {duration(mean_ns)},"
            f" longest {duration(life.longest_ns)}"
        )
    used = np.flatnonzero(life.lifetimes + life.ages).tolist()
    if used:
        lines.append(f"  {'AGE BELOW':>12}{'DIED':>12}{'LIVE':>12}")
    return lines + [
        f"  {duration(1 << bucket):>12}{int(life.lifetimes[bucket]):>12,}"
        f"{int(life.ages[bucket]):>12,}"
        for bucket in used
    ]


def duration(time_ns: float) -> str:
    """Write a length of time with three digits at most before a unit that suits it."""
    seconds = time_ns / 1e9
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{time_ns:.0f} ns"
