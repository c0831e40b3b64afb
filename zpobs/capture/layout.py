"""What the records of captures hold, field by field.

Each bit of the wire's words has a field, but for kind, pool serial, time and what a record is
about, which all kinds have.

``bpf/zs_wire.h`` says what the fields mean. A capture tells this table itself, so that who
reads one needs neither that file nor this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from zpobs import wire

Group = Literal["zspage", "handle", ""]
Coding = Literal["plain", "delta", "previous", "place", "class"]


@dataclass(frozen=True, slots=True)
class Field:
    """Bits ``shift`` to ``shift + bits - 1`` of a word of a record.

    ``coding`` is the transform of its column; "place": it names a zspage, and has no column of
    its own but a place among those of all records that do; "class": the class of that zspage, in
    one column for all kinds that tell it.
    ``personal``: an address, a page frame, a name, or something else that tells whose it is.
    """

    name: str
    word: int
    shift: int = 0
    bits: int = 64
    coding: Coding = "plain"
    unit: str = ""
    personal: Literal["", "zspage", "handle", "pool", "frame", "name", "cgroup"] = ""

    def to_json(self) -> dict[str, Any]:
        """Return its description."""
        out: dict[str, Any] = {"name": self.name, "word": self.word}
        if self.bits != 64:
            out |= {"shift": self.shift, "bits": self.bits}
        if self.unit:
            out["unit"] = self.unit
        return out


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of record; ``group``: which subjects share ordinals with its own."""

    name: str
    code: int
    group: Group
    fields: tuple[Field, ...]


def _head(first: str = "", second: str = "") -> tuple[Field, ...]:
    """Return the bytes of a head behind the kind: flags, a and b."""
    return (
        Field("flags", 0, 8, 8),
        Field(first or "unused_a", 0, 16, 8, _IN_HEAD.get(first, "plain")),
        Field(second or "unused_b", 0, 24, 8),
    )


_IN_HEAD: dict[str, Coding] = {"fullness": "previous"}
_POOL = Field("pool", 2, coding="delta", personal="pool")
_TRIGGER = _head("trigger")
_NOTHING = _head()


def _unused(*words: int) -> tuple[Field, ...]:
    return tuple(Field(f"unused_{word}", word) for word in words)


def _delta(name: str, word: int, unit: str = "") -> Field:
    return Field(name, word, coding="delta", unit=unit)


_STATE = (
    *_head("fullness", "pages"),
    Field("inuse", 3, 0, 32, "previous"),
    Field("freeobj", 3, 32, 32, "previous"),
    Field("class_index", 4, coding="class"),
)
_FRAME_FIELDS = tuple(Field(f"frame_{at}", 3 + at, personal="frame") for at in range(4))

