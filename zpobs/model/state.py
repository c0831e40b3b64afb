"""The whole state of a model as numbers: columns by name, and a few single values.

A column is named ``table.column``; the columns of a table are as long as each other. Each part
of the model writes its tables with a :class:`StateWriter` and takes them back from a
:class:`StateReader`, which trusts nothing: states come from files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from zpobs.errors import StateError
from zpobs.model.arrays import I64

Column = npt.NDArray[Any]
Columns = Mapping[str, Column]

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Kind = TypeVar("_Kind")
# What is put for the serial of a pool where there is none.
NO_POOL = -1


@dataclass(frozen=True, slots=True)
class ModelState:
    """All that a model knows. ``values`` is plain JSON, ``columns`` are whole numbers or bools.

    docs/model-state.md says what each of them is.
    """

    values: Mapping[str, Any]
    columns: Columns


class StateWriter:
    """Gathers a state."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._columns: dict[str, Column] = {}

    def table(self, table: str, columns: Mapping[str, Column]) -> None:
        """Add the columns of a table."""
        for name, column in columns.items():
            kept = np.array(column)
            kept.setflags(write=False)
            self._columns[f"{table}.{name}"] = kept

    def rows(self, table: str, kinds: Mapping[str, npt.DTypeLike], rows: list[Any]) -> None:
        """Add a table of few rows, each a tuple of its columns."""
        columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
        self.table(
            table,
            {
                name: np.array(column, dtype=kind)
                for (name, kind), column in zip(kinds.items(), columns, strict=True)
            },
        )

    def value(self, name: str, value: Any) -> None:
        """Add a value: None, or an int, bool or string, or lists and dicts with string keys."""
        self._values[name] = value

    def state(self) -> ModelState:
        """Return what was gathered."""
        return ModelState(self._values, self._columns)


class StateReader:
    """Hands out the parts of a state; raises StateError where it is not what it should be."""

    def __init__(self, state: ModelState) -> None:
        self._state = state
        self._taken: set[str] = set()

    def table(
        self, table: str, kinds: Mapping[str, npt.DTypeLike], *, apart: Iterable[str] = ()
    ) -> dict[str, Column]:
        """Return copies of all columns of a table, of these kinds and all as long as the first.

        Those ``apart`` have lengths of their own.
        """
        found = {name: self._column(f"{table}.{name}", kind) for name, kind in kinds.items()}
        lengths = {name: len(column) for name, column in found.items() if name not in set(apart)}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise StateError(f"the columns of {table} are not equally long", found=told)
        return found

    def rows(self, table: str, kinds: Mapping[str, npt.DTypeLike], *, keys: int) -> list[Any]:
        """Return a table of few rows as tuples; no two may be alike in their first columns."""
        columns = list(self.table(table, kinds).values())
        check(not keys or distinct(*columns[:keys]), table)
        return list(zip(*(column.tolist() for column in columns), strict=True))

    def _column(self, name: str, kind: npt.DTypeLike) -> Column:
        column = self._state.columns.get(name)
        if column is None:
            raise StateError(f"the model's state has no column {name}")
        self._taken.add(name)
        if column.ndim != 1 or column.dtype.kind not in "biu":
            found = f"{column.ndim} dimensions of {column.dtype}"
            raise StateError(f"the column {name} is no list of whole numbers", found=found)
        dtype = np.dtype(kind)
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if len(column) and dtype != column.dtype:
            check(int(column.min()) >= low and int(column.max()) <= high, name)
        return column.astype(dtype)

    def value(self, name: str, kind: type[_Kind]) -> _Kind:
        """Return a value of the state itself."""
        self._taken.add(name)
        return member(self._state.values, name, kind)

    def optional(self, name: str, kind: type[_Kind]) -> _Kind | None:
        """Return a value that may be None."""
        self._taken.add(name)
        if name in self._state.values and self._state.values[name] is None:
            return None
        return member(self._state.values, name, kind)

    def finish(self) -> None:
        """Raise StateError if anything is in the state that nothing asked for."""
        others = sorted({*self._state.columns, *self._state.values} - self._taken)
        if others:
            raise StateError("the model's state has what is not known", found=", ".join(others))


def check(fine: bool | np.bool_, what: str) -> None:
    """Raise StateError, naming what has values that cannot be, unless it is fine."""
    if not fine:
        raise StateError(f"the model's state has values that cannot be: {what}")


def member(values: Mapping[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    """Return a member of an object if it is of that kind; no int may be below 0."""
    value = values.get(name) if isinstance(values, Mapping) else None
    # A bool is an int to Python.
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise StateError(f"the model's state has no {name} that can be", found=repr(value)[:40])
    check(not isinstance(value, int) or value >= 0, name)
    return value


def texts(values: Sequence[Any], name: str) -> tuple[str, ...]:
    """Return strings, or raise StateError if there is anything else among them."""
    check(all(isinstance(each, str) for each in values), name)
    return tuple(values)


def distinct(*columns: Column) -> bool:
    """Tell whether no two rows of a table are alike, shape (n,) each; the columns are keys."""
    if len(columns[0]) < 2:
        return True
    if len(columns) == 1:
        ordered = np.sort(columns[0])
        return bool((ordered[1:] != ordered[:-1]).all())
    order = np.lexsort(columns)
    same = np.ones(len(order) - 1, dtype=bool)
    for column in columns:
        ordered = column[order]
        same &= ordered[1:] == ordered[:-1]
    return not same.any()


def rows_of_any(cells: npt.NDArray[_Scalar]) -> I64:
    """Return which rows of a matrix hold anything but zeros, shape (n,)."""
    return np.flatnonzero(cells.reshape(len(cells), -1).any(axis=1))
