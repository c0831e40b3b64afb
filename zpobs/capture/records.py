"""Batches of records as columns, and back without loss.

All records have ``kind``, ``serial`` and a time; each kind has its own fields
(:mod:`zpobs.capture.layout`) in columns named ``kind.field``. Addresses of zspages, and handles,
are told once a block, by rising value, in ``zspage.known`` and ``handle.known``. Which of them a
record names is a place in that list, in ``zspage.at`` and ``handle.at``: an object that is stored
names both.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.capture.columns import (
    I64,
    U64,
    Packed,
    Table,
    by_subject,
    differences,
    packed,
    previous,
    starts_of,
    summed,
    summed_by_subject,
    unzigzag,
    zigzag,
)
from zpobs.capture.layout import BY_CODE, KINDS, Field, Kind
from zpobs.errors import BadInputError
from zpobs.wire import Words

Kinds = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]

# Positions in a block have 16 bits.
RECORDS_MAX = 1 << 16

# Who is named -> the word of a record of each kind that names it.
_NAMED = {
    "zspage": {
        **{kind.code: wire.WORD_SUBJECT for kind in KINDS if kind.group == "zspage"},
        wire.KIND_OBJECT_STORED: 3,
    },
    "handle": {kind.code: wire.WORD_SUBJECT for kind in KINDS if kind.group == "handle"},
}
# Kinds that tell the size class of the zspage that they name: one column tells it of all.
_CLASSED = (wire.KIND_STATE, wire.KIND_DEATH, wire.KIND_OBJECT_STORED)
# What follows the record that an object was stored, and bears its time as far as that is known.
_FOLLOWING = (wire.KIND_OBJECT_OWNER, wire.KIND_OBJECT_SLOT)
_POSITION_BITS = np.uint64(16)
_ROOM_BITS = 48
_BYTE = np.uint64(0xFF)
_LOW_HALF = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which records are of each kind, and which name a zspage or a handle; all by rising place."""

    by_kind: dict[int, I64]
    naming: dict[str, I64]
    classed: I64
    following: I64
    others: I64
    count: int
    positions: dict[str, I64]

    @classmethod
    def of(cls, kinds: Kinds) -> _Rows:
        met = np.flatnonzero(np.bincount(kinds)).tolist() if len(kinds) else []
        by_kind = {code: np.flatnonzero(kinds == code) for code in met}
        naming = {name: np.flatnonzero(_among(kinds, words)) for name, words in _NAMED.items()}
        classed = np.flatnonzero(_among(kinds, _CLASSED))
        following = _among(kinds, _FOLLOWING)
        others = np.flatnonzero(~following)
        return cls(by_kind, naming, classed, np.flatnonzero(following), others, len(kinds), {})

    def places(self, name: str, at: U64, own: I64) -> U64:
        """Return the places that some records name, of those that all who name any do."""
        everyone = self.naming[name]
        if len(everyone) == len(own):
            return at
        found: U64 = at.take(self._positions(name).take(own))
        return found

    def _positions(self, name: str) -> I64:
        """Return by record where it stands among those that name any."""
        if name not in self.positions:
            found = np.zeros(self.count, dtype=np.int64)
            found[self.naming[name]] = np.arange(len(self.naming[name]))
            self.positions[name] = found
        return self.positions[name]


def _among(kinds: Kinds, codes: Iterable[int]) -> Bools:
    chosen = np.zeros(256, dtype=bool)
    chosen[list(codes)] = True
    return chosen.take(kinds)


def _subject_of(kind: Kind) -> str:
    """Return by what "previous" goes in a kind: what is stored is more like what is beside it."""
    return "zspage" if kind.code == wire.KIND_OBJECT_STORED else kind.group


