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
    kinds = next(environment["records"] for environment in made_by if "records" in environment)
    name_of = {kind["code"]: name for name, kind in kinds.items()}
    for _, count, _, columns in (block for block in blocks(data) if block[0] == 2):
        names = [name_of[code] for code in values(columns, "kind", count, [])]
        rows = [{"serial": serial} for serial in values(columns, "serial", count, [])]
        places: dict[str, dict[int, int]] = {}
        for who, also in (("handle", ""), ("zspage", "object_stored")):
            own = [at for at, it in enumerate(names) if kinds[it]["subject"] == who or it == also]
            known_count = len(columns[f"{who}.known"][2]) if f"{who}.known" in columns else 1
            known = values(columns, f"{who}.known", known_count, [])
            places[who] = dict(zip(own, values(columns, f"{who}.at", len(own), []), strict=True))
            for at, place in places[who].items():
                rows[at]["zspage" if names[at] == also else "subject"] = known[place]
        wanted = [("class_index", "class_index", ("state", "death", "object_stored"))]
        for name in set(names):
            fields = ["since_ns", *(each["name"] for each in kinds[name]["fields"])]
            wanted += [(f"{name}.{field}", field, (name,)) for field in fields]
        for column, field, of in wanted:
            own = [at for at, name in enumerate(names) if name in of]
            subjects = [places["zspage"].get(at, places["handle"].get(at, 0)) for at in own]
            for at, value in zip(own, values(columns, column, len(own), subjects), strict=True):
                rows[at].setdefault(field, value)
        last = stored = values(columns, "first_ns", 1, [])[0]
        for name, row in zip(names, rows, strict=True):
            follows = name in ("object_owner", "object_slot")
            since = difference(row.pop("since_ns"))
            row["time_ns"] = ((stored if follows else last) + since) % (1 << 64)
            last = last if follows else row["time_ns"]
            stored = row["time_ns"] if name == "object_stored" else stored
            yield name, row
