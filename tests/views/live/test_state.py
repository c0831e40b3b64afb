"""What keys and new scenes do to the interactive view's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tests.factories import ints
from tests.views.live.support import (
    USUAL,
    bounded,
    busy,
    changed_pool,
    described,
    no_pools,
    texts,
    typed,
    without,
    zspages_of,
)
from zpobs.views.live.keys import KEYS, Action, action_of
from zpobs.views.live.listing import listing
from zpobs.views.live.scene import Scene
from zpobs.views.live.screens import render
from zpobs.views.live.state import (
    Effect,
    Place,
    Screen,
    Size,
    ViewState,
    ask_of,
    ending,
    followed,
    pressed,
    started,
)

IN_CLASSES = ("enter",)
IN_31 = ("enter", "slash", "3", "1", "enter", "enter")
TO_DESCRIPTORS = ("enter", "slash", "1", "0", "7", "enter", "enter", "enter")
BUSY = busy()
PAGE = 16


def row(state: ViewState, scene: Scene = BUSY) -> int:
    """Return where the cursor stands."""
    return listing(scene, state).row_of(state.place, tail=state.screen == Screen.EVENTS)


def after(state: ViewState, *keys: str, scene: Scene = BUSY, size: Size = USUAL) -> ViewState:
    return typed(scene, keys, state, size)


IN = typed(BUSY, IN_CLASSES)
Check = Callable[[ViewState, str], bool]


def moves(start: tuple[str, ...], to: int) -> Check:
    """Check that a key leads from where some keys lead to a row."""
    return lambda state, key: row(after(state, *start, key)) == to


def becomes(name: str, value: object, start: tuple[str, ...] = ()) -> Check:
    return lambda state, key: getattr(after(state, *start, key), name) == value


def sorts(by: str, *, reverse: bool = False) -> Check:
    def check(state: ViewState, key: str) -> bool:
        place = after(state, key).place
        return (place.sort, place.reverse) == (by, reverse)

    return check


def filters(text: str, *, typing: str | None, kept: str) -> Check:
    """Check what a key leaves of a filter that is being typed."""

    def check(state: ViewState, key: str) -> bool:
        left = after(state, "slash", *text, key)
        return (left.typing, left.place.filter) == (typing, kept)

    return check


def effects(effect: Effect) -> Check:
    return lambda state, key: pressed(state, key, BUSY, USUAL) == (state, effect)


# What every key of an action does on the screen of classes, with its 40 rows.
DONE: dict[Action, Check] = {
    Action.UP: moves(("down", "down"), 1),
    Action.DOWN: moves(("down",), 2),
    Action.PAGE_UP: moves(("end",), 39 - 15),
    Action.PAGE_DOWN: moves((), 15),
    Action.FIRST: moves(("pagedown",), 0),
    Action.LAST: moves((), 39),
    Action.OPEN: becomes("screen", Screen.ZSPAGES),
    Action.BACK: becomes("screen", Screen.POOLS),
    Action.SORT_NEXT: sorts("freeable"),
    Action.SORT_PREVIOUS: sorts("used"),
    Action.REVERSE: sorts("", reverse=True),
    Action.FILTER: becomes("typing", ""),
    Action.PAUSE: becomes("paused", True),
    **{
        action: becomes("message", "only in a replay: zpobs top --replay FILE")
        for action in (
            Action.STEP,
            Action.STEP_BACK,
            Action.JUMP,
            Action.JUMP_BACK,
            Action.HASTEN,
            Action.RETARD,
            Action.GO_TO,
        )
    },
    Action.SLOWER: becomes("interval_s", 5),
    Action.FASTER: becomes("interval_s", 1),
    Action.EVENTS: becomes("screen", Screen.EVENTS),
    Action.MIGRATION: becomes("screen", Screen.MIGRATION),
    Action.LATENCY: becomes("screen", Screen.LATENCY),
    Action.LIFE: becomes("screen", Screen.LIFE),
    Action.COMPACTION: becomes("screen", Screen.COMPACTION),
    Action.OBJECTS: becomes("screen", Screen.OBJECTS),
    Action.PINS: becomes("screen", Screen.PINS),
    Action.PAGEBLOCKS: becomes("screen", Screen.PAGEBLOCKS),
    Action.NEXT_POOL: becomes("pool_name", "zswap1"),
    Action.PREVIOUS_POOL: becomes("pool_name", "zswap1"),
    Action.COPY_JSON: effects(Effect.COPY_JSON),
    Action.COPY_CSV: effects(Effect.COPY_CSV),
    Action.HELP: becomes("help", True),
    Action.SUSPEND: effects(Effect.SUSPEND),
    Action.QUIT: effects(Effect.QUIT),
    Action.KEEP_FILTER: filters("12", typing=None, kept="12"),
    Action.CLEAR_FILTER: filters("12", typing=None, kept=""),
    Action.ERASE: filters("12", typing="1", kept=""),
    Action.ERASE_ALL: filters("12", typing="", kept=""),
}


@pytest.mark.parametrize(
    ("action", "key"),
    [(each.action, key) for each in KEYS for key in each.keys],
    ids=str,
)
def test_every_key_does_what_the_table_says(action: Action, key: str) -> None:
    """Each key of the table, on the screen of classes."""
    assert DONE[action](IN, key)


def test_no_key_has_two_meanings() -> None:
    """On every screen a key belongs to one action, and every action has a test."""
    for screen in Screen:
        keys = [key for each in KEYS if screen in each.screens for key in each.keys]
        assert len(keys) == len(set(keys))
    # The help lies over all of them, and a filter has keys of its own.
    for on_screens in (True, False):
        entries = [each for each in KEYS if bool(each.screens) == on_screens]
        keys = [key for each in entries for key in each.keys]
        assert len(keys) == len(set(keys))
    assert {each.action for each in KEYS} == set(DONE)


@pytest.mark.parametrize(
    ("character", "name"),
    [("/", "slash"), ("?", "question_mark"), ("<", "less_than_sign"), (" ", "space")],
)
def test_a_character_is_as_good_as_its_name(character: str, name: str) -> None:
    """Terminal libraries name characters; the characters themselves work as well."""
    assert action_of(character, Screen.POOLS) == action_of(name, Screen.POOLS) is not None


def test_keys_that_mean_nothing_change_nothing() -> None:
    """Nor do keys that mean something on other screens only."""
    assert after(IN, "f9", "Z", "ctrl+x") == IN
    events = after(IN, "e")
    assert after(events, "enter", "s", "r", "tab") == events


# ---- drilling --------------------------------------------------------------------


def test_drilling_goes_in_and_out_again() -> None:
    """Four screens deep and back, each time to the row that was opened."""
    scene = described()
    state = typed(scene, TO_DESCRIPTORS)
    assert (state.screen, state.pool, state.class_index) == (Screen.DESCRIPTORS, 1, 107)
    assert state.zspage is not None
    screens, cursors = [], []
    for _ in range(4):
        state = after(state, "escape", scene=scene)
        screens.append(state.screen)
        cursors.append(state.place.cursor)
    assert screens == [Screen.ZSPAGES, Screen.CLASSES, Screen.POOLS, Screen.POOLS]
    assert cursors[1:3] == [107, 1]
    assert cursors[0] == typed(scene, TO_DESCRIPTORS).zspage


def test_what_is_opened_anew_begins_at_its_top() -> None:
    """The order of the deeper screen is kept; cursor and filter belong to the row it was of."""
    deep = after(typed(BUSY, IN_31), "s", "slash", *"inuse>3", "enter", "down", "down", "escape")
    again = after(deep, "enter")
    assert again.place.filter == "inuse>3"
    assert again.place.cursor is not None
    other = after(deep, "slash", "ctrl+u", "3", "7", "enter", "enter")
    assert other.class_index == 37
    assert other.place == Place(sort="group")


def test_nothing_is_opened_where_there_is_nothing() -> None:
    """Enter on an empty table stays."""
    state = typed(no_pools(), ("enter", "enter"))
    assert state.screen == Screen.POOLS


def test_the_next_pool_goes_round() -> None:
    """Tab and Shift+Tab go through the pools, and take the order of classes along."""
    state = after(IN, "s", "tab")
    assert (state.pool, state.place.sort) == (2, "freeable")
    assert after(state, "tab").pool == 1
    assert after(state, "shift+tab").pool == 1


def test_events_lie_over_what_is_drilled_into() -> None:
    """From the events the view goes back to where it was."""
    deep = typed(BUSY, IN_31)
    for back in ("e", "escape", "left"):
        assert after(deep, "e", back) == deep


def test_a_pool_can_be_opened_from_the_start() -> None:
    """A pool of that name is opened as soon as there is one, and only once."""
    state = followed(started(interval_s=2, pool="zswap1", sort="size"), no_pools())
    assert state.screen == Screen.POOLS
    state = followed(state, BUSY)
    assert (state.screen, state.pool, state.place.sort) == (Screen.CLASSES, 2, "size")
    out = followed(after(state, "escape"), BUSY)
    assert out.screen == Screen.POOLS


def test_the_pool_that_was_asked_for_is_opened_again() -> None:
    """Gone and back again it is shown as before, unless the reader had left it."""
    asked, gone = replace(BUSY, wanted="zram0"), replace(without(BUSY, "zram0"), wanted="zram0")
    state = followed(started(interval_s=2, pool="zram0", sort="size"), asked)
    away = followed(state, gone)
    assert (away.screen, away.message) == (Screen.POOLS, "zram0 is gone")
    back = changed_pool(asked, id=7)
    again = followed(away, back)
    assert (again.screen, again.pool, again.place.sort) == (Screen.CLASSES, 7, "size")
    assert again.message == "zram0 is there again"
    assert followed(after(away, "slash", "z", scene=gone), back).screen == Screen.POOLS
    left = after(state, "escape", scene=asked)
    assert followed(followed(left, gone), back).screen == Screen.POOLS
    # Without --pool nothing is opened by itself.
    other = followed(followed(IN, without(BUSY, "zram0")), changed_pool(BUSY, id=7))
    assert other.screen == Screen.POOLS


# ---- rows that move ----------------------------------------------------------------


def reversed_waste(scene: Scene) -> Scene:
    """Return the scene with its classes' objects the other way round."""
    table = scene.snapshot.pools[0].classes
    full = table.capacity - table.objects
    return changed_pool(scene, classes=replace(table, objects=full))


