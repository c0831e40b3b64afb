"""The screen of compaction: what one would do now by size class, and what the last ones did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zpobs.compaction import ClassForecast
from zpobs.runs import Run
from zpobs.snapshot import PoolView
from zpobs.views.compaction import ClassRow, class_rows, expectation
from zpobs.views.figures import UNKNOWN, clock, count, in_bytes
from zpobs.views.life import duration
from zpobs.views.lines import Line, Part, Span, cut, joined
from zpobs.views.live.cells import Show, floats, number
from zpobs.views.live.classes import shown_pool
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Table, records_of
from zpobs.views.live.view import ViewState

FIELDS = (
    "index", "size", "pages", "moves", "moved_bytes", "pages_so_far", "last_moves", "last_pages",
    "last_forecast_moves", "last_forecast_pages", "last_duration_ns",
)  # fmt: skip
_RUNS_MAX = 8


@dataclass(frozen=True, slots=True)
class _Row:
    """A class that would give pages now, or did in the last run, or was to."""

    index: int
    size: int
    now: ClassForecast | None
    pages_so_far: int | None
    last: ClassRow | None


def compaction_table(scene: Scene, state: ViewState) -> Table:
    """Return the classes, those that would pay best first, known by their index."""
    pool = shown_pool(scene, state)
    rows = [] if pool is None else _rows(pool)
    if pool is None:
        nothing = "this pool is gone"
    elif pool.compaction is None:
        live = scene.replay is None
        nothing = "playing a compaction through ..." if live else "no run has done anything"
    else:
        nothing = f"a compaction of {pool.name} would free nothing, and none has done anything"
    ids = np.array([row.index for row in rows], dtype=np.int64)

    def fits(word: str) -> Bools:
        return np.array([word in (str(row.index), str(row.size)) for row in rows], dtype=bool)

    records = records_of(lambda at: _record(rows[at]))
    return Table(ids, _columns(rows), "order", fits, records, nothing, FIELDS)


def _rows(pool: PoolView) -> list[_Row]:
    last = _last(pool)
    done = {} if last is None else {row.index: row for row in class_rows(last)}
    rows, so_far = [], 0
    for each in pool.compaction.classes if pool.compaction else ():
        so_far += each.pages
        rows.append(_Row(each.index, each.size, each, so_far, done.pop(each.index, None)))
    return rows + [_Row(each.index, each.size, None, None, each) for each in done.values()]


def _last(pool: PoolView) -> Run | None:
    return pool.runs.recent[-1] if pool.runs and pool.runs.recent else None


def _columns(rows: list[_Row]) -> tuple[Column, ...]:
    order = np.array([at if row.now else np.nan for at, row in enumerate(rows)], dtype=np.float64)

    def text(row: int, _: int) -> Span:
        return ("" if rows[row].now is None else str(row + 1)), "dim"

    def took(row: int, _: int) -> Span:
        last = rows[row].last
        return (duration(last.took_ns) if last and last.took_ns is not None else "-"), ""

    def column(name: str, title: str, wide: int, rank: int, show: Show = _count) -> Column:
        values = floats([_record(row)[name] for row in rows])
        return number(title.lower(), title, wide, values, show, rank=rank)

    def whole(name: str, title: str, rank: int) -> Column:
        values = np.array([_record(row)[name] or 0 for row in rows], dtype=np.int64)
        return number(title.lower(), title, 5, values, count, rank=rank, rising=True)

    return (
        Column("order", "BEST", 4, text, lambda: order, 0, rising=True),
        whole("index", "CLASS", 0),
        whole("size", "SIZE", 3),
        column("pages", "PAGES", 7, 0),
        column("moves", "MOVES", 8, 0),
        column("moved_bytes", "COPIED", 9, 1, _bytes),
        column("pages_so_far", "SO FAR", 7, 4),
        column("last_pages", "FREED", 7, 0),
        column("last_forecast_pages", "EXPECTED", 8, 2),
        column("last_moves", "MOVED", 8, 0),
        column("last_forecast_moves", "TO MOVE", 8, 5),
        Column("took", "TOOK", 8, took, lambda: floats([_took(row) for row in rows]), 6),
    )


def _took(row: _Row) -> int | None:
    return row.last.took_ns if row.last else None


def _count(value: float | None, width: int = 99) -> str:
    return "-" if value is None else count(value, width)


def _bytes(value: float | None, width: int = 99) -> str:
    return "-" if value is None else in_bytes(value, width)


def _record(row: _Row) -> dict[str, Any]:
    now, last = row.now, row.last
    moves, pages = (last.expected if last else None) or (None, None)
    return {
        "index": row.index,
        "size": row.size or None,
        "pages": now.pages if now else None,
        "moves": now.moves if now else None,
        "moved_bytes": now.moved_bytes if now else None,
        "pages_so_far": row.pages_so_far,
        "last_moves": last.moves if last else None,
        "last_pages": last.pages if last else None,
        "last_forecast_moves": moves,
        "last_forecast_pages": pages,
        "last_duration_ns": _took(row),
    }


def above(scene: Scene, state: ViewState, columns: int, rows: int) -> list[Line]:
    """Return what a compaction would do in all, and the last runs, the newest first."""
    pool = shown_pool(scene, state)
    if pool is None:
        return []
    now = _now(pool, scene.snapshot.kernel.page_size, live=scene.replay is None)
    lines = [joined(now, columns)]
    runs = pool.runs
    if runs is None or (runs.status == "unknown" and not runs.recent):
        return [*lines, cut((("last runs: no attached probe tells of any", "dim"),), columns)]
    most = max(min(rows // 8, _RUNS_MAX), 1)
    lines += [joined(_run(run), columns) for run in reversed(runs.recent[-most:])]
    hidden = runs.forgotten + max(len(runs.recent) - most, 0)
    if not runs.recent:
        lines.append(cut((("last runs: none since the probes attached", "dim"),), columns))
    elif hidden > 0:
        sums = ", ".join(f"{sums.runs:,} by {name}" for name, sums in runs.by_trigger.items())
        lines.append(cut(((f"{hidden:,} earlier ones; in all {sums}", "dim"),), columns))
    return lines


def _now(pool: PoolView, page_size: int, *, live: bool) -> list[Part]:
    made = pool.compaction
    if made is None:
        # It hangs on the order of lists.
        why = "not forecast yet" if live else "no forecast, a capture does not hold what it needs"
        return [(0, ((f"now: {why}", "dim"),))]
    most = "at most " if made.moves is None else ""
    copied = UNKNOWN if made.moved_bytes is None else in_bytes(made.moved_bytes)
    return [
        (0, (("now would free ", "dim"), (f"{most}{made.pages:,} pages", "title"))),
        (2, ((f"({in_bytes(made.pages * page_size)})", ""),)),
        (1, (("moving ", "dim"), (f"{count(made.moves)} objects, {copied}", ""))),
        (3, ((made.status, "dim"),)),
    ]


def _run(run: Run) -> list[Part]:
    took = UNKNOWN if run.duration_ns is None else duration(run.duration_ns)
    expected, brief = run.expected, "no forecast"
    if expected is not None:
        brief = f"forecast {expected.forecast.pages:,}" if expected.differs else "as forecast"
    role = "dim" if expected is None else "warn" if expected.differs else "good"
    parts: list[Part] = [
        (0, ((clock(run.begin_ns, "%H:%M:%S"), "dim"), (f" {run.trigger:<8}", ""))),
        (0, ((f"freed {run.pages:,} pages", ""),)),
        (1, ((brief, role),)),
        (2, ((f"moved {run.moves:,} ({in_bytes(run.moved_bytes)})", ""),)),
        (3, ((f"in {took}", ""),)),
    ]
    return [*parts, *([(4, ((expectation(run), "dim"),))] if expected and expected.differs else [])]
