"""The lives of zspages, kept from the records that the shadow model takes.

A life goes from birth to death. What was told of a zspage last holds until the
next record of it, so each record ends an interval in one fullness group. Only
what is newer than all that is known of a zspage counts; a record that comes too
late is counted, and makes everything bounded. Columns and sums by class, never
a zspage at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zpobs.life import AGE_BUCKETS, PoolLife, bucket_of
from zpobs.model.arrays import I64, U64, Bools
from zpobs.model.pools import CELL_KINDS, PoolDirectory
from zpobs.model.rows import (
    LIVE,
    SCANNED,
    STATE_CLASS_SHIFT,
    STATE_FULLNESS_SHIFT,
    STATE_INUSE_SHIFT,
    ZspageRows,
)
from zpobs.model.scans import CLASSES_MAX
from zpobs.model.state import StateReader, StateWriter, check, member, rows_of_any

_Number = TypeVar("_Number", np.int64, np.uint64)
_U16 = np.uint64(0xFFFF)
_STARTED, _BIRTHS, _FOUND, _DEATHS, _VANISHED, _KNOWN, _SUM_NS = range(7)
_COUNTS = 7
# Whatever the kernel's groups are, a record has eight bits for one; no kernel has more than 12.
_GROUPS = 16
_NEVER_NS = np.int64(2**63 - 1)

# Of a state: single values, and how columns by class and by pool are called.
_VALUES = {
    "begin_ns": int,
    "awaits_scan": bool,
    "disordered": int,
    "loss": int,
    "loss_begin": int,
}
_COUNT_COLUMNS = {
    "started": _STARTED,
    "births": _BIRTHS,
    "found": _FOUND,
    "deaths": _DEATHS,
    "vanished": _VANISHED,
    "lifetimes_known": _KNOWN,
    "lifetimes_ns": _SUM_NS,
}
_POOL_COLUMNS = {
    "lifetimes_unknown": "_unknown",
    "shortest_ns": "_shortest_ns",
    "longest_ns": "_longest_ns",
}


@dataclass(frozen=True, slots=True)
class Told:
    """States and deaths, shape (n,), with the rows they are of, in order of arrival.

    ``state`` is as rows will hold it: without LIVE a zspage is dead. ``cells`` name pool slot
    and class of each record, which the state of a death does not.
    """

    rows: I64
    time_ns: U64
    address: U64
    state: U64
    newborn: Bools
    cells: I64


class LifeLedger:
    """Sums by pool slot and class, since the model was covered by probes and scanned once."""

    def __init__(self, groups: int) -> None:
        self._groups = groups
        self._begin_ns = 0
        self._awaits_scan = True
        self._make(2)
        self._disordered = 0
        self._loss = self._loss_begin = 0

    def _make(self, slots: int) -> None:
        self._counts: I64 = np.zeros((slots * CLASSES_MAX, _COUNTS), dtype=np.int64)
        self._group_ns: I64 = np.zeros((slots * CLASSES_MAX, _GROUPS), dtype=np.int64)
        self._lifetimes: I64 = np.zeros((slots, AGE_BUCKETS), dtype=np.int64)
        self._unknown: I64 = np.zeros(slots, dtype=np.int64)
        self._shortest_ns: I64 = np.full(slots, _NEVER_NS, dtype=np.int64)
        self._longest_ns: I64 = np.zeros(slots, dtype=np.int64)

    def _grow(self, slot: int) -> None:
        slots = len(self._unknown)
        if slot < slots:
            return
        held = vars(self).copy()
        self._make(1 << int(slot).bit_length())
        for name in ("_counts", "_group_ns", "_lifetimes", "_unknown", "_shortest_ns"):
            getattr(self, name)[: len(held[name])] = held[name]
        self._longest_ns[:slots] = held["_longest_ns"]

    def cover(self, table: ZspageRows, now_ns: int) -> None:
        """Begin anew: other probes than before tell of everything from here on.

        What scans told before may have changed since, so the next scan begins anew as well.
        """
        self._awaits_scan = True
        self._begin(table, now_ns)

    def scanned(self, table: ZspageRows, end_ns: int) -> None:
        """Note the end of a scan of all pools: if it is the first, everything begins here."""
        if self._awaits_scan:
            self._awaits_scan = False
            self._begin(table, end_ns)

    def _begin(self, table: ZspageRows, now_ns: int) -> None:
        self._begin_ns = now_ns
        self._disordered = 0
        self._loss_begin = self._loss
        self._make(len(self._unknown))
        cells, _ = _unpacked(table.state[table.live()])
        if len(cells):
            self._grow(int(cells.max()) // CLASSES_MAX)
            self._count(cells, _STARTED)

    def take(self, table: ZspageRows, told: Told) -> None:
        """Take states and deaths before the rows learn of them."""
        self._grow(int(told.cells.max()) // CLASSES_MAX)
        known_ns = table.time_ns.take(told.rows)
        late = told.time_ns <= known_ns
        if late.any():
            # A scan's record bears the time of the scan's beginning, and tells nothing new then.
            disordered = (told.time_ns < known_ns) & ((told.state & SCANNED) == 0)
            self._disordered += int(np.count_nonzero(disordered))
        at = np.flatnonzero(~late)
        at = at[np.lexsort((told.time_ns[at], told.rows[at]))]
        # Of one zspage and one time what comes last stays.
        rows, time_ns = told.rows[at], told.time_ns[at]
        stays = np.append((rows[1:] != rows[:-1]) | (time_ns[1:] != time_ns[:-1]), True)
        at = at[stays[: len(at)]]
        if len(at):
            self._take(table, told, at)

    def _take(self, table: ZspageRows, told: Told, at: I64) -> None:
        """Take those records that count, by row and time."""
        rows, time_ns, cells = told.rows[at], told.time_ns[at], told.cells[at]
        state, held = told.state[at], table.state.take(rows)
        first = np.append(True, rows[1:] != rows[:-1])
        before = np.where(first, held, _shifted(state))
        before_ns = np.where(first, table.time_ns.take(rows), _shifted(time_ns))
        before_cells, before_groups = _unpacked(before)
        before_cells = np.where(first, before_cells, _shifted(cells))
        alive, before_alive = (state & LIVE) != 0, (before & LIVE) != 0
        newborn = told.newborn[at] & alive
        # Another zspage in its place: the one that was known is no more.
        replaced = first & before_alive & (table.address.take(rows) != told.address[at])
        before_alive &= ~replaced
        begins = newborn | (alive & ~before_alive)
        # Empty, and its place taken by another: freed by the kernel's worker, which tells of it
        # when it is through with all.
        freed = newborn & before_alive & ((before >> np.uint64(STATE_INUSE_SHIFT)) & _U16 == 0)
        goes_on = before_alive & (~newborn | freed)
        ends = goes_on & (~alive | freed)
        # A death of which no life was known: a life that was found at its end.
        unmet = ~before_alive & ~alive
        self._count(cells[newborn], _BIRTHS)
        self._count(cells[(begins & ~newborn) | unmet], _FOUND)
        self._count(before_cells[(before_alive & newborn & ~freed) | replaced], _VANISHED)
        self._count(before_cells[ends], _DEATHS)
        self._count(cells[unmet], _DEATHS)
        self._spend(
            before_cells[goes_on], before_groups[goes_on], before_ns[goes_on], time_ns[goes_on]
        )
        # When the life that holds from each record on began, 0 where that is not known.
        held_ns = np.where(table.born.take(rows), table.first_ns.take(rows), np.uint64(0))
        born_ns = np.where(newborn, time_ns, np.where(begins, np.uint64(0), held_ns))
        source = np.where(first | begins, np.arange(len(rows)), 0)
        born_ns = born_ns.take(np.maximum.accumulate(source))
        before_born_ns = np.where(first, held_ns, _shifted(born_ns))
        self._end(before_cells[ends], before_born_ns[ends], time_ns[ends])
        np.add.at(self._unknown, cells[unmet] // CLASSES_MAX, 1)

    def _count(self, cells: I64, what: int) -> None:
        np.add.at(self._counts[:, what], cells, 1)

    def _spend(self, cells: I64, groups: I64, from_ns: U64, to_ns: U64) -> None:
        from_ns = np.maximum(from_ns, np.uint64(self._begin_ns))
        spent = np.where(to_ns > from_ns, to_ns - from_ns, np.uint64(0)).view(np.int64)
        np.add.at(self._group_ns.reshape(-1), cells * _GROUPS + groups, spent)

    def _end(self, cells: I64, born_ns: U64, time_ns: U64) -> None:
        slots = cells // CLASSES_MAX
        known = born_ns > 0
        np.add.at(self._unknown, slots[~known], 1)
        cells, slots = cells[known], slots[known]
        lifetime_ns = time_ns[known] - born_ns[known]
        signed = lifetime_ns.view(np.int64)
        self._count(cells, _KNOWN)
        np.add.at(self._counts[:, _SUM_NS], cells, signed)
        buckets = slots * AGE_BUCKETS + bucket_of(lifetime_ns)
        np.add.at(self._lifetimes.reshape(-1), buckets, 1)
        np.minimum.at(self._shortest_ns, slots, signed)
        np.maximum.at(self._longest_ns, slots, signed)

    def end(self, table: ZspageRows, rows: I64, time_ns: int) -> None:
        """Note that distinct rows, if they live, die at a time at the latest."""
        rows = rows[(table.state[rows] & LIVE) != 0]
        cells, groups = _unpacked(table.state[rows])
        end_ns = np.full(len(rows), time_ns, dtype=np.uint64)
        self._count(cells, _DEATHS)
        self._spend(cells, groups, table.time_ns[rows], end_ns)
        born_ns = np.where(table.born[rows], table.first_ns[rows], np.uint64(0))
        self._end(cells, born_ns, end_ns)

    def lose(self, table: ZspageRows, rows: I64) -> None:
        """Note that distinct rows, which live, were found gone: their deaths were not seen."""
        cells, _ = _unpacked(table.state[rows])
        self._count(cells, _VANISHED)

    def forget(self, slot: int) -> None:
        """Drop what is known of a pool slot: another pool will have it."""
        if slot >= len(self._unknown):
            return
        own = slice(slot * CLASSES_MAX, (slot + 1) * CLASSES_MAX)
        self._counts[own] = self._group_ns[own] = 0
        self._lifetimes[slot] = self._unknown[slot] = self._longest_ns[slot] = 0
        self._shortest_ns[slot] = _NEVER_NS

    def save(self, out: StateWriter, pools: PoolDirectory) -> None:
        """Add all to a state."""
        out.value("life", {name: getattr(self, f"_{name}") for name in _VALUES})
        cells = rows_of_any(self._counts)
        counts = {name: self._counts[cells, what] for name, what in _COUNT_COLUMNS.items()}
        out.table("life.classes", pools.named(cells) | counts)
        cells, groups = np.nonzero(self._group_ns)
        spent = {"group": groups, "spent_ns": self._group_ns[cells, groups]}
        out.table("life.groups", pools.named(cells) | spent)
        slots, buckets = np.nonzero(self._lifetimes)
        ended = {"bucket": buckets, "zspages": self._lifetimes[slots, buckets]}
        out.table("life.lifetimes", {"pool": pools.serials(slots)} | ended)
        slots = np.flatnonzero((self._unknown > 0) | (self._shortest_ns != _NEVER_NS))
        own = {name: getattr(self, held)[slots] for name, held in _POOL_COLUMNS.items()}
        out.table("life.pools", {"pool": pools.serials(slots)} | own)

    def load(self, given: StateReader, pools: PoolDirectory) -> None:
        """Take all from a state, with nothing here before."""
        values = given.value("life", dict)
        for name, kind in _VALUES.items():
            setattr(self, f"_{name}", member(values, name, kind))
        self._grow(pools.slots_end - 1)
        columns = given.table("life.classes", CELL_KINDS | dict.fromkeys(_COUNT_COLUMNS, np.int64))
        cells = pools.cells(columns, "life.classes")
        for name, what in _COUNT_COLUMNS.items():
            self._counts[cells, what] = columns[name]
        columns = given.table("life.groups", CELL_KINDS | {"group": np.uint8, "spent_ns": np.int64})
        check((columns["group"] < _GROUPS).all(), "life.groups.group")
        cells = pools.cells(columns, "life.groups")
        self._group_ns[cells, columns["group"]] = columns["spent_ns"]
        kinds = {"pool": np.int64, "bucket": np.uint8, "zspages": np.int64}
        columns = given.table("life.lifetimes", kinds)
        check((columns["bucket"] < AGE_BUCKETS).all(), "life.lifetimes.bucket")
        slots = pools.slots_of(columns["pool"], "life.lifetimes.pool")
        self._lifetimes[slots, columns["bucket"]] = columns["zspages"]
        kinds = {"pool": np.int64, **dict.fromkeys(_POOL_COLUMNS, np.int64)}
        columns = given.table("life.pools", kinds)
        slots = pools.slots_of(columns["pool"], "life.pools.pool")
        for name, held in _POOL_COLUMNS.items():
            getattr(self, held)[slots] = columns[name]

    def note_loss(self, loss: int) -> None:
        """Note how many observations are lost by now, in all."""
        self._loss = loss

    def _doubts(self) -> tuple[str, ...]:
        """Return why figures are no more than bounded, nothing if they are exact."""
        told = []
        if self._loss > self._loss_begin:
            told.append(f"{self._loss - self._loss_begin} observations were lost since then")
        if self._disordered:
            told.append(f"{self._disordered} records came after newer ones of the same zspage")
        return tuple(told)

    def of_pool(
        self,
        table: ZspageRows,
        rows: I64,
        slot: int,
        *,
        mono_ns: int,
        ago_ns: int,
        no_probes: str,
    ) -> PoolLife:
        """Return what is known of a pool; ``rows`` are its live ones, ``mono_ns`` is now.

        ``ago_ns`` is wall-clock less monotonic time. ``no_probes`` says why nobody tells of lives.
        """
        self._grow(slot)
        own = slice(slot * CLASSES_MAX, (slot + 1) * CLASSES_MAX)
        counts, group_ns = self._counts[own], self._group_ns[own].copy()
        cells, groups = _unpacked(table.state[rows])
        classes = cells % CLASSES_MAX
        live = np.bincount(classes, minlength=CLASSES_MAX)
        since_ns = np.maximum(table.time_ns[rows], np.uint64(self._begin_ns))
        now_ns = np.maximum(np.uint64(mono_ns), since_ns)
        spent = (now_ns - since_ns).view(np.int64)
        np.add.at(group_ns.reshape(-1), classes * _GROUPS + groups, spent)
        born = table.born[rows]
        ages_ns = np.maximum(np.uint64(mono_ns), table.first_ns[rows]) - table.first_ns[rows]
        ages = np.bincount(bucket_of(ages_ns[born]), minlength=AGE_BUCKETS)
        index = np.flatnonzero(counts.any(axis=1) | (live > 0))
        doubts = (no_probes,) if no_probes else self._doubts()
        ended = bool(counts[:, _KNOWN].any())
        return PoolLife(
            status="unknown" if no_probes else "bounded" if doubts else "exact",
            reasons=doubts,
            since_ns=ago_ns + self._begin_ns,
            index=_frozen(index),
            started=_frozen(counts[index, _STARTED]),
            births=_frozen(counts[index, _BIRTHS]),
            found=_frozen(counts[index, _FOUND]),
            deaths=_frozen(counts[index, _DEATHS]),
            vanished=_frozen(counts[index, _VANISHED]),
            live=_frozen(live[index]),
            group_ns=_frozen(group_ns[index][:, : self._groups]),
            lifetimes_known=_frozen(counts[index, _KNOWN]),
            lifetime_ns=_frozen(counts[index, _SUM_NS]),
            lifetimes=_frozen(self._lifetimes[slot].copy()),
            ages=_frozen(ages),
            lifetimes_unknown=int(self._unknown[slot]),
            ages_unknown=int(np.count_nonzero(~born)),
            shortest_ns=int(self._shortest_ns[slot]) if ended else None,
            longest_ns=int(self._longest_ns[slot]) if ended else None,
        )


def _shifted(column: npt.NDArray[_Number]) -> npt.NDArray[_Number]:
    """Return what stands before each element; before the first, itself."""
    return np.concatenate([column[:1], column[:-1]])


def _unpacked(state: U64) -> tuple[I64, I64]:
    """Return the cell (slot and class) and the fullness group of each state, shape (n,)."""
    slot = (state & _U16).astype(np.int64)
    class_index = ((state >> np.uint64(STATE_CLASS_SHIFT)) & _U16).astype(np.int64)
    group = ((state >> np.uint64(STATE_FULLNESS_SHIFT)) & np.uint64(_GROUPS - 1)).astype(np.int64)
    return slot * CLASSES_MAX + class_index % CLASSES_MAX, group


def _frozen(array: I64) -> I64:
    array = np.ascontiguousarray(array, dtype=np.int64)
    array.setflags(write=False)
    return array
