"""The one table of keys: the handler, the footer, the help and the manual all come from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from zpobs.views.live.view import OVERLAYS, Screen


class Action(StrEnum):
    """What a key does."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page_up"
    PAGE_DOWN = "page_down"
    FIRST = "first"
    LAST = "last"
    OPEN = "open"
    BACK = "back"
    SORT_NEXT = "sort_next"
    SORT_PREVIOUS = "sort_previous"
    REVERSE = "reverse"
    FILTER = "filter"
    PAUSE = "pause"
    SLOWER = "slower"
    FASTER = "faster"
    EVENTS = "events"
    MIGRATION = "migration"
    LATENCY = "latency"
    LIFE = "life"
    COMPACTION = "compaction"
    OBJECTS = "objects"
    PINS = "pins"
    PAGEBLOCKS = "pageblocks"
    NEXT_POOL = "next_pool"
    PREVIOUS_POOL = "previous_pool"
    COPY_JSON = "copy_json"
    COPY_CSV = "copy_csv"
    HELP = "help"
    SUSPEND = "suspend"
    QUIT = "quit"
    STEP = "step"
    STEP_BACK = "step_back"
    JUMP = "jump"
    JUMP_BACK = "jump_back"
    HASTEN = "hasten"
    RETARD = "retard"
    GO_TO = "go_to"
    KEEP_FILTER = "keep_filter"
    CLEAR_FILTER = "clear_filter"
    ERASE = "erase"
    ERASE_ALL = "erase_all"


@dataclass(frozen=True, slots=True)
class Key:
    """One action and its keys, by the names that Textual has for them.

    ``footer`` is its word on the last line of the screen, "" if it is not
    there; ``rank`` says how early it leaves a narrow one. ``screens`` is
    where it does anything; those of none are there while a filter or a time is
    typed. ``replay``: it is there in a replay only.
    """

    action: Action
    keys: tuple[str, ...]
    words: str
    footer: str = ""
    rank: int = 0
    screens: tuple[Screen, ...] = tuple(Screen)
    replay: bool = False


_OPENED = (Screen.POOLS, Screen.CLASSES, Screen.ZSPAGES)
_SORTED = (*_OPENED, *(each for each in OVERLAYS if each != Screen.EVENTS))
_FILTERED = (*_OPENED, *OVERLAYS)
_DRILLED = (Screen.CLASSES, Screen.ZSPAGES, Screen.DESCRIPTORS, *OVERLAYS)

