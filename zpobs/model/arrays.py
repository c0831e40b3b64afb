"""Array types of the model, growth, and free lists of small integers."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_Scalar = TypeVar("_Scalar", bound=np.generic)


def grown_length(length: int, need: int) -> int:
    """Return the length that an array of ``length`` grows to when it must hold ``need``.

    An eighth more than before: copying stays linear in what was ever stored,
    and a full array is never more than an eighth empty.
    """
    return max(need, length + length // 8, 64)


def grown(array: npt.NDArray[_Scalar], length: int) -> npt.NDArray[_Scalar]:
    """Return a copy of ``array`` (length along axis 0) with zeros behind it."""
    shape = (length, *array.shape[1:])
    out = np.zeros(shape, dtype=array.dtype)
    out[: len(array)] = array
    return out


def rising(time_ns: U64) -> bool:
    """Tell whether no time is before the one in front of it."""
    return bool((time_ns[1:] >= time_ns[:-1]).all())


def unique_sorted(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the distinct values in rising order, with few calls whatever their number."""
    if len(values) < 2:
        return values
    values = np.sort(values)
    first = np.empty(len(values), dtype=bool)
    first[0] = True
    np.not_equal(values[1:], values[:-1], out=first[1:])
    return values[first]


class FreeList:
    """Numbers that can be given out again, newest first; new ones come from a rising count.

    ``end`` is one more than the highest number ever given out.
    """

    def __init__(self, start: int) -> None:
        self.end = start
        self._free: U32 = np.zeros(64, dtype=np.uint32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self._free.nbytes

    def take(self, count: int) -> U32:
        """Give out ``count`` numbers, shape (count,)."""
        reused = min(count, self._count)
        out = np.empty(count, dtype=np.uint32)
        out[:reused] = self._free[self._count - reused : self._count]
        self._count -= reused
        out[reused:] = np.arange(self.end, self.end + count - reused, dtype=np.uint32)
        self.end += count - reused
        return out

    def give(self, numbers: U32) -> None:
        """Take numbers back, shape (n,)."""
        need = self._count + len(numbers)
        if need > len(self._free):
            self._free = grown(self._free, grown_length(len(self._free), need))
        self._free[self._count : need] = numbers
        self._count = need
