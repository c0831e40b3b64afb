"""How full the maps of ``bpf/objects.bpf.c`` are, and what it could not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from zpobs import wire
from zpobs.addons import MapFill
from zpobs.sources import bpfmap

MAPS = ("zs_object_tasks", "zs_object_loss", "zs_calls")
# max_entries of zs_calls in bpf/dialect_core.h.
_CALLS = 4096


@dataclass(frozen=True, slots=True)
class ObjectReading:
    """Sentences about what was lost since the beginning, and the fill of maps."""

    losses: tuple[str, ...]
    maps: tuple[MapFill, ...]


class ObjectSource:
    """Reads the maps of the add-on; ``loss_fd`` is the probes' own loss map, which it shares."""

    def __init__(
        self, map_fds: Mapping[str, int], program_fds: Mapping[str, int], loss_fd: int
    ) -> None:
        self._maps = map_fds
        self._programs = program_fds
        self._loss_fd = loss_fd
        self._cpus = bpfmap.possible_cpus()
        self._shared = self._words(loss_fd, wire.LOSS_WORDS)

    def _words(self, fd: int, count: int) -> list[int]:
        words = bpfmap.lookup_batch(fd, 0, 1, count, self._cpus)[0]
        return [int(word) for word in np.sum(words, axis=0)]

    def read(self) -> ObjectReading:
        """Read everything."""
        shared = self._words(self._loss_fd, wire.LOSS_WORDS)
        own = self._words(self._maps["zs_object_loss"], wire.OBJECT_LOSSES)
        skipped = sum(bpfmap.recursion_misses(fd) for fd in self._programs.values())
        refused = own[wire.OBJECT_NO_TASK]
        ring_full = shared[wire.LOSS_RING_FULL] - self._shared[wire.LOSS_RING_FULL]
        unpaired = shared[wire.LOSS_UNPAIRED] - self._shared[wire.LOSS_UNPAIRED]
        told = (
            (ring_full, "records found the ring full"),
            (skipped, "runs of its probes were skipped"),
            (unpaired, "calls were seen without one of their ends"),
            (own[wire.OBJECT_NO_POOL], "operations on pools that are not watched"),
            (refused, "owners found no place in the kernel's table"),
        )
        return ObjectReading(
            losses=tuple(f"{count:,} {what}" for count, what in told if count),
            maps=(
                self._fill("zs_object_tasks", wire.OBJECT_TASKS, refused),
                self._fill("zs_calls", _CALLS, 0),
            ),
        )

    def _fill(self, name: str, size: int, refused: int) -> MapFill:
        return MapFill(name, len(set(bpfmap.keys(self._maps[name], 8))), size, refused)
