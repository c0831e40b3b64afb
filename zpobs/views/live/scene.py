"""What the interactive view is given to show, and what it asks for. All of it is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zpobs.descriptors import Look
from zpobs.rates import PoolRates
from zpobs.snapshot import Snapshot

HISTORY_FRAMES = 60


@dataclass(frozen=True, slots=True)
class Ask:
    """What the next scene is to hold beside pools and classes.

    ``pool`` and ``class_index``: list the zspages of that class.
    ``descriptors``: read the descriptors of that class as well.
    """

    interval_s: float
    paused: bool = False
    pool: int | None = None
    class_index: int | None = None
    descriptors: bool = False


class Activity(NamedTuple):
    """Operations per second (allocations and frees together), oldest first, None if unknown."""

    per_second: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """One instant of everything that can be shown.

    ``activity`` is by pool id and size class (class -1 for the pool itself), of
    the last HISTORY_FRAMES frames at most. ``look`` holds the descriptors of
    the class that was asked for, None until they were read or if they cannot
    be: ``look_problem`` says why. ``pace_s`` is the time between frames; more
    than was asked for where taking one costs much. ``doing`` says what is being
    done meanwhile, such as attaching probes. ``wanted`` is the name of the only
    pool that was asked for on the command line.
    """

    snapshot: Snapshot
    rates: Mapping[int, PoolRates] = field(default_factory=dict)
    activity: Mapping[tuple[int, int], Activity] = field(default_factory=dict)
    look: Look | None = None
    look_problem: str = ""
    pace_s: float = 2.0
    doing: str = ""
    wanted: str | None = None
