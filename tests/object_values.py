"""Frozen values of objects for tests of what shows them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tests.factories import TIME_NS
from zpobs.addons import AddOnView, MapFill
from zpobs.life import AGE_BUCKETS
from zpobs.objects import Pins, PoolObjects, Sampling, estimate


def _ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _words(*values: int) -> npt.NDArray[np.uint64]:
    return np.array(values, dtype=np.uint64)


OBJECTS_WATCHED = AddOnView(
    name="objects",
    status="bounded",
    reasons=("3 runs of its probes were skipped",),
    hooks=6,
    missed_hooks=("slot_free",),
    maps=(MapFill("zs_object_tasks", 3, 4096), MapFill("ledger", 7, 262_144)),
)


def make_pins(**changed: object) -> Pins:
    """Return four pins: of zswap and of zram, of a cgroup that is gone, of nobody known."""
    values: dict[str, object] = {
        "zspages": 3,
        "objects": 4,
        "pages": 7,
        "handle": _words(*(0xFFFF888101000000 + 8 * at for at in range(4))),
        "zspage": _words(*(0xFFFF888102000000 + 64 * at for at in range(4))),
        "class_index": _ints(9, 9, 30, 30),
        "inuse": _ints(2, 2, 1, 1),
        "capacity": _ints(26, 26, 8, 8),
        "zspage_pages": _ints(1, 1, 3, 3),
        "size": _ints(150, 152, 490, -1),
        "stored_ns": TIME_NS - _ints(60_000_000_000, 2_000_000_000, 30_000_000, 4_000_000),
        "cgroup": _words(4242, 99, 4242, 0),
        "of_page": np.array([True, True, False, False]),
        "command": ("kswapd0", "postgres", "dd", ""),
        "slot": _words(1 << 58 | 77, 5, 1234, 0),
        "has_slot": np.array([True, True, True, False]),
        "is_swap": np.array([True, True, False, False]),
        "value": _words(0x1234 << 24, 0x1235 << 24, 0x1236 << 24, 0),
        "node": _ints(0, 1, 0, -1),
        "cpu": _ints(0, 1, 2, 3),
        "paths": {4242: "/user.slice/app.scope"},
    }
    return Pins(**(values | changed))  # type: ignore[arg-type]


def make_objects(rate: int = 1, **changed: object) -> PoolObjects:
    """Return what was told of a pool with objects in two classes."""
    lifetimes = np.zeros((2, AGE_BUCKETS), dtype=np.int64)
    lifetimes[0, 20], lifetimes[1, 30] = 3, 2
    values: dict[str, object] = {
        "status": "exact",
        "reasons": (),
        "since_ns": 5_000_000_000,
        "sampling": Sampling.seeded(rate, 7),
        "index": _ints(9, 30),
        "stored": _ints(10, 6),
        "freed": _ints(3, 2),
        "vanished": _ints(0, 1),
        "unkept": _ints(0, 0),
        "live": _ints(7, 3),
        "moves": _ints(4, 0),
        "sized": _ints(7, 3),
        "live_bytes": _ints(1050, 1470),
        "sizes": _ints(9, 1, 0, 0, 0, 0, 0, 0, 0),
        "lifetime_ns": _ints(2_500_000, 1_400_000_000),
        "lifetimes": lifetimes,
        "estimates": {
            "stored": estimate(16, 16, rate),
            "freed": estimate(5, 5, rate),
            "live": estimate(10, 10, rate),
            "live_bytes": estimate(2520, 878_000, rate, 4096),
        },
        "lifetime_estimates": tuple(
            estimate(int(count), int(count), rate) for count in lifetimes.sum(axis=0)
        ),
        "freed_unseen": 2,
        "unseen": 12 if rate == 1 else None,
        "pins": make_pins(),
    }
    return PoolObjects(**(values | changed))  # type: ignore[arg-type]
