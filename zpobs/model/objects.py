"""Objects that are told one by one, from their store to their end.

A row is a live object, found by its handle. The records of one handle come in
true order; a batch is cut into lives, which begin with a store, and all that is
told within one is put together by columns, never an object at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zpobs import wire
from zpobs.addons import MapFill
from zpobs.life import AGE_BUCKETS, bucket_of
from zpobs.model.arrays import I64, U64, Bools, FreeList, grown, grown_length
from zpobs.model.columns import records_by_column
from zpobs.model.index import REGIONS_MAX, AddressIndex, granules, regions
from zpobs.model.pools import CELL_KINDS, PoolDirectory
from zpobs.model.scans import CLASSES_MAX
from zpobs.model.state import StateReader, StateWriter, check, distinct, member, rows_of_any, texts
from zpobs.objects import OBJECTS_KEPT, VARIANCE_GROUPS, Sampling, variance_group
from zpobs.wire import Words

OBJECT_KINDS = np.zeros(256, dtype=bool)
OBJECT_KINDS[
    [
        wire.KIND_OBJECT_STORED,
        wire.KIND_OBJECT_OWNER,
        wire.KIND_OBJECT_SLOT,
        wire.KIND_OBJECT_FREED,
    ]
] = True

# Sums by cell, which is pool slot and class.
STORED, FREED, VANISHED, UNKEPT, FREED_UNSEEN, MOVES, LIFETIME_NS = range(7)
_SUMS = 7
# Of an object: its size is known, its slot is, that is a swap entry, its cgroup is the page's.
SIZED, SLOTTED, SWAP, OF_PAGE = 1, 2, 4, 8
# Sums by variance group, for what clusters vary by: objects stored, freed, and from there on
# freed by bucket of their lifetime.
G_STORED, G_FREED, G_LIFETIMES = range(3)
_GROUP_SUMS = G_LIFETIMES + AGE_BUCKETS
_U32 = np.uint64(0xFFFFFFFF)
# The index tells granules of 32 bytes apart, and handles are 8 bytes.
_HANDLE_SHIFT = np.uint64(2)

_COLUMNS = {
    "handle": np.uint64,
    "zspage": np.uint64,
    "place": np.uint64,
    "value": np.uint64,
    "time_ns": np.uint64,
    "cgroup": np.uint64,
    "slot": np.uint64,
    "comm_low": np.uint64,
    "comm_high": np.uint64,
    "size": np.uint32,
    "cell": np.int32,
    "known": np.uint8,
}

# How a state names columns, sums by class, and what is packed.
_STATE_COLUMNS = {
    "handle": "handle",
    "zspage": "zspage",
    "value": "value",
    "stored_ns": "time_ns",
    "requested_bytes": "size",
    "cgroup": "cgroup",
    "slot": "slot",
    "command_low": "comm_low",
    "command_high": "comm_high",
}
_STATE_FLAGS = {"sized": SIZED, "has_slot": SLOTTED, "is_swap": SWAP, "of_page": OF_PAGE}
_SUM_COLUMNS = {
    "stored": STORED,
    "freed": FREED,
    "vanished": VANISHED,
    "unkept": UNKEPT,
    "freed_unseen": FREED_UNSEEN,
    "moves": MOVES,
    "lifetimes_ns": LIFETIME_NS,
}
_VALUES = ("rate", "multiplier", "kept", "begin_ns")
_RATE_MAX = 1 << 32
_CPU_SHIFT, _NODE_SHIFT = np.uint64(32), np.uint64(48)
_U16 = np.uint64(0xFFFF)


class ObjectRows:
    """Columns of live objects; row 0 is nobody's."""

    handle: U64
    zspage: U64
    place: U64
    value: U64
    time_ns: U64
    cgroup: U64
    slot: U64
    comm_low: U64
    comm_high: U64
    size: I64
    cell: I64
    known: I64

    def __init__(self) -> None:
        self._index = AddressIndex()
        self._free = FreeList(start=1)
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.zeros(64, dtype=kind))

    def __len__(self) -> int:
        return self._free.end - 1 - len(self._free)

    def find(self, handles: U64) -> I64:
        """Return the row of each handle, shape (n,), 0 where there is none."""
        return self._index.find(handles << _HANDLE_SHIFT).astype(np.int64)

    def add(self, handles: U64) -> I64:
        """Return new rows for distinct handles that have none."""
        rows = self._free.take(len(handles))
        if self._free.end > len(self.handle):
            length = grown_length(len(self.handle), self._free.end)
            for name in _COLUMNS:
                setattr(self, name, grown(getattr(self, name), length))
        self._index.insert(handles << _HANDLE_SHIFT, rows)
        out = rows.astype(np.int64)
        self.handle[out] = handles
        return out

    def release(self, rows: I64) -> None:
        """Give distinct rows back."""
        self._index.remove(self.handle[rows] << _HANDLE_SHIFT)
        for name in _COLUMNS:
            getattr(self, name)[rows] = 0
        self._free.give(rows.astype(np.uint32))

    def live(self) -> I64:
        """Return the rows of all live objects."""
        return np.flatnonzero(self.handle[: self._free.end])

    def save(self, out: StateWriter, pools: PoolDirectory) -> None:
        """Add them to a state, by rising handle."""
        rows = self.live()
        rows = rows[np.argsort(self.handle[rows])]
        columns = {name: getattr(self, own)[rows] for name, own in _STATE_COLUMNS.items()}
        place, known = self.place[rows], self.known[rows]
        columns |= pools.named(self.cell[rows].astype(np.int64))
        columns["cpu"] = (place >> _CPU_SHIFT) & _U16
        columns["node"] = place >> _NODE_SHIFT
        columns |= {name: (known & flag) != 0 for name, flag in _STATE_FLAGS.items()}
        out.table("objects", columns)

    def load(self, given: StateReader, pools: PoolDirectory) -> None:
        """Take them from a state, with nothing here before."""
        kinds: dict[str, Any] = {name: _COLUMNS[own] for name, own in _STATE_COLUMNS.items()}
        kinds |= CELL_KINDS | {"cpu": np.uint16, "node": np.uint16}
        columns = given.table("objects", kinds | dict.fromkeys(_STATE_FLAGS, np.bool_))
        handle = columns["handle"]
        key = handle << _HANDLE_SHIFT
        check(handle.all() and distinct(granules(key)), "objects.handle")
        check(regions(key) <= REGIONS_MAX, "objects.handle")
        rows = self.add(handle)
        for name, own in _STATE_COLUMNS.items():
            getattr(self, own)[rows] = columns[name]
        self.cell[rows] = pools.cells(columns, "objects")
        self.place[rows] = columns["class_index"].astype(np.uint64)
        self.place[rows] |= columns["cpu"].astype(np.uint64) << _CPU_SHIFT
        self.place[rows] |= columns["node"].astype(np.uint64) << _NODE_SHIFT
        for name, flag in _STATE_FLAGS.items():
            self.known[rows] |= np.where(columns[name], flag, 0).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Records by handle and then in order of arrival, and the lives that they fall into.

    ``starts`` is where each life begins, ``life`` the life of each record; ``first`` and ``last``
    tell whether it is the first and last of its handle here, ``begun`` whether its store is.
    """

    words: Words
    slots: I64
    kind: I64
    flags: I64
    life: I64
    starts: I64
    begun: Bools
    first: Bools
    last: Bools

    @classmethod
    def of(cls, words: Words, slots: I64) -> _Batch:
        order = np.argsort(words[wire.WORD_SUBJECT], kind="stable")
        words, slots = words[:, order], slots[order]
        kind = (words[wire.WORD_HEAD] & np.uint64(0xFF)).astype(np.int64)
        flags = (words[wire.WORD_HEAD] >> np.uint64(8) & np.uint64(0xFF)).astype(np.int64)
        handle = words[wire.WORD_SUBJECT]
        first = np.append(True, handle[1:] != handle[:-1])
        begun = (kind == wire.KIND_OBJECT_STORED) & (flags & wire.FLAG_MOVED == 0)
        # Whatever follows an end is of another life, whose store was not told if none comes.
        behind = np.append(False, kind[:-1] == wire.KIND_OBJECT_FREED)
        boundary = first | begun | behind
        starts = np.flatnonzero(boundary)
        return cls(
            words=words,
            slots=slots,
            kind=kind,
            flags=flags,
            life=np.cumsum(boundary) - 1,
            starts=starts,
            begun=begun[starts],
            first=first[starts],
            last=np.append(first[starts][1:], True),
        )

    def newest(self, which: Bools) -> tuple[I64, I64]:
        """Return the lives that have such a record, and where its last one is."""
        at = np.flatnonzero(which)
        newest = np.full(len(self.starts), -1, dtype=np.int64)
        # Of several assignments to one life the last stays.
        newest[self.life[at]] = at
        lives = np.flatnonzero(newest >= 0)
        return lives, newest[lives]


class ObjectLedger:
    """Live objects and sums by pool slot and class, of the handles that are told."""

    def __init__(self, sampling: Sampling, kept: int = OBJECTS_KEPT) -> None:
        self.sampling = sampling
        self.kept = kept
        self.rows = ObjectRows()
        self.begin_ns = 0
        self.no_programs = "not attached yet"
        self.losses: tuple[str, ...] = ()
        self.partly: tuple[tuple[str, str], ...] = ()
        self._make(2)

    def _make(self, slots: int) -> None:
        self.sums: I64 = np.zeros((slots * CLASSES_MAX, _SUMS), dtype=np.int64)
        self.lifetimes: I64 = np.zeros((slots * CLASSES_MAX, AGE_BUCKETS), dtype=np.int64)
        self.groups: I64 = np.zeros((slots, VARIANCE_GROUPS, _GROUP_SUMS), dtype=np.int64)

    def grow(self, slot: int) -> None:
        """Have room for a pool slot."""
        if slot < len(self.groups):
            return
        sums, lifetimes, groups = self.sums, self.lifetimes, self.groups
        self._make(1 << int(slot).bit_length())
        self.sums[: len(sums)], self.lifetimes[: len(lifetimes)] = sums, lifetimes
        self.groups[: len(groups)] = groups

    def begin(
        self, now_ns: int, no_programs: str, partly: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """Note that programs tell of objects from now on, or why none does.

        ``partly`` has what the attached ones cannot tell: owner of pools ("" for any), sentence.
        """
        self.begin_ns = now_ns
        self.no_programs = no_programs
        self.partly = partly

    def fill(self) -> MapFill:
        """Return how full the ledger is."""
        return MapFill("ledger", len(self.rows), self.kept, int(self.sums[:, UNKEPT].sum()))

    def taken_out_of(self, words: Words, pools: PoolDirectory) -> Words:
        """Take the OBJECT records of a batch, shape (N, RECORD_WORDS); return the others."""
        chosen = OBJECT_KINDS[words[:, wire.WORD_HEAD].astype(np.uint8)]
        if not chosen.any():
            return words
        own = records_by_column(words, chosen)
        slots = pools.slots(own[wire.WORD_HEAD] >> np.uint64(32), own[wire.WORD_TIME])
        self.take(own, slots.view(np.int64))
        return words[~chosen]

    def take(self, words: Words, slots: I64) -> None:
        """Take OBJECT records by column, shape (RECORD_WORDS, n), in ring order, n > 0."""
        self.grow(int(slots.max()))
        batch = _Batch.of(words, slots)
        rows = self.rows
        handle = batch.words[wire.WORD_SUBJECT][batch.starts]
        held = np.where(batch.first, rows.find(handle), 0)
        # Stored anew while it was thought to live: its end was not told.
        self._count(rows.cell[held[(held > 0) & batch.begun]], VANISHED)
        rows.release(held[(held > 0) & batch.begun])
        goes_on = (held > 0) & ~batch.begun
        columns = {name: getattr(rows, name)[held] for name in _COLUMNS}
        columns["handle"] = handle
        self._put_together(batch, columns)
        cells = columns["cell"].astype(np.int64)
        known = goes_on | batch.begun
        ended, at = batch.newest(batch.kind == wire.KIND_OBJECT_FREED)
        ends = np.zeros(len(handle), dtype=bool)
        ends[ended] = True
        self._end(columns, ended[known[ended]], batch.words[wire.WORD_TIME][at[known[ended]]])
        # Their class went with their store: the pool alone is known.
        unseen = at[~known[ended]]
        self._count(batch.slots[unseen] * CLASSES_MAX, FREED_UNSEEN)
        lost = known & ~ends & ~batch.last
        self._count(cells[lost], VANISHED)
        rows.release(held[goes_on & (ends | lost)])
        self._count(cells[batch.begun], STORED)
        self._sample(G_STORED, cells, handle, batch.begun)
        alive = known & ~ends & batch.last
        self._store(columns, held, alive & goes_on, alive & batch.begun)

    def _put_together(self, batch: _Batch, columns: dict[str, U64]) -> None:
        """Have columns, by life, say what the newest record of each kind does."""
        words, kind = batch.words, batch.kind
        begun = np.flatnonzero(batch.begun)
        for name in _COLUMNS:
            if name != "handle":
                columns[name][begun] = 0
        columns["time_ns"][begun] = words[wire.WORD_TIME][batch.starts[begun]]
        lives, at = batch.newest(kind == wire.KIND_OBJECT_STORED)
        columns["zspage"][lives] = words[3][at]
        columns["place"][lives] = words[4][at]
        columns["value"][lives] = words[5][at]
        class_index = (words[4][at] & _U32).astype(np.int64)
        columns["cell"][lives] = batch.slots[at] * CLASSES_MAX + class_index % CLASSES_MAX
        moved = (kind == wire.KIND_OBJECT_STORED) & (batch.flags & wire.FLAG_MOVED != 0)
        self._count(columns["cell"][batch.life[moved]].astype(np.int64), MOVES)
        lives, at = batch.newest(kind == wire.KIND_OBJECT_OWNER)
        columns["size"][lives] = words[3][at] & _U32
        columns["cgroup"][lives] = words[4][at]
        columns["comm_low"][lives] = words[5][at]
        columns["comm_high"][lives] = words[6][at]
        of_page = np.where(batch.flags[at] & wire.FLAG_OF_PAGE, OF_PAGE, 0)
        columns["known"][lives] |= (SIZED | of_page).astype(np.uint8)
        lives, at = batch.newest(kind == wire.KIND_OBJECT_SLOT)
        columns["slot"][lives] = words[3][at]
        swap = np.where(batch.flags[at] & wire.FLAG_SWAP, SWAP, 0)
        columns["known"][lives] |= (SLOTTED | swap).astype(np.uint8)

    def _end(self, columns: dict[str, U64], lives: I64, time_ns: U64) -> None:
        begun_ns = columns["time_ns"][lives]
        cells = columns["cell"][lives].astype(np.int64)
        lifetime_ns = np.maximum(time_ns, begun_ns) - begun_ns
        self._count(cells, FREED)
        np.add.at(self.sums[:, LIFETIME_NS], cells, lifetime_ns.view(np.int64))
        buckets = bucket_of(lifetime_ns)
        np.add.at(self.lifetimes.reshape(-1), cells * AGE_BUCKETS + buckets, 1)
        if self.sampling.rate > 1:
            place = cells // CLASSES_MAX * VARIANCE_GROUPS + variance_group(
                columns["handle"][lives]
            )
            where = place * _GROUP_SUMS + G_LIFETIMES + buckets
            np.add.at(self.groups.reshape(-1), where, 1)
        ended = np.zeros(len(columns["handle"]), dtype=bool)
        ended[lives] = True
        self._sample(G_FREED, columns["cell"], columns["handle"], ended)

    def _sample(self, what: int, cells: U64, handle: U64, which: Bools) -> None:
        """Count some lives in their variance groups."""
        if self.sampling.rate == 1:
            return
        at = np.flatnonzero(which)
        place = cells[at].astype(np.int64) // CLASSES_MAX * VARIANCE_GROUPS
        where = (place + variance_group(handle[at])) * _GROUP_SUMS + what
        np.add.at(self.groups.reshape(-1), where, 1)

    def _store(self, columns: dict[str, U64], held: I64, goes_on: Bools, begins: Bools) -> None:
        rows = self.rows
        new = np.flatnonzero(begins)
        room = max(self.kept - len(rows), 0)
        self._count(columns["cell"][new[room:]].astype(np.int64), UNKEPT)
        new = new[:room]
        lives = np.concatenate([np.flatnonzero(goes_on), new])
        at = np.concatenate([held[goes_on], rows.add(columns["handle"][new])])
        for name in _COLUMNS:
            getattr(rows, name)[at] = columns[name][lives]

    def _count(self, cells: I64, what: int) -> None:
        np.add.at(self.sums[:, what], cells, 1)

    def save(self, out: StateWriter, pools: PoolDirectory) -> None:
        """Add all to a state, the objects by rising handle."""
        out.value(
            "objects",
            {
                "rate": self.sampling.rate,
                "multiplier": self.sampling.multiplier,
                "kept": self.kept,
                "begin_ns": self.begin_ns,
                "no_programs": self.no_programs,
                "losses": list(self.losses),
                "partly": [list(each) for each in self.partly],
            },
        )
        self.rows.save(out, pools)
        cells = rows_of_any(self.sums)
        sums = {name: self.sums[cells, what] for name, what in _SUM_COLUMNS.items()}
        out.table("objects.classes", pools.named(cells) | sums)
        cells, buckets = np.nonzero(self.lifetimes)
        ended = {"bucket": buckets, "objects": self.lifetimes[cells, buckets]}
        out.table("objects.lifetimes", pools.named(cells) | ended)
        slots, groups, what = np.nonzero(self.groups)
        kept = {"group": groups, "sum": what, "objects": self.groups[slots, groups, what]}
        out.table("objects.groups", {"pool": pools.serials(slots)} | kept)

    @classmethod
    def load(cls, given: StateReader, pools: PoolDirectory) -> ObjectLedger:
        """Return the ledger that a state tells of."""
        values = given.value("objects", dict)
        rate, multiplier, kept, begin_ns = (member(values, name, int) for name in _VALUES)
        check(0 < rate <= _RATE_MAX and multiplier & 1 == 1, "objects.rate")
        check(multiplier < 1 << 64, "objects.multiplier")
        ledger = cls(Sampling(rate, multiplier), kept)
        partly = []
        for each in member(values, "partly", list):
            check(isinstance(each, list) and len(each) == 2, "objects.partly")
            owner, why = texts(each, "objects.partly")
            partly.append((owner, why))
        ledger.begin(begin_ns, member(values, "no_programs", str), tuple(partly))
        ledger.losses = texts(member(values, "losses", list), "objects.losses")
        ledger.grow(pools.slots_end - 1)
        ledger.rows.load(given, pools)
        kinds = CELL_KINDS | dict.fromkeys(_SUM_COLUMNS, np.int64)
        columns = given.table("objects.classes", kinds)
        cells = pools.cells(columns, "objects.classes")
        for name, what in _SUM_COLUMNS.items():
            ledger.sums[cells, what] = columns[name]
        kinds = CELL_KINDS | {"bucket": np.uint8, "objects": np.int64}
        columns = given.table("objects.lifetimes", kinds)
        check((columns["bucket"] < AGE_BUCKETS).all(), "objects.lifetimes.bucket")
        cells = pools.cells(columns, "objects.lifetimes")
        ledger.lifetimes[cells, columns["bucket"]] = columns["objects"]
        kinds = {"pool": np.int64, "group": np.uint8, "sum": np.uint8, "objects": np.int64}
        columns = given.table("objects.groups", kinds)
        check((columns["group"] < VARIANCE_GROUPS).all(), "objects.groups.group")
        check((columns["sum"] < _GROUP_SUMS).all(), "objects.groups.sum")
        slots = pools.slots_of(columns["pool"], "objects.groups.pool")
        ledger.groups[slots, columns["group"], columns["sum"]] = columns["objects"]
        return ledger

    def lose(self, rows: I64) -> None:
        """Note that distinct rows were found gone: their ends were not told."""
        self._count(self.rows.cell[rows], VANISHED)
        self.rows.release(rows)

    def empty(self, slot: int) -> None:
        """Drop the live objects of a pool slot: the pool is no more."""
        rows = self.rows.live()
        self.rows.release(rows[self.rows.cell[rows] // CLASSES_MAX == slot])

    def forget(self, slot: int) -> None:
        """Drop what is known of a pool slot: another pool will have it."""
        self.empty(slot)
        if slot < len(self.groups):
            own = slice(slot * CLASSES_MAX, (slot + 1) * CLASSES_MAX)
            self.sums[own] = self.lifetimes[own] = self.groups[slot] = 0
