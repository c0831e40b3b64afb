"""What is known of each zspage: one row of columns each, 49 bytes without its frames.

The state word packs what a STATE record tells, low bits first:

    pool slot:16 | class index:16 | inuse:16 | flags:8 | fullness:8

A pool slot is the model's own number for a pool. The flags are those of the
record, and LIVE. A row without LIVE is a tombstone: it remembers how new its
last record was.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zpobs import wire
from zpobs.model.arrays import (
    I64,
    U8,
    U16,
    U32,
    U64,
    Bools,
    FreeList,
    grown,
    grown_length,
    rising,
    unique_sorted,
)
from zpobs.model.frames import FrameArena, places_in_chains
from zpobs.model.index import REGIONS_MAX, AddressIndex, granules, regions
from zpobs.model.pools import PoolDirectory
from zpobs.model.scans import CLASSES_MAX
from zpobs.model.state import Column, StateReader, StateWriter, check, distinct

STATE_CLASS_SHIFT = 16
STATE_INUSE_SHIFT = 32
STATE_FLAGS_SHIFT = 48
STATE_FULLNESS_SHIFT = 56
HUGE = np.uint64(wire.FLAG_HUGE << STATE_FLAGS_SHIFT)
NEWBORN = np.uint64(wire.FLAG_NEWBORN << STATE_FLAGS_SHIFT)
SCANNED = np.uint64(wire.FLAG_SCANNED << STATE_FLAGS_SHIFT)
LOCKED = np.uint64(wire.FLAG_LOCKED << STATE_FLAGS_SHIFT)
ISOLATED = np.uint64(wire.FLAG_ISOLATED << STATE_FLAGS_SHIFT)
LIVE = np.uint64(0x80 << STATE_FLAGS_SHIFT)
# No slot is free, or which one is not known; slots have fewer than 16 bits.
NO_FREEOBJ = 0xFFFF
NEVER_NS = np.uint64(2**64 - 1)

# By chain length: the parts that make it whole, one bit a FRAMES record.
WHOLE_PARTS: U8 = np.array(
    [0] + [(1 << -(-pages // wire.FRAMES_PER_RECORD)) - 1 for pages in range(1, 17)],
    dtype=np.uint8,
)


class ZspageRows:
    """Columns by row; row 0 is nobody's.

    ``time_ns`` is the time of the newest STATE or DEATH, 0 before the first.
    ``first_ns`` is the newest birth or death where ``born``, else the oldest
    STATE; where a scan found the zspage gone it is the beginning of that scan.
    ``freeobj`` is the first free slot or NO_FREEOBJ. ``generation_ns``,
    ``span``, ``pages`` and ``parts`` are of the page chain; ``pages`` 0 is none.
    """

    def __init__(self) -> None:
        self.address: U64 = np.zeros(64, dtype=np.uint64)
        self.time_ns: U64 = np.zeros(64, dtype=np.uint64)
        self.state: U64 = np.zeros(64, dtype=np.uint64)
        self.first_ns: U64 = np.zeros(64, dtype=np.uint64)
        self.generation_ns: U64 = np.zeros(64, dtype=np.uint64)
        self.freeobj: U16 = np.zeros(64, dtype=np.uint16)
        self.span: U32 = np.zeros(64, dtype=np.uint32)
        self.pages: U8 = np.zeros(64, dtype=np.uint8)
        self.parts: U8 = np.zeros(64, dtype=np.uint8)
        self.born: Bools = np.zeros(64, dtype=bool)
        self.arena = FrameArena()
        self._index = AddressIndex()
        self._free = FreeList(start=1)

    @property
    def end(self) -> int:
        """One more than the highest row ever used."""
        return self._free.end

    @property
    def held(self) -> int:
        """Rows in use, tombstones among them."""
        return self._free.end - 1 - len(self._free)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held by columns, frames and index."""
        columns = sum(int(getattr(self, name).nbytes) for name in _COLUMNS)
        return columns + self.arena.nbytes + self._index.nbytes + self._free.nbytes

    def find_or_add(self, address: U64) -> I64:
        """Return the row of each address, shape (N,); new addresses get a row of nothing."""
        rows = self._index.find(address)
        lacking = np.flatnonzero(rows == 0)
        if len(lacking):
            missing = address[lacking]
            self._add(missing)
            rows[lacking] = self._index.find(missing)
        return rows.astype(np.int64)

    def find(self, address: U64) -> I64:
        """Return the row of each address, shape (N,), 0 where there is none."""
        return self._index.find(address).astype(np.int64)

    def _add(self, address: U64) -> None:
        granule = granules(address)
        # Sorting numbers alone is several times faster than sorting where they stand.
        if len(unique_sorted(granule)) < len(granule):
            _, at = np.unique(granule, return_index=True)
            address = address[at]
        rows = self._free.take(len(address))
        if self.end > len(self.address):
            length = grown_length(len(self.address), self.end)
            for name in _COLUMNS:
                setattr(self, name, grown(getattr(self, name), length))
        self.address[rows] = address
        self.first_ns[rows] = NEVER_NS
        self._index.insert(address, rows)

    def release(self, rows: I64) -> None:
        """Give distinct rows back with their frames and their place in the index."""
        self._index.remove(self.address[rows])
        self.void_frames(rows)
        for name in _COLUMNS:
            getattr(self, name)[rows] = 0
        self._free.give(rows.astype(np.uint32))

    def void_frames(self, rows: I64) -> None:
        """Drop the page chains of distinct rows."""
        self.arena.give(self.span[rows], self.pages[rows])
        self.pages[rows] = 0
        self.parts[rows] = 0

    def start_lives(self, rows: I64, time_ns: U64) -> None:
        """Note births and deaths, shape (n,), by rising time: what was before them is void."""
        newer = ~self.born[rows] | (time_ns > self.first_ns[rows])
        rows = rows[newer]
        self.first_ns[rows] = time_ns[newer]
        self.born[rows] = True
        rows = unique_sorted(rows)
        void = (self.pages[rows] > 0) & (self.generation_ns[rows] < self.first_ns[rows])
        self.void_frames(rows[void])

    def end_lives(self, rows: I64, time_ns: U64) -> None:
        """Note that distinct rows hold nothing since some time before ``time_ns``, shape (n,)."""
        self.state[rows] &= ~LIVE
        self.born[rows] = False
        self.first_ns[rows] = time_ns
        self.void_frames(rows[self.generation_ns[rows] < time_ns])

    def first_seen(self, rows: I64, time_ns: U64) -> None:
        """Lower ``first_ns`` of rows without a witnessed birth to the oldest state seen."""
        unborn = ~self.born[rows]
        rows, time_ns = rows[unborn], time_ns[unborn]
        newest_first = np.argsort(time_ns)[::-1]
        rows, time_ns = rows[newest_first], time_ns[newest_first]
        # The last of several assignments to one row stays: the oldest.
        self.first_ns[rows] = np.minimum(self.first_ns[rows], time_ns)

    def store_newest(self, rows: I64, time_ns: U64, state: U64, freeobj: U16) -> None:
        """Store states, none older than its row; the last assignment to a row stays."""
        self.time_ns[rows] = time_ns
        # What stayed is the newest of each row if no record is newer than it.
        if not rising(time_ns) and (self.time_ns.take(rows) < time_ns).any():
            order = np.argsort(time_ns, kind="stable")
            rows, time_ns = rows[order], time_ns[order]
            state, freeobj = state[order], freeobj[order]
            self.time_ns[rows] = time_ns
        self.state[rows] = state
        self.freeobj[rows] = freeobj

    def see_unborn(self, rows: I64, time_ns: U64, boundary: Bools, old_ns: U64) -> None:
        """Note the oldest states of zspages whose birth was not seen."""
        early = (old_ns == 0) | (time_ns < old_ns)
        early &= ~boundary
        if early.any():
            self.first_seen(rows[early], time_ns[early])

    def readdress(self, rows: I64, time_ns: U64, address: U64, late: Bools) -> I64:
        """Give rows the address of the newest zspage in their granule.

        Return the records that told another address than was known: the
        zspage that was there before is no more.
        """
        moved = self.address.take(rows) != address
        if not moved.any():
            return np.zeros(0, dtype=np.int64)
        at = np.flatnonzero(moved & ~late)
        at = at[np.argsort(time_ns[at], kind="stable")]
        self.address[rows[at]] = address[at]
        return at

    def late(self, rows: I64, time_ns: U64, old_ns: U64, newborn: Bools) -> Bools:
        """Return which states, in order of arrival, are older than what is known; shape (n,).

        ``old_ns`` is the time of that. Of one time, what arrives later is newer; but the dead
        are told of again from their next birth on alone.
        """
        late: Bools = time_ns <= old_ns
        if late.any():
            dead = (self.state.take(rows) & LIVE) == 0
            dead &= ~np.isin(rows, rows[newborn & dead & (time_ns == old_ns)])
            late &= (time_ns < old_ns) | (dead & ~newborn & (old_ns > 0))
        return late

    def save(self, out: StateWriter, pools: PoolDirectory) -> None:
        """Add all to a state, by rising address: live zspages, and tombstones apart."""
        used = np.flatnonzero(self.address[: self.end])
        used = used[np.argsort(self.address[used])]
        live = (self.state[used] & LIVE) != 0
        rows = used[live]
        state = self.state[rows]
        told = {
            "class_index": state >> np.uint64(STATE_CLASS_SHIFT) & _U16,
            "inuse": state >> np.uint64(STATE_INUSE_SHIFT) & _U16,
            "fullness": state >> np.uint64(STATE_FULLNESS_SHIFT),
            "flags": (state & ~LIVE) >> np.uint64(STATE_FLAGS_SHIFT) & _BYTE,
            "freeobj": self.freeobj[rows],
        }
        out.table("zspages", self._common(rows, pools) | told)
        out.table("tombstones", self._common(used[~live], pools))

    def _common(self, rows: I64, pools: PoolDirectory) -> dict[str, Column]:
        """Return the columns that a state has of the living and of the dead."""
        pages = self.pages[rows].astype(np.int64)
        frames = self.arena.gather(self.span[rows], pages)
        part = places_in_chains(pages) // wire.FRAMES_PER_RECORD
        frames[(np.repeat(self.parts[rows], pages) >> part) & 1 == 0] = 0
        held = {name: getattr(self, own)[rows] for name, own in _STATE_COLUMNS.items()}
        slots = (self.state[rows] & _U16).astype(np.int64)
        return {"pool": pools.serials(slots), **held, "frames": frames}

    def load(self, given: StateReader, pools: PoolDirectory, groups: int) -> None:
        """Take all from a state, with nothing here before; the kernel has so many groups."""
        kinds = _STATE_KINDS | _TOLD_KINDS
        columns = given.table("zspages", kinds, apart=("frames",))
        check((columns["fullness"] < groups).all(), "zspages.fullness")
        check((columns["class_index"] < CLASSES_MAX).all(), "zspages.class_index")
        check((columns["flags"].astype(np.uint64) << _FLAGS & LIVE == 0).all(), "zspages.flags")
        rows, slots = self._load(columns, pools, "zspages")
        check(bool(slots.all()) and not pools.gone[slots].any(), "zspages.pool")
        state = columns["class_index"].astype(np.uint64) << np.uint64(STATE_CLASS_SHIFT)
        state |= columns["inuse"].astype(np.uint64) << np.uint64(STATE_INUSE_SHIFT)
        state |= columns["flags"].astype(np.uint64) << _FLAGS
        state |= columns["fullness"].astype(np.uint64) << np.uint64(STATE_FULLNESS_SHIFT)
        self.state[rows] |= state | LIVE
        self.freeobj[rows] = columns["freeobj"]
        self._load(given.table("tombstones", _STATE_KINDS, apart=("frames",)), pools, "tombstones")

    def _load(
        self, columns: dict[str, Column], pools: PoolDirectory, table: str
    ) -> tuple[I64, I64]:
        """Take what the living and the dead have; return their rows and the slots of pools."""
        address, pages, frames = columns["address"], columns["pages"], columns["frames"]
        fine = address.all() and regions(address) <= REGIONS_MAX
        before = self.held
        check(fine and distinct(granules(address)), f"{table}.address")
        rows = self.find_or_add(address)
        check(self.held == before + len(address), f"{table}.address")
        check((pages <= wire.CHAIN_MAX).all(), f"{table}.pages")
        parts = columns["parts"]
        check((parts & ~WHOLE_PARTS[pages] == 0).all(), f"{table}.parts")
        check(len(frames) == int(pages.sum(dtype=np.int64)), f"{table}.frames")
        for name, own in _STATE_COLUMNS.items():
            getattr(self, own)[rows] = columns[name]
        chained = pages > 0
        spans = self.arena.take(pages[chained])
        self.span[rows[chained]] = spans
        self.arena.put(spans, pages[chained].astype(np.int64), frames)
        slots = pools.slots_of(columns["pool"], f"{table}.pool", none=True)
        self.state[rows] = slots.astype(np.uint64)
        return rows, slots

    def touched_ns(self, rows: I64) -> U64:
        """Return the time of the newest record of each row, shape (n,)."""
        return np.maximum(self.time_ns[rows], self.generation_ns[rows])

    def live(self) -> I64:
        """Return the rows of all live zspages, shape (Z,)."""
        return np.flatnonzero(self.state[: self.end] & LIVE)


