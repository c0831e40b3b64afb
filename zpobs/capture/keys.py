"""Keys: the whole state of a model as blocks, each within the bounds of a block.

The first block of a key holds the values, JSON; columns follow, and long ones are cut into parts:
a column named ``name@begin`` holds the values from ``begin`` on. "key" tells which block of how
many it is, and how long each column is and of what type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from zpobs.capture.blocks import PLAIN_BYTES_MAX, Body
from zpobs.capture.columns import COUNT_MAX, Packed, packed
from zpobs.errors import BadInputError
from zpobs.model.state import ModelState

# A state takes at most so many bytes for each that its planes have (columns of which most values
# are alike have few), and so many beyond.
_BYTES_PER_PLANE_BYTE = 64
_BYTES_BEYOND = 16 << 20
_BLOCKS_MAX = 1 << 16
# Planes of a block at most; the values take what they take.
_PLANES_BYTES = 8 << 20
_TYPES = {np.dtype(name).name for name in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "?")}


def told_key(state: ModelState) -> list[tuple[dict[str, Any], list[Packed]]]:
    """Return what to write of a state, block by block: JSON and columns."""
    lengths = {
        name: [len(column), column.dtype.name] for name, column in sorted(state.columns.items())
    }
    blocks: list[list[Packed]] = [[]]
    room = _PLANES_BYTES
    for part in _parts(state.columns):
        if len(part.planes) > room and blocks[-1]:
            blocks.append([])
            room = _PLANES_BYTES
        blocks[-1].append(part)
        room -= len(part.planes)
    count = len(blocks)
    told: list[tuple[dict[str, Any], list[Packed]]] = [
        ({"key": [at, count]}, columns) for at, columns in enumerate(blocks)
    ]
    told[0][0].update(values=state.values, lengths=lengths)
    return told


def _parts(columns: Mapping[str, npt.NDArray[Any]]) -> Iterator[Packed]:
    for name, column in sorted(columns.items()):
        if column.dtype.name not in _TYPES or column.ndim != 1:
            raise TypeError(f"{name} of {column.dtype} and {column.ndim} dimensions is no column")
        signed = column.dtype.kind == "i"
        for begin in range(0, len(column), COUNT_MAX):
            values = column[begin : begin + COUNT_MAX]
            wide = values.astype(np.int64).view(np.uint64) if signed else values.astype(np.uint64)
            # Small negative numbers as well as rising ones are small differences.
            rising = signed or bool((wide[1:] >= wide[:-1]).all())
            told = packed(f"{name}@{begin}", wide, "delta" if rising else "plain")
            if told is not None:
                yield told


class KeyReader:
    """Puts a key together, block by block."""

    def __init__(self) -> None:
        self._values: Mapping[str, Any] = {}
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._next = -1
        self._planes = 0
        self._filled = 0
        self._bytes = 0

    def restart(self) -> None:
        """Forget what was taken: blocks are missing."""
        self._next = -1
        self._values, self._columns = {}, {}

    def take(self, body: Body) -> ModelState | None:
        """Take the next block; return the state when it is whole, None before or if it is not.

        Raise BadInputError at what cannot be a key.
        """
        try:
            at, count = (int(each) for each in body.told["key"])
            if at == 0:
                self._begin(body.told, count)
            elif at != self._next:
                # Its beginning, or a block within, could not be read.
                self._next = -1
                return None
            self._fill(body)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise BadInputError("a key tells no state", found=str(error)) from error
        self._next = at + 1
        if self._next < count:
            return None
        self._check_size(self._bytes, self._planes)
        state = ModelState(self._values, self._columns)
        self.restart()
        return state

    def _begin(self, told: Mapping[str, Any], count: int) -> None:
        self._values, self._columns = told["values"], {}
        self._planes = self._filled = 0
        lengths = {
            name: (int(length), str(type_)) for name, (length, type_) in told["lengths"].items()
        }
        for name, (length, type_) in lengths.items():
            if type_ not in _TYPES or length < 0:
                raise BadInputError("a key tells no state", found=f"{name}: {length} of {type_}")
        self._bytes = sum(length * np.dtype(type_).itemsize for length, type_ in lengths.values())
        # Zeros cost nothing until they are written to; what is, is bounded by what was read.
        self._check_size(self._bytes, min(count, _BLOCKS_MAX) * PLAIN_BYTES_MAX)
        try:
            self._columns = {
                name: np.zeros(length, dtype=type_) for name, (length, type_) in lengths.items()
            }
        except MemoryError as error:
            found = f"{self._bytes:,} bytes"
            raise BadInputError("a key tells of too large a state", found=found) from error

    @staticmethod
    def _check_size(size: int, planes: int) -> None:
        if size > _BYTES_PER_PLANE_BYTE * planes + _BYTES_BEYOND:
            found = f"{size:,} bytes in {planes:,}"
            raise BadInputError("a key tells of too large a state", found=found)

    def _fill(self, body: Body) -> None:
        for part in body.table.names():
            name, _, begin_text = part.rpartition("@")
            begin = int(begin_text)
            column = self._columns[name]
            count = body.table.count_of(part)
            if begin < 0 or begin + count > len(column):
                raise BadInputError("a key tells no state", found=f"{part} of {count}")
            self._planes += body.table.bytes_of(part)
            self._filled += count * column.itemsize
            self._check_size(self._filled, self._planes)
            values = body.table.values(part, count)
            column[begin : begin + count] = values.view(np.int64).astype(column.dtype)
