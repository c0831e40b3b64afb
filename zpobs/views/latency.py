"""How long a pool's calls took as plain text: a pure function of what a snapshot holds."""

from __future__ import annotations

import numpy as np

from zpobs.latency import KINDS, Histogram, Ints, PoolLatency, below_ns
from zpobs.views.life import duration

_PARTS = ("alloc_lock", "alloc_grow", "free_lock")


def latency_lines(name: str, latency: PoolLatency, now_ns: int) -> list[str]:
    """Return the block of one pool; ``now_ns`` is wall-clock time."""
    if latency.status == "unknown":
        return [f"{name}: latency unknown", *(f"  {why}" for why in latency.reasons)]
    lines = [
        f"{name}: latency, {latency.status}, for {duration(max(now_ns - latency.since_ns, 0))}",
        *(f"  {why}" for why in latency.reasons),
    ]
    shown = [kind for kind in KINDS if kind in latency.kinds]
    if shown:
        lines.append(f"  {'CALL':<34}{'COUNT':>9}{'MEAN':>9}{'HALF <':>9}{'99% <':>9}{'ALL <':>8}")
    return lines + [_line(kind, latency.kinds[kind]) for kind in shown]


def _line(kind: str, histogram: Histogram) -> str:
    buckets: Ints = histogram.buckets.sum(axis=0)
    count = int(buckets.sum())
    title = f"{'  ' if kind in _PARTS else ''}{KINDS[kind]}"
    if not count:
        return f"  {title:<34}{0:>9}"
    mean = duration(int(np.sum(histogram.sum_ns)) / count)
    ends = [_end(buckets, share) for share in (0.5, 0.99, 1.0)]
    return f"  {title:<34}{count:>9,}{mean:>9}{ends[0]:>9}{ends[1]:>9}{ends[2]:>8}"


def _end(buckets: Ints, share: float) -> str:
    end_ns = below_ns(buckets, share)
    return "longer" if end_ns is None else duration(end_ns)
