"""The table of one zspage's descriptors, and what stands above and below it."""

from __future__ import annotations

from typing import Any

import numpy as np

from zpobs.descriptors import Look
from zpobs.views.figures import UNKNOWN, age
from zpobs.views.lines import Line, Part, Span, joined
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Table, records_of
from zpobs.views.live.view import ViewState
from zpobs.views.live.zspages import listed_zspages

# Of a copied row; a huge zspage's has a handle in place of next.
FIELDS = (
    "page", "address", "pfn", "flags", "flags_word", "type", "first_obj_offset", "refcount",
    "zspage", "next",
)  # fmt: skip


def look_of(scene: Scene, state: ViewState) -> Look | None:
    """Return the descriptors of the class that is drilled into, None if they were not read."""
    look = scene.look
    if look is None or (look.pool, look.class_index) != (state.pool, state.class_index):
        return None
    return look


def entry_of(scene: Scene, state: ViewState) -> dict[str, Any] | None:
    """Return the zspage and its descriptors as they were read; None if that one was not."""
    look = look_of(scene, state)
    if look is None or state.zspage is None:
        return None
    zspages = look.dump.zspages
    rows = np.flatnonzero((zspages.address == np.uint64(state.zspage)) & ~zspages.torn)
    return look.dump.to_json(rows[-1:], look.flags)[0] if len(rows) else None


def descriptors_table(scene: Scene, state: ViewState) -> Table:
    """Return the descriptors of the zspage that is drilled into, known by their page."""
    entry = entry_of(scene, state)
    rows: list[dict[str, Any]] = (entry or {}).get("descriptors") or []
    nodes = _nodes(scene, state)
    own = f"{state.zspage or 0:#x}"

    def cell(name: str) -> Any:
        return lambda row, _: (_or_dash(rows[row][name]), "")

    def link(row: int, _: int) -> Span:
        return _or_dash(rows[row].get("next") or rows[row].get("handle")), ""

    def owner(row: int, _: int) -> Span:
        return ("own", "good") if rows[row]["zspage"] == own else ("OTHER", "bad")

    def node(row: int, _: int) -> Span:
        found = nodes.get(rows[row]["pfn"], -1)
        return UNKNOWN if found < 0 else str(found), ""

    def flags(row: int, _: int) -> Span:
        return ",".join(rows[row]["flags"]) or "-", ""

    huge = bool(rows) and "handle" in rows[0]
    columns = (
        Column("page", "PAGE", 4, cell("page")),
        Column("pfn", "PFN", 9, cell("pfn")),
        Column("node", "NODE", 4, node, None, 3),
        Column("address", "ADDRESS", 18, cell("address"), None, 6),
        Column("type", "TYPE", 4, cell("type"), None, 4),
        Column("offset", "OFFSET", 6, cell("first_obj_offset"), None, 2),
        Column("refs", "REFS", 4, cell("refcount"), None, 1),
        Column("link", "HANDLE" if huge else "NEXT", 18, link, None, 5),
        Column("zspage", "ZSPAGE", 6, owner, None, 0, left=True),
        Column("flags", "FLAGS", 12, flags, None, 0, left=True, widest=60),
    )

    def record(row: int) -> dict[str, Any]:
        found = nodes.get(rows[row]["pfn"], -1)
        return {**rows[row], "node": None if found < 0 else found}

    def fits(_: str) -> Bools:
        return np.ones(len(rows), dtype=bool)

    ids = np.array([each["page"] for each in rows], dtype=np.int64)
    fields = tuple(rows[0]) if rows else FIELDS
    nothing = _nothing(scene, state, entry)
    return Table(ids, columns, "", fits, records_of(record), nothing, (*fields, "node"))


def above(scene: Scene, state: ViewState, columns: int) -> list[Line]:
    """Return what the zspage itself says, and how old the reading is."""
    look, entry = look_of(scene, state), entry_of(scene, state)
    if look is None or entry is None or entry["descriptors"] is None:
        return []
    free = entry["free_list"]
    seconds = max(scene.snapshot.mono_ns - look.seen_ns, 0) / 1e9
    parts: list[Part] = [
        (0, (("magic ", "dim"), (entry["magic"], ""))),
        (0, (("lock ", "dim"), (_lock(entry["lock"]), ""))),
        (1, (("list of group ", "dim"), (str(entry["list_group"]), ""))),
        (2, (("free list ", "dim"), (UNKNOWN if free is None else f"{free:,} slots", ""))),
        (0, (("read ", "dim"), (f"{age(seconds)} ago", ""))),
    ]
    return [joined(parts, columns)]


def below(scene: Scene, state: ViewState, page: int | None, columns: int) -> list[Line]:
    """Return everything about the descriptor under the cursor, however narrow the table."""
    entry = entry_of(scene, state)
    found = [each for each in (entry or {}).get("descriptors") or [] if each["page"] == page]
    if not found:
        return []
    each = found[0]
    link = "handle" if "handle" in each else "next"
    first: list[Part] = [
        (0, ((f"page {page} at {each['address']}", "title"),)),
        (0, ((f"{link} ", "dim"), (_or_dash(each[link]), ""))),
        (1, (("zspage ", "dim"), (each["zspage"], ""))),
    ]
    second: list[Part] = [
        (0, (("flags ", "dim"), (", ".join(each["flags"]) or "none", ""))),
        (1, (("word ", "dim"), (each["flags_word"], ""))),
    ]
    return [joined(first, columns), joined(second, columns)]


def _nodes(scene: Scene, state: ViewState) -> dict[int, int]:
    """Return the nodes of the zspage's frames, as far as the list of zspages tells."""
    table = listed_zspages(scene, state)
    if table is None or state.zspage is None:
        return {}
    at = np.flatnonzero(table.address == np.uint64(state.zspage))
    if not len(at):
        return {}
    begin, end = table.frame_start[at[0] : at[0] + 2].tolist()
    frames, nodes = table.frames[begin:end].tolist(), table.nodes[begin:end].tolist()
    return dict(zip(frames, nodes, strict=True))


def _nothing(scene: Scene, state: ViewState, entry: dict[str, Any] | None) -> str:
    if scene.look_problem:
        return scene.look_problem
    if look_of(scene, state) is None:
        return "reading descriptors ..."
    if entry is None:
        return "this zspage was not met when descriptors were read: it may just be changing lists"
    return "this zspage has no descriptors"


def _lock(lock: int) -> str:
    if lock == 0:
        return "free"
    return "held by a writer" if lock == -1 else f"{lock}"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
