"""Objects: how many bytes were asked for, how long they live, who pins near-empty zspages.

Frozen values that hang on a :class:`zpobs.snapshot.PoolView`, and the sampling
that decides which objects are told at all: 1 in ``rate`` handles, by a hash.
Handles are used again, so what is sampled are handles with all objects that
they ever stood for: clusters, and the variance is taken over them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zpobs.life import AGE_BUCKETS
from zpobs.wire import SWAP_TYPE_SHIFT

Ints = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

# Live objects that are kept at most.
OBJECTS_KEPT = 1 << 18
# Near-empty: at most a quarter of a zspage's places are taken.
PIN_SHARE = 4
PINS_LISTED = 256
# Requested sizes are counted by so many bands of so many bytes, and those above.
SIZE_BANDS, SIZE_BAND_BYTES = 8, 512
# PFN_SHIFT of mm/zsmalloc.c beyond the bits of a page's size, with 52 bits of physical addresses.
_FRAME_SHIFT_FROM_PAGE = 12
# Groups into which handles fall by another hash, to see how much the sums of clusters vary.
VARIANCE_GROUPS = 64

_MASK = 2**64 - 1
_HASH_BITS = 32
# struct zs_sampling of bpf/objects.bpf.c: threshold, multiplier, blocks, timed.
_SAMPLING = struct.Struct("=QQQQ")
_GROUP_MULTIPLIER = 0xD6E8FEB86659FD93
# Beyond a normal distribution's 1.96: variances are themselves estimates, from 64 groups at
# worst, and sums of clusters are skewed.
_DEVIATIONS = 2.6


def frame_shift(page_bytes: int) -> np.uint64:
    """Return above how many bits what a handle leads to tells the page frame."""
    return np.uint64(page_bytes.bit_length() - 1 + _FRAME_SHIFT_FROM_PAGE)


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which handles are told: 1 in ``rate``, by a hash with an odd ``multiplier``."""

    rate: int
    multiplier: int

    @classmethod
    def seeded(cls, rate: int, seed: int) -> Sampling:
        """Return the sampling of a seed, whatever number it is."""
        # Steele, Lea and Flood's splitmix64 finalizer.
        mixed = (seed + 0x9E3779B97F4A7C15) & _MASK
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        return cls(rate, (mixed ^ mixed >> 31) | 1)

    @property
    def threshold(self) -> int:
        """Of 2^32: handles whose hash is below are told."""
        return -(-(1 << _HASH_BITS) // self.rate)

    def setup(self, *, blocks: bool, timed: bool) -> bytes:
        """Return the constants that the programs are loaded with.

        ``blocks``: what tells the block of an object of zram is attached too; ``timed``: so is
        what sees allocations begin.
        """
        return _SAMPLING.pack(self.threshold, self.multiplier, blocks, timed)

    def tells(self, handles: U64) -> npt.NDArray[np.bool_]:
        """Return which handles are told, shape (n,): what is_sampled() says in the kernel."""
        told: npt.NDArray[np.bool_] = _hash(handles, self.multiplier) < np.uint64(self.threshold)
        return told


def _hash(handles: U64, multiplier: int) -> U64:
    factor, half = np.uint64(multiplier), np.uint64(_HASH_BITS)
    mixed = (handles >> np.uint64(3)) * factor
    mixed ^= mixed >> half
    mixed *= factor
    return mixed >> half


def variance_group(handles: U64) -> Ints:
    """Return the group of each handle, shape (n,): nothing to do with whether it is sampled."""
    mixed = _hash(handles, _GROUP_MULTIPLIER)
    return (mixed & np.uint64(VARIANCE_GROUPS - 1)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure of all objects, from those that were told; without sampling the three are equal.

    ``low`` to ``high`` holds the truth in at least 95 of 100 samplings.
    """

    value: int
    low: int
    high: int

    def to_json(self) -> dict[str, int]:
        """Return the three figures."""
        return {"value": self.value, "low": self.low, "high": self.high}


def estimate(seen: int, squares: float, rate: int, unit: int = 1) -> Estimate:
    """Return the estimate of a sum of which ``seen`` was told, 1 in ``rate`` handles.

    ``squares`` is the sum, over the handles that were told, of the square of what each gave.
    ``unit`` is the most that one object can give; it stands in where none was told.

    Handles are in the sample or not independently of each other, so the estimate, seen x rate,
    has a variance of (rate - 1) x the sum of squares over all handles; and that sum is to the
    truth as it is among those told. So the interval is of all truths from which the estimate is
    no more than so many deviations away (as Wilson's for a share), which holds for few as well.
    """
    if rate == 1:
        return Estimate(seen, seen, seen)
    value = seen * rate
    weight = squares / seen if seen else float(unit)
    spread = _DEVIATIONS**2 * (rate - 1) * weight
    root = math.sqrt(spread * value + spread * spread / 4)
    middle = value + spread / 2
    return Estimate(value, max(math.floor(middle - root), seen), math.ceil(middle + root))


@dataclass(frozen=True, slots=True)
class Control:
    """What a sample makes of a number of objects that counters know.

    ``likely`` is its estimate of how many were stored in all, ``told`` what it has of them,
    ``stored`` how many there truly were.
    """

    likely: Estimate
    told: int
    stored: int

    @property
    def fits(self) -> bool:
        """Whether the sample is like the rest: no handle outside of it stands for very many."""
        return self.likely.low <= self.stored <= self.likely.high

    def applied(self, made: Estimate, seen: int, unit: int = 1) -> Estimate:
        """Return an estimate of a sum over time, of which an object gives ``unit`` at most.

        By what the sample misjudges the number of objects it may misjudge the sum as well; and if
        it is not like the rest, it knows nothing of what was not told: that may be anything.
        """
        most = seen + max(self.stored - self.told, 0) * unit
        if not self.fits:
            return Estimate(made.value, min(made.low, seen), max(made.high, most))
        error = (self.stored - self.likely.value) * unit
        low = max(made.low + min(error, 0), seen)
        return Estimate(made.value, low, min(made.high + max(error, 0), max(most, seen)))


def group_squares(sums: Ints) -> float:
    """Return the sum of squares over clusters, estimated from sums by variance group, (groups,).

    Clusters fall into groups at random, so that much is what makes the groups' sums differ.
    """
    groups = len(sums)
    mean = float(sums.sum()) / groups
    deviations = sums.astype(np.float64) - mean
    return float((deviations**2).sum()) * groups / (groups - 1)


@dataclass(frozen=True, slots=True)
class Pins:
    """Objects in near-empty zspages, the oldest first: columns of shape (n,).

    A zspage is near-empty with at most one in ``PIN_SHARE`` of its places taken. ``zspages``,
    ``objects`` and ``pages`` count all of them that hold a told object; the columns list those
    objects up to ``PINS_LISTED``. ``size`` is -1 where the requested size is not known, ``cgroup``
    0 where the cgroup is not; ``of_page``: it is the one that the stored page is charged to, else
    the storing task's. ``slot`` is a swap entry where ``is_swap``, else a block of the device;
    known only where ``has_slot``. ``value`` is what the handle led to when it was stored or
    moved last, ``node`` the NUMA node of that page frame, -1 if unknown.
    """

    zspages: int
    objects: int
    pages: int
    handle: U64
    zspage: U64
    class_index: Ints
    inuse: Ints
    capacity: Ints
    zspage_pages: Ints
    size: Ints
    stored_ns: Ints
    cgroup: U64
    of_page: npt.NDArray[np.bool_]
    command: tuple[str, ...]
    slot: U64
    has_slot: npt.NDArray[np.bool_]
    is_swap: npt.NDArray[np.bool_]
    value: U64
    node: Ints
    cpu: Ints
    paths: Mapping[int, str] = field(default_factory=dict)

    def owner(self, row: int) -> str:
        """Return the path of an object's cgroup, or what is known instead."""
        cgroup = int(self.cgroup[row])
        if not cgroup:
            return "unknown"
        return self.paths.get(cgroup, f"gone (id {cgroup})")

    def place(self, row: int) -> dict[str, int] | None:
        """Return the swap slot or block that an object is, None if it is not known."""
        if not self.has_slot[row]:
            return None
        slot = int(self.slot[row])
        if not self.is_swap[row]:
            return {"block": slot}
        kind, offset = divmod(slot, 1 << SWAP_TYPE_SHIFT)
        return {"swap_type": kind, "swap_offset": offset}

    def to_json(self, *, addresses: bool) -> dict[str, Any]:
        """Return the ``pins`` object; handles and zspages only with ``addresses``."""
        return {
            "zspages": self.zspages,
            "objects": self.objects,
            "pages": self.pages,
            "listed": [self.row_json(row, addresses=addresses) for row in range(len(self.handle))],
        }

    def row_json(self, row: int, *, addresses: bool) -> dict[str, Any]:
        """Return one element of ``listed``."""
        cgroup, node, size = int(self.cgroup[row]), int(self.node[row]), int(self.size[row])
        told: dict[str, Any] = {
            "class": int(self.class_index[row]),
            "inuse": int(self.inuse[row]),
            "objs_per_zspage": int(self.capacity[row]),
            "pages": int(self.zspage_pages[row]),
            "requested_bytes": None if size < 0 else size,
            "stored_ns": int(self.stored_ns[row]),
            "cgroup_id": cgroup or None,
            "cgroup": self.paths.get(cgroup),
            "cgroup_of": None if not cgroup else "page" if self.of_page[row] else "task",
            "command": self.command[row] or None,
            "place": self.place(row),
            "node": None if node < 0 else node,
            "cpu": int(self.cpu[row]),
        }
        if addresses:
            told["handle"] = f"{int(self.handle[row]):#x}"
            told["zspage"] = f"{int(self.zspage[row]):#x}"
        return told


@dataclass(frozen=True, slots=True)
class PoolObjects:
    """What was told of a pool's objects since ``since_ns``, wall-clock time.

    By class, shape (C,), of the objects that were told alone: ``stored``, ``freed`` (whose store
    was told), ``vanished`` (whose end was not), ``unkept`` (for which there was no room) and
    ``live``: stored = freed + vanished + unkept + live. ``freed_unseen`` counts frees of objects
    whose store was not told, ``moves`` are those by compaction. ``live_bytes`` is what was asked
    for the ``sized`` ones of the live; ``sizes``, shape (SIZE_BANDS + 1,), counts those by it, a
    band with its upper end. ``lifetimes``, shape (C, AGE_BUCKETS), counts the freed,
    ``lifetime_ns`` is their sum.
    ``estimates`` are figures of all objects by name, ``lifetime_estimates`` by bucket of their
    lifetime, shape (AGE_BUCKETS,). ``unseen`` are objects of the pool that were
    stored before all this or not told, None if that cannot be said.
    """

    status: Literal["exact", "bounded", "unknown"]
    reasons: tuple[str, ...]
    since_ns: int
    sampling: Sampling
    index: Ints
    stored: Ints
    freed: Ints
    vanished: Ints
    unkept: Ints
    live: Ints
    moves: Ints
    sized: Ints
    live_bytes: Ints
    sizes: Ints
    lifetime_ns: Ints
    lifetimes: Ints
    estimates: Mapping[str, Estimate]
    lifetime_estimates: tuple[Estimate, ...]
    freed_unseen: int
    unseen: int | None
    pins: Pins | None

    def to_json(self, *, addresses: bool) -> dict[str, Any]:
        """Return the ``objects`` object of a pool; unknown is nothing but why."""
        told: dict[str, Any] = {"status": self.status, "reasons": list(self.reasons)}
        if self.status == "unknown":
            return told
        sums = {name: int(getattr(self, name).sum()) for name in _COUNTS}
        told |= {"since_ns": self.since_ns, "rate": self.sampling.rate, **sums}
        told |= {"freed_unseen": self.freed_unseen, "unseen": self.unseen}
        told["estimates"] = {name: each.to_json() for name, each in self.estimates.items()}
        told["lifetimes"] = _lifetimes(self.lifetimes.sum(axis=0), int(self.lifetime_ns.sum()))
        for each in told["lifetimes"]["buckets"]:
            made = self.lifetime_estimates[each["below_ns"].bit_length() - 1]
            each["estimate"] = made.to_json()
        told["classes"] = [
            {
                "index": int(self.index[row]),
                **{name: int(getattr(self, name)[row]) for name in _COUNTS},
                "lifetimes": _lifetimes(self.lifetimes[row], int(self.lifetime_ns[row])),
            }
            for row in range(len(self.index))
        ]
        if self.pins is not None:
            told["pins"] = self.pins.to_json(addresses=addresses)
        return told


_COUNTS = (
    "stored",
    "freed",
    "vanished",
    "unkept",
    "live",
    "moves",
    "sized",
    "live_bytes",
)


def _lifetimes(counts: Ints, sum_ns: int) -> dict[str, Any]:
    assert len(counts) == AGE_BUCKETS
    buckets = [
        {"below_ns": 1 << bucket, "objects": int(counts[bucket])}
        for bucket in np.flatnonzero(counts).tolist()
    ]
    return {"buckets": buckets, "sum_ns": sum_ns}
