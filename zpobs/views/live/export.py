"""The current view as a file: all of its rows, sorted and filtered as they are shown."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any, Literal

from zpobs.views.figures import clock
from zpobs.views.live.classes import waste_record, watched_pool
from zpobs.views.live.descriptors import entry_of, look_of
from zpobs.views.live.listing import listing
from zpobs.views.live.scene import Scene
from zpobs.views.live.view import OF_A_POOL, Screen, ViewState
from zpobs.waste import pool_waste

Form = Literal["json", "csv"]
SCHEMA = 1


def exported(scene: Scene, state: ViewState, form: Form) -> str:
    """Return the view as JSON, one object, or as CSV with a line of column names.

    In CSV a value that is not known is empty, and a list is one field of words.
    """
    shown = listing(scene, state)
    rows = shown.table.records(shown.order)
    if form == "json":
        head = json.dumps(_head(scene, state))
        # A line a row: a large file stays readable, and is made fast.
        lines = ",\n".join(map(json.dumps, rows))
        return f'{head[:-1]}, "rows": [\n{lines}\n]}}\n'
    out = io.StringIO()
    names = shown.table.fields
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["snapshot_time_ns", *names])
    for row in rows:
        writer.writerow([scene.snapshot.time_ns, *(_field(row.get(name)) for name in names)])
    return out.getvalue()


def export_name(scene: Scene, state: ViewState, form: Form) -> str:
    """Return a name for the file, such as ``zpobs-zram0-classes-20260102-030405.json``."""
    # A pool's name comes from its owner: nothing in it may lead out of the directory.
    names = {each.id: each.name for each in scene.snapshot.pools}
    over = state.screen in OF_A_POOL
    name = names.get(state.over_pool or 0, "") if over else state.pool_name
    pool = re.sub(r"[^\w.]", "_", name, flags=re.ASCII).lstrip(".") or "pool"
    parts = ["zpobs", state.screen.value]
    if over or (state.screen != Screen.EVENTS and state.depth != Screen.POOLS):
        parts.insert(1, pool)
    when = clock(scene.snapshot.time_ns, "%Y%m%d-%H%M%S")
    return f"{'-'.join([*parts, when])}.{form}"


def _head(scene: Scene, state: ViewState) -> dict[str, Any]:
    """Return what must be known to read the rows."""
    shot, place = scene.snapshot, state.place
    table = listing(scene, state).table
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "view": state.screen.value,
        "time_ns": shot.time_ns,
        "mono_ns": shot.mono_ns,
        "kernel": {name: getattr(shot.kernel, name) for name in shot.kernel.__slots__},
        "health": shot.health.to_json(),
        "sort": place.sort or table.sort or None,
        "reverse": place.reverse,
        "filter": place.filter or None,
    }
    if state.screen == Screen.EVENTS:
        return {**out, "events_seen": shot.events_seen}
    pool = watched_pool(scene, state)
    if pool is not None:
        out["pool"] = {"id": pool.id, "name": pool.name, "owner": pool.owner, "status": pool.status}
        out["pool"] |= waste_record(pool_waste(pool, shot.kernel))
    if state.screen in (Screen.ZSPAGES, Screen.DESCRIPTORS):
        out["class"] = state.class_index
    if state.screen == Screen.DESCRIPTORS:
        entry, look = entry_of(scene, state) or {}, look_of(scene, state)
        zspage = {name: value for name, value in entry.items() if name != "descriptors"}
        out["zspage"] = {"address": f"{state.zspage or 0:#x}", **zspage}
        out["read_ns"] = look.seen_ns if look else None
    return out


def _field(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, list):
        return " ".join("" if each is None else str(each) for each in value)
    return value
