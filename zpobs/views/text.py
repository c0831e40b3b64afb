"""The plain text frame: a pure function of snapshot, rates and view state."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from zpobs.migration import PoolMigration, error_name
from zpobs.rates import PoolRates
from zpobs.snapshot import Health, Kernel, PoolView, Snapshot
from zpobs.views.addons import addon_lines
from zpobs.views.figures import UNKNOWN, age, clock, count, in_bytes
from zpobs.views.latency import latency_lines
from zpobs.views.life import life_lines
from zpobs.views.lines import plain
from zpobs.views.objects import objects_lines
from zpobs.views.split import split_lines
from zpobs.waste import class_wasted_least, pool_waste

COLUMNS = 80
BAR_CELLS = 5


@dataclass(frozen=True, slots=True)
class ClassRow:
    """One line of the size class table."""

    index: int
    size: int
    zspages: int
    pages: int
    objects: int
    capacity: int
    freeable: int
    wasted: int
    allocs: float | None
    frees: float | None


# Column name -> sort key, all but class and size from most to least; the live view has the same.
SORTS: Mapping[str, Callable[[ClassRow], float]] = {
    "waste": lambda row: -row.wasted,
    "class": lambda row: row.index,
    "size": lambda row: row.size,
    "zspages": lambda row: -row.zspages,
    "pages": lambda row: -row.pages,
    "objects": lambda row: -row.objects,
    "used": lambda row: -row.objects / max(row.capacity, 1),
    "freeable": lambda row: -row.freeable,
    "allocs": lambda row: -(row.allocs or 0),
    "frees": lambda row: -(row.frees or 0),
}


def render(
    snapshot: Snapshot,
    rates: Mapping[int, PoolRates],
    *,
    sort: str = "waste",
    limit: int | None = None,
    pool: str | None = None,
) -> list[str]:
    """Return the lines of one frame, of each pool ``limit`` size classes at most.

    ``pool`` is the only one that the snapshot was asked for.
    """
    lines = render_pools(snapshot, rates, pool=pool)
    for each in snapshot.pools:
        rows = class_rows(each, rates.get(each.id), snapshot.kernel, sort)
        lines += ["", *_classes(each, rows, snapshot.kernel, sort, limit)]
        if each.life is not None:
            lines += ["", *life_lines(each.name, each.life, snapshot.time_ns)]
        if each.latency is not None:
            lines += ["", *latency_lines(each.name, each.latency, snapshot.time_ns)]
        if each.objects_told is not None:
            lines += ["", *objects_lines(each.name, each.objects_told, snapshot.time_ns)]
    if snapshot.health.addons:
        lines += ["", *addon_lines(snapshot.health.addons)]
    return lines


def render_pools(
    snapshot: Snapshot, rates: Mapping[int, PoolRates], *, pool: str | None = None
) -> list[str]:
    """Return a frame without its size classes: what stays on the screen after a live view."""
    return [*_header(snapshot), "", *_pools(snapshot, rates, pool)]


def reason_lines(reasons: Iterable[str]) -> list[str]:
    """Return sentences under a health line, none of them wider than a plain terminal."""
    lines = []
    for reason in reasons:
        lines += textwrap.wrap(
            reason, COLUMNS, initial_indent="  ", subsequent_indent="    ", break_long_words=False
        )
    return lines


def split_text(pool: PoolView, kernel: Kernel) -> list[str]:
    """Return where a pool's bytes go, as parts and their sum."""
    lines = split_lines(pool.name, pool_waste(pool, kernel), COLUMNS - 2, lines=3)
    return [f"  {plain(line)}" for line in lines] if pool.pages else []