def encoded(words: Words) -> list[Packed]:
    """Return a batch, shape (N, RECORD_WORDS), N at most RECORDS_MAX, as columns."""
    kinds = wire.kinds(words)
    rows = _Rows.of(kinds)
    unknown = rows.by_kind.keys() - BY_CODE.keys()
    if unknown:
        wire.check(words)
        raise BadInputError("a record is of a kind without a layout", found=str(min(unknown)))
    head, time_ns = words[:, wire.WORD_HEAD], words[:, wire.WORD_TIME]
    out = [
        packed("kind", head & _BYTE),
        packed("serial", head >> np.uint64(32), "delta"),
        *_times(time_ns, rows),
    ]
    at: dict[str, U64] = {}
    for name, naming in rows.naming.items():
        named = words[naming, wire.WORD_SUBJECT]
        for code, word in _NAMED[name].items():
            if word != wire.WORD_SUBJECT and code in rows.by_kind:
                own = rows.by_kind[code]
                named[np.searchsorted(naming, own)] = words[own, word]
        known, at[name] = _ordinals(named)
        out.append(packed(f"{name}.known", known, "delta"))
        out.append(packed(f"{name}.at", at[name], "delta"))
    out.append(_classes(words, rows, at["zspage"]))
    for code, own in rows.by_kind.items():
        kind = BY_CODE[code]
        name = _subject_of(kind)
        subject = rows.places(name, at[name], own) if name else None
        out += _fields(kind, words if len(own) == len(words) else words[own], subject)
    return [each for each in out if each is not None]


def _times(time_ns: U64, rows: _Rows) -> list[Packed | None]:
    """Return the times: of most by how long they come behind the record before, kind by kind.

    What comes behind what is alike. Of what follows an object that was stored: behind that.
    """
    others = time_ns[rows.others]
    first_ns = int(others[0]) if len(others) else 0
    since = np.empty_like(time_ns)
    since[rows.others] = differences(others)
    if len(rows.following):
        stored = _last_stored(rows, time_ns, first_ns)
        since[rows.following] = zigzag(time_ns[rows.following] - stored)
    return [
        packed("first_ns", others[:1]),
        *(
            packed(f"{BY_CODE[code].name}.since_ns", since[own])
            for code, own in rows.by_kind.items()
        ),
    ]


def _last_stored(rows: _Rows, time_ns: U64, first_ns: int) -> U64:
    """Return the time of the last object stored before each record that follows one.

    ``first_ns``, where there is none in the block.
    """
    stored = rows.by_kind.get(wire.KIND_OBJECT_STORED, np.zeros(0, dtype=np.int64))
    told = np.concatenate([np.array([first_ns], dtype=np.uint64), time_ns[stored]])
    return told[np.searchsorted(stored, rows.following)]


def _classes(words: Words, rows: _Rows, at: U64) -> Packed | None:
    """Return the size classes that records tell of zspages, in one column for all kinds."""
    if not len(rows.classed):
        return None
    classes: U64 = words[rows.classed, 4]
    stored = rows.by_kind.get(wire.KIND_OBJECT_STORED)
    if stored is not None:
        # What stands above is its CPU and node.
        classes[np.searchsorted(rows.classed, stored)] &= _LOW_HALF
    place = rows.places("zspage", at, rows.classed)
    order = by_subject(place)
    told = packed("class_index", previous(classes, order, starts_of(place[order])))
    return told.as_previous() if told else None


def _fields(kind: Kind, words: Words, subject: U64 | None) -> list[Packed | None]:
    out: list[Packed | None] = []
    order = starts = None
    for field in kind.fields:
        name = f"{kind.name}.{field.name}"
        coding = field.coding
        if coding == "place" or coding == "class":  # noqa: PLR1714 - so that types narrow
            continue
        values = _taken(words, field)
        if coding == "previous":
            assert subject is not None
            if order is None or starts is None:
                order = by_subject(subject)
                starts = starts_of(subject[order])
            told = packed(name, previous(values, order, starts), "plain")
            out.append(told.as_previous() if told else None)
        else:
            out.append(packed(name, values, coding))
    return out


def _taken(words: Words, field: Field) -> U64:
    values: U64 = words[:, field.word]
    if field.shift:
        values = values >> np.uint64(field.shift)
    if field.shift + field.bits < 64:
        values = values & np.uint64((1 << field.bits) - 1)
    return values


def _ordinals(subjects: U64) -> tuple[U64, U64]:
    """Return the distinct subjects by rising value, and the ordinal of each."""
    if not len(subjects):
        return subjects, subjects
    low = subjects.min()
    room = int(subjects.max() - low).bit_length()
    if room <= _ROOM_BITS:
        # Sorting numbers alone is many times faster than sorting where they stand.
        position = np.arange(len(subjects), dtype=np.uint64)
        both = np.sort((subjects - low) << _POSITION_BITS | position)
        at = (both & np.uint64(RECORDS_MAX - 1)).view(np.int64)
        ordered = (both >> _POSITION_BITS) + low
    else:
        at = np.argsort(subjects, kind="stable")
        ordered = subjects[at]
    starts = starts_of(ordered)
    first = np.zeros(len(ordered), dtype=np.uint64)
    first[starts[1:]] = 1
    out = np.empty_like(subjects)
    out[at] = np.cumsum(first, dtype=np.uint64)
    return ordered[starts], out


