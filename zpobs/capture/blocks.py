"""Blocks: how bodies stand in a file, so that damage costs no more than it touches.

A file is blocks one after another and nothing else. Each has a header of 64 bytes, all little
endian, and a body compressed as one zstd frame:

    bytes   what
    0..7    magic: 89 5A 50 43 0D 0A 1A 0A
    8..9    version of the format: 1
    10..11  type: 1 environment, 2 data, 3 key, 4 end
    12..15  bytes of the body as it stands in the file
    16..19  bytes of the body when it is decompressed
    20..23  records in it
    24..31  sequence number in its file, from 0
    32..39  first and
    40..47  last moment that it tells of, monotonic ns, by when zpobs had it
    48..55  number of the capture, the same in all its blocks
    56..59  CRC-32 of the body as it stands in the file
    60..63  CRC-32 of bytes 0..59

A body is the length of a JSON object (u32), that object, and the planes of the columns that it
names under "columns". The zstd frame tells how much it holds, and nothing follows it.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, BinaryIO

import zstandard

from zpobs.capture.columns import Column, Packed, Table
from zpobs.errors import BadInputError

MAGIC = b"\x89ZPC\r\n\x1a\n"
FORMAT_VERSION = 1
HEADER = struct.Struct("<8sHHIIIQQQQII")
# What a body may have, decompressed; and so what reading a block may take, whatever it says.
PLAIN_BYTES_MAX = 16 << 20
STORED_BYTES_MAX = PLAIN_BYTES_MAX + (1 << 16)
# Of that the JSON, which takes many times as much when it is understood.
JSON_BYTES_MAX = 8 << 20

_CRC_AT = HEADER.size - 4
_LENGTH = struct.Struct("<I")
_LEVEL = 3


class BlockType(IntEnum):
    """What a block holds."""

    ENVIRONMENT = 1
    DATA = 2
    KEY = 3
    END = 4


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in front of a body."""

    type: BlockType
    stored_bytes: int
    plain_bytes: int
    records: int
    sequence: int
    first_ns: int
    last_ns: int
    capture: int
    body_crc: int

    def to_bytes(self) -> bytes:
        """Return it as it stands in a file."""
        out = HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            self.type,
            self.stored_bytes,
            self.plain_bytes,
            self.records,
            self.sequence,
            self.first_ns,
            self.last_ns,
            self.capture,
            self.body_crc,
            0,
        )
        return out[:_CRC_AT] + _LENGTH.pack(zlib.crc32(out[:_CRC_AT]))

    @classmethod
    def of(cls, data: bytes) -> Header | None:
        """Return the header that bytes hold, None if they hold none.

        Raise BadInputError at an intact one of a format that is not known.
        """
        if len(data) < HEADER.size or not data.startswith(MAGIC):
            return None
        _, version, kind, *numbers, own = HEADER.unpack(data[: HEADER.size])
        stored, plain = numbers[:2]
        if zlib.crc32(data[:_CRC_AT]) != own:
            return None
        if version != FORMAT_VERSION:
            raise BadInputError(
                "the capture is of another format",
                found=f"version {version}, not {FORMAT_VERSION}",
                hint="the zpobs that made it, or a newer one",
            )
        if (
            stored > STORED_BYTES_MAX
            or plain > PLAIN_BYTES_MAX
            or kind not in BlockType.__members__.values()
        ):
            return None
        return cls(BlockType(kind), *numbers)


class BlockEncoder:
    """Makes blocks of one file, the capture of that number."""

    def __init__(self, capture: int, sequence: int = 0) -> None:
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._capture = capture
        self.sequence = sequence

    def block(
        self,
        type_: BlockType,
        told: Mapping[str, Any],
        columns: Sequence[Packed] = (),
        *,
        records: int = 0,
        span_ns: tuple[int, int] = (0, 0),
    ) -> bytes:
        """Return the next block: a header and a body."""
        text = json.dumps(
            {**told, "columns": [each.column.to_json() for each in columns]},
            separators=(",", ":"),
            ensure_ascii=False,
        ).encode()
        plain = b"".join([_LENGTH.pack(len(text)), text, *(each.planes for each in columns)])
        if len(plain) > PLAIN_BYTES_MAX or len(text) > JSON_BYTES_MAX:
            raise ValueError(f"a body of {len(plain)} bytes cannot be read back")
        stored = self._compressor.compress(plain)
        header = Header(
            type_,
            len(stored),
            len(plain),
            records,
            self.sequence,
            *span_ns,
            self._capture,
            zlib.crc32(stored),
        )
        self.sequence += 1
        return header.to_bytes() + stored


@dataclass(frozen=True, slots=True)
class Body:
    """What a block tells: a JSON object, and columns."""

    told: Mapping[str, Any]
    table: Table


def read_body(header: Header, stored: bytes) -> Body | None:
    """Return the body of a block, None if it is damaged; never more than PLAIN_BYTES_MAX."""
    if len(stored) != header.stored_bytes or zlib.crc32(stored) != header.body_crc:
        return None
    try:
        # What the frame says is got for it, whatever is asked for.
        if zstandard.frame_content_size(stored) != header.plain_bytes:
            return None
        plain = zstandard.ZstdDecompressor().decompress(stored)
        (length,) = _LENGTH.unpack_from(plain)
        begin = _LENGTH.size + length
        if length > JSON_BYTES_MAX or begin > len(plain):
            return None
        told = json.loads(plain[_LENGTH.size : begin])
        columns = [Column.of(each) for each in told["columns"]]
        return Body(told, Table(columns, memoryview(plain)[begin:]))
    except (zstandard.ZstdError, struct.error, BadInputError, RecursionError):
        return None
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True)
class Place:
    """A block's header and where its body begins in the file."""

    header: Header
    body_at: int

    @property
    def begin(self) -> int:
        """Where the header begins."""
        return self.body_at - HEADER.size

    @property
    def end(self) -> int:
        """Where the next block should begin."""
        return self.body_at + self.header.stored_bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes of a file in which no block could be read."""

    begin: int
    end: int
    what: str


def places(file: BinaryIO, begin: int = 0) -> Iterator[Place | Damage]:
    """Find the blocks of a file from ``begin`` on; what is none is told as damage.

    Bodies are not read: a caller that does seeks as it likes between two steps.
    """
    end = file.seek(0, 2)
    at = begin
    while at < end:
        file.seek(at)
        header = Header.of(file.read(HEADER.size))
        if header is not None:
            place = Place(header, at + HEADER.size)
            if place.end <= end:
                yield place
                at = place.end
                continue
        found = next_header(file, at + 1)
        ends = header is not None and found == end
        yield Damage(
            at, found, "the file ends inside of a block" if ends else "no block can be read here"
        )
        at = found


# What is searched at once, first and at most: the next block is near, mostly.
_SEARCH_BYTES, _SEARCH_BYTES_MAX = 1 << 12, 1 << 20


def next_header(file: BinaryIO, begin: int) -> int:
    """Return where the next intact header stands, the end of the file if there is none."""
    end = file.seek(0, 2)
    at, length = begin, _SEARCH_BYTES
    while at < end:
        file.seek(at)
        window = file.read(length + HEADER.size)
        found = window.find(MAGIC)
        while 0 <= found < length:
            if Header.of(window[found : found + HEADER.size]) is not None:
                return at + found
            found = window.find(MAGIC, found + 1)
        at += length
        length = min(2 * length, _SEARCH_BYTES_MAX)
    return end
