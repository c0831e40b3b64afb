"""What a capture tells, step by step, in the order in which a session did it.

Played into a fresh model one after another they make the model of the session again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zpobs.errors import BadInputError
from zpobs.model.inputs import CountersReading, CounterWords, Coverage, PoolReading
from zpobs.model.scans import CLASSES_MAX
from zpobs.model.state import ModelState
from zpobs.wire import CLASS_GEOMETRY, CLASS_WORDS, Words

_COUNTED = (
    "ring_full",
    "unpaired",
    "missed_runs",
    "untracked_pools",
    "missed_counting_runs",
)


@dataclass(frozen=True, slots=True)
class Records:
    """A batch as the model took it at ``mono_ns``, shape (N, RECORD_WORDS).

    ``first`` is the number of its first record in the capture.
    """

    words: Words
    mono_ns: int
    first: int = 0


@dataclass(frozen=True, slots=True)
class Counters:
    """A reading of all counters."""

    reading: CountersReading

    @property
    def mono_ns(self) -> int:
        """When it was made."""
        return self.reading.mono_ns


@dataclass(frozen=True, slots=True)
class Loss:
    """More was lost between two readings: how many records, calls without an end, runs."""

    mono_ns: int
    since_ns: int
    ring_full: int
    unpaired: int
    missed_runs: int


@dataclass(frozen=True, slots=True)
class ScanNoted:
    """A round of scans over all pools ended at ``mono_ns``."""

    begin_ns: int
    mono_ns: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """The model looked then which zspages scans had not found."""

    mono_ns: int


@dataclass(frozen=True, slots=True)
class Covered:
    """Other hooks are attached than before."""

    coverage: Coverage
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What stands beside the model at one moment, as JSON (:mod:`zpobs.capture.moments`).

    None, where what it goes by was not read.
    """

    time_ns: int
    mono_ns: int
    aside: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Key:
    """All that the model knew: whoever begins to read here needs nothing from before."""

    state: ModelState
    time_ns: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Something of the capture cannot be read: how many blocks, if that is known, and why."""

    what: str
    blocks: int | None
    bytes: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The recorder ended the file itself; without this it was killed, or is recording still."""

    why: str
    mono_ns: int
    totals: Mapping[str, Any] = field(default_factory=dict)


Step = Records | Counters | Loss | ScanNoted | Swept | Covered | Moment | Key | Gap | Ended


# What comes of values that are not what they should be.
_NONSENSE = (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError)


class Changes:
    """Tells JSON objects by what changed since the one before, and back; the first one whole."""

    def __init__(self) -> None:
        self._last: dict[str, Any] | None = None

    @property
    def began(self) -> bool:
        """Whether there was one."""
        return self._last is not None

    def told(self, now: Mapping[str, Any]) -> dict[str, Any]:
        """Return what changed; all objects have the same members."""
        last, self._last = self._last, dict(now)
        if last is None:
            return dict(now)
        return {name: value for name, value in now.items() if last[name] != value}

    def understood(self, told: Mapping[str, Any], *, whole: bool) -> dict[str, Any] | None:
        """Return the object of which that was told; None if the one before was not read."""
        if whole:
            self._last = dict(told)
        elif self._last is not None:
            self._last = {**self._last, **told}
        return self._last


