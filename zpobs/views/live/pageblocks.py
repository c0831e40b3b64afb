"""The map of pageblocks: which ones hold a pool's pages, of what migratetype, how full they are."""

from __future__ import annotations

from typing import Any

import numpy as np

from zpobs.pageblocks import FILLS, UNKNOWN, Pageblocks
from zpobs.views.figures import count
from zpobs.views.lines import Line, Part, Span, cut, joined
from zpobs.views.live.cells import number
from zpobs.views.live.classes import shown_pool
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Ints, Table, records_of
from zpobs.views.live.view import ViewState

FIELDS = ("first_frame", "blocks", "pages", "types", "held_pages")
# Blocks of a line of the map, and characters of each: its letter and how full it is.
_CELLS = 32
_CELL = 2
_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "12345678"


def shown_blocks(scene: Scene, state: ViewState) -> Pageblocks | None:
    """Return the blocks of the pool that the screen is about, None if they were not read yet."""
    return None if state.over_pool is None else scene.blocks.get(state.over_pool)


def pageblocks_table(scene: Scene, state: ViewState) -> Table:
    """Return the lines of the map that hold anything, known by their place in memory."""
    blocks = shown_blocks(scene, state)
    if blocks is None:
        return _Map(None, ascii_only=state.ascii).table(_nothing(scene, state))
    return _Map(blocks, ascii_only=state.ascii).table("no page of this pool is in any block")


def _nothing(scene: Scene, state: ViewState) -> str:
    if shown_pool(scene, state) is None:
        return "this pool is gone"
    return scene.blocks_problem or "reading pageblocks ..."


class _Map:
    """Lines of so many blocks each; those in which nothing lies are left out."""

    def __init__(self, blocks: Pageblocks | None, *, ascii_only: bool) -> None:
        self._order = blocks.order if blocks else 0
        self._levels = _ASCII_LEVELS if ascii_only else _LEVELS
        empty = np.zeros(0, dtype=np.int64)
        self._number: Ints = blocks.table.number if blocks else empty
        self._pages: Ints = blocks.table.pages if blocks else empty
        self._types = blocks.table.types if blocks else ()
        self._lines, self._begin = np.unique(self._number // _CELLS, return_index=True)
        self._end = np.append(self._begin[1:], len(self._number)).astype(np.int64)

    def table(self, nothing: str) -> Table:
        """Return the table; ``nothing`` is what to say if it is empty."""
        frames = self._lines * _CELLS << self._order
        pages = np.array([self._pages[self._own(row)].sum() for row in self._rows], dtype=np.int64)
        columns = (
            number("frame", "FRAME", self._frame_width, frames, _plain, rank=0, rising=True),
            Column("map", "MAP", _CELL * 8, self._cells, None, 0, left=True, widest=_CELL * _CELLS),
            number("pages", "PAGES", 6, pages, count, rank=1),
        )
        records = records_of(self._record)
        return Table(self._lines, columns, "frame", self._fits, records, nothing, FIELDS)

    @property
    def _frame_width(self) -> int:
        highest = int(self._lines[-1]) if len(self._lines) else 0
        return max(len(str(highest * _CELLS << self._order)), 8)

    @property
    def _rows(self) -> range:
        return range(len(self._lines))

    def _own(self, row: int) -> slice:
        return slice(int(self._begin[row]), int(self._end[row]))

    def _cells(self, row: int, width: int) -> Span:
        cells = ["· " if self._levels is _LEVELS else ". "] * _CELLS
        own = self._own(row)
        columns = (self._number[own] % _CELLS, self._pages[own])
        rows = zip(*(column.tolist() for column in columns), self._types[own], strict=True)
        for at, pages, kind in rows:
            eighth = min(-(-pages * FILLS >> self._order), FILLS)
            cells[at] = letter(kind) + self._levels[max(eighth, 1) - 1]
        shown = "".join(cells)
        return (shown if len(shown) <= width else shown[: width - 1] + ">"), ""

    def _fits(self, word: str) -> Bools:
        """Tell in which lines there is a block whose type begins like that."""
        kinds = (self._types[self._own(row)] for row in self._rows)
        return np.array([any(kind.startswith(word) for kind in own) for own in kinds], dtype=bool)

    def _record(self, row: int) -> dict[str, Any]:
        own = self._own(row)
        return {
            "first_frame": int(self._lines[row]) * _CELLS << self._order,
            "blocks": (self._number[own] % _CELLS).tolist(),
            "pages": int(self._pages[own].sum()),
            "types": list(self._types[own]),
            "held_pages": self._pages[own].tolist(),
        }


def _plain(value: float | None, _: int) -> str:
    return "-" if value is None else f"{value:.0f}"


def letter(kind: str) -> str:
    """Return the letter of a migratetype: its first, ? where not known."""
    return "?" if kind == UNKNOWN else kind[0].upper()


def above(scene: Scene, state: ViewState, columns: int) -> list[Line]:
    """Return the sums, and what the letters and signs mean."""
    blocks = shown_blocks(scene, state)
    if blocks is None:
        return []
    held = f"{blocks.pages:,} pages in {len(blocks.table.number):,} blocks of {1 << blocks.order:,}"
    made = blocks.made_unmovable()
    first: list[Part] = [(0, ((held, "title"),))]
    if blocks.unplaced:
        first.append((1, ((f"{blocks.unplaced:,} pages elsewhere", "warn"),)))
    if made is not None:
        role = "warn" if made[0] else "good"
        noun = "block" if made[0] == 1 else "blocks"
        first.append((0, (("made unmovable ", "dim"), (f"{made[0]:,} {noun}", role))))
    kinds: list[Part] = []
    for rank, (kind, (number_of, _)) in enumerate(blocks.by_type().items()):
        kinds.append((rank, ((letter(kind), "key"), (f" {kind} {number_of:,}", ""))))
    lines = [joined(first, columns), joined(kinds, columns)]
    if blocks.why_unknown:
        lines.append(cut(((blocks.why_unknown, "warn"),), columns))
    return [line for line in lines if line]
