"""The lines above a table: what is watched, how far to trust it, and where the reader is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from zpobs.snapshot import Health, PoolView
from zpobs.views.addons import fill_text
from zpobs.views.figures import (
    age,
    bounds,
    clock,
    count,
    in_bytes,
    interval,
    rate,
    status_span,
)
from zpobs.views.lines import Line, Part, Span, cut, joined, plain, width, wrapped
from zpobs.views.live.classes import shown_pool, watched_pool
from zpobs.views.live.listing import listing
from zpobs.views.live.replay import clock_parts
from zpobs.views.live.scene import Scene
from zpobs.views.live.view import DEPTHS, OF_A_POOL, OVERLAYS, Screen, ViewState
from zpobs.views.split import split_lines
from zpobs.waste import Range, class_waste, pool_waste

LINES_MAX = 8
# A pace is told apart from the interval if it is so much slower.
_SLOWER = 1.2
# From here on there is room for both ends of a range.
_WIDE = 100

# Lines that stand together or not at all, and how early they are left out.
_Group = tuple[int, list[Line]]


def header(scene: Scene, state: ViewState, columns: int, rows: int) -> list[Line]:
    """Return the header, of so many lines at most."""
    groups: list[_Group] = [
        (0, [_title(scene, state, columns)]),
        (1, [_health(scene, columns)]),
        (3, _reasons(scene.snapshot.health, columns, 2)),
        (5, _pools(scene, state, columns)),
        (6, _activity(scene, state, columns)),
        (4, _split(scene, state, columns)),
        (2, [_crumbs(scene, state, columns)]),
    ]
    limit = max(min(rows, LINES_MAX), 1)
    if sum(len(lines) for _, lines in groups) > limit:
        # All reasons are in the help.
        groups[2] = (3, _reasons(scene.snapshot.health, columns, 1))
    while sum(len(lines) for _, lines in groups) > limit:
        groups.remove(max(groups, key=lambda group: group[0]))
    return [line for _, lines in groups for line in lines]


def _title(scene: Scene, state: ViewState, columns: int) -> Line:
    kernel, time_ns = scene.snapshot.kernel, scene.snapshot.time_ns
    pace: list[Part] = [(1, ((f"every {interval(state.interval_s)}", ""),))]
    if scene.pace_s > state.interval_s * _SLOWER and not state.paused:
        slow = f"every {interval(state.interval_s)} (really {interval(scene.pace_s)})"
        pace = [(1, ((slow, "warn"),)), (6, (("to spare the CPU", "dim"),))]
    parts: list[Part] = [
        (0, (("zpobs", "title"),)),
        *clock_parts(scene, state, columns),
        (0, ((f"{scene.doing} ...", "warn"),) if scene.doing else ()),
        (3, ((kernel.release, ""),)),
        (4, ((f"{kernel.descriptor}, chain {kernel.chain_size or '?'}", ""),)),
        (5, ((clock(time_ns, "%Y-%m-%d"), ""),)),
        (2, ((clock(time_ns, "%H:%M:%S UTC"), ""),)),
        *pace,
    ]
    return joined(parts, columns)


def _health(scene: Scene, columns: int) -> Line:
    health = scene.snapshot.health
    hooks = health.hooks + len(health.missed_hooks)
    attached = f"{health.hooks} of {hooks}" if hooks else "none"
    parts: list[Part] = [
        (0, (("health ", "dim"), status_span(health.status))),
        (1, _figure("hooks", attached, warn=health.hooks < hooks)),
        (2, _figure("lost", count(health.lost), warn=health.lost > 0)),
        (3, _figure("missed runs", count(health.missed_runs), warn=health.missed_runs > 0)),
        (4, _scan(scene)),
    ]
    return joined(parts, columns)


def _scan(scene: Scene) -> Line:
    last_ns = scene.snapshot.health.last_scan_ns
    if last_ns is None:
        return (("no scan", "dim"),)
    return (("scanned ", "dim"), (f"{age((scene.snapshot.time_ns - last_ns) / 1e9)} ago", ""))


def _figure(name: str, text: str, *, warn: bool = False) -> Line:
    return ((f"{name} ", "dim"), (text, "warn" if warn else ""))


def all_reasons(health: Health) -> list[str]:
    """Return everything that makes figures less than exact, as sentences."""
    missed = f"not attached: {', '.join(health.missed_hooks)}"
    return [*health.reasons, *([missed] if health.missed_hooks and health.hooks else [])]


def _reasons(health: Health, columns: int, limit: int) -> list[Line]:
    """Return the reasons in so many lines, 1 or 2; all of them are in the help."""
    reasons = all_reasons(health)
    role = "" if health.status == "exact" else "warn"
    if len(reasons) == 1 and limit > 1:
        first, *more = wrapped(reasons[0].split(), columns, indent="  ", role=role)
        # What is left of it is one line, cut where it is too long.
        rest = " ".join(plain(line).strip() for line in more)
        return [first, cut(((f"  {rest}", role),), columns)] if rest else [first]
    texts = [f"  {reason}" for reason in reasons[:limit]]
    hidden = f"and {len(reasons) - 1} more: ? shows all of them"
    if len(reasons) > limit > 1:
        texts[-1] = f"  {hidden}"
    lines = [cut(((text, role),), columns) for text in texts]
    if len(reasons) > limit == 1:
        short = cut(lines[0], max(columns - len(hidden) - 2, 0))
        return [joined([(0, short), (1, ((hidden, role),))], columns)]
    return lines


def _total(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _pools(scene: Scene, state: ViewState, columns: int) -> list[Line]:
    shot = scene.snapshot
    pool = watched_pool(scene, state)
    pools = shot.pools if pool is None else (pool,)
    if not pools:
        return [cut((("no pools", "title"),), columns)]
    rates = [scene.rates.get(each.id) for each in pools]
    wastes = [pool_waste(each, shot.kernel).wasted for each in pools]
    wasted = None
    if wastes and all(each is not None for each in wastes):
        known = [each for each in wastes if each is not None]
        wasted = Range(sum(each.low for each in known), sum(each.high for each in known))
    allocs = _total(each.allocs for each in rates if each)
    frees = _total(each.frees for each in rates if each)
    parts: list[Part] = [
        (0, ((_names(pools, columns) if pool is None else _named(pool), "title"),)),
        (1, ((in_bytes(sum(each.pages for each in pools) * shot.kernel.page_size), ""),)),
        (4, _counted(sum(each.objects for each in pools), "object")),
        (2, _figure("waste", bounds(wasted, 9 if columns < _WIDE else 99))),
        (3, ((rate(allocs), ""), (" alloc/s", "dim"))),
        (3, ((rate(frees), ""), (" free/s", "dim"))),
    ]
    return [joined(parts, columns)]


def _counted(number: int, noun: str) -> Line:
    return ((count(number), ""), (f" {noun}{'' if number == 1 else 's'}", "dim"))


def _named(pool: PoolView) -> str:
    """Return a pool's name, and its owner where the name does not tell it."""
    return f"{pool.name} (owner unknown)" if pool.owner == "unknown" else pool.name