def test_the_cursor_stays_on_its_row_when_rows_move() -> None:
    """In a new scene, by another column and turned round: the cursor is on the same class."""
    state = after(IN, *["down"] * 6)
    chosen = state.place.cursor
    before = row(state)
    moved = reversed_waste(BUSY)
    state = followed(state, moved)
    assert row(state, moved) != before
    for key in ("s", "r", ">", "I"):
        state = after(state, key, scene=moved)
        assert state.place.cursor == chosen
        line = next(
            text
            for spans in render(moved, state, USUAL)
            for text, role in spans
            if role == "cursor"
        )
        assert line.split()[0] == str(chosen)


def test_a_cursor_that_was_never_moved_stays_at_the_top() -> None:
    """It is on the first row, whichever that is now; Home brings it back there."""
    moved = reversed_waste(BUSY)
    assert row(followed(IN, moved), moved) == 0
    home = followed(after(IN, "down", "home"), moved)
    assert row(home, moved) == 0


def test_a_row_that_is_gone_leaves_the_cursor_at_its_place() -> None:
    """The cursor is on the row that stands there now."""
    scene = BUSY
    state = after(typed(scene, IN_31), *["down"] * 5)
    gone = state.place.cursor
    table = scene.snapshot.pools[0].zspage_list
    assert table is not None
    kept = table.take(np.flatnonzero(table.address != gone))
    left = changed_pool(scene, zspage_list=kept)
    state = followed(state, left)
    assert row(state, left) == 5
    assert state.place.cursor == listing(left, state).id_at(5) != gone


