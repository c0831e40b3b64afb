"""What a key does to what is seen, and what a new scene does: pure transitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from zpobs.views.figures import clock
from zpobs.views.live.classes import shown_pool
from zpobs.views.live.help import help_lines
from zpobs.views.live.keys import Action, action_of, typing_action_of
from zpobs.views.live.layout import body_rows, scrolled
from zpobs.views.live.listing import listing
from zpobs.views.live.replay import CHANGES as CLOCK_CHANGES
from zpobs.views.live.replay import went
from zpobs.views.live.scene import Ask, Scene
from zpobs.views.live.view import (
    DEPTHS,
    OF_A_POOL,
    OVERLAYS,
    Effect,
    Place,
    Screen,
    Size,
    ViewState,
)
from zpobs.views.live.zspages import listed_zspages

__all__ = [
    "Effect",
    "Place",
    "Screen",
    "Size",
    "ViewState",
    "ask_of",
    "ending",
    "followed",
    "pressed",
    "started",
]

INTERVALS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_TYPED_MAX = 60


def started(
    *,
    interval_s: float,
    sort: str | None = None,
    pool: str | None = None,
    ascii_only: bool = False,
    speed: float | None = 1.0,
) -> ViewState:
    """Return the state to begin with: the pools, or the classes of ``pool`` once there is one.

    ``sort`` is the order of size classes, a column of their table; ``speed`` that of a
    capture, None as fast as can be.
    """
    state = ViewState(interval_s=interval_s, ascii=ascii_only, start_pool=pool, speed=speed)
    return state.at(Screen.CLASSES, Place(sort=sort)) if sort else state


def ask_of(state: ViewState) -> Ask:
    """Return what the next scene must hold for this state."""
    deep = state.screen in (Screen.ZSPAGES, Screen.DESCRIPTORS)
    return Ask(
        interval_s=state.interval_s,
        paused=state.paused,
        pool=state.pool if deep else None,
        class_index=state.class_index if deep else None,
        descriptors=state.screen == Screen.DESCRIPTORS,
        compaction=state.screen == Screen.COMPACTION,
        pageblocks=state.screen == Screen.PAGEBLOCKS,
        speed=state.speed,
        moves=state.moves,
    )


# ---- a new scene ---------------------------------------------------------------


def followed(state: ViewState, scene: Scene) -> ViewState:
    """Return the state for a newer scene: out of what is gone, the cursor on its row.

    One that comes while it is paused is told: all that is shown is newer then.
    """
    if scene.anew and state.paused:
        when = clock(scene.snapshot.time_ns, "%H:%M:%S")
        state = state.telling(f"read anew: PAUSED at {when} UTC now")
    if state.moves and scene.replay is not None:
        done = scene.replay.moved
        state = replace(state, moves=tuple(each for each in state.moves if each.number > done))
    state = _opened_at_start(state, scene)
    gone = _gone(state, scene)
    if gone is not None:
        depth, message = gone
        shown = state.screen if state.screen in OVERLAYS else depth
        state = replace(state, depth=depth, screen=shown).telling(message)
        if depth == Screen.POOLS and state.pool_name == scene.wanted:
            # The only one that was asked for: it is opened again if it comes back.
            state = replace(state, start_pool=scene.wanted)
    return _anchored(state, scene)


def _opened_at_start(state: ViewState, scene: Scene) -> ViewState:
    found = [each for each in scene.snapshot.pools if each.name == state.start_pool]
    if not found or state.screen != Screen.POOLS or state.typing is not None:
        return state
    opened = _opened(state, Screen.CLASSES, found[0].id)
    if state.message == _is_gone(state.pool_name):
        opened = opened.telling(f"{found[0].name} is there again")
    return replace(opened, pool_name=found[0].name, start_pool=None)


def _is_gone(pool_name: str) -> str:
    return f"{pool_name} is gone"


def _gone(state: ViewState, scene: Scene) -> tuple[Screen, str] | None:
    """Return the screen to fall back to and why, if what is drilled into is gone."""
    if state.depth == Screen.POOLS:
        return None
    pool = shown_pool(scene, state)
    if pool is None:
        return Screen.POOLS, _is_gone(state.pool_name)
    if state.depth == Screen.CLASSES:
        return None
    if state.class_index not in pool.classes.index.tolist():
        return Screen.CLASSES, f"class {state.class_index} holds no zspages any more"
    if state.depth == Screen.DESCRIPTORS:
        zspages = listed_zspages(scene, state)
        if zspages is not None and state.zspage not in zspages.address:
            return Screen.ZSPAGES, f"zspage {state.zspage:#x} was freed"
    return None


def _anchored(state: ViewState, scene: Scene) -> ViewState:
    """Note where the cursor's row is now; a row that is gone leaves the cursor at its place."""
    place = state.place
    if place.cursor is None:
        return state
    rows = listing(scene, state)
    row = rows.row_of(place, tail=False)
    return state.at(state.screen, replace(place, row=row, cursor=rows.id_at(row)))


