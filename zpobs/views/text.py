"""The plain text frame: a pure function of snapshot, rates and view state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from zpobs.rates import PoolRates
from zpobs.snapshot import Health, Kernel, PoolView, Snapshot
from zpobs.waste import Range, Waste, class_wasted_least, pool_waste

BAR_CELLS = 5
_UNKNOWN = "?"


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
    return lines


def render_pools(
    snapshot: Snapshot, rates: Mapping[int, PoolRates], *, pool: str | None = None
) -> list[str]:
    """Return a frame without its size classes: what stays on the screen after a live view."""
    return [*_header(snapshot), "", *_pools(snapshot, rates, pool)]


def human_bytes(count: int) -> str:
    """Return a byte count in binary units, four significant characters."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if round(value, 1) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def human_range(count: Range | None) -> str:
    """Return bounds as ``5.9..6.2 MiB``, one number if both look alike, ? for None."""
    if count is None:
        return _UNKNOWN
    low, high = human_bytes(count.low), human_bytes(count.high)
    if low == high:
        return high
    number, unit = low.split()
    return f"{number if high.endswith(f' {unit}') else low}..{high}"


def waste_lines(waste: Waste, columns: int = 80) -> list[str]:
    """Return what bytes are there for and their sum, on as many lines as it needs."""
    parts = [
        f"requested {human_range(waste.requested)}",
        f"+ rounding {human_range(waste.rounding)}",
        f"+ headers {human_bytes(waste.headers)}",
        f"+ tail {human_bytes(waste.tail)}",
        f"+ free slots {human_bytes(waste.free_slots)}",
    ]
    if waste.descriptors is not None:
        parts.append(f"+ descriptors {human_bytes(waste.descriptors)}")
    parts.append(f"= {human_bytes(waste.pages if waste.total is None else waste.total)}")
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + 1 + len(part) <= columns:
            lines[-1] += f" {part}"
        else:
            lines.append(part)
    return lines


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
        age_s = max(now_ns - health.last_scan_ns, 0) / 1e9
        parts.append(f"last {age_s:.1f} s ago" if age_s < 120 else f"last {age_s / 60:.0f} min ago")
    return ", ".join(parts)


def _header(snapshot: Snapshot) -> list[str]:
    kernel = snapshot.kernel
    when = datetime.fromtimestamp(snapshot.time_ns / 1e9, UTC)
    chain = kernel.chain_size or _UNKNOWN
    lines = [
        f"zpobs top  {when:%Y-%m-%d %H:%M:%S} UTC  {kernel.release}  "
        f"{kernel.descriptor}, chain {chain}",
        health_line(snapshot.health, snapshot.time_ns),
    ]
    if snapshot.health.missed_hooks and snapshot.health.hooks:
        lines.append("  missed hooks: " + ", ".join(snapshot.health.missed_hooks))
    lines += [f"  {reason}" for reason in snapshot.health.reasons]
    return lines


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else f"{value:,}"


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
            f"{human_bytes(pool.pages * snapshot.kernel.page_size):>11}{pool.objects:>11,}"
            f"{_rate(per_second.allocs if per_second else None):>9}"
            f"{_rate(per_second.frees if per_second else None):>9}{_count(counters.failures):>8}"
        )
        if pool.pages:
            waste = pool_waste(pool, snapshot.kernel)
            lines += [f"  {line}" for line in waste_lines(waste, 78)]
        if counters.compactions is None and counters.migrations is None:
            continue
        lines.append(
            f"{'':10}compactions {_count(counters.compactions)} (moved "
            f"{_count(counters.moves)}, freed {_count(counters.pages_freed)} pages), "
            f"migrations {_count(counters.migrations)} "
            f"(failed {_count(counters.migration_failures)})"
        )
    return lines


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


def _classes(
    pool: PoolView, rows: list[ClassRow], kernel: Kernel, sort: str, limit: int | None
) -> list[str]:
    pages = sum(row.pages for row in rows)
    freeable = sum(row.freeable for row in rows)
    lines = [
        f"{pool.name}: {len(rows)} size classes in use (by {sort}), "
        f"{pages:,} pages, {freeable:,} freeable ({human_bytes(freeable * kernel.page_size)})",
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
