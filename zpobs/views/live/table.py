"""Tables: columns of values that are sorted and filtered whole, and made text row by row.

Of a hundred thousand rows only those on the screen ever become text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zpobs.views.lines import Line, Span, filled, merged

Values = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_GAP = " "
_COMPARISON = re.compile(r"([a-z%/]+)(<=|>=|!=|=|<|>)(.+)")
_NUMBER = re.compile(r"(0x[0-9a-f]+|\d+(?:\.\d+)?)([kmgt]?)(?:i?b)?")
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


class FilterError(ValueError):
    """A filter that cannot be understood; its text is for the reader."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    ``text`` makes the cell of a row in so many cells of width. ``values`` has
    one value a row to sort and filter by: numbers, NaN where not known, or
    strings; None if that makes no sense. ``rank``: the higher, the earlier the
    column is left out; 0 never. ``rising`` is its natural order, else the most
    comes first. ``grows`` takes the width that is left over, up to ``widest``.
    """

    name: str
    title: str
    width: int
    text: Callable[[int, int], Span]
    values: Callable[[], Values] | None = None
    rank: int = 0
    left: bool = False
    rising: bool = False
    widest: int = 0


@dataclass(frozen=True, slots=True)
class Table:
    """What one screen lists.

    ``ids`` is the identity of each row. ``fits`` tells which rows a word of a
    filter fits, ``records`` gives the values of some rows for export, and ``nothing`` is
    what to say if there are no rows. ``fields`` names the values of a record, in
    their order, which must be known where there is none.
    """

    ids: Values
    columns: tuple[Column, ...]
    sort: str
    fits: Callable[[str], Bools]
    records: Callable[[Ints], list[dict[str, Any]]]
    nothing: str
    fields: tuple[str, ...]

    def column(self, name: str) -> Column | None:
        """Return a column by name."""
        return next((each for each in self.columns if each.name == name), None)

    @property
    def sorts(self) -> tuple[str, ...]:
        """The columns that rows can be sorted by, in the order in which keys go through them."""
        return tuple(each.name for each in self.columns if each.values is not None)


def records_of(record: Callable[[int], dict[str, Any]]) -> Callable[[Ints], list[dict[str, Any]]]:
    """Return what makes records of rows one by one: for tables that are never long."""
    return lambda rows: [record(row) for row in rows.tolist()]


def sorted_rows(table: Table, name: str, *, reverse: bool) -> Ints:
    """Return the rows in order; equals stay as they stand, what is not known comes last."""
    column = table.column(name) or table.column(table.sort)
    if column is None or column.values is None:
        return np.arange(len(table.ids))
    values = column.values()
    known = np.arange(len(values))
    unknown = known[:0]
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        known, unknown = np.flatnonzero(~missing), np.flatnonzero(missing)
    if column.rising != reverse:
        order = np.argsort(values[known], kind="stable")
    else:
        # Sorted backwards from behind, so that equals keep their order.
        order = len(known) - 1 - np.argsort(values[known][::-1], kind="stable")[::-1]
    return np.concatenate([known[order], unknown])


def fitting(table: Table, text: str) -> Bools:
    """Tell which rows a filter lets through: all of its words must fit.

    A word is ``column<number`` (with < <= > >= = != and k, m, g for binary
    units) or anything that the table itself looks for.
    """
    fits = np.ones(len(table.ids), dtype=bool)
    for word in text.lower().split():
        found = _COMPARISON.fullmatch(word)
        fits &= _compared(table, *found.groups()) if found else table.fits(word)
    return fits


def _compared(table: Table, name: str, sign: str, wanted: str) -> Bools:
    column = table.column(name)
    if column is None or column.values is None:
        raise FilterError(f"no column is called {name}: there are {', '.join(table.sorts)}")
    values = column.values()
    if values.dtype.kind == "U":
        if sign not in ("=", "!="):
            raise FilterError(f"{name} is no number: use {name}= or {name}!=")
        return np.asarray(_OPERATORS[sign](values, wanted), dtype=bool)
    number = _NUMBER.fullmatch(wanted)
    if number is None:
        raise FilterError(f"{wanted} is no number")
    digits, unit = number.groups()
    power = 1 << 10 * " kmgt".index(unit or " ")
    value = int(digits, 16) if digits.startswith("0x") else float(digits) * power
    fits = np.asarray(_OPERATORS[sign](values, value), dtype=bool)
    return fits & ~np.isnan(values) if values.dtype.kind == "f" else fits


def chosen_columns(table: Table, columns: int) -> list[tuple[Column, int]]:
    """Return the columns that fit, and their widths."""
    kept = list(table.columns)
    while len(kept) > 1 and sum(each.width + len(_GAP) for each in kept) - len(_GAP) > columns:
        worst = max(each.rank for each in kept)
        if worst == 0:
            break
        del kept[max(at for at, each in enumerate(kept) if each.rank == worst)]
    spare = max(columns - sum(each.width + len(_GAP) for each in kept) + len(_GAP), 0)
    widths = []
    for each in kept:
        more = min(spare, max(each.widest - each.width, 0))
        spare -= more
        widths.append((each, each.width + more))
    return widths


def title_line(
    widths: list[tuple[Column, int]], columns: int, *, sort: str, falls: bool, ascii_only: bool
) -> Line:
    """Return the line above a table; an arrow marks the column that it is sorted by."""
    arrow = ("v" if falls else "^") if ascii_only else ("↓" if falls else "↑")
    cells = []
    for column, width in widths:
        title = column.title[:width]
        # A title that fills its column has its arrow in the gap behind it, or at the end of
        # the line in that before it.
        last, full = column is widths[-1][0], len(title) == width
        if column.name != sort:
            cells.append(_padded(title, width, column) + _GAP)
        elif full and last and cells:
            cells[-1] = cells[-1][:-1] + arrow
            cells.append(title)
        elif full:
            cells.append(title + arrow)
        else:
            cells.append(_padded(title + arrow, width, column) + _GAP)
    return merged(filled((("".join(cells).rstrip(), "head"),), columns, "head"))


def _padded(text: str, width: int, column: Column) -> str:
    return text.ljust(width) if column.left else text.rjust(width)


def row_line(widths: list[tuple[Column, int]], row: int, columns: int, *, at_cursor: bool) -> Line:
    """Return the line of one row."""
    spans: list[Span] = []
    for column, width in widths:
        text, role = column.text(row, width)
        short = text if len(text) <= width else text[: width - 1] + ">"
        cell = _padded(short, width, column)
        spans += [(_GAP, "cursor" if at_cursor else "")] if spans else []
        spans.append((cell, "cursor" if at_cursor else role))
    return merged(filled(tuple(spans), columns, "cursor" if at_cursor else ""))