# ---- keys ----------------------------------------------------------------------


def pressed(
    state: ViewState, key: str, scene: Scene, size: Size, *, text: str | None = None
) -> tuple[ViewState, Effect]:
    """Return the state after a key, and what else is to be done.

    ``key`` is named as Textual names it; ``text`` is the character that it
    types, if any, which only matters while a filter or a time is typed.
    """
    typing = state.typing is not None or state.going is not None
    action = typing_action_of(key) if typing else action_of(key, state.screen)
    if action in _ENDS:
        return state, _EFFECTS[action]
    state = state.telling("")
    if typing:
        return _typed(state, key, action, text, scene), Effect.NONE
    if state.help:
        return _in_help(state, key, scene, size), Effect.NONE
    if action in _MOVES:
        state = _moved(state, action, scene, size)
    elif action in _CHANGES:
        state = _CHANGES[action](state, scene)
    return state, _EFFECTS.get(action, Effect.NONE)


def ending(key: str) -> Effect:
    """Return what a key does before there is anything to see: end the view or stop it, if at all.

    These two are there whatever is shown.
    """
    action = action_of(key)
    return _EFFECTS[action] if action in _ENDS else Effect.NONE


_EFFECTS: dict[Action | None, Effect] = {
    Action.QUIT: Effect.QUIT,
    Action.SUSPEND: Effect.SUSPEND,
    Action.COPY_JSON: Effect.COPY_JSON,
    Action.COPY_CSV: Effect.COPY_CSV,
}
# These are there whatever is shown, and change nothing that is seen.
_ENDS = (Action.QUIT, Action.SUSPEND)
# Where each movement leads, from a row among so many, with a page of so many.
_MOVES: dict[Action | None, Callable[[int, int, int], int]] = {
    Action.UP: lambda row, _rows, _page: row - 1,
    Action.DOWN: lambda row, _rows, _page: row + 1,
    Action.PAGE_UP: lambda row, _rows, page: row - page,
    Action.PAGE_DOWN: lambda row, _rows, page: row + page,
    Action.FIRST: lambda _row, _rows, _page: 0,
    Action.LAST: lambda _row, rows, _page: rows - 1,
}


def _moved(state: ViewState, action: Action | None, scene: Scene, size: Size) -> ViewState:
    place, rows = state.place, listing(scene, state)
    tail = state.screen == Screen.EVENTS
    page = max(body_rows(scene, state, size), 1)
    last = max(len(rows.order) - 1, 0)
    at = rows.row_of(place, tail=tail)
    row = min(max(_MOVES[action](at, last + 1, page), 0), last)
    # What was at first, the first row or the tail, is followed again after Home or End.
    rest = action == (Action.LAST if tail else Action.FIRST)
    top = scrolled(place.top, row, last + 1, page)
    return state.at(
        state.screen,
        replace(place, cursor=None if rest else rows.id_at(row), row=row, top=top),
    )


