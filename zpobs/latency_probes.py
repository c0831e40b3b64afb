"""The add-on that measures how long calls take, for a session that asked for it.

Whatever it cannot do is told in its own part of a snapshot; the rest goes on.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from zpobs import wire
from zpobs.addons import AddOnView, MapFill
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.hooks import LATENCY_HOOKS
from zpobs.kernel.plan import ProbePlan
from zpobs.latency import Histogram, Ints, PoolLatency
from zpobs.loaders import Attached
from zpobs.loaders.addon import AddOn, AttachedAddOn, attach_addon
from zpobs.snapshot import PoolView, Snapshot, Status
from zpobs.sources.latency import (
    MAPS,
    Cells,
    LatencyReading,
    LatencySource,
    class_setup,
    kinds_of,
)

_NAME = "latency"


class LatencyProbes:
    """How long calls take (``bpf/latency.bpf.c``)."""

    def __init__(self) -> None:
        self._why_not = "no probe is attached yet"
        self._attached: AttachedAddOn | None = None
        self._source: LatencySource | None = None
        self._reading: LatencyReading | None = None
        self._missed: tuple[str, ...] = tuple(hook.function for hook in LATENCY_HOOKS)
        self._kinds: tuple[str, ...] = ()
        self._since_mono_ns = 0

    def attach(self, plan: ProbePlan, probes: Attached) -> None:
        """Attach beside attached probes."""
        hooks = tuple(hook for hook in LATENCY_HOOKS if hook.function in plan.functions)
        values = {".rodata.classes": class_setup(plan.kernel.page_size, plan.size_classes)}
        addon = AddOn("latency.bpf.o", hooks, MAPS, values=values)
        try:
            attached = attach_addon(addon, plan, probes)
        except EnvironmentLacksError as error:
            self._why_not = error.found or error.problem
            return
        self._since_mono_ns = time.monotonic_ns()
        self._attached = attached
        pools_fd = probes.map_fds["zs_pools"]
        self._source = LatencySource(attached.map_fds, attached.program_fds, pools_fd)
        hooked = {hook.function for hook in hooks if hook not in attached.failed}
        self._missed = tuple(each for each in self._missed if each not in hooked)
        self._kinds = kinds_of(hooked)

    def refuse(self, reason: str) -> None:
        """Note that no probe is attached, for a reason."""
        self._why_not = f"no probe is attached: {reason}"

    def read(self) -> None:
        """Read what was measured."""
        self._reading = self._source.read() if self._source else None

    def added_to(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with what was measured, and how it goes."""
        reading = self._reading
        if reading is None:
            view = AddOnView(_NAME, "unknown", (self._why_not,), 0, self._missed, ())
        else:
            view = self._view(reading)
        health = replace(snapshot.health, addons=(*snapshot.health.addons, view))
        since_ns = snapshot.time_ns - snapshot.mono_ns + self._since_mono_ns
        pools = tuple(
            replace(pool, latency=self._of(pool, reading, view, since_ns))
            for pool in snapshot.pools
        )
        return replace(snapshot, health=health, pools=pools)

    def _view(self, reading: LatencyReading) -> AddOnView:
        told = (
            (reading.skipped_runs, "runs of its probes were skipped"),
            (reading.unpaired, "calls were seen without one of their ends"),
            (reading.no_cell, "calls found no place in its table"),
        )
        reasons = [f"{count} {what}" for count, what in told if count]
        status: Status = "bounded" if reasons else "exact"
        if self._missed:
            reasons.append(f"not hooked: {', '.join(self._missed)}")
        cells = MapFill("zs_latencies", reading.used, wire.LATENCY_CELLS, reading.no_cell)
        hooks = len(LATENCY_HOOKS) - len(self._missed)
        return AddOnView(_NAME, status, tuple(reasons), hooks, self._missed, (cells,))

    def _of(
        self, pool: PoolView, reading: LatencyReading | None, view: AddOnView, since_ns: int
    ) -> PoolLatency:
        found = reading.cells.get(pool.id, {}) if reading else {}
        kinds = {name: _histogram(found.get(name)) for name in self._kinds}
        return PoolLatency(view.status, view.reasons, max(since_ns, pool.since_ns), kinds)

    def close(self) -> None:
        """Detach it."""
        if self._attached:
            self._attached.close()


def _histogram(cells: Cells | None) -> Histogram:
    if cells is None:
        none = np.zeros(0, dtype=np.int64)
        cells = Cells(none, none, np.zeros((0, wire.LATENCY_BUCKETS), dtype=np.int64))
    return Histogram(_frozen(cells.index), _frozen(cells.sum_ns), _frozen(cells.buckets))


def _frozen(array: Ints) -> Ints:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array
