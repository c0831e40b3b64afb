"""Columns out of records, and the packed state that rows hold of them."""

from __future__ import annotations

import numpy as np

from zpobs import wire
from zpobs.model.arrays import I64, U16, U64, Bools
from zpobs.model.rows import (
    LIVE,
    NO_FREEOBJ,
    STATE_CLASS_SHIFT,
    STATE_FLAGS_SHIFT,
    STATE_INUSE_SHIFT,
)
from zpobs.model.scans import CLASSES_MAX
from zpobs.wire import Words


def records_by_column(words: Words, chosen: Bools, count: int = wire.RECORD_WORDS) -> Words:
    """Return the first ``count`` words of the chosen records by column, shape (count, n)."""
    at = np.flatnonzero(chosen)
    if words.flags.f_contiguous:
        return words.T[:count].take(at, axis=1)
    # Whole records first: few columns of all records would cost more.
    return np.ascontiguousarray(words[at].T[:count])


def freeobj_of(word3: U64) -> U16:
    """Return the first free slot that each STATE record tells."""
    out: U16 = np.minimum(word3 >> np.uint64(32), NO_FREEOBJ).astype(np.uint16)
    return out


def told_by_scan(head: U64) -> Bools | None:
    """Return which STATE records a scan told, None if there are none."""
    # A DEATH has no flags.
    if not int(np.bitwise_or.reduce(head)) >> 8 & wire.FLAG_SCANNED:
        return None
    flags = (head >> np.uint64(8)).astype(np.uint8)
    scanned: Bools = (flags & np.uint8(wire.FLAG_SCANNED)) != 0
    return scanned


def cells_of(slots: U64 | np.uint64, class_index: U64) -> I64:
    """Return the cell of each pool slot and class, as in :mod:`zpobs.model.scans`."""
    cells = slots * np.uint64(CLASSES_MAX) + class_index % np.uint64(CLASSES_MAX)
    return cells.view(np.int64)


def pack_states(head: U64, slots: U64 | np.uint64, word3: U64, word4: U64) -> U64:
    """Return the state word of each STATE record, as :mod:`zpobs.model.rows` lays it out."""
    state = word4 << np.uint64(STATE_CLASS_SHIFT)
    state |= slots
    state |= (word3 & np.uint64(0xFFFF)) << np.uint64(STATE_INUSE_SHIFT)
    # Flags and fullness stand side by side in the head as in the state word.
    state |= (head & np.uint64(0xFFFF00)) << np.uint64(STATE_FLAGS_SHIFT - 8)
    state |= LIVE
    return state