def _in_help(state: ViewState, key: str, scene: Scene, size: Size) -> ViewState:
    # The help lies over any screen: what leads back from one leads back from it.
    action = action_of(key)
    if action in _MOVES:
        rows = len(help_lines(scene, size.columns))
        page = max(size.rows - 2, 1)
        last = max(rows - page, 0)
        top = min(max(_MOVES[action](state.help_top, last + 1, page), 0), last)
        return replace(state, help_top=top)
    if action in (Action.HELP, Action.OPEN, Action.BACK):
        return replace(state, help=False, help_top=0)
    return state


def _typed(
    state: ViewState, key: str, action: Action | None, text: str | None, scene: Scene
) -> ViewState:
    """Return the state after a key while a filter or a time is typed."""
    if state.going is not None:
        if action == Action.KEEP_FILTER:
            return went(state, scene)
        line = _edited(state.going, key, action, text)
        return replace(state, going=None if action == Action.CLEAR_FILTER else line)
    typing = state.typing or ""
    if action == Action.KEEP_FILTER:
        kept = replace(state.place, filter=typing.strip(), top=0)
        return _anchored(replace(state.at(state.screen, kept), typing=None), scene)
    if action == Action.CLEAR_FILTER:
        cleared = replace(state.place, filter="")
        return _anchored(replace(state.at(state.screen, cleared), typing=None), scene)
    return replace(state, typing=_edited(typing, key, action, text))


def _edited(line: str, key: str, action: Action | None, text: str | None) -> str:
    """Return a line after a key."""
    if action == Action.ERASE:
        return line[:-1]
    if action == Action.ERASE_ALL:
        return ""
    character = text if text is not None else key if len(key) == 1 else ""
    if key == "space" and text is None:
        character = " "
    if len(character) == 1 and " " <= character <= "~" and len(line) < _TYPED_MAX:
        return line + character
    return line


# ---- what keys change ----------------------------------------------------------


def _opened(state: ViewState, screen: Screen, row: int) -> ViewState:
    """Drill into a row of the screen outside ``screen``; a fresh place but for the order."""
    before = state.places.get(screen, Place())
    match screen:
        case Screen.CLASSES:
            same, into = state.pool == row, replace(state, pool=row)
        case Screen.ZSPAGES:
            same, into = state.class_index == row, replace(state, class_index=row)
        case _:
            same, into = state.zspage == row, replace(state, zspage=row)
    fresh = before if same else Place(sort=before.sort, reverse=before.reverse)
    into = into.at(screen, fresh)
    # What lies deeper belongs to another row now.
    if not same:
        for deeper in DEPTHS[DEPTHS.index(screen) + 1 :]:
            old = into.places.get(deeper, Place())
            into = into.at(deeper, Place(sort=old.sort, reverse=old.reverse))
    return replace(into, screen=screen, depth=screen)


def _open(state: ViewState, scene: Scene) -> ViewState:
    rows = listing(scene, state)
    row = rows.row_of(state.place, tail=False)
    chosen = rows.id_at(row)
    if chosen is None:
        return state
    # Coming back, the cursor is on the row that was opened.
    state = state.at(state.screen, replace(state.place, cursor=chosen, row=row))
    opened = _opened(state, DEPTHS[DEPTHS.index(state.screen) + 1], chosen)
    if state.screen == Screen.POOLS:
        name = next(each.name for each in scene.snapshot.pools if each.id == chosen)
        return replace(opened, pool_name=name)
    return opened


def _back(state: ViewState, scene: Scene) -> ViewState:
    if state.screen in OVERLAYS:
        return _anchored(replace(state, screen=state.depth), scene)
    if state.screen == Screen.POOLS:
        return state
    outer = DEPTHS[DEPTHS.index(state.screen) - 1]
    return _anchored(replace(state, screen=outer, depth=outer), scene)


def _laid_over(screen: Screen) -> Callable[[ViewState, Scene], ViewState]:
    def change(state: ViewState, scene: Scene) -> ViewState:
        """Lay a screen over what is drilled into, or take it away again."""
        if state.screen == screen:
            return _anchored(replace(state, screen=state.depth), scene)
        return replace(state, screen=screen)

    return change


