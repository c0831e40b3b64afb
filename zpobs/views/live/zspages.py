"""The table of one size class's zspages: a hundred thousand rows stay columns."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from zpobs.snapshot import ZspageTable
from zpobs.views.figures import UNKNOWN, age, count, gauge
from zpobs.views.lines import Span
from zpobs.views.live.cells import number
from zpobs.views.live.classes import shown_pool
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, FilterError, Ints, Table, Values
from zpobs.views.live.view import ViewState

_HEX = re.compile(r"(0x)?([0-9a-f]+)")
_STATES = ("huge", "locked", "isolated")
# Of a copied row.
FIELDS = (
    "address", "class", "inuse", "fullness", "huge", "pfns", "first_seen_ns", "last_seen_ns",
    "freeobj", "locked", "isolated", "born", "nodes", "objs_per_zspage",
)  # fmt: skip


def listed_zspages(scene: Scene, state: ViewState) -> ZspageTable | None:
    """Return the zspages of the class that is drilled into, None if they were not listed yet.

    A scene that was made for an earlier question may list another class's.
    """
    pool = shown_pool(scene, state)
    if pool is None or pool.zspage_list is None:
        return None
    table = pool.zspage_list
    own = table.class_index == state.class_index
    if own.all() and len(own):
        return table
    if own.any():
        return table.take(np.flatnonzero(own))
    held = pool.classes.zspages[pool.classes.index == state.class_index]
    return None if held.any() else table.take(np.zeros(0, dtype=np.int64))


def zspages_table(scene: Scene, state: ViewState) -> Table:
    """Return the zspages of a class as a table, known by their addresses."""
    table = listed_zspages(scene, state)
    if table is None:
        empty = np.zeros(0, dtype=np.uint64)
        nothing = f"reading the zspages of class {state.class_index} ..."
        return Table(empty, (), "fill", lambda _: empty != 0, lambda _: [], nothing, FIELDS)
    pool = shown_pool(scene, state)
    objs = 0
    if pool is not None:
        found = pool.classes.objs_per_zspage[pool.classes.index == state.class_index]
        objs = int(found[0]) if len(found) else 0
    return _Zspages(table, objs, scene.snapshot.mono_ns, ascii_only=state.ascii).table(
        f"class {state.class_index} holds no zspages now"
    )


class _Zspages:
    """One class's zspages, ``objs`` objects each, at an instant."""

    def __init__(self, table: ZspageTable, objs: int, now_ns: int, *, ascii_only: bool) -> None:
        self._table, self._objs, self._now_ns, self._ascii = table, objs, now_ns, ascii_only

    def table(self, nothing: str) -> Table:
        """Return the table; ``nothing`` is what to say if it is empty."""
        table = self._table
        columns = (
            Column(
                "address",
                "ADDRESS",
                18,
                self._address,
                lambda: table.address,
                left=True,
                rising=True,
            ),
            Column("inuse", "INUSE/OBJS", 10, self._inuse, lambda: table.inuse, rising=True),
            Column(
                "fill", "FILL", 10, self._gauge, self._used, 1, left=True, rising=True, widest=21
            ),
            number("group", "GROUP", 5, table.fullness, count, rank=2, rising=True),
            Column("free", "FREE", 5, self._free, self._free_values, 7, rising=True),
            Column("state", "STATE", 8, self._state, self._state_values, 4, left=True, widest=18),
            Column("age", "AGE", 9, self._age, lambda: self._seconds(table.first_seen_ns), 3),
            Column("changed", "CHANGED", 9, self._changed, self._changes, 6, rising=True),
            Column("node", "NODE", 4, self._nodes, self._node_values, 5, rising=True),
            Column("frames", "FRAMES", 10, self._frames, None, 8, left=True, widest=90),
        )
        return Table(table.address, columns, "fill", self._fits, self._records, nothing, FIELDS)

    def _seconds(self, since_ns: Values) -> Values:
        # Times are unsigned: a zspage can be newer than the clock that was read first.
        seconds: Values = (self._now_ns - since_ns.astype(np.int64)) / 1e9
        return np.maximum(seconds, 0)

    def _address(self, row: int, _: int) -> Span:
        return f"{int(self._table.address[row]):#x}", ""

    def _inuse(self, row: int, _: int) -> Span:
        return f"{int(self._table.inuse[row]):,}/{self._objs or UNKNOWN}", ""

    def _used(self) -> Values:
        used: Values = self._table.inuse / max(self._objs, 1)
        return used

    def _gauge(self, row: int, width: int) -> Span:
        used = int(self._table.inuse[row])
        return gauge(used, self._objs, width, ascii_only=self._ascii), "bar"

    def _free(self, row: int, _: int) -> Span:
        free = int(self._table.freeobj[row])
        return "-" if free < 0 else str(free), ""

    def _free_values(self) -> Values:
        free = self._table.freeobj
        return np.where(free < 0, np.nan, free)

    def _is(self, name: str) -> Bools:
        held: Bools = getattr(self._table, name)
        return held

    def _states(self, row: int) -> list[str]:
        return [name for name in _STATES if self._is(name)[row]]

    def _state(self, row: int, width: int) -> Span:
        names = self._states(row)
        if not self._table.scanned[row]:
            names.append(UNKNOWN)
        text = "+".join(names)
        return (text if len(text) <= width else "+".join(name[:3] for name in names)) or "-", ""

    def _state_values(self) -> Values:
        return sum(
            (self._is(name) * (1 << bit) for bit, name in enumerate(_STATES)),
            np.zeros(len(self._table.address), dtype=np.int64),
        )

    def _age(self, row: int, _: int) -> Span:
        seconds = age((self._now_ns - int(self._table.first_seen_ns[row])) / 1e9)
        return seconds if self._table.born[row] else f">={seconds}", ""

    def _changed(self, row: int, _: int) -> Span:
        seconds = age((self._now_ns - int(self._table.last_seen_ns[row])) / 1e9)
        # A scan tells that nothing changed since, not when anything did.
        return f">={seconds}" if self._table.scanned[row] else seconds, ""

    def _changes(self) -> Values:
        return self._seconds(self._table.last_seen_ns)

    def _span(self, row: int) -> slice:
        begin, end = self._table.frame_start[row : row + 2].tolist()
        return slice(begin, end)

    def _nodes(self, row: int, _: int) -> Span:
        nodes = sorted(set(self._table.nodes[self._span(row)].tolist()))
        return ",".join(UNKNOWN if node < 0 else str(node) for node in nodes) or UNKNOWN, ""

    def _node_values(self) -> Values:
        table = self._table
        begin, end = table.frame_start[:-1], table.frame_start[1:]
        nodes = np.full(len(begin), np.nan)
        known = end > begin
        nodes[known] = table.nodes[begin[known]]
        nodes[nodes < 0] = np.nan
        return nodes

    def _frames(self, row: int, width: int) -> Span:
        frames = [str(frame) for frame in self._table.frames[self._span(row)].tolist()]
        text = " ".join(frames) or UNKNOWN
        while len(text) > width and len(frames) > 1:
            frames.pop()
            text = " ".join(frames) + " .."
        return text, "dim"

    def _fits(self, word: str) -> Bools:
        if word in _STATES:
            return self._is(word)
        found = _HEX.fullmatch(word)
        if found is None:
            # A word that is being typed is no mistake yet.
            if any(name.startswith(word) for name in _STATES):
                return np.ones(len(self._table.address), dtype=bool)
            raise FilterError(f"{word} is no part of an address, nor {', '.join(_STATES)}")
        return self._address_has(found[2], from_start=found[1] is not None)

    def _address_has(self, digits: str, *, from_start: bool) -> Bools:
        """Tell which addresses have these hexadecimal digits in them, or begin with them."""
        fits = np.zeros(len(self._table.address), dtype=bool)
        if len(digits) > 16:
            return fits
        mask = np.uint64((1 << 4 * len(digits)) - 1)
        places = range(16 - len(digits), -1, -1)
        for place in places[:1] if from_start else places:
            fits |= self._table.address >> np.uint64(4 * place) & mask == np.uint64(int(digits, 16))
        return fits

    def _records(self, rows: Ints) -> list[dict[str, Any]]:
        """Return the rows as the JSON of snapshots has them."""
        entries = self._table.take(rows).to_json()
        for entry in entries:
            entry["objs_per_zspage"] = self._objs or None
        return entries