def test_events_follow_the_tail_until_the_cursor_is_moved() -> None:
    """New events scroll in under a cursor at the end; one that was moved stays on its event."""
    shot = BUSY.snapshot
    more = (*shot.events[2:], *shot.events[:3])
    grown = replace(BUSY, snapshot=replace(shot, events=more, events_seen=1010))
    tail = after(IN, "e")
    assert row(followed(tail, grown), grown) == len(more) - 1
    moved = after(tail, "up", "up")
    assert moved.place.cursor == 1004
    assert listing(grown, moved).id_at(row(followed(moved, grown), grown)) == 1004
    assert after(moved, "G").place.cursor is None


# ---- what is gone --------------------------------------------------------------------


@pytest.mark.parametrize("keys", [IN_CLASSES, IN_31, (*IN_31, "enter")])
def test_a_pool_that_vanishes_leads_back_to_the_pools(keys: tuple[str, ...]) -> None:
    """From any depth, with a message that the next key takes away."""
    left = without(BUSY, "zram0")
    state = followed(typed(BUSY, keys), left)
    assert (state.screen, state.message) == (Screen.POOLS, "zram0 is gone")
    assert ask_of(state).pool is None
    assert after(state, "down", scene=left).message == ""


def test_a_pool_that_vanishes_under_the_events_is_told_there() -> None:
    """The events stay; behind them the view is back at the pools."""
    left = without(BUSY, "zram0")
    state = followed(after(typed(BUSY, IN_31), "e"), left)
    assert (state.screen, state.message) == (Screen.EVENTS, "zram0 is gone")
    assert after(state, "e", scene=left).screen == Screen.POOLS


