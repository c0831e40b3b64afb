"""A reader of captures that shares no code with zpobs: made from docs/capture-format.md alone."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

MAGIC = b"\x89ZPC\r\n\x1a\n"
HEADER = struct.Struct("<8sHHIIIQQQQII")


def blocks(data: bytes) -> Iterator[tuple[int, int, dict[str, Any], dict[str, Any]]]:
    """Yield type, number of records, JSON and columns (transform, base, numbers) of each block."""
    at, capture, expected = 0, None, 0
    while (at := data.find(MAGIC, at)) >= 0 and len(data) >= at + HEADER.size:
        _, version, kind, stored, plain_size, records, number, *rest = HEADER.unpack_from(data, at)
        own, crc, head_crc = rest[2:]
        body = data[at + 64 : at + 64 + stored]
        good = zlib.crc32(data[at : at + 60]) == head_crc and zlib.crc32(body) == crc
        good = good and version == 1 and plain_size <= 1 << 24 and len(body) == stored
        at += 64 + stored if good else 1
        if not good or number < expected or capture not in (None, own):
            continue
        capture, expected = own, number + 1
        plain = zstandard.ZstdDecompressor().decompress(body)
        (length,) = struct.unpack_from("<I", plain)
        told, at_plane, columns = json.loads(plain[4 : 4 + length]), 4 + length, {}
        for name, transform, width, count, base in told["columns"]:
            planes = np.frombuffer(plain, np.uint8, width * count, at_plane).reshape(width, count)
            at_plane += width * count
            wide = np.zeros((count, 8), dtype=np.uint8)
            wide[:, :width] = planes.T
            columns[name] = (transform, base, wide.view("<u8").reshape(-1))
        yield kind, records, told, columns
        if kind == 4:
            return


def difference(coded: int) -> int:
    return coded >> 1 ^ -(coded & 1)


def values(columns: dict[str, Any], name: str, count: int, subjects: list[int]) -> list[int]:
    """Return the values of a column; ``subjects`` are those of the records that it is of."""
    if name not in columns:
        return [0] * count
    transform, base, coded = columns[name]
    if transform == "plain":
        return [int(each) for each in coded]
    before: dict[int | None, int] = {None: base}
    out: list[int] = []
    for at, each in enumerate(coded.tolist()):
        subject = subjects[at] if transform == "previous" else None
        out.append((before.get(subject, 0) + difference(each)) % (1 << 64))
        before[subject] = out[-1]
    return out


def events(path: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """Yield the name of each record's kind and its fields by name; subjects are a field, too."""
    data = path.read_bytes()
    made_by = (told.get("environment", told) for _, _, told, _ in blocks(data))
    records = next(environment["records"] for environment in made_by if "records" in environment)
    kinds = {of["code"]: (name, of["subject"], of["fields"]) for name, of in records.items()}
    for type_, count, _, columns in blocks(data):
        if type_ != 2 or not count:
            continue
        codes = values(columns, "kind", count, [])
        common = {name: values(columns, name, count, []) for name in ("flags", "serial", "time_ns")}
        rows = [{name: column[at] for name, column in common.items()} for at in range(count)]
        places, known = [dict[str, int]() for _ in codes], {}
        for subject in ("zspage", "handle"):
            own = [at for at, code in enumerate(codes) if kinds[code][1] == subject]
            length = len(columns.get(f"{subject}.known", [0, 0, [0]])[2])
            known[subject] = values(columns, f"{subject}.known", length, [])
            for at, place in zip(own, values(columns, f"{subject}.at", len(own), []), strict=True):
                places[at], rows[at]["subject"] = {subject: place}, known[subject][place]
        for code in set(codes):
            own = [at for at, each in enumerate(codes) if each == code]
            subjects = [next(iter(places[at].values()), 0) for at in own]
            for field in kinds[code][2]:
                column = f"{kinds[code][0]}.{field['name']}"
                for at, value in zip(own, values(columns, column, len(own), subjects), strict=True):
                    rows[at][field["name"]] = value
        last = 0
        for at, code in enumerate(codes):
            last = places[at].get("zspage", last)
            if kinds[code][0] == "object_stored":
                rows[at]["zspage"] = known["zspage"][last + difference(rows[at]["zspage"])]
            yield kinds[code][0], rows[at]
