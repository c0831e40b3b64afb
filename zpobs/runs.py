"""Runs of compaction: what began them, what they moved and freed, class by class.

Frozen values that hang on a :class:`zpobs.snapshot.PoolView`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zpobs.compaction import PoolForecast

Status = Literal["exact", "bounded", "unknown"]
# zram's file "compact" in sysfs, memory pressure, or a call that is neither. In the kernel
# zs_compact() has no caller but these two, and the file only a pool of zram (mm/zsmalloc.c,
# drivers/block/zram/zram_drv.c).
Trigger = Literal["sysfs", "shrinker", "other", "unknown"]
TRIGGERS: tuple[Trigger, ...] = ("sysfs", "shrinker", "other", "unknown")


@dataclass(frozen=True, slots=True)
class ClassOutcome:
    """What a run did with one size class; ``size`` 0 and ``duration_ns`` None: not known."""

    index: int
    size: int
    moves: int
    pages: int
    duration_ns: int | None

    @property
    def moved_bytes(self) -> int | None:
        """Bytes that were copied: whole places, whatever was asked for."""
        return self.moves * self.size if self.size or not self.moves else None

    def to_json(self) -> dict[str, Any]:
        """Return one element of the ``classes`` of a run."""
        return {
            "index": self.index,
            "size": self.size or None,
            "moves": self.moves,
            "moved_bytes": self.moved_bytes,
            "pages": self.pages,
            "duration_ns": self.duration_ns,
        }


@dataclass(frozen=True, slots=True)
class Expected:
    """The forecast that was the newest before a run, made at ``made_ns``, wall-clock.

    ``operations`` are the allocations and frees from just before the forecast until
    the run was first shown, None where they are not counted: at most so many came
    between. ``differs`` says why the outcome is another, as far as that is known, and
    is empty if it is the same.
    """

    made_ns: int
    forecast: PoolForecast
    operations: int | None
    differs: str

    def to_json(self) -> dict[str, Any]:
        """Return the ``forecast`` object of a run."""
        return {
            "made_ns": self.made_ns,
            "operations": self.operations,
            "differs": self.differs,
            **self.forecast.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Run:
    """One run that has ended, or whose end was lost: then ``reasons`` say so.

    ``begin_ns`` is wall-clock time. ``moves`` and ``pages`` are those of the whole run,
    as the kernel-side totals told them at its end; ``status`` is exact if the classes
    sum up to them.
    """

    trigger: Trigger
    begin_ns: int
    duration_ns: int | None
    moves: int
    pages: int
    classes: tuple[ClassOutcome, ...]
    status: Status
    reasons: tuple[str, ...] = ()
    expected: Expected | None = None

    @property
    def moved_bytes(self) -> int | None:
        """Bytes that were copied, None unless all is known of each class."""
        known = [each.moved_bytes for each in self.classes if each.moved_bytes is not None]
        whole = len(known) == len(self.classes) and self.moves == sum(
            each.moves for each in self.classes
        )
        return sum(known) if whole else None

    def to_json(self) -> dict[str, Any]:
        """Return one element of ``recent``."""
        return {
            "trigger": self.trigger,
            "begin_ns": self.begin_ns,
            "duration_ns": self.duration_ns,
            "moves": self.moves,
            "moved_bytes": self.moved_bytes,
            "pages": self.pages,
            "status": self.status,
            "reasons": list(self.reasons),
            "classes": [each.to_json() for each in self.classes],
            "forecast": None if self.expected is None else self.expected.to_json(),
        }


@dataclass(frozen=True, slots=True)
class RunSums:
    """All runs of one trigger; bytes are None unless every class's size is known."""

    runs: int
    moves: int
    moved_bytes: int | None
    pages: int
    duration_ns: int

    def to_json(self) -> dict[str, Any]:
        """Return one value of ``by_trigger``."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class PoolRuns:
    """The runs of a pool; ``recent`` are the last ones, the oldest first.

    ``status`` is exact if all that was told of runs sums up to what the kernel-side
    counters say, unknown where no probe tells of runs; ``reasons`` say why it is less.
    ``by_trigger`` are all runs that were told to their end, ``forgotten`` of them are no
    more among the recent ones. ``under_way_ns``: when the run began that has not ended.
    """

    status: Status
    reasons: tuple[str, ...]
    by_trigger: Mapping[Trigger, RunSums]
    recent: tuple[Run, ...]
    forgotten: int
    under_way_ns: int | None

    def to_json(self) -> dict[str, Any]:
        """Return the ``compaction_runs`` object of a pool."""
        return {
            "status": self.status,
            "reasons": list(self.reasons),
            "by_trigger": {name: sums.to_json() for name, sums in self.by_trigger.items()},
            "under_way_ns": self.under_way_ns,
            "forgotten": self.forgotten,
            "recent": [each.to_json() for each in self.recent],
        }
