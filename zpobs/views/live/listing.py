"""Which rows a screen lists, in which order: the same for drawing, for keys and for export."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from zpobs.views.live.classes import classes_table
from zpobs.views.live.compaction import compaction_table
from zpobs.views.live.descriptors import descriptors_table
from zpobs.views.live.events import events_table
from zpobs.views.live.latency import latency_table
from zpobs.views.live.life import life_table
from zpobs.views.live.migration import migration_table
from zpobs.views.live.objects import objects_table, pins_table
from zpobs.views.live.pageblocks import pageblocks_table
from zpobs.views.live.pools import pools_table
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import FilterError, Ints, Table, fitting, sorted_rows
from zpobs.views.live.view import Place, Screen, ViewState
from zpobs.views.live.zspages import zspages_table


@dataclass(frozen=True, slots=True)
class Listing:
    """A table, and the rows of it that are shown, in order.

    ``problem`` says why a filter was not understood; then all rows are there.
    """

    table: Table
    order: Ints
    problem: str = ""

    def row_of(self, place: Place, *, tail: bool) -> int:
        """Return where the cursor stands among the rows, 0 if there are none."""
        last = max(len(self.order) - 1, 0)
        if place.cursor is None:
            return last if tail else 0
        found = np.flatnonzero(self.table.ids[self.order] == place.cursor)
        return int(found[0]) if len(found) else min(place.row, last)

    def id_at(self, row: int) -> int | None:
        """Return the identity of the row at a place, None if there is none."""
        return int(self.table.ids[self.order[row]]) if 0 <= row < len(self.order) else None


def listing(scene: Scene, state: ViewState) -> Listing:
    """Return what the present screen lists.

    Sorting many rows takes time, so the scene keeps it: being frozen, it always
    gives the same.
    """
    place, text = state.place, _filter_of(state)
    key = (
        state.screen, state.depth, state.pool, state.over_pool, state.class_index, state.zspage,
        place.sort, place.reverse, text, state.ascii,
    )  # fmt: skip
    made: Listing | None = scene.memo.get(key)
    if made is None:
        made = _listing(scene, state, text)
        scene.memo.keep(key, made)
    return made


def _filter_of(state: ViewState) -> str:
    return state.place.filter if state.typing is None else state.typing


def _listing(scene: Scene, state: ViewState, text: str) -> Listing:
    table = table_of(scene, state)
    order = sorted_rows(table, state.place.sort or table.sort, reverse=state.place.reverse)
    try:
        return Listing(table, order[fitting(table, text)[order]])
    except FilterError as error:
        return Listing(table, order, str(error))


_TABLES: Mapping[Screen, Callable[[Scene, ViewState], Table]] = {
    Screen.POOLS: pools_table,
    Screen.CLASSES: classes_table,
    Screen.ZSPAGES: zspages_table,
    Screen.DESCRIPTORS: descriptors_table,
    Screen.EVENTS: events_table,
    Screen.MIGRATION: migration_table,
    Screen.LATENCY: latency_table,
    Screen.LIFE: life_table,
    Screen.COMPACTION: compaction_table,
    Screen.OBJECTS: objects_table,
    Screen.PINS: pins_table,
    Screen.PAGEBLOCKS: pageblocks_table,
}


def table_of(scene: Scene, state: ViewState) -> Table:
    """Return the present screen's table."""
    return _TABLES[state.screen](scene, state)
