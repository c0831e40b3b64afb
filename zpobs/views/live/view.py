"""What the reader of the interactive view has chosen to see, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple


class Screen(StrEnum):
    """The screens; each of the first four lies in what the one before it lists.

    The others lie over any of these. Some are about one pool; the rest show the one that is
    drilled into, else all.
    """

    POOLS = "pools"
    CLASSES = "classes"
    ZSPAGES = "zspages"
    DESCRIPTORS = "descriptors"
    EVENTS = "events"
    MIGRATION = "migration"
    LATENCY = "latency"
    LIFE = "life"
    COMPACTION = "compaction"
    OBJECTS = "objects"
    PINS = "pins"
    PAGEBLOCKS = "pageblocks"


# What is drilled into, outermost first.
DEPTHS = (Screen.POOLS, Screen.CLASSES, Screen.ZSPAGES, Screen.DESCRIPTORS)
# What lies over that, until it is left again; some of it is about one pool.
OVERLAYS = tuple(screen for screen in Screen if screen not in DEPTHS)
OF_A_POOL = (Screen.COMPACTION, Screen.PAGEBLOCKS)


class Effect(StrEnum):
    """What a key asks of the runtime beside another state."""

    NONE = "none"
    QUIT = "quit"
    COPY_JSON = "json"
    COPY_CSV = "csv"
    SUSPEND = "suspend"


class Size(NamedTuple):
    """The terminal's, in cells."""

    columns: int
    rows: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the reader is on one screen.

    ``cursor`` is the identity of a row: a pool's id, a class's index, a zspage's
    address, a descriptor's page or an event's number. None is the first row,
    whichever that is, or the last one of the events. ``row`` is where the
    cursor stood when it was last looked for, ``top`` the first row shown.
    """

    sort: str = ""
    reverse: bool = False
    filter: str = ""
    cursor: int | None = None
    row: int = 0
    top: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """Where to go in a capture: to a moment, monotonic ns, or by ``ns`` if ``by``.

    Moves are numbered from 1, so that none is done twice. ``step``: one interval on, which
    what was shown before leads to.
    """

    number: int
    ns: int
    by: bool = True
    step: bool = False


@dataclass(frozen=True, slots=True)
class ViewState:
    """All that the reader has chosen.

    ``pool``, ``class_index`` and ``zspage`` are what was drilled into as far as
    ``depth``; ``screen`` is the same screen, or one of OVERLAYS, of which some are
    about ``over_pool``. ``typing`` is a filter while it is being typed. ``start_pool``
    names a pool to open as soon as there is one of that name. ``shorter`` are ways to
    say ``message`` where there is less room.

    Of a capture that is replayed: its ``speed``, None as fast as can be; ``going``, a time
    to go to while it is being typed; ``moves`` that no scene told to be done yet, the last
    of which, ever, had the number ``moved``.
    """

    interval_s: float
    screen: Screen = Screen.POOLS
    depth: Screen = Screen.POOLS
    pool: int | None = None
    pool_name: str = ""
    over_pool: int | None = None
    class_index: int | None = None
    zspage: int | None = None
    places: Mapping[Screen, Place] = field(default_factory=lambda: MappingProxyType({}))
    paused: bool = False
    help: bool = False
    help_top: int = 0
    typing: str | None = None
    message: str = ""
    shorter: tuple[str, ...] = ()
    ascii: bool = False
    start_pool: str | None = None
    speed: float | None = 1.0
    going: str | None = None
    moves: tuple[Move, ...] = ()
    moved: int = 0

    @property
    def place(self) -> Place:
        """Where the reader is on the present screen."""
        return self.places.get(self.screen, Place())

    def moving(self, ns: int, *, by: bool = True, step: bool = False) -> ViewState:
        """Return the state with one more move in the capture."""
        number = self.moved + 1
        move = Move(number, ns, by=by, step=step)
        return replace(self, moves=(*self.moves, move), moved=number)

    def telling(self, message: str, *shorter: str) -> ViewState:
        """Return the state with another message, "" for none."""
        return replace(self, message=message, shorter=shorter)

    def at(self, screen: Screen, place: Place) -> ViewState:
        """Return the state with another place on a screen."""
        return replace(self, places=MappingProxyType({**self.places, screen: place}))