def _over_a_pool(screen: Screen) -> Callable[[ViewState, Scene], ViewState]:
    """Return what leads to a screen about the pool that is drilled into or under the cursor."""

    def change(state: ViewState, scene: Scene) -> ViewState:
        if state.screen == screen:
            return _back(state, scene)
        if state.screen in OF_A_POOL:
            pool = state.over_pool
        elif state.depth == Screen.POOLS:
            outside = replace(state, screen=Screen.POOLS)
            rows = listing(scene, outside)
            pool = rows.id_at(rows.row_of(outside.place, tail=False))
        else:
            pool = state.pool
        if pool is None:
            return state.telling("there is no pool")
        fresh = state if pool == state.over_pool else state.at(screen, Place())
        return replace(fresh, screen=screen, over_pool=pool)

    return change


def _sorted(step: int) -> Callable[[ViewState, Scene], ViewState]:
    def change(state: ViewState, scene: Scene) -> ViewState:
        table = listing(scene, state).table
        names = table.sorts
        if not names:
            return state
        now = state.place.sort or table.sort
        at = names.index(now) if now in names else 0
        name = names[(at + step) % len(names)]
        return _anchored(state.at(state.screen, replace(state.place, sort=name)), scene)

    return change


def _reversed(state: ViewState, scene: Scene) -> ViewState:
    place = replace(state.place, reverse=not state.place.reverse)
    return _anchored(state.at(state.screen, place), scene)


def _filter(state: ViewState, _: Scene) -> ViewState:
    return replace(state, typing=state.place.filter)


def _slower(state: ViewState, _: Scene) -> ViewState:
    longer = (each for each in INTERVALS_S if each > state.interval_s)
    return replace(state, interval_s=next(longer, state.interval_s))


def _faster(state: ViewState, _: Scene) -> ViewState:
    shorter = (each for each in reversed(INTERVALS_S) if each < state.interval_s)
    return replace(state, interval_s=next(shorter, state.interval_s))


def _beside(step: int) -> Callable[[ViewState, Scene], ViewState]:
    def change(state: ViewState, scene: Scene) -> ViewState:
        """Go to another pool, in the order in which the screen of pools lists them."""
        outside = replace(state, screen=Screen.POOLS, depth=Screen.POOLS)
        rows = listing(scene, outside)
        if not len(rows.order):
            return state
        here = rows.row_of(Place(cursor=state.pool), tail=False)
        row = (here + step) % len(rows.order)
        chosen = rows.id_at(row)
        outside = outside.at(Screen.POOLS, replace(outside.place, cursor=chosen, row=row))
        return _open(outside, scene)

    return change


def _help(state: ViewState, _: Scene) -> ViewState:
    return replace(state, help=True, help_top=0)


_CHANGES: dict[Action | None, Callable[[ViewState, Scene], ViewState]] = {
    **CLOCK_CHANGES,
    Action.OPEN: _open,
    Action.BACK: _back,
    Action.SORT_NEXT: _sorted(1),
    Action.SORT_PREVIOUS: _sorted(-1),
    Action.REVERSE: _reversed,
    Action.FILTER: _filter,
    Action.SLOWER: _slower,
    Action.FASTER: _faster,
    Action.EVENTS: _laid_over(Screen.EVENTS),
    Action.MIGRATION: _laid_over(Screen.MIGRATION),
    Action.LATENCY: _laid_over(Screen.LATENCY),
    Action.LIFE: _laid_over(Screen.LIFE),
    Action.COMPACTION: _over_a_pool(Screen.COMPACTION),
    Action.OBJECTS: _laid_over(Screen.OBJECTS),
    Action.PINS: _laid_over(Screen.PINS),
    Action.PAGEBLOCKS: _over_a_pool(Screen.PAGEBLOCKS),
    Action.NEXT_POOL: _beside(1),
    Action.PREVIOUS_POOL: _beside(-1),
    Action.HELP: _help,
}
