"""How many observations were lost, and since when."""

from __future__ import annotations

from collections import deque

from zpobs.model.inputs import CountersReading

# Readings that told more loss than the one before. Where older ones are dropped,
# loss counts as later than it was: to the safe side.
_STEPS_KEPT = 256


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