KINDS: tuple[Kind, ...] = (
    Kind("state", wire.KIND_STATE, "zspage", (*_STATE, *_unused(5, 6))),
    Kind("frames", wire.KIND_FRAMES, "zspage", (*_head("first_page", "pages"), *_FRAME_FIELDS)),
    Kind(
        "death",
        wire.KIND_DEATH,
        "zspage",
        (*_NOTHING, *_unused(3), Field("class_index", 4, coding="class"), *_unused(5, 6)),
    ),
    Kind(
        "pool_created",
        wire.KIND_POOL_CREATED,
        "",
        (
            *_head("slot"),
            _POOL,
            *(Field(f"name_{at}", 3 + at, personal="name") for at in range(4)),
        ),
    ),
    Kind(
        "pool_destroyed",
        wire.KIND_POOL_DESTROYED,
        "",
        (*_head("slot"), _POOL, *_unused(3, 4, 5, 6)),
    ),
    Kind(
        "compact_begin",
        wire.KIND_COMPACT_BEGIN,
        "",
        (*_TRIGGER, _POOL, *_unused(3, 4), _delta("begin_ns", 5, "ns"), *_unused(6)),
    ),
    Kind(
        "compact_class",
        wire.KIND_COMPACT_CLASS,
        "",
        (
            *_TRIGGER,
            _POOL,
            Field("class_index", 3),
            Field("objects_moved", 4, 0, 32),
            Field("pages_freed", 4, 32, 32),
            _delta("class_begin_ns", 5, "ns"),
            _delta("begin_ns", 6, "ns"),
        ),
    ),
    Kind(
        "compact_end",
        wire.KIND_COMPACT_END,
        "",
        (
            *_TRIGGER,
            _POOL,
            Field("objects_moved", 3),
            Field("pages_freed", 4),
            _delta("begin_ns", 5, "ns"),
            Field("classes_told", 6),
        ),
    ),
    Kind(
        "migration",
        wire.KIND_MIGRATION,
        "zspage",
        (
            *_NOTHING,
            Field("old_frame", 3, personal="frame"),
            Field("new_frame", 4, personal="frame"),
            Field("result", 5, unit="negative errno, 0 for success"),
            *_unused(6),
        ),
    ),
    Kind(
        "alloc_failure",
        wire.KIND_ALLOC_FAILURE,
        "",
        (
            *_NOTHING,
            _POOL,
            Field("requested_bytes", 3, unit="bytes"),
            Field("error", 4, unit="negative errno"),
            *_unused(5, 6),
        ),
    ),
    Kind(
        "deferred_free",
        wire.KIND_DEFERRED_FREE,
        "",
        (*_NOTHING, _POOL, _delta("begin_ns", 3, "ns"), *_unused(4, 5, 6)),
    ),
    Kind(
        "object_stored",
        wire.KIND_OBJECT_STORED,
        "handle",
        (
            *_NOTHING,
            Field("zspage", 3, coding="place", personal="zspage"),
            Field("class_index", 4, 0, 32, "class"),
            Field("cpu", 4, 32, 16),
            Field("node", 4, 48, 16),
            # With pages of 4 KiB, where a frame is told above 24 bits.
            Field("object_place", 5, 0, 24, "previous"),
            Field("object_frame", 5, 24, 40, "previous"),
            *_unused(6),
        ),
    ),
    Kind(
        "object_owner",
        wire.KIND_OBJECT_OWNER,
        "handle",
        (
            *_NOTHING,
            Field("requested_bytes", 3, 0, 32, unit="bytes"),
            Field("took_ns", 3, 32, 32, unit="ns, 0 if not known"),
            Field("cgroup", 4, coding="delta", personal="cgroup"),
            Field("command_0", 5, coding="delta", personal="name"),
            Field("command_1", 6, coding="delta", personal="name"),
        ),
    ),
    Kind(
        "object_slot",
        wire.KIND_OBJECT_SLOT,
        "handle",
        (*_NOTHING, _delta("slot", 3), *_unused(4, 5, 6)),
    ),
    Kind(
        "object_freed",
        wire.KIND_OBJECT_FREED,
        "handle",
        (
            *_NOTHING,
            *_unused(3),
            Field("class_index", 4, 0, 32),
            Field("cpu", 4, 32, 16),
            Field("node", 4, 48, 16),
            *_unused(5, 6),
        ),
    ),
    Kind(
        "scan_begin",
        wire.KIND_SCAN_BEGIN,
        "",
        (
            *_NOTHING,
            _POOL,
            Field("class_index", 3),
            Field("size", 4, 0, 32, unit="bytes"),
            Field("objs_per_zspage", 4, 32, 16),
            Field("pages_per_zspage", 4, 48, 16),
            Field("capacity", 5, unit="objects"),
            Field("objects", 6),
        ),
    ),
    Kind(
        "scan_end",
        wire.KIND_SCAN_END,
        "",
        (
            *_NOTHING,
            _POOL,
            Field("class_index", 3),
            _delta("begin_ns", 4, "ns"),
            Field("capacity", 5, unit="objects"),
            Field("objects", 6),
        ),
    ),
    Kind(
        "scanned",
        wire.KIND_SCANNED,
        "",
        (
            *_NOTHING,
            _POOL,
            Field("pages_allocated", 3),
            Field("pages_compacted", 4),
            _delta("begin_ns", 5, "ns"),
            Field("objects", 6),
        ),
    ),
)

BY_CODE = {kind.code: kind for kind in KINDS}

# Bits of a record's flags, by the kinds that have them.
FLAGS: dict[str, dict[str, int]] = {
    "state": {
        "huge": wire.FLAG_HUGE,
        "newborn": wire.FLAG_NEWBORN,
        "scanned": wire.FLAG_SCANNED,
        "locked": wire.FLAG_LOCKED,
        "isolated": wire.FLAG_ISOLATED,
    },
    "pool_created": {"late": wire.FLAG_LATE},
    "scan_end": {"steady": wire.FLAG_STEADY},
    "object_stored": {"moved": wire.FLAG_MOVED},
    "object_owner": {"of_page": wire.FLAG_OF_PAGE},
    "object_slot": {"swap": wire.FLAG_SWAP},
}
TRIGGERS = {"call": wire.TRIGGER_CALL, "shrinker": wire.TRIGGER_SHRINKER}


def schema() -> dict[str, Any]:
    """Return the table as a capture tells it."""
    return {
        kind.name: {
            "code": kind.code,
            "subject": kind.group or "pool",
            "flags": FLAGS.get(kind.name, {}),
            "fields": [field.to_json() for field in kind.fields],
        }
        for kind in KINDS
    }