class ReadingCoder:
    """Tells readings by what changed since the one before, and back.

    One is told whole first, and after each :meth:`restart`. When one was made its step tells.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Tell the next reading whole: whoever begins here knows none before it."""
        self._losses = Changes()
        self._pools: dict[int, Changes] = {}
        self._classes: dict[int, CounterWords] = {}
        self._whole = True

    def told(self, reading: CountersReading) -> dict[str, Any]:
        """Return a reading as JSON."""
        counted = {name: getattr(reading, name) for name in _COUNTED}
        out = self._losses.told(counted | {"missed_counts": dict(reading.missed_counts)})
        out["pools"] = [self._told_pool(pool) for pool in reading.pools]
        if self._whole:
            out["whole"] = True
            self._whole = False
        return out

    def _told_pool(self, pool: PoolReading) -> dict[str, Any]:
        counters, classes = pool.pool_counters, pool.class_counters
        changes = self._pools.setdefault(pool.serial, Changes())
        out = {"serial": pool.serial} | changes.told(
            {
                "address": pool.address,
                "name": pool.name,
                "since_mono_ns": pool.since_mono_ns,
                "created": pool.created,
                "counters": None if counters is None else counters.tolist(),
                "size_classes": None if classes is None else len(classes),
            }
        )
        if classes is None:
            return out
        now = np.array(classes)
        before = self._classes.get(pool.serial, np.zeros_like(now))
        self._classes[pool.serial] = now
        grown = (now - before)[:, :CLASS_GEOMETRY]
        rows = np.flatnonzero(grown.any(axis=1)).tolist()
        geometry = now[:, CLASS_GEOMETRY]
        others = np.flatnonzero(geometry != before[:, CLASS_GEOMETRY]).tolist()
        if rows:
            out["classes"] = [[index, *grown[index].tolist()] for index in rows]
        if others:
            out["geometries"] = [[index, int(geometry[index])] for index in others]
        return out

    def understood(self, told: Mapping[str, Any], mono_ns: int) -> CountersReading | None:
        """Return the reading that JSON tells; None if what it goes by was not read.

        Raise BadInputError if it tells none.
        """
        try:
            whole = bool(told.get("whole"))
            if whole:
                self.restart()
                self._whole = False
            own = {name: value for name, value in told.items() if name not in ("whole", "pools")}
            counted = self._losses.understood(own, whole=whole)
            if counted is None:
                return None
            return CountersReading(
                mono_ns=mono_ns,
                **{name: int(counted[name]) for name in _COUNTED},
                missed_counts={
                    str(name): int(count) for name, count in counted["missed_counts"].items()
                },
                pools=tuple(self._understood_pool(pool) for pool in told["pools"]),
            )
        except _NONSENSE as error:
            raise BadInputError("a reading of counters is none", found=str(error)) from error

    def _understood_pool(self, told: Mapping[str, Any]) -> PoolReading:
        serial = int(told["serial"])
        first = serial not in self._pools
        own = {name: told[name] for name in told if name not in ("classes", "geometries")}
        pool = self._pools.setdefault(serial, Changes()).understood(own, whole=first)
        assert pool is not None
        counters = pool["counters"]
        return PoolReading(
            serial=serial,
            address=int(pool["address"]),
            name=str(pool["name"]),
            since_mono_ns=int(pool["since_mono_ns"]),
            created=bool(pool["created"]),
            class_counters=self._understood_classes(serial, pool["size_classes"], told),
            pool_counters=None if counters is None else np.array(counters, dtype=np.uint64),
        )

    def _understood_classes(
        self, serial: int, size_classes: int | None, told: Mapping[str, Any]
    ) -> CounterWords | None:
        if size_classes is None:
            return None
        if not 0 < size_classes <= CLASSES_MAX:
            raise BadInputError("a reading of counters is none", found=f"{size_classes} classes")
        classes = self._classes.get(serial)
        if classes is None or len(classes) != size_classes:
            classes = np.zeros((size_classes, CLASS_WORDS), dtype=np.uint64)
        elif "classes" in told or "geometries" in told:
            classes = classes.copy()
        for index, *grown in told.get("classes", ()):
            classes[index, :CLASS_GEOMETRY] += np.array(grown, dtype=np.uint64)
        for index, geometry in told.get("geometries", ()):
            classes[index, CLASS_GEOMETRY] = geometry
        self._classes[serial] = classes
        return classes


def told_coverage(coverage: Coverage) -> dict[str, Any]:
    """Return coverage as JSON."""
    return {
        "hooks": coverage.hooks,
        "missed_hooks": list(coverage.missed_hooks),
        "uncounted": sorted(coverage.uncounted),
        "unseen": list(coverage.unseen),
        "why_no_hooks": coverage.why_no_hooks,
        "untold": list(coverage.untold),
    }


def understood_coverage(told: Mapping[str, Any]) -> Coverage:
    """Return the coverage that JSON tells; raise BadInputError if it tells none."""
    try:
        return Coverage(
            hooks=int(told["hooks"]),
            missed_hooks=tuple(map(str, told["missed_hooks"])),
            uncounted=frozenset(map(str, told["uncounted"])),
            unseen=tuple(map(str, told["unseen"])),
            why_no_hooks=str(told["why_no_hooks"]),
            untold=tuple(map(str, told["untold"])),
        )
    except _NONSENSE as error:
        raise BadInputError("what is covered is not told", found=str(error)) from error
