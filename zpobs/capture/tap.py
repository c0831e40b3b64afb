"""A model that tells a recorder everything that it is fed with, in order."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from zpobs.model.inputs import CountersReading, Coverage
from zpobs.model.shadow import ShadowModel
from zpobs.snapshot import Kernel
from zpobs.wire import Words


class StepTaker(Protocol):
    """What is told of a model's steps; all of these are :class:`~.writer.CaptureWriter`'s."""

    def records(self, words: Words, mono_ns: int) -> None:
        """Take a batch of records."""

    def counters(self, reading: CountersReading) -> None:
        """Take a reading of counters."""

    def scan_noted(self, begin_ns: int, mono_ns: int, missing: tuple[str, ...]) -> None:
        """Take the end of a round of scans."""

    def swept(self, mono_ns: int) -> None:
        """Take that the model looked which zspages scans had not found."""

    def covered(self, coverage: Coverage, mono_ns: int) -> None:
        """Take that other hooks are attached."""


class TappedModel(ShadowModel):
    """A shadow model that hands on what it takes before it takes it, by a monotonic clock."""

    def __init__(
        self,
        kernel: Kernel,
        coverage: Coverage,
        *,
        life: bool = False,
        told: StepTaker,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(kernel, coverage, life=life)
        self._told = told
        self._clock = clock
        told.covered(coverage, clock())

    def apply(self, words: Words) -> None:
        """Take a batch of records."""
        if len(words):
            self._told.records(words, self._clock())
        super().apply(words)

    def apply_counters(self, reading: CountersReading) -> None:
        """Take a reading of all counters."""
        self._told.counters(reading)
        super().apply_counters(reading)

    def note_scan(self, begin_mono_ns: int, end_mono_ns: int, missing: tuple[str, ...]) -> None:
        """Note a round of scans over all pools."""
        self._told.scan_noted(begin_mono_ns, end_mono_ns, missing)
        super().note_scan(begin_mono_ns, end_mono_ns, missing)

    def sweep(self) -> None:
        """Look which zspages scans have not found."""
        if self.sweep_due:
            self._told.swept(self._clock())
        super().sweep()

    def cover(self, coverage: Coverage) -> None:
        """Note that other hooks are attached."""
        self._told.covered(coverage, self._clock())
        super().cover(coverage)
