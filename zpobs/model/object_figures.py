"""From the ledger of objects to the frozen figures of a pool, and who pins its zspages."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.model.arrays import I64
from zpobs.model.objects import (
    FREED,
    FREED_UNSEEN,
    G_FREED,
    G_LIFETIMES,
    G_STORED,
    LIFETIME_NS,
    MOVES,
    OF_PAGE,
    SIZED,
    SLOTTED,
    STORED,
    SWAP,
    UNKEPT,
    VANISHED,
    ObjectLedger,
)
from zpobs.model.pools import Pool
from zpobs.model.rows import LIVE, STATE_CLASS_SHIFT, STATE_INUSE_SHIFT, ZspageRows
from zpobs.model.scans import CLASSES_MAX
from zpobs.objects import (
    PIN_SHARE,
    PINS_LISTED,
    SIZE_BAND_BYTES,
    SIZE_BANDS,
    Control,
    Estimate,
    Pins,
    PoolObjects,
    estimate,
    group_squares,
)
from zpobs.snapshot import ClassTable

_Scalar = TypeVar("_Scalar", bound=np.generic)
_U16 = np.uint64(0xFFFF)
_OBJECT_BYTES_MAX = 4096
# An object whose zspage is not there any more was freed, unless the zspage is to be told yet.
_SETTLED_NS = 5_000_000_000
_UNDER_WAY_NS = 1_000_000_000
_MISJUDGED = (
    "few handles stand for most objects, so the sample is unlike the rest:"
    " estimates over time are as wide as what is certain"
)


def objects_of(
    ledger: ObjectLedger | None,
    table: ZspageRows,
    pool: Pool,
    classes: ClassTable,
    *,
    mono_ns: int,
    ago_ns: int,
) -> PoolObjects | None:
    """Return what is known of a pool's objects, None without a ledger.

    ``classes`` are the pool's own, ``ago_ns`` is wall-clock less monotonic time.
    """
    if ledger is None:
        return None
    ledger.grow(pool.slot)
    rows = ledger.rows.live()
    rows = rows[ledger.rows.cell[rows] // CLASSES_MAX == pool.slot]
    if ledger.losses:
        rows = _without_ended(ledger, table, rows, mono_ns)
    own = slice(pool.slot * CLASSES_MAX, (pool.slot + 1) * CLASSES_MAX)
    sums = ledger.sums[own]
    cells = ledger.rows.cell[rows] % CLASSES_MAX
    size = ledger.rows.size[rows].astype(np.int64)
    sized = (ledger.rows.known[rows] & SIZED) != 0
    live = np.bincount(cells, minlength=CLASSES_MAX)
    # Sums of at most 2^53 stay exact in a double.
    by_class = np.bincount(cells, weights=size, minlength=CLASSES_MAX).astype(np.int64)
    known = np.bincount(cells[sized], minlength=CLASSES_MAX)
    index = np.flatnonzero(sums[:, STORED] | sums[:, MOVES] | live)
    from_birth = pool.created and pool.since_ns >= ledger.begin_ns
    unseen = None
    if ledger.sampling.rate == 1:
        # Not more than what is under way just now, if all were told.
        others = max(int(classes.objects.sum()) - int(live.sum()), 0)
        unseen = 0 if from_birth and not ledger.losses else others
    # What is being stored just now is told in a moment.
    young = ledger.rows.time_ns[rows] + np.uint64(_UNDER_WAY_NS) > np.uint64(mono_ns)
    unsized = int(np.count_nonzero(~sized & ~young))
    control = _control(ledger, pool, sums)
    reasons, status = _judged(ledger, pool, unseen, sums, unsized)
    if status != "unknown" and control and not control.fits:
        reasons = (*reasons, _MISJUDGED)
    estimates, lifetimes = _estimates(ledger, pool, sums, size, control)
    return PoolObjects(
        status=status,
        reasons=reasons,
        since_ns=ago_ns + max(ledger.begin_ns, pool.since_ns),
        sampling=ledger.sampling,
        index=_frozen(index),
        stored=_frozen(sums[index, STORED]),
        freed=_frozen(sums[index, FREED]),
        vanished=_frozen(sums[index, VANISHED]),
        unkept=_frozen(sums[index, UNKEPT]),
        live=_frozen(live[index]),
        moves=_frozen(sums[index, MOVES]),
        sized=_frozen(known[index]),
        live_bytes=_frozen(by_class[index]),
        sizes=_frozen(_by_band(size[sized])),
        lifetime_ns=_frozen(sums[index, LIFETIME_NS]),
        lifetimes=_frozen(ledger.lifetimes[own][index]),
        estimates=estimates,
        lifetime_estimates=lifetimes,
        freed_unseen=int(sums[:, FREED_UNSEEN].sum()),
        unseen=unseen,
        pins=_pins(ledger, table, rows, classes, ago_ns),
    )


def _by_band(size: I64) -> I64:
    """Count sizes in bytes, shape (n,), by bands; shape (SIZE_BANDS + 1,), the last for above."""
    bands = np.minimum(np.maximum(size - 1, 0) // SIZE_BAND_BYTES, SIZE_BANDS)
    out: I64 = np.bincount(bands, minlength=SIZE_BANDS + 1)
    return out


def _without_ended(ledger: ObjectLedger, table: ZspageRows, rows: I64, mono_ns: int) -> I64:
    """Take out of the ledger the objects whose zspages are no more: their ends were lost."""
    zspages = table.find(ledger.rows.zspage[rows])
    gone = (table.state[zspages] & LIVE) == 0
    gone |= table.address[zspages] != ledger.rows.zspage[rows]
    gone &= ledger.rows.time_ns[rows] + np.uint64(_SETTLED_NS) < np.uint64(mono_ns)
    ledger.lose(rows[gone])
    out: I64 = rows[~gone]
    return out


def _judged(
    ledger: ObjectLedger, pool: Pool, unseen: int | None, sums: I64, unsized: int
) -> tuple[tuple[str, ...], Any]:
    """Return what is to be said about the figures, and their status."""
    if ledger.no_programs:
        return (ledger.no_programs,), "unknown"
    doubts = list(ledger.losses)
    if unseen or (unseen is None and (not pool.created or pool.since_ns < ledger.begin_ns)):
        count = "objects" if unseen is None else f"{unseen:,} objects"
        doubts.append(f"{count} stored before probes told of them, or not told, are not in this")
    if unkept := int(sums[:, UNKEPT].sum()):
        doubts.append(
            f"{unkept:,} objects found no place among {ledger.kept:,}: a higher --objects-rate"
        )
    if unsized:
        doubts.append(f"of {unsized:,} live objects the requested size is not known")
    partly = [why for owner, why in ledger.partly if owner in ("", pool.owner)]
    return (*doubts, *partly), "bounded" if doubts else "exact"


def _control(ledger: ObjectLedger, pool: Pool, sums: I64) -> Control | None:
    """Return what the sample makes of the number of stores, which counters know; None without."""
    rate = ledger.sampling.rate
    if rate == 1 or pool.class_counters is None:
        return None
    told = int(sums[:, STORED].sum())
    likely = _over_time(ledger.groups[pool.slot][:, G_STORED], told, rate)
    return Control(likely, told, int(pool.class_counters[:, wire.CLASS_ALLOCS].sum()))


def _estimates(
    ledger: ObjectLedger, pool: Pool, sums: I64, size: I64, control: Control | None
) -> tuple[dict[str, Estimate], tuple[Estimate, ...]]:
    """Return figures of all objects, and how many of all had each lifetime, by bucket.

    A live object has its handle to itself; of those that came and went some had one in turn.
    """
    rate, groups = ledger.sampling.rate, ledger.groups[pool.slot]
    told = int(sums[:, STORED].sum())

    def held(made: Estimate, seen: int) -> Estimate:
        return control.applied(made, seen) if control else made

    live = len(size)
    squares = float((size.astype(np.float64) ** 2).sum())
    freed = int(sums[:, FREED].sum())
    figures = {
        "stored": held(_over_time(groups[:, G_STORED], told, rate), told),
        "freed": held(_over_time(groups[:, G_FREED], freed, rate), freed),
        "live": estimate(live, live, rate),
        "live_bytes": estimate(int(size.sum()), squares, rate, _OBJECT_BYTES_MAX),
    }
    counts = ledger.lifetimes[pool.slot * CLASSES_MAX : (pool.slot + 1) * CLASSES_MAX].sum(axis=0)
    lifetimes = tuple(
        held(_over_time(groups[:, G_LIFETIMES + bucket], count, rate), count)
        for bucket, count in enumerate(counts.tolist())
    )
    return figures, lifetimes


def _over_time(groups: I64, seen: int, rate: int) -> Estimate:
    # No cluster gives less than its objects one by one.
    return estimate(seen, max(group_squares(groups), seen), rate)


def _pins(
    ledger: ObjectLedger, table: ZspageRows, rows: I64, classes: ClassTable, ago_ns: int
) -> Pins:
    """Return those of a pool's live objects that are in near-empty zspages."""
    held = ledger.rows
    zspages = table.find(held.zspage[rows])
    state = table.state[zspages]
    inuse = ((state >> np.uint64(STATE_INUSE_SHIFT)) & _U16).astype(np.int64)
    capacities, lengths = (np.zeros(CLASSES_MAX, dtype=np.int64) for _ in range(2))
    capacities[classes.index] = classes.objs_per_zspage
    lengths[classes.index] = classes.pages_per_zspage
    index = held.cell[rows].astype(np.int64) % CLASSES_MAX
    near = (PIN_SHARE * inuse <= capacities[index]) & (inuse > 0) & ((state & LIVE) != 0)
    near &= table.address[zspages] == held.zspage[rows]
    _, at = np.unique(zspages[near], return_index=True)
    # The zspage's own class: an object whose end was lost may have been of another in its place.
    own = (state[near][at] >> np.uint64(STATE_CLASS_SHIFT)).astype(np.int64) & 0xFFFF
    pages = int(lengths[own].sum())
    picked = np.flatnonzero(near)
    count = len(picked)
    # By time, and of one time by handle: which rows they have says nothing.
    order = np.lexsort((held.handle[rows[picked]], held.time_ns[rows[picked]]))
    picked = picked[order[:PINS_LISTED]]
    pinning, known = rows[picked], held.known[rows[picked]]
    place = held.place[pinning]
    commands = np.stack([held.comm_low[pinning], held.comm_high[pinning]], axis=1)
    size = held.size[pinning].astype(np.int64)
    return Pins(
        zspages=len(at),
        objects=count,
        pages=pages,
        handle=_frozen(held.handle[pinning]),
        zspage=_frozen(held.zspage[pinning]),
        class_index=_frozen(index[picked]),
        inuse=_frozen(inuse[picked]),
        capacity=_frozen(capacities[index[picked]]),
        zspage_pages=_frozen(lengths[index[picked]]),
        size=_frozen(np.where(known & SIZED, size, -1)),
        stored_ns=_frozen(held.time_ns[pinning].astype(np.int64) + ago_ns),
        cgroup=_frozen(held.cgroup[pinning]),
        of_page=_frozen((known & OF_PAGE) != 0),
        command=tuple(
            row.tobytes().split(b"\0", 1)[0].decode("utf-8", "replace") for row in commands
        ),
        slot=_frozen(held.slot[pinning]),
        has_slot=_frozen((known & SLOTTED) != 0),
        is_swap=_frozen((known & SWAP) != 0),
        value=_frozen(held.value[pinning]),
        node=_frozen(np.full(len(pinning), -1, dtype=np.int64)),
        cpu=_frozen(((place >> np.uint64(32)) & _U16).astype(np.int64)),
    )


def _frozen(array: npt.NDArray[_Scalar]) -> npt.NDArray[_Scalar]:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array
