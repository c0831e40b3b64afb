"""The bytes that cross from the kernel: Python twin of ``bpf/zs_wire.h``.

``bpf/zs_wire.h`` explains each record kind. A batch of records is a matrix of
shape (N, 7) and dtype uint64, one row a record, in ring order; the functions
here name its columns. ``tests/test_wire.py`` compares every constant with the
C file.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zpobs.errors import RecordError

Words = npt.NDArray[np.uint64]

WIRE_VERSION = 2
RECORD_WORDS = 7
RECORD_BYTES = RECORD_WORDS * 8
FRAMES_PER_RECORD = 4
NAME_BYTES = 32

KIND_STATE = 1
KIND_FRAMES = 2
KIND_DEATH = 3
KIND_POOL_CREATED = 16
KIND_POOL_DESTROYED = 17
KIND_COMPACT_BEGIN = 18
KIND_COMPACT_END = 19
KIND_MIGRATION = 20
KIND_ALLOC_FAILURE = 21
KIND_DEFERRED_FREE = 22
KIND_COMPACT_CLASS = 23
KIND_OBJECT_STORED = 24
KIND_OBJECT_OWNER = 25
KIND_OBJECT_SLOT = 26
KIND_OBJECT_FREED = 27
KIND_SCAN_BEGIN = 32
KIND_SCAN_END = 33
KIND_SCANNED = 34
DETAIL_LINKS = 48
DETAIL_DESCRIPTOR = 49

FLAG_HUGE = 1
FLAG_NEWBORN = 2
FLAG_LATE = 4
FLAG_SCANNED = 8
FLAG_LOCKED = 16
FLAG_ISOLATED = 32
# Of SCAN_END, of LINKS, and of objects.
FLAG_STEADY = 1
FLAG_TORN = 1
FLAG_MOVED = 1
FLAG_OF_PAGE = 1
FLAG_SWAP = 1
UNKNOWN = 2**64 - 1
LINK_BACK_BROKEN = 1
LINK_FOREIGN = 2

TRIGGER_CALL = 1
TRIGGER_SHRINKER = 2
SHRINKING_MAX = 1024

POOLS_MAX = 32
CHAIN_MAX = 16

CLASS_ALLOCS = 0
CLASS_FREES = 1
CLASS_MOVES = 2
CLASS_GEOMETRY = 3
CLASS_WORDS = 4

POOL_FAILURES = 0
POOL_MIGRATIONS = 1
POOL_MIGRATION_FAILURES = 2
POOL_COMPACTIONS = 3
POOL_PAGES_FREED = 4
POOL_WORDS = 5

LOSS_RING_FULL = 0
LOSS_UNPAIRED = 1
LOSS_WORDS = 2

LATENCY_BUCKETS = 40
LATENCY_CELLS = 4096
LATENCY_ALLOC = 0
LATENCY_ALLOC_FAILED = 1
LATENCY_FREE = 2
LATENCY_ALLOC_LOCK = 3
LATENCY_ALLOC_GROW = 4
LATENCY_FREE_LOCK = 5
LATENCY_MIGRATION = 6
LATENCY_MIGRATION_FAILED = 7
LATENCY_KINDS = 8
LATENCY_NO_CLASS = 0xFFFF
LATENCY_UNPAIRED = 0
LATENCY_NO_CELL = 1
LATENCY_LOSSES = 2

OBJECT_TASKS = 4096
SWAP_TYPE_SHIFT = 58
OBJECT_NO_POOL = 0
OBJECT_NO_TASK = 1
OBJECT_LOSSES = 2

SCAN_WORDS = 258048
ASK_POOL = 0
ASK_SERIAL = 1
ASK_FIRST_CLASS = 2
ASK_LAST_CLASS = 3
ASK_DETAIL = 4
ASK_VMEMMAP = 5
ASK_DIRECT_MAP = 6
ASK_LOCKED_MASK = 7
ASK_ISOLATED_MASK = 8
ASK_FD = 9
ASK_FUNCTION = 10
ASK_FRAME = 11
ASK_TOKEN = 12
ASK_RESUME = 13
ANSWER_WORDS = 16
ANSWER_DONE = 17
ANSWER_POINTER = 18
CONTROL_WORDS = 32
FOUND_WORDS = 6
BLOCKS_ADDRESS = 0
BLOCKS_COUNT = 1
BLOCKS_ORDER = 2
BLOCKS_BITS = 3
BLOCKS_SECTION_SHIFT = 4
BLOCKS_MEM_SECTION = 5
BLOCKS_VMEMMAP = 6
BLOCKS_SECTION_BYTES = 7
BLOCKS_MAP_AT = 8
BLOCKS_USAGE_AT = 9
BLOCKS_FLAGS_AT = 10
BLOCKS_PAGE_BYTES = 11
BLOCKS_CONTROL_WORDS = 16
BLOCKS_WORDS = 8192

# Columns of a record (words of its payload).
WORD_HEAD = 0
WORD_TIME = 1
WORD_SUBJECT = 2

KINDS = frozenset(
    {
        KIND_STATE,
        KIND_FRAMES,
        KIND_DEATH,
        KIND_POOL_CREATED,
        KIND_POOL_DESTROYED,
        KIND_COMPACT_BEGIN,
        KIND_COMPACT_END,
        KIND_MIGRATION,
        KIND_ALLOC_FAILURE,
        KIND_DEFERRED_FREE,
        KIND_COMPACT_CLASS,
        KIND_OBJECT_STORED,
        KIND_OBJECT_OWNER,
        KIND_OBJECT_SLOT,
        KIND_OBJECT_FREED,
        KIND_SCAN_BEGIN,
        KIND_SCAN_END,
        KIND_SCANNED,
    }
)

_KNOWN_KIND = np.zeros(256, dtype=bool)
_KNOWN_KIND[list(KINDS)] = True


def kinds(words: Words) -> npt.NDArray[np.uint8]:
    """Return the kind of every record, shape (N,)."""
    return (words[:, WORD_HEAD] & np.uint64(0xFF)).astype(np.uint8)


def head(kind: int, *, flags: int = 0, a: int = 0, b: int = 0, serial: int = 0) -> int:
    """Build word 0 of a record."""
    return kind | flags << 8 | a << 16 | b << 24 | serial << 32


def check(words: Words) -> None:
    """Raise :class:`RecordError`, naming the record, if a batch holds an unknown kind."""
    if words.ndim != 2 or words.shape[1] != RECORD_WORDS or words.dtype != np.uint64:
        raise RecordError(f"a batch is (N, {RECORD_WORDS}) words, not {words.shape} {words.dtype}")
    known = _KNOWN_KIND[kinds(words)]
    if not known.all():
        at = int(np.argmin(known))
        raise RecordError(f"record {at} of {len(words)} has unknown kind {int(kinds(words)[at])}")
