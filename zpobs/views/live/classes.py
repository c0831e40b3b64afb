"""The table of one pool's size classes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from zpobs.snapshot import PoolView
from zpobs.views.figures import (
    at_least,
    bounds,
    count,
    gauge,
    mark,
    rate,
    spark,
    status_span,
)
from zpobs.views.lines import Span
from zpobs.views.live.cells import floats, number
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Ints, Table, Values, records_of
from zpobs.views.live.view import OF_A_POOL, Screen, ViewState
from zpobs.views.scan import shares
from zpobs.waste import Waste, class_waste, class_wasted_least

# Of a copied row, the waste split at its end.
_WASTE_FIELDS = (
    "requested_bytes_low", "requested_bytes_high", "rounding_bytes_low", "rounding_bytes_high",
    "header_bytes", "tail_bytes", "free_slot_bytes", "descriptor_bytes",
)  # fmt: skip
FIELDS = (
    "index", "size", "status", "objs_per_zspage", "pages_per_zspage", "zspages", "pages", "objects",
    "capacity", "fullness", "freeable_pages", "allocs_per_s", "frees_per_s", *_WASTE_FIELDS,
)  # fmt: skip


def shown_pool(scene: Scene, state: ViewState) -> PoolView | None:
    """Return the pool that is drilled into, or that the screen is about; None if it is gone."""
    wanted = state.over_pool if state.screen in OF_A_POOL else state.pool
    return next((each for each in scene.snapshot.pools if each.id == wanted), None)


def watched_pool(scene: Scene, state: ViewState) -> PoolView | None:
    """Return the pool that the screen is about, None if it is about all of them."""
    everything = state.screen == Screen.EVENTS or state.depth == Screen.POOLS
    everything &= state.screen not in OF_A_POOL
    return None if everything else shown_pool(scene, state)


def classes_table(scene: Scene, state: ViewState) -> Table:
    """Return the classes in use of the pool that is drilled into, known by their index."""
    pool = shown_pool(scene, state)
    if pool is None:
        empty = np.zeros(0, dtype=np.int64)
        gone = "this pool is gone"
        return Table(empty, (), "waste", lambda _: empty != 0, lambda _: [], gone, FIELDS)
    return _Classes(scene, pool, ascii_only=state.ascii).table()


class _Classes:
    """One pool's classes: those that hold zspages, or in which something just happened."""

    def __init__(self, scene: Scene, pool: PoolView, *, ascii_only: bool) -> None:
        # Not the scene itself, which keeps what is made of it: no circle, it goes at once.
        self._activity, self._pool, self._ascii = scene.activity, pool, ascii_only
        self._kernel = scene.snapshot.kernel
        self._classes = pool.classes
        self._rates = scene.rates.get(pool.id)
        self._allocs, self._frees = self._by_class("allocs"), self._by_class("frees")
        self._shown: Ints = np.flatnonzero(
            (pool.classes.zspages > 0)
            | (np.nan_to_num(self._allocs) > 0)
            | (np.nan_to_num(self._frees) > 0)
        )
        self._wastes = cache(self._all_wastes)

    def table(self) -> Table:
        """Return the table."""
        shown, table = self._shown, self._classes
        statuses = [table.statuses[at] for at in shown.tolist()]
        columns = (
            Column("mark", "", 1, lambda row, _: mark(statuses[row])),
            self._number("class", "CLASS", 5, table.index, rank=0, rising=True),
            self._number("size", "SIZE", 5, table.size, rank=0, rising=True),
            self._number("zspages", "ZSPAGES", 7, table.zspages, rank=3),
            self._number("pages", "PAGES", 8, table.pages, rank=10),
            self._number("objects", "OBJECTS", 9, table.objects, rank=8),
            self._number("capacity", "CAPACITY", 9, table.capacity, rank=9),
            Column("used", "USED", 10, self._gauge, self._used, 1, left=True, widest=15),
            Column("groups", "FULLNESS", self._groups, self._fullness, None, 2, left=True),
            self._sure_waste(),
            self._number("freeable", "FREEABLE", 8, table.freeable_pages, rank=4),
            number("allocs", "ALLOC/s", 7, self._allocs[shown], rate, rank=5),
            number("frees", "FREE/s", 7, self._frees[shown], rate, rank=6),
            Column("activity", "ACTIVITY", 10, self._history, None, 7, left=True, widest=60),
            Column("requested", "REQUESTED", 20, self._requested, None, 11),
            Column("rounding", "ROUNDING", 18, self._rounding, None, 12),
            Column("status", "STATUS", 7, lambda row, _: status_span(statuses[row]), None, 13),
        )
        nothing = f"{self._pool.name} holds nothing: no size class is in use"
        return Table(
            table.index[shown],
            columns,
            "waste",
            self._fits,
            records_of(self._record),
            nothing,
            FIELDS,
        )

    @property
    def _groups(self) -> int:
        return max(int(self._classes.fullness.shape[1]), len("FULLNESS"))

    def _by_class(self, name: str) -> Values:
        by_class: Mapping[int, float] = self._rates.classes.get(name, {}) if self._rates else {}
        return floats([by_class.get(index) for index in self._classes.index.tolist()])

    def _number(
        self, name: str, title: str, width: int, values: Ints, *, rank: int, rising: bool = False
    ) -> Column:
        return number(name, title, width, values[self._shown], count, rank=rank, rising=rising)

    def _sure_waste(self) -> Column:
        least = class_wasted_least(self._classes, self._kernel)[self._shown]
        return number("waste", "WASTE>=", 9, least, at_least, rank=0)

    def _used(self) -> Values:
        used = self._classes.objects / np.maximum(self._classes.capacity, 1)
        return used[self._shown]

    def _gauge(self, row: int, width: int) -> Span:
        at = self._shown[row]
        table = self._classes
        used, room = int(table.objects[at]), int(table.zspages[at] * table.objs_per_zspage[at])
        return gauge(used, room, width, ascii_only=self._ascii), "bar"

    def _fullness(self, row: int, _: int) -> Span:
        return shares(self._classes.fullness[self._shown[row]].tolist()), ""

    def _history(self, row: int, width: int) -> Span:
        index = int(self._classes.index[self._shown[row]])
        activity = self._activity.get((self._pool.id, index), ())
        return spark(activity, width, ascii_only=self._ascii), "bar"

    def _all_wastes(self) -> list[Waste]:
        return class_waste(self._classes, self._kernel)

    def _requested(self, row: int, width: int) -> Span:
        return bounds(self._wastes()[self._shown[row]].requested, width), ""

    def _rounding(self, row: int, width: int) -> Span:
        return bounds(self._wastes()[self._shown[row]].rounding, width), ""

    def _fits(self, word: str) -> Bools:
        statuses = self._classes.statuses
        return np.array(
            [
                word in (str(index), str(size)) or statuses[at].startswith(word)
                for at, index, size in zip(
                    self._shown.tolist(),
                    self._classes.index[self._shown].tolist(),
                    self._classes.size[self._shown].tolist(),
                    strict=True,
                )
            ],
            dtype=bool,
        )

    def _record(self, row: int) -> dict[str, Any]:
        at, table = int(self._shown[row]), self._classes
        entry: dict[str, Any] = {
            "index": int(table.index[at]),
            "size": int(table.size[at]),
            "status": table.statuses[at],
            "objs_per_zspage": int(table.objs_per_zspage[at]),
            "pages_per_zspage": int(table.pages_per_zspage[at]),
            "zspages": int(table.zspages[at]),
            "pages": int(table.zspages[at] * table.pages_per_zspage[at]),
            "objects": int(table.objects[at]),
            "capacity": int(table.zspages[at] * table.objs_per_zspage[at]),
            "fullness": table.fullness[at].tolist(),
            "freeable_pages": int(table.freeable_pages[at]),
            "allocs_per_s": _known(self._allocs[at]),
            "frees_per_s": _known(self._frees[at]),
        }
        return entry | waste_record(self._wastes()[at])


def waste_record(waste: Waste) -> dict[str, Any]:
    """Return the parts of a waste split, flat."""
    requested, rounding = waste.requested, waste.rounding
    return {
        "requested_bytes_low": requested.low if requested else None,
        "requested_bytes_high": requested.high if requested else None,
        "rounding_bytes_low": rounding.low if rounding else None,
        "rounding_bytes_high": rounding.high if rounding else None,
        "header_bytes": waste.headers,
        "tail_bytes": waste.tail,
        "free_slot_bytes": waste.free_slots,
        "descriptor_bytes": waste.descriptors,
    }


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