_COLUMNS = (
    "address",
    "time_ns",
    "state",
    "first_ns",
    "freeobj",
    "generation_ns",
    "span",
    "pages",
    "parts",
    "born",
)

_U16, _BYTE, _FLAGS = np.uint64(0xFFFF), np.uint64(0xFF), np.uint64(STATE_FLAGS_SHIFT)
# How a state names the columns of the living and of the dead; frames are end to end there.
_STATE_COLUMNS = {
    "address": "address",
    "seen_ns": "time_ns",
    "first_ns": "first_ns",
    "born": "born",
    "chain_ns": "generation_ns",
    "pages": "pages",
    "parts": "parts",
}
_STATE_KINDS: dict[str, Any] = {
    "address": np.uint64,
    "pool": np.int64,
    "seen_ns": np.uint64,
    "first_ns": np.uint64,
    "born": np.bool_,
    "chain_ns": np.uint64,
    "pages": np.uint8,
    "parts": np.uint8,
    "frames": np.uint64,
}
_TOLD_KINDS: dict[str, Any] = {
    "class_index": np.uint16,
    "inuse": np.uint16,
    "fullness": np.uint8,
    "flags": np.uint8,
    "freeobj": np.uint16,
}


class Tombstones:
    """Rows of dead zspages, oldest first, until nothing late can come for them.

    An entry is stale when its row has lived or was touched since: then a later
    entry stands for it, or none is needed.
    """

    def __init__(self, *, keep_ns: int, keep_rows: int) -> None:
        self._keep_ns = keep_ns
        self._keep_rows = keep_rows
        self._rows: I64 = np.zeros(64, dtype=np.uint32)
        self._time_ns: U64 = np.zeros(64, dtype=np.uint64)
        self._begin = 0
        self._end = 0

    def add(self, rows: I64, time_ns: U64) -> None:
        """Bury rows; ``time_ns``, shape (n,), is not before their newest record."""
        end = self._end + len(rows)
        if end > len(self._rows):
            kept = slice(self._begin, self._end)
            self._end -= self._begin
            end -= self._begin
            self._begin = 0
            length = max(2 * end, 64)
            self._rows = grown(self._rows[kept], length)
            self._time_ns = grown(self._time_ns[kept], length)
        self._rows[self._end : end] = rows
        self._time_ns[self._end : end] = time_ns
        self._end = end

    def save(self, out: StateWriter, table: ZspageRows) -> None:
        """Add the entries to a state, in their order; those of rows long free have no address."""
        kept = slice(self._begin, self._end)
        address = table.address[self._rows[kept]]
        out.table("burials", {"address": address, "time_ns": self._time_ns[kept]})

    def load(self, given: StateReader, table: ZspageRows) -> None:
        """Take the entries from a state, with none here before."""
        columns = given.table("burials", {"address": np.uint64, "time_ns": np.uint64})
        rows = table.find(columns["address"])
        check((table.address[rows] == columns["address"]).all(), "burials.address")
        self.add(rows, columns["time_ns"])

    def expire(self, table: ZspageRows, newest_ns: int) -> None:
        """Release what is older than ``keep_ns`` before ``newest_ns``, or too many."""
        time_ns = self._time_ns[self._begin : self._end]
        young = time_ns > np.uint64(max(newest_ns - self._keep_ns, 0))
        # Entries came by rising time, nearly: the first young one ends the old ones.
        count = int(young.argmax()) if young.any() else len(young)
        count = max(count, len(young) - self._keep_rows)
        rows = self._rows[self._begin : self._begin + count].astype(np.int64)
        dead = (table.state[rows] & LIVE) == 0
        dead &= table.touched_ns(rows) <= time_ns[:count]
        # A row that was released already, by another entry, has no address.
        dead &= table.address[rows] != 0
        table.release(unique_sorted(rows[dead]))
        self._begin += count
