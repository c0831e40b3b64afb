"""A table of integer columns as bytes, and back.

A column is written byte plane by byte plane: the lowest byte of every value, then the second
of every value, up to the highest byte that any value needs. Planes of small numbers are small,
and those that hardly change all but vanish when they are compressed. What stands in the planes
is the value itself or, by the column's transform, how it differs from another:

    plain      the value
    delta      the difference to the value before it, "base" before the first
    previous   the difference to the value before it of the same subject, 0 before the first

Differences are modulo 2^64 and zigzag-coded: 0, -1, 1, -2, 2 are 0, 1, 2, 3, 4. A column in
which every value is 0 has no planes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from zpobs.errors import BadInputError

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Transform = Literal["plain", "delta", "previous"]

# Values that a column has at most; a column of which nothing stands in planes takes memory, too.
COUNT_MAX = 1 << 18

_WORD_BYTES = 8
_ONE = np.uint64(1)
_TOP = np.uint64(63)


@dataclass(frozen=True, slots=True)
class Column:
    """One column as it is told in a body: ``width`` planes of ``count`` bytes each.

    ``base`` is what the first value of a "delta" differs from.
    """

    name: str
    transform: Transform
    width: int
    count: int
    base: int = 0

    def to_json(self) -> list[Any]:
        """Return its description."""
        return [self.name, self.transform, self.width, self.count, self.base]

    @classmethod
    def of(cls, told: object) -> Column:
        """Return the column that a description tells; raise BadInputError if it is none."""
        match told:
            case [str(name), str(transform), int(width), int(count), int(base)] if (
                transform in ("plain", "delta", "previous")
                and 0 <= width <= _WORD_BYTES
                and 0 <= count <= COUNT_MAX
                and 0 <= base < 1 << 64
            ):
                return cls(name, cast(Transform, transform), width, count, base)
        raise BadInputError("a block tells of a column that cannot be", found=repr(told)[:80])


@dataclass(frozen=True, slots=True)
class Packed:
    """A column with its planes."""

    column: Column
    planes: bytes

    def as_previous(self) -> Packed:
        """Return it as differences to the value before of the same subject."""
        return Packed(replace(self.column, transform="previous"), self.planes)


def zigzag(values: U64) -> U64:
    """Return differences as small numbers, whatever their sign."""
    return (values << _ONE) ^ (np.uint64(0) - (values >> _TOP))


def unzigzag(values: U64) -> U64:
    """Return the differences that :func:`zigzag` made small."""
    return (values >> _ONE) ^ (np.uint64(0) - (values & _ONE))


def differences(values: U64) -> U64:
    """Return by how much each value differs from the one before it, the first from itself."""
    out = np.empty_like(values)
    out[:1] = 0
    np.subtract(values[1:], values[:-1], out=out[1:])
    return zigzag(out)


def by_subject(subject: U64) -> I64:
    """Return the order in which values of equal subject stand together, each as they came.

    ``subject`` holds ordinals, shape (n,), n at most 2^16.
    """
    # Of 16 bits by radix: ten times as fast as sorting words.
    return np.argsort(subject.astype(np.uint16), kind="stable")


def starts_of(subject: U64) -> I64:
    """Return where each new subject begins, of subjects that stand together."""
    first = np.empty(len(subject), dtype=bool)
    first[:1] = True
    np.not_equal(subject[1:], subject[:-1], out=first[1:])
    return np.flatnonzero(first)


def packed(name: str, values: U64, transform: Transform = "plain") -> Packed | None:
    """Return a column, shape (n,), in planes; None if every value is 0.

    The differences of "previous" are the caller's to make, with :func:`previous`.
    """
    base = 0
    if transform == "delta" and len(values):
        base = int(values[0])
        values = differences(values)
    highest = int(np.bitwise_or.reduce(values)) if len(values) else 0
    width = -(-highest.bit_length() // 8)
    if width == 0 and base == 0:
        return None
    little = values.astype("<u8", copy=False)
    by_byte = np.ascontiguousarray(little).view(np.uint8).reshape(-1, _WORD_BYTES)
    planes = np.ascontiguousarray(by_byte[:, :width].T).tobytes()
    return Packed(Column(name, transform, width, len(values), base), planes)


def previous(values: U64, order: I64, starts: I64) -> U64:
    """Return by how much each value differs from the one before it of its subject, as they came."""
    ordered = values[order]
    changed = np.empty_like(ordered)
    np.subtract(ordered[1:], ordered[:-1], out=changed[1:])
    changed[starts] = ordered[starts]
    out = np.empty_like(ordered)
    out[order] = zigzag(changed)
    return out


def summed_by_subject(coded: U64, order: I64, starts: I64) -> U64:
    """Return the values of which :func:`previous` gave the differences."""
    changed = unzigzag(coded)[order]
    total = np.cumsum(changed, dtype=np.uint64)
    # What had been summed up when a subject began is none of its own.
    before = total[starts] - changed[starts]
    lengths = np.diff(starts, append=len(changed))
    out = np.empty_like(total)
    out[order] = total - np.repeat(before, lengths)
    return out


def summed(coded: U64, base: int) -> U64:
    """Return the values of which "delta" gave the differences."""
    return np.cumsum(unzigzag(coded), dtype=np.uint64) + np.uint64(base)


class Table:
    """The columns of one body, by name; what is not there is 0.

    ``count`` of a column that is not there is the asker's.
    """

    def __init__(self, columns: Sequence[Column], data: memoryview) -> None:
        self._at: dict[str, tuple[Column, int]] = {}
        self._data = data
        at = 0
        for column in columns:
            self._at[column.name] = column, at
            at += column.width * column.count
        if at != len(data):
            raise BadInputError(
                "a block holds not what it tells", found=f"{len(data)} bytes of {at}"
            )
        if len(self._at) != len(columns):
            raise BadInputError("a block tells of a column twice", found="")

    def has(self, name: str) -> bool:
        """Return whether any value of a column is other than 0."""
        return name in self._at

    def names(self) -> Iterable[str]:
        """Return the names of the columns that are there."""
        return self._at.keys()

    def coded(self, name: str, count: int) -> tuple[U64, Transform]:
        """Return what stands in a column, shape (count,), and how it is to be understood."""
        found = self._at.get(name)
        if found is None:
            return np.zeros(count, dtype=np.uint64), "plain"
        column, at = found
        if column.count != count:
            raise BadInputError(
                "a column of a block has a wrong length",
                found=f"{name} of {column.count}, not {count}",
            )
        planes = np.frombuffer(
            self._data, dtype=np.uint8, count=column.width * count, offset=at
        ).reshape(column.width, count)
        wide = np.zeros((count, _WORD_BYTES), dtype=np.uint8)
        wide[:, : column.width] = planes.T
        return wide.view("<u8").reshape(-1).astype(np.uint64, copy=False), column.transform

    def values(self, name: str, count: int) -> U64:
        """Return the values of a column that is plain or tells differences to the one before."""
        coded, transform = self.coded(name, count)
        if transform == "previous":
            raise BadInputError("a column of a block needs a subject", found=name)
        return summed(coded, self._at[name][0].base) if transform == "delta" else coded

    def count_of(self, name: str) -> int:
        """Return how many values a column has, 0 if it is not there."""
        found = self._at.get(name)
        return found[0].count if found else 0

    def bytes_of(self, name: str) -> int:
        """Return how many bytes the planes of a column have, 0 if it is not there."""
        found = self._at.get(name)
        return found[0].count * found[0].width if found else 0
