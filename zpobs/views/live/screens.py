"""What is on the screen: a pure function of scene, state and size."""

from __future__ import annotations

from zpobs.views.figures import rate
from zpobs.views.lines import Line, Part, broken, cut, filled, joined, wrapped
from zpobs.views.live.header import all_reasons
from zpobs.views.live.help import help_lines
from zpobs.views.live.keys import KEYS, shown
from zpobs.views.live.layout import SMALLEST, layout, scrolled, too_small
from zpobs.views.live.listing import Listing, listing
from zpobs.views.live.replay import clock_parts
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import chosen_columns, row_line, title_line
from zpobs.views.live.view import Screen, Size, ViewState

# A time that is typed stands between "to ", a cursor, and two blanks.
_AROUND_TYPED = 6
_NOUNS = {
    Screen.POOLS: "pool",
    Screen.CLASSES: "size class",
    Screen.ZSPAGES: "zspage",
    Screen.DESCRIPTORS: "descriptor",
    Screen.EVENTS: "event",
    Screen.MIGRATION: "zspage",
    Screen.LATENCY: "kind of call",
    Screen.LIFE: "row",
    Screen.COMPACTION: "size class",
    Screen.OBJECTS: "row",
    Screen.PINS: "pin",
    Screen.PAGEBLOCKS: "line of the map",
}


def render(scene: Scene, state: ViewState, size: Size) -> list[Line]:
    """Return exactly ``size.rows`` lines, none wider than ``size.columns``."""
    if too_small(size):
        lines = _too_small(scene, state, size)
    elif state.help:
        lines = _help(scene, state, size)
    else:
        lines = _screen(scene, state, size)
    lines += [()] * (size.rows - len(lines))
    return lines[: size.rows]


def _screen(scene: Scene, state: ViewState, size: Size) -> list[Line]:
    parts = layout(scene, state, size)
    rows = listing(scene, state)
    body = _table(rows, state, size.columns, parts.rows)
    body += [()] * (parts.rows + 1 - len(body))
    footer = _footer(rows, state, size.columns, replay=scene.replay is not None)
    return [*parts.header, *parts.above, *body, *parts.below, footer]


def _table(rows: Listing, state: ViewState, columns: int, page: int) -> list[Line]:
    """Return the titles and as many rows as there is room for."""
    table, place = rows.table, state.place
    if not len(rows.order):
        return [(), *wrapped(_nothing(rows, state).split(), columns, indent="  ")][: page + 1]
    widths = chosen_columns(table, columns)
    sort = place.sort or table.sort
    column = table.column(sort)
    lines = [
        title_line(
            widths,
            columns,
            sort=sort,
            falls=column is not None and column.rising == place.reverse,
            ascii_only=state.ascii,
        )
    ]
    at = rows.row_of(place, tail=state.screen == Screen.EVENTS)
    top = scrolled(place.top, at, len(rows.order), page)
    for number in range(top, min(top + page, len(rows.order))):
        row = int(rows.order[number])
        lines.append(row_line(widths, row, columns, at_cursor=number == at))
    return lines


def _nothing(rows: Listing, state: ViewState) -> str:
    if not len(rows.table.ids):
        return rows.table.nothing
    text = state.place.filter if state.typing is None else state.typing
    return f'no {_NOUNS[state.screen]} fits the filter "{text}": / changes it, Esc there clears it'


def _footer(rows: Listing, state: ViewState, columns: int, *, replay: bool) -> Line:
    if state.going is not None:
        typed: Part = (0, (("to ", "key"), (f"{state.going}_", "input")))
        room = columns - len(state.going) - _AROUND_TYPED
        said = next((each for each in _said(state) if len(each) <= room), _said(state)[-1])
        help_: Part = (1, (("Enter goes there, Esc nowhere", "dim"),))
        return filled(joined([typed, (0, ((said, "warn"),)), help_], columns), columns)
    if state.typing is not None:
        parts: list[Part] = [
            (0, (("/", "key"), (f"{state.typing}_", "input"))),
            (0, ((rows.problem, "warn"),)),
            (1, (("Enter keeps it, Esc clears it", "dim"),)),
        ]
        return filled(joined(parts, columns), columns)
    if state.message or rows.problem:
        told = _said(state) if state.message else (rows.problem,)
        text = next((each for each in told if len(each) <= columns), told[-1])
        return filled(cut(((text, "warn"),), columns), columns)
    entries: list[Part] = [
        (each.rank, ((shown(each.keys[0]), "key"), (f" {each.footer}", "dim")))
        for each in KEYS
        if each.footer and state.screen in each.screens and (replay or not each.replay)
    ]
    return filled(joined(entries, columns), columns)


def _said(state: ViewState) -> tuple[str, ...]:
    """Return the message, and ways to say it where there is less room."""
    return (state.message, *state.shorter)


def _help(scene: Scene, state: ViewState, size: Size) -> list[Line]:
    lines = help_lines(scene, size.columns)
    page = size.rows - 2
    top = max(min(state.help_top, len(lines) - page), 0)
    more = len(lines) - top - page
    below = f"{more} more lines below: j, PgDn" if more > 0 else "end of the help"
    title: list[Part] = [(0, (("zpobs help", "title"),)), (1, (("Esc goes back", "dim"),))]
    title += clock_parts(scene, state, size.columns)
    shown_lines = lines[top : top + page]
    blank: list[Line] = [()] * (page - len(shown_lines))
    return [
        filled(joined(title, size.columns), size.columns),
        *shown_lines,
        *blank,
        filled(cut(((below, "dim"),), size.columns), size.columns),
    ]


def _too_small(scene: Scene, state: ViewState, size: Size) -> list[Line]:
    """Say so, and as much of what matters most as there is room for.

    Keys work all the same: what they did comes first.
    """
    if size.columns <= 0:
        return []
    health = scene.snapshot.health
    needs = f"{SMALLEST.columns}x{SMALLEST.rows}"
    clock = clock_parts(scene, state, size.columns)
    sentences = [
        *(("".join(text for text, _ in spans), "warn") for _, spans in clock),
        (state.message, "warn"),
        (f"terminal too small: {size.columns}x{size.rows}, needs {needs}", "warn"),
        (f"health {health.status}", ""),
    ]
    for pool in scene.snapshot.pools:
        rates = scene.rates.get(pool.id)
        allocs, frees = (rates.allocs, rates.frees) if rates else (None, None)
        sentences.append((f"{pool.name} {rate(allocs)} alloc/s {rate(frees)} free/s", ""))
    sentences += [(reason, "dim") for reason in all_reasons(health)]
    return [line for text, role in sentences for line in broken(text, size.columns, role=role)]
