"""What a compaction would do, and what the last ones did, as plain text."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from zpobs.compaction import PoolForecast
from zpobs.runs import PoolRuns, Run
from zpobs.views.figures import UNKNOWN, clock, count, in_bytes
from zpobs.views.life import duration

_COLUMNS = 80
_RUNS_HEAD = f"  {'BEGUN (UTC)':<13}{'BY':<9}{'MOVED':>9}{'COPIED':>11}{'PAGES':>8}{'TOOK':>10}"
# Runs of a pool that a frame lists.
_RUNS_SHOWN = 5

_HEAD = (
    f"{'CLASS':>7}{'SIZE':>6}{'PAGES':>9}{'MOVES':>10}{'COPIED':>12}"
    f"{'PAGES SO FAR':>14}{'COPIED SO FAR':>15}"
)


def compaction_lines(name: str, made: PoolForecast, page_size: int) -> list[str]:
    """Return the block of one pool: its classes, those that pay best first."""
    if not made.classes:
        return [f"{name}: a compaction would free nothing ({made.status})"]
    at_most = "at most " if made.moves is None else ""
    cost = "" if made.moves is None else f" and copy {in_bytes(made.moved_bytes or 0)}"
    lines = [
        f"{name}: a compaction would free {at_most}{made.pages:,} pages"
        f" ({in_bytes(made.pages * page_size)}){cost} ({made.status})",
        "  those that give most for what is copied first:",
        _HEAD,
    ]
    pages = copied = 0
    for each in made.classes:
        pages += each.pages
        copied += each.moved_bytes or 0
        so_far = UNKNOWN if each.moved_bytes is None else in_bytes(copied)
        bytes_moved = UNKNOWN if each.moved_bytes is None else in_bytes(each.moved_bytes)
        lines.append(
            f"{each.index:>7}{each.size:>6}{each.pages:>9,}{count(each.moves):>10}"
            f"{bytes_moved:>12}{pages:>14,}{so_far:>15}"
        )
    return lines


def runs_lines(name: str, runs: PoolRuns) -> list[str]:
    """Return the block of one pool's runs: all by trigger, the last ones, the last by class."""
    lines = [f"{name}: compaction runs, {runs.status}"]
    lines += [f"  {reason}" for reason in runs.reasons]
    lines += [
        f"  by {trigger}: {sums.runs:,} run{'' if sums.runs == 1 else 's'}, moved {sums.moves:,}"
        f" ({in_bytes(sums.moved_bytes)}), freed {sums.pages:,} pages, {duration(sums.duration_ns)}"
        for trigger, sums in runs.by_trigger.items()
    ]
    if runs.under_way_ns is not None:
        lines.append(f"  one has been under way since {clock(runs.under_way_ns, '%H:%M:%S')} UTC")
    if not runs.recent:
        return [*lines, "  none has ended yet"]
    lines.append(
        f"  {'BEGUN (UTC)':<13}{'BY':<9}{'MOVED':>9}{'COPIED':>11}{'PAGES':>8}{'TOOK':>10}"
    )
    for run in runs.recent[-_RUNS_SHOWN:]:
        lines.append(f"  {_run_line(run)}")
        lines += _indented(expectation(run), *run.reasons)
    hidden = runs.forgotten + max(len(runs.recent) - _RUNS_SHOWN, 0)
    if hidden:
        lines.append(f"  ({hidden:,} earlier)")
    return [*lines, *_by_class(runs.recent[-1])]


def expectation(run: Run) -> str:
    """Return in words what was forecast for a run, and how that compares."""
    expected = run.expected
    if expected is None:
        return "no forecast was made before it"
    made = expected.forecast
    before = f"forecast {duration(max(run.begin_ns - expected.made_ns, 0))} before"
    if not expected.differs:
        return f"as {before}"
    at_most = "at most " if made.moves is None else ""
    return f"{before}: {at_most}{made.pages:,} pages, {count(made.moves)} moves; {expected.differs}"


def _run_line(run: Run) -> str:
    when = clock(run.begin_ns, "%H:%M:%S") + f".{run.begin_ns // 1_000_000 % 1000:03d}"
    took = UNKNOWN if run.duration_ns is None else duration(run.duration_ns)
    return (
        f"{when:<13}{run.trigger:<9}{run.moves:>9,}{in_bytes(run.moved_bytes):>11}"
        f"{run.pages:>8,}{took:>10}"
    )


def _indented(*sentences: str) -> list[str]:
    return [
        line
        for sentence in sentences
        for line in textwrap.wrap(
            sentence, _COLUMNS, initial_indent=" " * 4, subsequent_indent=" " * 6
        )
    ]


def _by_class(run: Run) -> list[str]:
    """Return what the last run did, class by class, beside what was forecast."""
    rows = class_rows(run)
    if not rows:
        return []
    lines = [
        "  the last run by class, with the forecast before it:",
        f"{'CLASS':>7}{'SIZE':>6}{'MOVED':>9}{'FORECAST':>10}{'PAGES':>8}{'FORECAST':>10}{'TOOK':>10}",
    ]
    for row in rows:
        moves, pages = row.expected or (None, None)
        took = UNKNOWN if row.took_ns is None else duration(row.took_ns)
        lines.append(
            f"{row.index:>7}{row.size or UNKNOWN:>6}{row.moves:>9,}{count(moves):>10}"
            f"{row.pages:>8,}{count(pages):>10}{took:>10}"
        )
    return lines


@dataclass(frozen=True, slots=True)
class ClassRow:
    """What a run did with a class, and moves and pages that were forecast, if any were."""

    index: int
    size: int
    moves: int
    pages: int
    expected: tuple[int | None, int] | None
    took_ns: int | None


def class_rows(run: Run) -> list[ClassRow]:
    """Return the classes that a run or its forecast names, largest first, as the kernel goes."""
    made = run.expected.forecast.classes if run.expected else ()
    by_index = {each.index: (each.moves, each.pages) for each in made}
    rows = []
    for each in run.classes:
        expected = by_index.pop(each.index, (0, 0) if run.expected else None)
        rows.append(
            ClassRow(each.index, each.size, each.moves, each.pages, expected, each.duration_ns)
        )
    rows += [
        ClassRow(each.index, each.size, 0, 0, by_index[each.index], None)
        for each in made
        if each.index in by_index
    ]
    return sorted(rows, key=lambda row: -row.index)
