"""How the lines of a screen are shared out: header, table and footer."""

from __future__ import annotations

from dataclasses import dataclass

from zpobs.views.lines import Line
from zpobs.views.live import compaction, descriptors, pageblocks
from zpobs.views.live.header import header
from zpobs.views.live.listing import listing
from zpobs.views.live.scene import Scene
from zpobs.views.live.view import Screen, Size, ViewState

SMALLEST = Size(40, 10)
_TABLE_ROWS = 5
# The table's titles and the last line.
_FIXED = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """The lines around a table, and how many of its rows there is room for."""

    header: list[Line]
    above: list[Line]
    below: list[Line]
    rows: int


def too_small(size: Size) -> bool:
    """Tell whether a terminal has no room for a table."""
    return size.columns < SMALLEST.columns or size.rows < SMALLEST.rows


def layout(scene: Scene, state: ViewState, size: Size) -> Layout:
    """Share out the lines of a screen that is not too small."""
    above, below = _around(scene, state, size)
    room = size.rows - _FIXED - _TABLE_ROWS
    top = header(scene, state, size.columns, room - len(above))
    # What lies below is nothing that the table does not have.
    if len(top) + len(above) + len(below) > room:
        below = []
    used = len(top) + len(above) + len(below) + _FIXED
    return Layout(top, above, below, size.rows - used)


def _around(scene: Scene, state: ViewState, size: Size) -> tuple[list[Line], list[Line]]:
    if state.screen == Screen.COMPACTION:
        return compaction.above(scene, state, size.columns, size.rows), []
    if state.screen == Screen.PAGEBLOCKS:
        return pageblocks.above(scene, state, size.columns), []
    if state.screen != Screen.DESCRIPTORS:
        return [], []
    rows = listing(scene, state)
    page = rows.id_at(rows.row_of(state.place, tail=False))
    return (
        descriptors.above(scene, state, size.columns),
        descriptors.below(scene, state, page, size.columns),
    )


def body_rows(scene: Scene, state: ViewState, size: Size) -> int:
    """Return how many rows of the table are seen at a time."""
    return 1 if too_small(size) else layout(scene, state, size).rows


def scrolled(top: int, row: int, rows: int, page: int) -> int:
    """Return the first row to show so that the cursor's row is seen and no room is wasted."""
    top = min(max(top, row - page + 1), row)
    return max(min(top, rows - page), 0)