def _names(pools: tuple[PoolView, ...], columns: int) -> str:
    head = f"{len(pools)} pool{'' if len(pools) == 1 else 's'}:"
    names = [_named(each) for each in pools]
    room = max(columns // 3, 12)
    while len(names) > 1 and len(f"{head} {', '.join(names)}") > room:
        names = [*names[: -2 if names[-1] == ".." else -1], ".."]
    return f"{head} {', '.join(names)}"


def _activity(scene: Scene, state: ViewState, columns: int) -> list[Line]:
    pool = watched_pool(scene, state)
    pools = scene.snapshot.pools if pool is None else (pool,)
    if not pools:
        return []
    rates = [each for each in (scene.rates.get(pool.id) for pool in pools) if each]

    def figure(name: str, counter: str, per_second: float | None = None) -> Line:
        total = _total(getattr(each.counters, counter) for each in pools)
        moving = ((f" ({rate(per_second)}/s)", ""),) if per_second else ()
        warn = counter.endswith("failures") and bool(total)
        return (*_figure(name, count(total), warn=warn), *moving)

    counters = ("compactions", "moves", "migrations", "pages_freed", "failures")
    if all(getattr(each.counters, name) is None for each in pools for name in counters):
        text = "compactions, migrations and rates are not known: no probe counts them"
        return [cut(((text, "dim"),), columns)]
    parts: list[Part] = [
        (0, figure("compactions", "compactions")),
        (3, figure("moved", "moves", _total(each.moves for each in rates))),
        (2, figure("pages freed", "pages_freed")),
        (1, figure("migrations", "migrations", _total(each.migrations for each in rates))),
        (4, figure("failed", "migration_failures")),
        (5, figure("failed allocs", "failures")),
    ]
    return [joined(parts, columns)]


def _split(scene: Scene, state: ViewState, columns: int) -> list[Line]:
    """Return the waste split of the pool, of the class where one is drilled into.

    Among pools it is that of the one under the cursor.
    """
    kernel, pool = scene.snapshot.kernel, shown_pool(scene, state)
    if state.screen == Screen.POOLS:
        rows = listing(scene, state)
        chosen = rows.id_at(rows.row_of(state.place, tail=False))
        pool = next((each for each in scene.snapshot.pools if each.id == chosen), None)
    if pool is None or state.screen in OVERLAYS:
        return []
    if state.screen in (Screen.POOLS, Screen.CLASSES):
        return split_lines(pool.name, pool_waste(pool, kernel), columns)
    row = np.flatnonzero(pool.classes.index == state.class_index)
    if not len(row):
        return []
    waste = class_waste(pool.classes, kernel)[row[0]]
    return split_lines(f"class {state.class_index}", waste, columns)


def _crumbs(scene: Scene, state: ViewState, columns: int) -> Line:
    place, rows = state.place, listing(scene, state)
    table = rows.table
    sort = place.sort or table.sort
    column = table.column(sort)
    parts: list[Part] = [(0, _path(scene, state, columns))]
    if column is not None and len(table.ids):
        turned = " (reversed)" if place.reverse else ""
        parts.append((1, (("by ", "dim"), (f"{sort}{turned}", ""))))
    text = place.filter if state.typing is None else state.typing
    shown = len(rows.order)
    if text:
        parts.append((0, (("filter ", "dim"), (text, "input"))))
        parts.append((2, ((f"{shown:,} of {len(table.ids):,} rows", ""),)))
    elif shown:
        at = rows.row_of(place, tail=state.screen == Screen.EVENTS) + 1
        parts.append((3, ((f"row {at:,} of {shown:,}", "dim"),)))
    # An add-on is called as the screen that shows what it tells.
    for addon in (each for each in scene.snapshot.health.addons if each.name == state.screen):
        fills = ", ".join(fill_text(fill) for fill in addon.maps)
        parts.append((4, ((f"{addon.status}; {fills}" if fills else addon.status, "dim"),)))
    gone = scene.snapshot.events_seen - len(scene.snapshot.events)
    if state.screen == Screen.EVENTS and gone > 0:
        parts.append((2, ((f"{gone:,} earlier ones are not kept", "dim"),)))
    return joined(parts, columns)


def _path(scene: Scene, state: ViewState, columns: int) -> Line:
    if state.screen in OF_A_POOL:
        pool = shown_pool(scene, state)
        name = pool.name if pool else f"pool {state.over_pool}"
        return ((name, ""), (" > ", "dim"), (state.screen.value, "title"))
    if state.screen in OVERLAYS:
        pool = watched_pool(scene, state)
        of = f" of {pool.name}" if pool else " of all pools"
        return ((state.screen.value, "title"), ("" if state.screen == Screen.EVENTS else of, ""))
    steps: list[Callable[[], str]] = [
        lambda: "pools",
        lambda: state.pool_name,
        lambda: _class_step(scene, state),
        lambda: f"zspage {state.zspage or 0:#x}",
    ]
    depth = DEPTHS.index(state.screen)
    names = [step() for step in steps[: depth + 1]]
    spans: list[Span] = []
    for at, name in enumerate(names):
        spans += [(" > ", "dim")] if at else []
        spans.append((name, "title" if at == depth else ""))
    # The outermost steps are the ones that a narrow line can do without.
    while width(tuple(spans)) > columns and len(spans) > 1:
        del spans[:2]
    return tuple(spans)


def _class_step(scene: Scene, state: ViewState) -> str:
    pool = shown_pool(scene, state)
    if pool is not None:
        size = pool.classes.size[pool.classes.index == state.class_index]
        if len(size):
            return f"class {state.class_index} ({int(size[0])} B)"
    return f"class {state.class_index}"
