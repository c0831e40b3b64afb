"""How long calls of zsmalloc took: histograms that the kernel gathered.

Frozen values that hang on a :class:`zpobs.snapshot.PoolView`. Bucket b of a
histogram holds durations from 2^(b-1) up to, but not including, 2^b ns; the
last one holds all that are longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# Kind -> what it is. Those that begin with "to" are parts of the calls before them.
KINDS: Mapping[str, str] = {
    "alloc": "zs_malloc",
    "alloc_lock": "to the class lock, zspage there",
    "alloc_grow": "to the class lock, zspage made",
    "alloc_failed": "zs_malloc that failed",
    "free": "zs_free",
    "free_lock": "to the class lock",
    "migration": "zs_page_migrate",
    "migration_failed": "zs_page_migrate that failed",
}


@dataclass(frozen=True, slots=True)
class Histogram:
    """The durations of one kind of call, by size class, rising.

    ``index`` has shape (C,), -1 where the class was not known; ``sum_ns`` is the sum of
    all durations, shape (C,); ``buckets`` counts them, shape (C, B).
    """

    index: Ints
    sum_ns: Ints
    buckets: Ints

    @property
    def counts(self) -> Ints:
        """Calls of each class, shape (C,)."""
        out: Ints = self.buckets.sum(axis=1)
        return out

    def to_json(self) -> dict[str, Any]:
        """Return one of the ``kinds`` of a pool's ``latency``."""
        counts = self.counts
        return {
            "count": int(counts.sum()),
            "sum_ns": int(self.sum_ns.sum()),
            "buckets": _buckets(self.buckets.sum(axis=0)),
            "classes": [
                {
                    "index": None if index < 0 else index,
                    "count": int(counts[row]),
                    "sum_ns": int(self.sum_ns[row]),
                    "buckets": _buckets(self.buckets[row]),
                }
                for row, index in enumerate(self.index.tolist())
            ],
        }


@dataclass(frozen=True, slots=True)
class PoolLatency:
    """What was measured of a pool since ``since_ns``, wall-clock time.

    ``kinds`` has a histogram for each of :data:`KINDS` whose functions are hooked, those
    of which nothing was seen empty. ``reasons`` are sentences why it is no better than ``status``.
    """

    status: Literal["exact", "bounded", "unknown"]
    reasons: tuple[str, ...]
    since_ns: int
    kinds: Mapping[str, Histogram]

    def to_json(self) -> dict[str, Any]:
        """Return the ``latency`` object of a pool; without probes, nothing but why."""
        told: dict[str, Any] = {"status": self.status, "reasons": list(self.reasons)}
        if self.status == "unknown":
            return told
        kinds = {name: each.to_json() for name, each in self.kinds.items()}
        return told | {"since_ns": self.since_ns, "kinds": kinds}


def _buckets(counts: Ints) -> list[dict[str, int | None]]:
    """Return the buckets that hold any, the shortest first; the last one has no end."""
    last = len(counts) - 1
    return [
        {"below_ns": 1 << bucket if bucket < last else None, "count": int(counts[bucket])}
        for bucket in np.flatnonzero(counts).tolist()
    ]


def below_ns(counts: Ints, share: float) -> int | None:
    """Return the end of the bucket that holds the duration at a rank; None if there is none.

    ``share`` is that rank as a part of all, 0.5 for the median: so many durations are
    shorter than what is returned, at least.
    """
    total = int(counts.sum())
    if not total:
        return None
    rank = min(max(int(np.ceil(share * total)), 1), total)
    bucket = int(np.searchsorted(np.cumsum(counts), rank))
    return 1 << bucket if bucket < len(counts) - 1 else None