def decoded(table: Table, count: int) -> Words:
    """Return the batch that columns tell, shape (count, RECORD_WORDS), contiguous by column.

    Raise BadInputError at columns that tell of no batch.
    """
    if count > RECORDS_MAX:
        raise BadInputError("a block tells of too many records", found=str(count))
    kinds = table.values("kind", count)
    if len(kinds) and int(kinds.max()) > int(_BYTE):
        raise BadInputError("a block tells of an unknown kind", found=str(int(kinds.max())))
    rows = _Rows.of(kinds.astype(np.uint8))
    unknown = rows.by_kind.keys() - BY_CODE.keys()
    if unknown:
        raise BadInputError("a block tells of an unknown kind", found=str(min(unknown)))
    out: Words = np.zeros((wire.RECORD_WORDS, count), dtype=np.uint64)
    out[wire.WORD_HEAD] = kinds | table.values("serial", count) << np.uint64(32)
    _put_times(out[wire.WORD_TIME], table, rows)
    at: dict[str, U64] = {}
    for name, naming in rows.naming.items():
        known = table.values(f"{name}.known", table.count_of(f"{name}.known"))
        if not len(known):
            # A single one of 0 has no planes.
            known = np.zeros(1, dtype=np.uint64)
        at[name] = table.values(f"{name}.at", len(naming))
        if len(naming) and int(at[name].max()) >= len(known):
            raise BadInputError("a block tells of a subject that it does not name", found=name)
        named = known[at[name].view(np.int64)]
        for code, word in _NAMED[name].items():
            if code in rows.by_kind:
                own = rows.by_kind[code]
                out[word, own] = rows.places(name, named, own)
    if table.has("class_index"):
        coded, _ = table.coded("class_index", len(rows.classed))
        place = rows.places("zspage", at["zspage"], rows.classed)
        order = by_subject(place)
        out[4, rows.classed] = summed_by_subject(coded, order, starts_of(place[order]))
        stored = rows.by_kind.get(wire.KIND_OBJECT_STORED)
        if stored is not None and int(out[4, stored].max()) > int(_LOW_HALF):
            raise BadInputError("a block tells of a value that is too large", found="class_index")
    for code, own in rows.by_kind.items():
        kind = BY_CODE[code]
        name = _subject_of(kind)
        _put_fields(out, table, kind, own, rows.places(name, at[name], own) if name else None)
    return out.T


def _put_times(out: U64, table: Table, rows: _Rows) -> None:
    first_ns = int(table.values("first_ns", 1)[0]) if len(rows.others) else 0
    since = np.empty_like(out)
    for code, own in rows.by_kind.items():
        since[own] = table.values(f"{BY_CODE[code].name}.since_ns", len(own))
    out[rows.others] = summed(since[rows.others], first_ns)
    if len(rows.following):
        stored = _last_stored(rows, out, first_ns)
        out[rows.following] = stored + unzigzag(since[rows.following])


def _put_fields(out: Words, table: Table, kind: Kind, own: I64, subject: U64 | None) -> None:
    order = starts = None
    words: dict[int, U64] = {}
    for field in kind.fields:
        name = f"{kind.name}.{field.name}"
        if field.coding in ("place", "class") or not table.has(name):
            continue
        coded, transform = table.coded(name, len(own))
        if transform == "previous":
            if subject is None:
                raise BadInputError("a column of a block needs a subject", found=name)
            if order is None or starts is None:
                order = by_subject(subject)
                starts = starts_of(subject[order])
            values = summed_by_subject(coded, order, starts)
        else:
            values = table.values(name, len(own))
        if field.bits < 64 and int(np.bitwise_or.reduce(values)) >> field.bits:
            raise BadInputError("a block tells of a value that is too large", found=name)
        if field.shift:
            values = values << np.uint64(field.shift)
        words[field.word] = words[field.word] | values if field.word in words else values
    # All fields of a word at once: that is what takes the time.
    for word, values in words.items():
        out[word, own] |= values
