"""Columns for tables: values by row, and what their cells show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from zpobs.snapshot import PoolView, Status
from zpobs.views.lines import Span
from zpobs.views.live.table import Column, Values

Show = Callable[[float | None, int], str]


def number(
    name: str,
    title: str,
    width: int,
    values: Values,
    show: Show,
    *,
    rank: int,
    rising: bool = False,
) -> Column:
    """Return a column of numbers, NaN where not known."""

    def text(row: int, wide: int) -> Span:
        value = values[row]
        return show(None if value != value else value.item(), wide), ""  # noqa: PLR0124

    return Column(name, title, width, text, lambda: values, rank, rising=rising)


def words(
    name: str, title: str, width: int, values: Sequence[str], *, rank: int, role: str = ""
) -> Column:
    """Return a column of words."""
    return Column(
        name,
        title,
        width,
        lambda row, _: (values[row], role),
        lambda: np.array(values, dtype=np.str_),
        rank,
        left=True,
        rising=True,
    )


class _Told(Protocol):
    """What was told of a pool, if it was asked for: how far it is known, and why no further."""

    @property
    def status(self) -> Status: ...

    @property
    def reasons(self) -> tuple[str, ...]: ...


def why_nothing(
    pools: Sequence[PoolView], told: Sequence[_Told], *, not_asked: str, waiting: str
) -> str:
    """Return what to say where a table of what was told of pools has no row."""
    if not told:
        return not_asked if pools else "no pool is there"
    if all(each.status == "unknown" for each in told):
        return f"unknown: {'; '.join(told[0].reasons)}"
    return waiting


def floats(values: Sequence[float | None]) -> Values:
    """Return numbers as an array, NaN for None."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
