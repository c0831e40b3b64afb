"""What the interactive view is given to show, and what it asks for. All of it is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zpobs.descriptors import Look
from zpobs.pageblocks import Pageblocks
from zpobs.rates import PoolRates
from zpobs.snapshot import Snapshot
from zpobs.spans import Span
from zpobs.views.live.view import Move

HISTORY_FRAMES = 60


@dataclass(frozen=True, slots=True)
class Ask:
    """What the next scene is to hold beside pools and classes.

    ``pool`` and ``class_index``: list the zspages of that class.
    ``descriptors``: read the descriptors of that class as well. ``compaction``: play one
    through for each pool. ``pageblocks``: find the blocks in which pages lie.
    ``speed`` is that of a capture, None as fast as can be, and ``moves`` what no
    earlier scene told to be done. Paused, the time of a capture stands still.
    """

    interval_s: float
    paused: bool = False
    pool: int | None = None
    class_index: int | None = None
    descriptors: bool = False
    compaction: bool = False
    pageblocks: bool = False
    speed: float | None = 1.0
    moves: tuple[Move, ...] = ()


# Operations per second (allocations and frees together), oldest first, None if unknown.
Activity = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where in a capture a scene is: its moment, monotonic ns, and whether nothing comes after it.

    ``moved`` is the number of the last move that was done before.
    """

    span: Span
    position_ns: int
    ended: bool = False
    moved: int = 0


class Memo:
    """The newest few values that were made of one scene, by what they were made for.

    What is kept is replaced whole and never changed: threads that look at one scene
    at a time may make a value twice, and none of them finds anything half done.
    """

    __slots__ = ("_kept",)
    _MOST = 4

    def __init__(self) -> None:
        self._kept: tuple[tuple[object, Any], ...] = ()

    def get(self, key: object) -> Any:
        """Return the value for a key, None if there is none any more."""
        return next((value for known, value in self._kept if known == key), None)

    def keep(self, key: object, value: Any) -> None:
        """Keep a value, in place of the oldest one if there are too many."""
        self._kept = (*self._kept[1 - self._MOST :], (key, value))


@dataclass(frozen=True, slots=True)
class Scene:
    """One instant of everything that can be shown.

    ``activity`` is by pool id and size class (class -1 for the pool itself), of
    the last HISTORY_FRAMES frames at most. ``look`` holds the descriptors of
    the class that was asked for, None until they were read or if they cannot
    be: ``look_problem`` says why. ``blocks`` are by pool, empty until they were read;
    ``blocks_problem`` says why they cannot be. ``pace_s`` is the time between frames; more
    than was asked for where taking one costs much. ``doing`` says what is being
    done meanwhile, such as attaching probes. ``wanted`` is the name of the only
    pool that was asked for on the command line. ``anew``: it was taken while
    paused, because something was opened that no earlier scene held. ``memo`` is
    what was made of it so far; another scene, even an equal one, begins anew.
    ``replay`` is None in a live session.
    """

    snapshot: Snapshot
    rates: Mapping[int, PoolRates] = field(default_factory=dict)
    activity: Mapping[tuple[int, int], Activity] = field(default_factory=dict)
    look: Look | None = None
    look_problem: str = ""
    blocks: Mapping[int, Pageblocks] = field(default_factory=dict)
    blocks_problem: str = ""
    pace_s: float = 2.0
    doing: str = ""
    wanted: str | None = None
    anew: bool = False
    replay: Replayed | None = None
    memo: Memo = field(default_factory=Memo, init=False, repr=False, compare=False)
