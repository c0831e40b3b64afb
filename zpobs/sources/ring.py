"""The ring of records, mapped and copied out in bulk.

A BPF ring buffer maps as a consumer page, a producer page, and the data. Every
record of ours takes a slot of 64 bytes: the data is a matrix of 8 words a row,
the ring's own header in column 0.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Iterator

import numpy as np

from zpobs.closing import Closing
from zpobs.errors import RecordError
from zpobs.wire import RECORD_BYTES, RECORD_WORDS, Words

_HEADER_BYTES = 8
SLOT_BYTES = _HEADER_BYTES + RECORD_BYTES
_SLOT_WORDS = SLOT_BYTES // 8
_LENGTH = np.uint64(0xFFFFFFFF)
_BUSY = np.uint64(1 << 31)
_DISCARDED = np.uint64(1 << 30)
_WHOLE = np.uint64(RECORD_BYTES)

RECORDS_PER_READ = 1 << 18
# Between looks at a record that is not committed yet.
_PAUSE_S = 0.0005
# 16 KiB of slots.
_BLOCK_RECORDS = 256


def copy_columns(records: Words) -> Words:
    """Return a copy by column, shape (RECORD_WORDS, n), of records by row.

    Block by block, so that a block's rows are still in the first cache when
    their second column is read: over twice as fast as column after column. A
    ufunc keeps the order of axes it is given where source and target disagree.
    """
    count = len(records)
    blocks = count // _BLOCK_RECORDS
    whole = blocks * _BLOCK_RECORDS
    out: Words = np.empty((RECORD_WORDS, count), dtype=np.uint64)
    source = records[:whole].reshape(blocks, _BLOCK_RECORDS, RECORD_WORDS)
    target = out[:, :whole].reshape(RECORD_WORDS, blocks, _BLOCK_RECORDS)
    np.positive(source.transpose(0, 2, 1), out=target.transpose(1, 0, 2))
    np.copyto(out[:, whole:], records[whole:].T)
    return out


class RingConsumer(Closing):
    """The only reader of one BPF ring buffer map.

    ``size_bytes`` is the ring's max_entries. The descriptor stays the caller's.
    """

    def __init__(self, map_fd: int, size_bytes: int) -> None:
        page = mmap.PAGESIZE
        self._map_fd = map_fd
        self._size_bytes = size_bytes
        # The kernel lets exactly the consumer's page be written.
        self._own = mmap.mmap(map_fd, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The data once, not twice in a row as the kernel offers it: slots of ours never lie
        # across the end, and every page that is mapped counts as resident.
        length = page + size_bytes
        self._shared = mmap.mmap(map_fd, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._consumed: Words = np.frombuffer(self._own, dtype=np.uint64, count=1)
        self._produced: Words = np.frombuffer(self._shared, dtype=np.uint64, count=1)
        data: Words = np.frombuffer(self._shared, dtype=np.uint64, offset=page)
        self._slots = data.reshape(-1, _SLOT_WORDS)
        self._position = int(self._consumed[0])
        self._fence = threading.Lock()
        self._held_back = False

    def fileno(self) -> int:
        """Return the descriptor that polls readable when records wait."""
        return self._map_fd

    @property
    def pending_bytes(self) -> int:
        """Bytes reserved by producers and not consumed, headers included."""
        return int(self._produced[0]) - self._position

    @property
    def held_back(self) -> bool:
        """Whether the last :meth:`batches` ended in front of a record that was not committed."""
        return self._held_back

    def batches(self, patience_s: float = 0.0) -> Iterator[Words]:
        """Read until all that was reserved before this call is consumed, and perhaps more.

        Yields what :meth:`read` returns. A record that is reserved and not committed holds back
        all behind it, committed or not: for as long as its CPU is stopped, if that is a virtual
        one. For such records this waits ``patience_s`` in all.
        """
        target, end_s = int(self._produced[0]), time.monotonic() + patience_s
        self._held_back = False
        while self._position < target:
            words = self.read()
            if words is not None:
                yield words
            elif time.monotonic() >= end_s:
                self._held_back = True
                return
            else:
                time.sleep(_PAUSE_S)

    def read(self, max_records: int = RECORDS_PER_READ) -> Words | None:
        """Copy out what is committed up to the ring's end, at most ``max_records``; free its place.

        Return a batch of shape (N, RECORD_WORDS), N 0 if all were discarded, or
        None if nothing is committed. Its columns are contiguous, since readers
        take records column by column. Raise :class:`RecordError` at a record
        that is not ours; it stays in the ring, with all behind it.
        """
        # Rounded up: a shorter record at the end is found by its length.
        count = min(-(-self.pending_bytes // SLOT_BYTES), max_records)
        if count <= 0:
            return None
        start = self._position % self._size_bytes // SLOT_BYTES
        # Fewer at the end: what wraps around is the next call's.
        slots = self._slots[start : start + count]
        length = slots[:, 0] & _LENGTH
        kept = None
        if (length != _WHOLE).any():
            length = self._committed(length)
            slots = slots[: len(length)]
            if len(length) == 0:
                return None
            kept = (length & _DISCARDED) == 0
        self._order_accesses()
        out = copy_columns(slots[:, 1:])
        self._order_accesses()
        self._position += len(slots) * SLOT_BYTES
        self._consumed[0] = self._position
        return out.T if kept is None else out.compress(kept, axis=1).T

    def _committed(self, length: Words) -> Words:
        """Return the length words, shape (n,), in front of the first busy record."""
        busy = (length & _BUSY) != 0
        if busy.any():
            length = length[: int(busy.argmax())]
        wrong = (length & ~_DISCARDED) != _WHOLE
        if wrong.any():
            at = int(wrong.argmax())
            raise RecordError(
                f"the ring holds a record that is not {RECORD_BYTES} bytes long",
                found=f"{int(length[at] & ~_DISCARDED)} bytes at position "
                f"{self._position + at * SLOT_BYTES}",
            )
        return length

    def _order_accesses(self) -> None:
        """Keep memory accesses before this call before those after it.

        Processors other than x86 may read a payload before its header, or free
        a slot before its payload is read. Unlocking orders what came before,
        locking what comes after: together they order both.
        """
        with self._fence:
            pass
        with self._fence:
            pass

    def close(self) -> None:
        """Unmap the ring."""
        if hasattr(self, "_slots"):
            # An mmap cannot be closed while arrays look into it.
            del self._slots, self._produced, self._consumed
            self._shared.close()
            self._own.close()
