"""The life of zspages: births, ages, deaths, and the time they spend in each fullness group.

Frozen values that hang on a :class:`zpobs.snapshot.PoolView`. Durations are
counted in buckets of powers of two: bucket b holds those from 2^(b-1) up to,
but not including, 2^b ns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

# 2^63 ns are 292 years.
AGE_BUCKETS = 64

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PoolLife:
    """What was seen of the lives of a pool's zspages since ``since_ns``, wall-clock time.

    By class, shape (C,): ``started`` lives were under way at ``since_ns``,
    ``births`` were seen, ``found`` are lives whose birth was not, ``deaths``
    were seen, ``vanished`` are lives whose death was not; ``live`` are under way
    now. Always ``started + births + found == deaths + vanished + live``.
    ``group_ns``, shape (C, groups), is how long all of them were in each
    fullness group since then. ``ages`` and ``lifetimes``, shape (AGE_BUCKETS,),
    count living and dead zspages whose birth was seen; ``ages_unknown`` and
    ``lifetimes_unknown`` the others.
    ``lifetime_ns`` is the sum of the known lifetimes by class, shape (C,), and
    ``lifetimes_known`` their number.
    """

    status: Literal["exact", "bounded", "unknown"]
    reasons: tuple[str, ...]
    since_ns: int
    index: Ints
    started: Ints
    births: Ints
    found: Ints
    deaths: Ints
    vanished: Ints
    live: Ints
    group_ns: Ints
    lifetimes_known: Ints
    lifetime_ns: Ints
    lifetimes: Ints
    ages: Ints
    lifetimes_unknown: int
    ages_unknown: int
    shortest_ns: int | None
    longest_ns: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the ``life`` object of a pool; without probes, nothing but why it is unknown."""
        told: dict[str, Any] = {"status": self.status, "reasons": list(self.reasons)}
        if self.status == "unknown":
            return told
        counts = ("started", "births", "found", "deaths", "vanished", "live")
        return told | {
            "since_ns": self.since_ns,
            **{name: int(getattr(self, name).sum()) for name in counts},
            "group_ns": self.group_ns.sum(axis=0).tolist(),
            "ages": {"buckets": _buckets(self.ages), "unknown": self.ages_unknown},
            "lifetimes": {
                "buckets": _buckets(self.lifetimes),
                "unknown": self.lifetimes_unknown,
                "sum_ns": int(self.lifetime_ns.sum()),
                "shortest_ns": self.shortest_ns,
                "longest_ns": self.longest_ns,
            },
            "classes": [
                {
                    "index": int(self.index[row]),
                    **{name: int(getattr(self, name)[row]) for name in counts},
                    "group_ns": self.group_ns[row].tolist(),
                    "lifetimes_known": int(self.lifetimes_known[row]),
                    "lifetime_sum_ns": int(self.lifetime_ns[row]),
                }
                for row in range(len(self.index))
            ],
        }


def _buckets(counts: Ints) -> list[dict[str, int]]:
    """Return the buckets that hold any, the shortest first."""
    return [
        {"below_ns": 1 << bucket, "zspages": int(counts[bucket])}
        for bucket in np.flatnonzero(counts).tolist()
    ]


def bucket_of(duration_ns: npt.NDArray[np.uint64]) -> Ints:
    """Return the bucket of each duration, shape (n,)."""
    edges = np.uint64(1) << np.arange(AGE_BUCKETS - 1, dtype=np.uint64)
    out: Ints = np.searchsorted(edges, duration_ns, side="right").astype(np.int64)
    return out
