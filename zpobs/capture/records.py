"""Batches of records as columns, and back without loss.

All records have ``kind``, ``flags``, ``serial`` and ``time_ns``; each kind has its own fields
(:mod:`zpobs.capture.layout`) in columns named ``kind.field``. Addresses of zspages, and handles,
are told once a block, by rising value, in ``zspage.known`` and ``handle.known``; what a record
is about is an ordinal in that list, in ``zspage.at`` and ``handle.at``.
"""

from __future__ import annotations

import numpy as np

from zpobs import wire
from zpobs.capture.columns import (
    I64,
    U64,
    Packed,
    Table,
    by_subject,
    packed,
    previous,
    starts_of,
    summed_by_subject,
    unzigzag,
    zigzag,
)
from zpobs.capture.layout import BY_CODE, KINDS, Field, Kind
from zpobs.errors import BadInputError
from zpobs.wire import Words

# Positions in a block have 16 bits.
RECORDS_MAX = 1 << 16

_GROUPS = ("zspage", "handle")
_GROUP_OF = np.zeros(256, dtype=np.uint8)
for _kind in KINDS:
    _GROUP_OF[_kind.code] = _GROUPS.index(_kind.group) + 1 if _kind.group else 0
_POSITION_BITS = np.uint64(16)
_ROOM_BITS = 48
_BYTE = np.uint64(0xFF)


def encoded(words: Words) -> list[Packed]:
    """Return a batch, shape (N, RECORD_WORDS), N at most RECORDS_MAX, as columns."""
    rows_by_kind = _rows_by_kind(wire.kinds(words))
    unknown = rows_by_kind.keys() - BY_CODE.keys()
    if unknown:
        wire.check(words)
        raise BadInputError("a record is of a kind without a layout", found=str(min(unknown)))
    head = words[:, wire.WORD_HEAD]
    out = [
        packed("kind", head & _BYTE),
        packed("flags", head >> np.uint64(8) & _BYTE),
        packed("serial", head >> np.uint64(32), "delta"),
        packed("time_ns", words[:, wire.WORD_TIME], "delta"),
    ]
    group = _GROUP_OF[wire.kinds(words)]
    stored = rows_by_kind.get(wire.KIND_OBJECT_STORED)
    ids: dict[str, U64] = {}
    rows: dict[str, I64] = {}
    relative: U64 | None = None
    for ordinal, name in enumerate(_GROUPS, start=1):
        rows[name] = np.flatnonzero(group == ordinal)
        subjects = words[rows[name], wire.WORD_SUBJECT]
        count = len(subjects)
        if name == "zspage" and stored is not None:
            subjects = np.concatenate([subjects, words[stored, 3]])
        known, every = _ordinals(subjects)
        ids[name] = every[:count]
        out.append(packed(f"{name}.known", known, "delta"))
        out.append(packed(f"{name}.at", ids[name], "delta"))
        if name == "zspage" and stored is not None:
            relative = zigzag(every[count:] - _last_before(rows[name], ids[name], stored))
    for code, own in rows_by_kind.items():
        kind = BY_CODE[code]
        subject = _own_ordinals(kind, rows, ids, own)
        out += _fields(kind, words[own], subject, relative)
    return [each for each in out if each is not None]


def _rows_by_kind(kinds: np.ndarray) -> dict[int, I64]:
    met = np.flatnonzero(np.bincount(kinds)).tolist()
    if len(met) == 1:
        return {met[0]: np.arange(len(kinds))}
    return {code: np.flatnonzero(kinds == code) for code in met}


def _own_ordinals(kind: Kind, rows: dict[str, I64], ids: dict[str, U64], own: I64) -> U64 | None:
    """Return the ordinals of the subjects of one kind's records."""
    if not kind.group:
        return None
    group = rows[kind.group]
    if len(group) == len(own):
        return ids[kind.group]
    found: U64 = ids[kind.group][np.searchsorted(group, own)]
    return found


