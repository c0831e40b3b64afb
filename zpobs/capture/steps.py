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
from zpobs.wire import CLASS_WORDS, Words

_COUNTED = (
    "mono_ns",
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
class Covered:
    """Other hooks are attached than before."""

    coverage: Coverage
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Moment:
    """What stands beside the model at one moment, as JSON (:mod:`zpobs.capture.moments`)."""

    time_ns: int
    mono_ns: int
    aside: Mapping[str, Any]


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


Step = Records | Counters | Loss | ScanNoted | Covered | Moment | Key | Gap | Ended


class ReadingCoder:
    """Tells readings by what changed in their class counters since the one before, and back.

    One is told whole first, and after each :meth:`restart`.
    """

    def __init__(self) -> None:
        self._classes: dict[int, CounterWords] = {}
        self._whole = True

    def restart(self) -> None:
        """Tell the next reading whole: whoever begins here knows none before it."""
        self._classes.clear()
        self._whole = True

    def told(self, reading: CountersReading) -> dict[str, Any]:
        """Return a reading as JSON."""
        out: dict[str, Any] = {name: getattr(reading, name) for name in _COUNTED}
        if reading.missed_counts:
            out["missed_counts"] = dict(reading.missed_counts)
        out["pools"] = [self._told_pool(pool) for pool in reading.pools]
        if self._whole:
            out["whole"] = True
            self._whole = False
        return out

    def _told_pool(self, pool: PoolReading) -> dict[str, Any]:
        out: dict[str, Any] = {
            "serial": pool.serial,
            "address": pool.address,
            "name": pool.name,
            "since_mono_ns": pool.since_mono_ns,
            "created": pool.created,
        }
        if pool.pool_counters is not None:
            out["counters"] = pool.pool_counters.tolist()
        if pool.class_counters is not None:
            before = self._classes.get(pool.serial)
            now = np.array(pool.class_counters)
            changed = (now != 0 if before is None else now != before).any(axis=1)
            at = np.flatnonzero(changed)
            out["size_classes"] = len(now)
            out["classes"] = [[index, *now[index].tolist()] for index in at.tolist()]
            self._classes[pool.serial] = now
        return out

    def understood(self, told: Mapping[str, Any]) -> CountersReading | None:
        """Return the reading that JSON tells; None if what it goes by was not read.

        Raise BadInputError if it tells none.
        """
        try:
            if told.get("whole"):
                self._classes.clear()
                self._whole = False
            elif self._whole:
                return None
            return CountersReading(
                **{name: int(told[name]) for name in _COUNTED},
                missed_counts={
                    str(name): int(count) for name, count in told.get("missed_counts", {}).items()
                },
                pools=tuple(self._understood_pool(pool) for pool in told["pools"]),
            )
        except (
            KeyError,
            TypeError,
            ValueError,
            IndexError,
            OverflowError,
            AttributeError,
        ) as error:
            raise BadInputError("a reading of counters is none", found=str(error)) from error

    def _understood_pool(self, told: Mapping[str, Any]) -> PoolReading:
        serial = int(told["serial"])
        classes = None
        if "classes" in told:
            count = int(told["size_classes"])
            if not 0 < count <= CLASSES_MAX:
                raise BadInputError("a reading of counters is none", found=f"{count} classes")
            classes = self._classes.get(serial)
            classes = (
                np.zeros((count, CLASS_WORDS), dtype=np.uint64)
                if classes is None
                else classes.copy()
            )
            for index, *words in told["classes"]:
                classes[index] = words
            self._classes[serial] = classes
        counters = told.get("counters")
        return PoolReading(
            serial=serial,
            address=int(told["address"]),
            name=str(told["name"]),
            since_mono_ns=int(told["since_mono_ns"]),
            created=bool(told["created"]),
            class_counters=classes,
            pool_counters=None if counters is None else np.array(counters, dtype=np.uint64),
        )


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
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError("what is covered is not told", found=str(error)) from error
