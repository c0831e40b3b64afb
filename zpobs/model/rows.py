"""What is known of each zspage: one row of columns each, 49 bytes without its frames.

The state word packs what a STATE record tells, low bits first:

    pool slot:16 | class index:16 | inuse:16 | flags:8 | fullness:8

A pool slot is the model's own number for a pool. The flags are those of the
record, and LIVE. A row without LIVE is a tombstone: it remembers how new its
last record was.
"""

from __future__ import annotations

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
    unique_sorted,
)
from zpobs.model.frames import FrameArena
from zpobs.model.index import AddressIndex, granules

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