KEYS: tuple[Key, ...] = (
    Key(Action.UP, ("up", "k"), "move up a row"),
    Key(Action.DOWN, ("down", "j"), "move down a row"),
    Key(Action.PAGE_UP, ("pageup", "ctrl+b"), "move up a page"),
    Key(Action.PAGE_DOWN, ("pagedown", "ctrl+f"), "move down a page"),
    Key(Action.FIRST, ("home", "g"), "go to the first row"),
    Key(Action.LAST, ("end", "G"), "go to the last row; of the events: follow them"),
    Key(Action.OPEN, ("enter", "right"), "open the row under the cursor", "open", 1, _OPENED),
    Key(Action.BACK, ("escape", "backspace", "left"), "go back out", "back", 2, _DRILLED),
    Key(
        Action.SORT_NEXT, ("s", "greater_than_sign"), "sort by the next column", "sort", 4, _SORTED
    ),
    Key(
        Action.SORT_PREVIOUS, ("S", "less_than_sign"), "sort by the column before", screens=_SORTED
    ),
    Key(Action.REVERSE, ("r", "I"), "turn the order round", "reverse", 7, _SORTED),
    Key(
        Action.FILTER,
        ("slash",),
        "show only some rows: type a filter",
        "filter",
        5,
        _FILTERED,
    ),
    Key(Action.PAUSE, ("space",), "pause, and go on", "pause", 3),
    Key(Action.STEP, ("full_stop",), "pause, and go one interval on", "step", 3, replay=True),
    Key(Action.STEP_BACK, ("comma",), "pause, and go one interval back", replay=True),
    Key(Action.JUMP_BACK, ("left_square_bracket",), "go 10 s back", "10 s back", 8, replay=True),
    Key(Action.JUMP, ("right_square_bracket",), "go 10 s on", replay=True),
    Key(Action.RETARD, ("left_curly_bracket",), "half the speed", replay=True),
    Key(Action.HASTEN, ("right_curly_bracket",), "double the speed", "faster", 8, replay=True),
    Key(
        Action.GO_TO,
        ("t",),
        "go to a time: seconds from the beginning, -10 before the end, a time of day",
        "go to",
        3,
        replay=True,
    ),
    Key(Action.SLOWER, ("plus", "equals_sign"), "longer interval between frames"),
    Key(Action.FASTER, ("minus",), "shorter interval between frames"),
    Key(Action.EVENTS, ("e",), "events, and back", "events", 6),
    Key(Action.MIGRATION, ("v",), "zspages that refuse migration, and back", "migration", 14),
    Key(Action.LATENCY, ("l",), "how long calls take (--latency), and back", "latency", 10),
    Key(Action.LIFE, ("z",), "the lives of zspages (--life), and back", "life", 11),
    Key(
        Action.COMPACTION,
        ("m",),
        "compaction of a pool: what it would do, what the last ones did; and back",
        "compaction",
        10,
    ),
    Key(Action.OBJECTS, ("o",), "objects one by one (--objects), and back", "objects", 12),
    Key(Action.PINS, ("p",), "who pins near-empty zspages (--objects), and back", "pins", 13),
    Key(
        Action.PAGEBLOCKS,
        ("b",),
        "map of the pageblocks that hold a pool's pages, and back",
        "blocks",
        11,
    ),
    Key(Action.NEXT_POOL, ("tab",), "the next pool", "next pool", 9, (Screen.CLASSES,)),
    Key(Action.PREVIOUS_POOL, ("shift+tab",), "the pool before", screens=(Screen.CLASSES,)),
    Key(Action.COPY_JSON, ("c",), "copy this view, all its rows, as JSON", "copy", 8),
    Key(Action.COPY_CSV, ("C",), "copy this view, all its rows, as CSV"),
    Key(Action.HELP, ("question_mark", "h", "f1"), "this help, and back", "help", 0),
    Key(Action.SUSPEND, ("ctrl+z",), "stop, where a shell can continue it: fg"),
    Key(Action.QUIT, ("q", "ctrl+c"), "quit", "quit", 0),
    Key(Action.KEEP_FILTER, ("enter",), "take what was typed", screens=()),
    Key(Action.CLEAR_FILTER, ("escape",), "leave it, and no filter", screens=()),
    Key(Action.ERASE, ("backspace", "ctrl+h"), "erase the last character", screens=()),
    Key(Action.ERASE_ALL, ("ctrl+u",), "erase all characters", screens=()),
)

# Characters that terminals' libraries have names for.
_CHARACTERS = {
    "slash": "/",
    "question_mark": "?",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "full_stop": ".",
    "comma": ",",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
}
_SHOWN = _CHARACTERS | {
    "pageup": "PgUp",
    "pagedown": "PgDn",
    "escape": "Esc",
    "shift+tab": "Shift+Tab",
    "ctrl+b": "Ctrl+B",
    "ctrl+c": "Ctrl+C",
    "ctrl+f": "Ctrl+F",
    "ctrl+h": "Ctrl+H",
    "ctrl+u": "Ctrl+U",
    "ctrl+z": "Ctrl+Z",
    "f1": "F1",
}
_NAMED = {character: name for name, character in _CHARACTERS.items()} | {" ": "space"}


def action_of(key: str, screen: Screen | None = None) -> Action | None:
    """Return what a key does on a screen, or on any; None if nothing."""
    name = _NAMED.get(key, key)
    for each in KEYS:
        if name in each.keys and (screen in each.screens if screen else each.screens):
            return each.action
    return None


def typing_action_of(key: str) -> Action | None:
    """Return what a key does while a line is typed, None if it is only a character, if any.

    What stops and ends the view by a control key does so there as well.
    """
    name = _NAMED.get(key, key)
    for each in KEYS:
        typed = not each.screens or each.action in (Action.SUSPEND, Action.QUIT)
        if name in each.keys and typed and len(name) > 1:
            return each.action
    return None


def shown(key: str) -> str:
    """Return a key as readers know it."""
    if key in _SHOWN:
        return _SHOWN[key]
    return key if len(key) == 1 else key.capitalize()


def shown_keys(entry: Key) -> str:
    """Return all keys of an action, as readers know them."""
    return " ".join(shown(key) for key in entry.keys)


def where(entry: Key) -> str:
    """Return the screens on which an action is."""
    if not entry.screens:
        return "while typing"
    screens = "all" if entry.screens == tuple(Screen) else ", ".join(entry.screens)
    return f"{screens}, in a replay" if entry.replay else screens


def manual() -> list[str]:
    """Return the table of keys as lines of Markdown."""
    lines = ["| keys | what they do | screens |", "| --- | --- | --- |"]
    for entry in KEYS:
        keys = " ".join(f"`{shown(key)}`" for key in entry.keys)
        lines.append(f"| {keys} | {entry.words} | {where(entry)} |")
    return lines