def test_a_class_that_is_gone_leads_back_to_the_classes() -> None:
    """A class table without that class."""
    scene = described()
    other = changed_pool(scene, classes=BUSY.snapshot.pools[0].classes)
    state = followed(typed(scene, TO_DESCRIPTORS), other)
    assert state.screen == Screen.CLASSES
    assert state.message == "class 107 holds no zspages any more"


def test_a_zspage_that_was_freed_leads_back_to_its_class() -> None:
    """Only a list that is of this class can tell."""
    scene = described()
    state = typed(scene, TO_DESCRIPTORS)
    unlisted = changed_pool(scene, zspage_list=None)
    assert followed(state, unlisted).screen == Screen.DESCRIPTORS
    elsewhere = changed_pool(scene, zspage_list=zspages_of(62, 4, 1, 3))
    assert followed(state, elsewhere).screen == Screen.DESCRIPTORS
    renewed = changed_pool(scene, zspage_list=zspages_of(107, 7, 3, 3))
    gone = followed(state, renewed)
    assert gone.screen == Screen.ZSPAGES
    assert gone.message == f"zspage {state.zspage:#x} was freed"


def test_what_is_read_while_paused_is_told() -> None:
    """All that is shown is newer then, and the message says of when; a pool that is gone wins."""
    paused, anew = after(IN, "space"), replace(BUSY, anew=True)
    told = followed(paused, anew)
    assert told.message == "read anew: PAUSED at 03:04:07 UTC now"
    assert followed(IN, anew).message == followed(paused, BUSY).message == ""
    assert followed(paused, without(anew, "zram0")).message == "zram0 is gone"
    assert texts(render(anew, told, Size(40, 10)))[-1] == told.message


# ---- filters -------------------------------------------------------------------------


def test_a_filter_is_typed_and_kept() -> None:
    """Typed letters are no keys; Enter keeps the filter and Esc clears it."""
    state = after(IN, "slash", "q", "q", "backspace")
    assert (state.typing, state.place.filter) == ("q", "")
    state = after(state, "ctrl+u", *"size>3000", "space", "2", "enter")
    assert (state.typing, state.place.filter) == (None, "size>3000 2")
    assert after(state, "slash").typing == "size>3000 2"
    assert after(state, "slash", "escape").place.filter == ""
    assert after(state, "slash", "escape").typing is None