def bar(used: int, capacity: int, cells: int = BAR_CELLS) -> str:
    """Draw how full something is, readable without colour: ``[###..]  70%``."""
    if capacity <= 0:
        return "[" + "." * cells + "]    -"
    filled = min(used * cells // capacity, cells)
    return f"[{'#' * filled}{'.' * (cells - filled)}] {100 * used // capacity:3d}%"


def health_line(health: Health, now_ns: int) -> str:
    """Return what the reader must know to trust the frame; ``now_ns`` is wall-clock time."""
    known = health.hooks + len(health.missed_hooks)
    parts = [
        f"health {health.status}",
        f"hooks {health.hooks} of {known}",
        f"lost {health.lost}",
        f"missed runs {health.missed_runs}",
        f"scans {health.scans}",
    ]
    if health.last_scan_ns is not None:
        parts.append(f"last {age((now_ns - health.last_scan_ns) / 1e9)} ago")
    return ", ".join(parts)


def _header(snapshot: Snapshot) -> list[str]:
    kernel = snapshot.kernel
    chain = kernel.chain_size or UNKNOWN
    lines = [
        f"zpobs top  {clock(snapshot.time_ns, '%Y-%m-%d %H:%M:%S UTC')}  {kernel.release}  "
        f"{kernel.descriptor}, chain {chain}",
        health_line(snapshot.health, snapshot.time_ns),
    ]
    reasons = list(snapshot.health.reasons)
    if snapshot.health.missed_hooks and snapshot.health.hooks:
        reasons.insert(0, f"missed hooks: {', '.join(snapshot.health.missed_hooks)}")
    return lines + reason_lines(reasons)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _no_pools(scanned: bool, wanted: str | None) -> str:
    if scanned:
        return "no zsmalloc pool exists" if wanted is None else f"no pool is called {wanted} now"
    what = "zsmalloc pool" if wanted is None else f"pool called {wanted}"
    return f"no {what} has been used or created since the probes attached"


def _pools(snapshot: Snapshot, rates: Mapping[int, PoolRates], wanted: str | None) -> list[str]:
    if not snapshot.pools:
        return [_no_pools(snapshot.health.scans > 0, wanted)]
    lines = [
        f"{'POOL':<10}{'OWNER':<8}{'STATUS':<9}{'BYTES':>11}{'OBJECTS':>11}"
        f"{'ALLOC/s':>9}{'FREE/s':>9}{'FAILED':>8}"
    ]
    for pool in snapshot.pools:
        per_second = rates.get(pool.id)
        counters = pool.counters
        lines.append(
            f"{pool.name:<9.9} {pool.owner:<8}{pool.status:<9}"
            f"{in_bytes(pool.pages * snapshot.kernel.page_size):>11}{pool.objects:>11,}"
            f"{_rate(per_second.allocs if per_second else None):>9}"
            f"{_rate(per_second.frees if per_second else None):>9}{count(counters.failures):>8}"
        )
        lines += split_text(pool, snapshot.kernel)
        if counters.compactions is None and counters.migrations is None:
            continue
        lines.append(
            f"{'':10}compactions {count(counters.compactions)} (moved "
            f"{count(counters.moves)}, freed {count(counters.pages_freed)} pages), "
            f"migrations {count(counters.migrations)} "
            f"(failed {count(counters.migration_failures)})"
        )
        if pool.migration is not None and pool.migration.errors:
            lines.append(f"{'':10}migrations failed: {_errors(pool.migration)}")
    return lines


def _errors(migration: PoolMigration) -> str:
    """Return the errors and how often each was met, those met most first."""
    by_count = sorted(migration.errors.items(), key=lambda each: (-each[1], each[0]))
    told = ", ".join(f"{error_name(error)} {times:,}" for error, times in by_count)
    return told if migration.status == "exact" else f"{told} ({migration.status})"


def class_rows(
    pool: PoolView, rates: PoolRates | None, kernel: Kernel, sort: str
) -> list[ClassRow]:
    """Return the size classes that hold zspages, in the chosen order."""
    table = pool.classes
    by_class = rates.classes if rates else {}
    allocs, frees = by_class.get("allocs", {}), by_class.get("frees", {})
    capacity, pages, freeable = table.capacity, table.pages, table.freeable_pages
    wasted = class_wasted_least(table, kernel)
    rows = [
        ClassRow(
            index=index,
            size=int(table.size[at]),
            zspages=int(table.zspages[at]),
            pages=int(pages[at]),
            objects=int(table.objects[at]),
            capacity=int(capacity[at]),
            freeable=int(freeable[at]),
            wasted=int(wasted[at]),
            allocs=allocs.get(index),
            frees=frees.get(index),
        )
        for at, index in enumerate(table.index.tolist())
        if table.zspages[at] or allocs.get(index) or frees.get(index)
    ]
    rows.sort(key=lambda row: row.index)
    rows.sort(key=SORTS[sort])
    return rows


def classes_in_use(classes: int) -> str:
    """Return how many there are, in words."""
    return f"{classes} size class{'' if classes == 1 else 'es'} in use"


def _classes(
    pool: PoolView, rows: list[ClassRow], kernel: Kernel, sort: str, limit: int | None
) -> list[str]:
    pages = sum(row.pages for row in rows)
    freeable = sum(row.freeable for row in rows)
    lines = [
        f"{pool.name}: {classes_in_use(len(rows))} (by {sort}), "
        f"{pages:,} pages, {freeable:,} freeable ({in_bytes(freeable * kernel.page_size)})",
        f"{'CLASS':>5}{'SIZE':>6}{'ZSPAGES':>8}{'PAGES':>7}"
        f"{'OBJECTS/CAPACITY':>17} {'USED':<12}{'ALLOC/s':>8}{'FREE/s':>7}{'FREEABLE':>9}",
    ]
    for row in rows[:limit]:
        objects = f"{row.objects:,}/{row.capacity:,}"
        lines.append(
            f"{row.index:>5}{row.size:>6}{row.zspages:>8,}{row.pages:>7,}"
            f"{objects:>17} {bar(row.objects, row.capacity)}"
            f"{_rate(row.allocs):>8}{_rate(row.frees):>7}{row.freeable:>9,}"
        )
    if limit is not None and len(rows) > limit:
        lines.append(f"({len(rows) - limit:,} more)")
    return lines
