"""How many observations were lost, and since when."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from zpobs.model.arrays import rising
from zpobs.model.inputs import CountersReading
from zpobs.model.state import StateReader, StateWriter, check, member

# Readings that told more loss than the one before. Where older ones are dropped,
# loss counts as later than it was: to the safe side.
_STEPS_KEPT = 256
_READING = (
    "mono_ns",
    "ring_full",
    "unpaired",
    "missed_runs",
    "untracked_pools",
    "missed_counting_runs",
)


class LossHistory:
    """The loss totals of all readings, kept where they grew."""

    def __init__(self) -> None:
        self.last: CountersReading | None = None
        self._steps: deque[tuple[int, int]] = deque(maxlen=_STEPS_KEPT)

    def take(self, reading: CountersReading) -> bool:
        """Take a reading; return whether it is as new as the last."""
        if self.last is not None and reading.mono_ns < self.last.mono_ns:
            return False
        if reading.loss != (self._steps[-1][1] if self._steps else 0):
            self._steps.append((reading.mono_ns, reading.loss))
        self.last = reading
        return True

    def save(self, out: StateWriter) -> None:
        """Add all to a state; what the last reading told of pools, these have themselves."""
        last = self.last
        told = None
        if last is not None:
            told = {name: getattr(last, name) for name in _READING}
            told["missed_counts"] = dict(last.missed_counts)
        out.value("reading", told)
        steps = np.array(self._steps, dtype=np.uint64).reshape(-1, 2)
        out.table("losses", {"mono_ns": steps[:, 0], "lost": steps[:, 1]})

    def load(self, given: StateReader) -> None:
        """Take all from a state, with nothing here before."""
        told = given.optional("reading", dict)
        steps = given.table("losses", {"mono_ns": np.uint64, "lost": np.uint64})
        if told is None:
            check(len(steps["lost"]) == 0, "losses")
            return
        counts = member(told, "missed_counts", dict)
        numbers: dict[str, Any] = {name: member(told, name, int) for name in _READING}
        missed = {name: member(counts, name, int) for name in counts}
        self.last = CountersReading(**numbers, missed_counts=missed)
        check(rising(steps["mono_ns"]), "losses.mono_ns")
        columns = (steps["mono_ns"].tolist(), steps["lost"].tolist())
        self._steps.extend(zip(*columns, strict=True))

    @property
    def grew_ns(self) -> int:
        """The time of the first reading that told all loss there is; 0 if there is none.

        Nothing was lost after any time that is not before it.
        """
        return self._steps[-1][0] if self._steps else 0

    def since(self, mono_ns: int) -> int:
        """Return how many observations can have been lost after ``mono_ns``.

        That is all but what the last reading at or before that time told.
        """
        if self.last is None:
            return 0
        told = 0
        for step_ns, loss in self._steps:
            if step_ns <= mono_ns:
                told = loss
        return self.last.loss - told