def test_arrows_type_nothing() -> None:
    """Keys without a character, and what is no plain letter, leave the filter alone."""
    state = after(IN, "slash", "up", "f1", "tab", "pageup")
    assert state.typing == ""
    assert pressed(state, "é", BUSY, USUAL, text="é")[0].typing == ""
    assert pressed(state, "full_stop", BUSY, USUAL, text=".")[0].typing == "."
    assert pressed(state, "ctrl+c", BUSY, USUAL) == (state, Effect.QUIT)
    assert pressed(state, "ctrl+z", BUSY, USUAL) == (state, Effect.SUSPEND)


def test_what_ends_the_view_does_so_whatever_is_shown() -> None:
    """Before the first scene and in the help as well; nothing else does anything then."""
    for key in ("q", "ctrl+c"):
        assert ending(key) == Effect.QUIT
        assert pressed(after(IN, "?"), key, BUSY, USUAL)[1] == Effect.QUIT
    assert ending("ctrl+z") == Effect.SUSPEND
    assert {ending(key) for key in ("c", "enter", "z", "escape", "ctrl+u")} == {Effect.NONE}


# ---- interval, pause, help, asking ------------------------------------------------------


def test_intervals_go_through_their_steps_and_stop() -> None:
    """From any interval to the next one of the steps."""
    state = started(interval_s=3.3)
    assert after(state, "plus").interval_s == 5
    assert after(state, "minus").interval_s == 2
    assert after(state, *["+"] * 20).interval_s == 60
    assert after(state, *["-"] * 20).interval_s == 0.5
    assert after(started(interval_s=600), "plus").interval_s == 600
    assert after(started(interval_s=0.1), "minus").interval_s == 0.1


def test_what_is_asked_for_follows_the_screen() -> None:
    """Zspages and descriptors are asked for only while they are seen."""
    assert ask_of(IN).pool is None
    deep = typed(BUSY, IN_31)
    asked = ask_of(after(deep, "space", "plus"))
    assert (asked.pool, asked.class_index, asked.descriptors) == (1, 31, False)
    assert (asked.paused, asked.interval_s) == (True, 5)
    assert ask_of(after(deep, "enter")).descriptors
    assert ask_of(after(deep, "e")).pool is None


def test_the_help_scrolls_and_closes() -> None:
    """It goes down to its last line, and any key for going back closes it."""
    scene = bounded()
    state = typed(scene, ("?",))
    end = after(state, "end", scene=scene)
    assert texts(render(scene, end, USUAL))[-1] == "end of the help"
    assert after(end, "pagedown", "j", scene=scene) == end
    assert after(end, "home", scene=scene).help_top == 0
    for key in ("escape", "?", "h", "enter", "backspace"):
        assert after(end, key, scene=scene) == replace(state, help=False)
    assert pressed(end, "q", scene, USUAL)[1] == Effect.QUIT


def test_pages_are_as_long_as_the_table() -> None:
    """A page is what is seen of the table, whatever the terminal's size."""
    for rows in (10, 24, 40):
        size = Size(80, rows)
        lines = texts(render(BUSY, IN, size))
        title = next(at for at, line in enumerate(lines) if "CLASS" in line)
        state = after(IN, "pagedown", size=size)
        assert row(state) == min(rows - title - 2, 39)


def test_equal_classes_keep_their_order() -> None:
    """Also turned round: equals stand by their index."""
    table = BUSY.snapshot.pools[0].classes
    same = replace(table, zspages=ints([3] * len(table.index)))
    scene = changed_pool(BUSY, classes=same)
    state = typed(scene, ("enter", *["s"] * 30))
    while state.place.sort != "zspages":
        state = after(state, "s", scene=scene)
    for keys in ((), ("r",)):
        ids = listing(scene, after(state, *keys, scene=scene))
        shown = ids.table.ids[ids.order].tolist()
        assert shown == sorted(shown)