def _fields(
    kind: Kind, words: Words, subject: U64 | None, relative: U64 | None
) -> list[Packed | None]:
    out: list[Packed | None] = []
    order = starts = None
    for field in kind.fields:
        name = f"{kind.name}.{field.name}"
        if field.coding == "zspage":
            assert relative is not None
            out.append(packed(name, relative))
            continue
        values = _taken(words, field)
        if field.coding == "previous":
            assert subject is not None
            if order is None or starts is None:
                order = by_subject(subject)
                starts = starts_of(subject[order])
            told = packed(name, previous(values, order, starts), "plain")
            out.append(told.as_previous() if told else None)
        else:
            out.append(packed(name, values, field.coding))
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


def _last_before(rows: I64, ids: U64, asking: I64) -> U64:
    """Return the ordinal that was told last before each of some records, 0 before the first."""
    at = np.searchsorted(rows, asking)
    return np.concatenate([np.zeros(1, dtype=np.uint64), ids])[at]


def decoded(table: Table, count: int) -> Words:
    """Return the batch that columns tell, shape (count, RECORD_WORDS), contiguous by column.

    Raise BadInputError at columns that tell of no batch.
    """
    if count > RECORDS_MAX:
        raise BadInputError("a block tells of too many records", found=str(count))
    kinds = table.values("kind", count)
    if len(kinds) and int(kinds.max()) > int(_BYTE):
        raise BadInputError("a block tells of an unknown kind", found=str(int(kinds.max())))
    out: Words = np.zeros((wire.RECORD_WORDS, count), dtype=np.uint64)
    out[wire.WORD_HEAD] = kinds | table.values("flags", count) << np.uint64(8)
    out[wire.WORD_HEAD] |= table.values("serial", count) << np.uint64(32)
    out[wire.WORD_TIME] = table.values("time_ns", count)
    narrow = kinds.astype(np.uint8)
    rows_by_kind = _rows_by_kind(narrow) if count else {}
    unknown = rows_by_kind.keys() - BY_CODE.keys()
    if unknown:
        raise BadInputError("a block tells of an unknown kind", found=str(min(unknown)))
    group = _GROUP_OF[narrow]
    known: dict[str, U64] = {}
    ids: dict[str, U64] = {}
    rows: dict[str, I64] = {}
    for ordinal, name in enumerate(_GROUPS, start=1):
        rows[name] = np.flatnonzero(group == ordinal)
        known[name] = table.values(f"{name}.known", table.count_of(f"{name}.known"))
        if not len(known[name]):
            # A single subject of 0 has no planes.
            known[name] = np.zeros(1, dtype=np.uint64)
        ids[name] = table.values(f"{name}.at", len(rows[name]))
        out[wire.WORD_SUBJECT, rows[name]] = _named(known[name], ids[name])
    for code, own in rows_by_kind.items():
        kind = BY_CODE[code]
        subject = _own_ordinals(kind, rows, ids, own)
        _put_fields(out, table, kind, own, subject)
    stored = rows_by_kind.get(wire.KIND_OBJECT_STORED)
    if stored is not None:
        coded, _ = table.coded("object_stored.zspage", len(stored))
        last = _last_before(rows["zspage"], ids["zspage"], stored)
        out[3, stored] = _named(known["zspage"], last + unzigzag(coded))
    return out.T


def _named(known: U64, ids: U64) -> U64:
    if len(ids) and int(ids.max()) >= len(known):
        raise BadInputError("a block tells of a subject that it does not name", found="")
    return known[ids.view(np.int64)]


def _put_fields(out: Words, table: Table, kind: Kind, own: I64, subject: U64 | None) -> None:
    order = starts = None
    for field in kind.fields:
        name = f"{kind.name}.{field.name}"
        if field.coding == "zspage" or not table.has(name):
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
        if field.bits < 64 and int(values.max()) >> field.bits:
            raise BadInputError("a block tells of a value that is too large", found=name)
        out[field.word, own] |= values << np.uint64(field.shift)
