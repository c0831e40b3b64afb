"""The table of events, newest last."""

from __future__ import annotations

import errno
from typing import Any

import numpy as np

from zpobs.snapshot import Event
from zpobs.views.figures import clock, count
from zpobs.views.lines import Span
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Table, records_of
from zpobs.views.live.view import ViewState

NO_PROBES = "no probes are attached, and only they see events: scans alone show states"

# Kinds that need no figures.
_PLAIN: dict[str, Span] = {
    "compact_begin": ("compaction began", "dim"),
    "pool_created": ("pool created", "good"),
    "pool_destroyed": ("pool destroyed", "warn"),
}

# Of a copied row.
FIELDS = ("number", "time_ns", "pool", "name", "kind", "zspage", "values", "what")


def events_table(scene: Scene, state: ViewState) -> Table:
    """Return the events that are still kept as a table, known by their number."""
    shot = scene.snapshot
    events = shot.events
    names = {each.id: each.name for each in shot.pools}
    offset_ns = shot.time_ns - shot.mono_ns

    def name_of(event: Event) -> str:
        return names.get(event.pool) or (
            state.pool_name if event.pool == state.pool else f"pool {event.pool}"
        )

    def when(row: int, _: int) -> Span:
        time_ns = events[row].time_ns + offset_ns
        return f"{clock(time_ns, '%H:%M:%S')}.{time_ns // 1_000_000 % 1000:03d}", "dim"

    def what(row: int, _: int) -> Span:
        return described(events[row])

    columns = (
        Column("time", "TIME (UTC)", 12, when, None, left=True),
        Column("pool", "POOL", 8, lambda row, _: (name_of(events[row]), ""), None, left=True),
        Column("what", "WHAT HAPPENED", 18, what, None, left=True, widest=200),
    )

    def fits(word: str) -> Bools:
        return np.array(
            [
                word in f"{each.kind} {name_of(each)} {described(each)[0]}".lower()
                for each in events
            ],
            dtype=bool,
        )

    def record(row: int) -> dict[str, Any]:
        event = events[row]
        return {
            "number": first + row,
            "time_ns": event.time_ns + offset_ns,
            "pool": event.pool,
            "name": name_of(event),
            "kind": event.kind,
            "zspage": None if event.zspage is None else f"{event.zspage:#x}",
            "values": list(event.values),
            "what": described(event)[0],
        }

    first = max(shot.events_seen - len(events), 0)
    ids = np.arange(first, first + len(events))
    waiting = "nothing yet: compactions, migrations and failures are shown as they happen"
    nothing = waiting if shot.health.hooks else NO_PROBES
    return Table(ids, columns, "", fits, records_of(record), nothing, FIELDS)


def described(event: Event) -> Span:
    """Return what happened in words."""
    match event.kind, event.values:
        case "compact_end", (moved, freed, begin_ns):
            what = f"compaction moved {_many(moved, 'object')}, freed {_many(freed, 'page')}"
            took = f" in {_took(event.time_ns - begin_ns)}" if begin_ns else ""
            return what + took, "good" if freed else ""
        case "migration", (old, new, result):
            outcome = f"failed: {error_name(result)}" if result else "ok"
            return f"migration of frame {old} -> {new}, {outcome}", "warn" if result else ""
        case "alloc_failure", (size, error):
            return f"allocation of {_many(size, 'byte')} failed: {error_name(error)}", "bad"
        case "deferred_free", (begin_ns,):
            return f"deferred free, took {_took(event.time_ns - begin_ns)}", ""
    words = " ".join([event.kind.replace("_", " "), *map(str, event.values)])
    return _PLAIN.get(event.kind, (words, ""))


def error_name(error: int) -> str:
    """Return the name of a negative errno value."""
    return errno.errorcode.get(-error, str(error))


def _many(number: int, noun: str) -> str:
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _took(nanoseconds: int) -> str:
    for size, unit in ((1e9, "s"), (1e6, "ms")):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.1f} {unit}"
    return f"{max(nanoseconds, 0) / 1e3:.0f} us"
