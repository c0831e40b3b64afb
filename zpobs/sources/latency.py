"""Histograms of latencies out of the kernel: what ``bpf/latency.bpf.c`` gathers.

Keys and values are ``bpf/zs_wire.h``'s, one value for each possible CPU.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.sources import bpfmap
from zpobs.sources.counters import POOL_ENTRY

Ints = npt.NDArray[np.int64]

MAPS = ("zs_latencies", "zs_latency_loss", "zs_timed_calls")
# Kind -> the functions of which hooks it takes both ends, and its name.
_NAMES = {
    wire.LATENCY_ALLOC: "alloc",
    wire.LATENCY_ALLOC_FAILED: "alloc_failed",
    wire.LATENCY_FREE: "free",
    wire.LATENCY_ALLOC_LOCK: "alloc_lock",
    wire.LATENCY_ALLOC_GROW: "alloc_grow",
    wire.LATENCY_FREE_LOCK: "free_lock",
    wire.LATENCY_MIGRATION: "migration",
    wire.LATENCY_MIGRATION_FAILED: "migration_failed",
}
# A free takes its class, and the time of the lock, from obj_free().
_NEEDS = {
    "alloc": ("zs_malloc",),
    "alloc_failed": ("zs_malloc",),
    "alloc_lock": ("zs_malloc", "obj_malloc"),
    "alloc_grow": ("zs_malloc", "obj_malloc"),
    "free": ("zs_free", "obj_free"),
    "free_lock": ("zs_free", "obj_free"),
    "migration": ("zs_page_migrate",),
    "migration_failed": ("zs_page_migrate",),
}
# kind, class index, pool serial; then two words and the buckets.
_KEY = struct.Struct("=HHI")
_VALUE_WORDS = 2 + wire.LATENCY_BUCKETS
# struct zs_class_setup: smallest_bytes, step_bytes, handle_bytes.
_SETUP = struct.Struct("=QQQ")
_HANDLE_BYTES = 8
# ZS_MIN_ALLOC_SIZE and CLASS_BITS in mm/zsmalloc.c.
_SMALLEST_BYTES = 32
_CLASS_BITS = 8


@dataclass(frozen=True, slots=True)
class Cells:
    """What was gathered of one pool and kind: rows by rising class, -1 for one not known.

    ``index`` and ``sum_ns`` have shape (C,), ``buckets`` (C, LATENCY_BUCKETS).
    """

    index: Ints
    sum_ns: Ints
    buckets: Ints


@dataclass(frozen=True, slots=True)
class LatencyReading:
    """All histograms at one instant, by pool serial and kind; what could not be told."""

    cells: Mapping[int, Mapping[str, Cells]]
    unpaired: int
    no_cell: int
    skipped_runs: int
    used: int


def class_setup(page_bytes: int, size_classes: int) -> bytes:
    """Return the content of ``.rodata.classes``: how sizes become slots of size classes."""
    step = page_bytes >> _CLASS_BITS
    smallest = max(_SMALLEST_BYTES, page_bytes - (size_classes - 1) * step)
    return _SETUP.pack(smallest, step, _HANDLE_BYTES)


def kinds_of(functions: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds of which all that is needed is hooked."""
    there = set(functions)
    return tuple(name for name, needs in _NEEDS.items() if there.issuperset(needs))


class LatencySource:
    """Reads the maps of the add-on; ``pools_fd`` is the probes' own table of pools."""

    def __init__(
        self, map_fds: Mapping[str, int], program_fds: Mapping[str, int], pools_fd: int
    ) -> None:
        self._maps = map_fds
        self._programs = program_fds
        self._pools_fd = pools_fd
        self._cpus = bpfmap.possible_cpus()

    def read(self) -> LatencyReading:
        """Read everything; cells of pools that are gone are dropped for good."""
        live = {
            int(np.frombuffer(value, dtype=np.uint32, count=1)[0])
            for _, value in bpfmap.items(self._pools_fd, 8, POOL_ENTRY.size)
        }
        value_bytes = 8 * _VALUE_WORDS * self._cpus
        gathered: dict[tuple[int, int], dict[int, npt.NDArray[np.uint64]]] = {}
        used = 0
        for key, value in bpfmap.items(self._maps["zs_latencies"], _KEY.size, value_bytes):
            kind, class_index, serial = _KEY.unpack(key)
            if serial not in live:
                with contextlib.suppress(FileNotFoundError):
                    bpfmap.delete(self._maps["zs_latencies"], key)
                continue
            used += 1
            words = np.frombuffer(value, dtype=np.uint64).reshape(self._cpus, _VALUE_WORDS)
            index = -1 if class_index == wire.LATENCY_NO_CLASS else class_index
            gathered.setdefault((serial, kind), {})[index] = words.sum(axis=0, dtype=np.uint64)
        cells: dict[int, dict[str, Cells]] = {}
        for (serial, kind), rows in gathered.items():
            cells.setdefault(serial, {})[_NAMES[kind]] = _cells(rows)
        loss = bpfmap.lookup_batch(
            self._maps["zs_latency_loss"], 0, 1, wire.LATENCY_LOSSES, self._cpus
        )[0].sum(axis=0)
        return LatencyReading(
            cells=cells,
            unpaired=int(loss[wire.LATENCY_UNPAIRED]),
            no_cell=int(loss[wire.LATENCY_NO_CELL]),
            skipped_runs=sum(bpfmap.recursion_misses(fd) for fd in self._programs.values()),
            used=used,
        )


def _cells(rows: Mapping[int, npt.NDArray[np.uint64]]) -> Cells:
    index = sorted(rows)
    words = np.array([rows[each] for each in index], dtype=np.int64)
    # The count stands first, and is the sum of the buckets.
    return Cells(np.array(index, dtype=np.int64), words[:, 1], words[:, 2:])
