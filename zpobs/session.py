"""The pump: drains the ring into the model and publishes snapshots on a clock.

One thread owns sources and model. Views get frozen snapshots and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.plan import AttachWish, ProbePlan, make_plan
from zpobs.loaders import Attached, LoaderName, make_loader
from zpobs.model.inputs import Coverage
from zpobs.model.shadow import ShadowModel
from zpobs.snapshot import Snapshot
from zpobs.sources.counters import CounterSource, zram_devices
from zpobs.sources.ring import RECORDS_PER_READ, SLOT_BYTES, RingConsumer

# The longest that places of pools that are gone stay taken, and losses untold.
TICK_S = 0.25

_ZSWAP_ENABLED = Path("/sys/module/zswap/parameters/enabled")
_CAPABILITIES = {"CAP_SYSLOG": 34, "CAP_PERFMON": 38, "CAP_BPF": 39}
_CAP_SYS_ADMIN = 21


class Session:
    """Attached probes, their sources and the model they feed."""

    def __init__(self, plan: ProbePlan, attached: Attached, counters: CounterSource) -> None:
        self._attached = attached
        self._counters = counters
        self._ring = RingConsumer(attached.map_fds["zs_events"], attached.ring_bytes)
        self._model = ShadowModel(plan.kernel, _coverage(plan, attached))
        self._kprobes = attached.form == "kprobe"
        self._poll = select.epoll()
        # By edge: the probes wake us when the ring fills, not whenever it holds something.
        self._poll.register(self._ring.fileno(), select.EPOLLIN | select.EPOLLET)
        self._unmet = _pools_in_use()

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        """Feed the model until ``deadline_s`` (monotonic) or until one of ``watch`` is readable.

        Returns whether a watched descriptor is readable.
        """
        for descriptor in watch:
            self._poll.register(descriptor, select.EPOLLIN)
        try:
            while True:
                left_s = deadline_s - time.monotonic()
                ready = self._poll.poll(min(max(left_s, 0), TICK_S))
                self._drain()
                self._read_counters()
                if any(descriptor in watch for descriptor, _ in ready):
                    return True
                if left_s <= 0:
                    return False
        finally:
            for descriptor in watch:
                self._poll.unregister(descriptor)

    def snapshot(self, *, zspages: bool = False, pool: str | None = None) -> Snapshot:
        """Read everything that is there and return it frozen."""
        # The reading last, so that whatever was lost so far is told.
        self._drain()
        self._read_counters()
        snapshot = self._model.snapshot(
            time_ns=time.time_ns(), mono_ns=time.monotonic_ns(), zspages=zspages, pool=pool
        )
        return self._with_unmet(snapshot, pool)

    def _read_counters(self) -> None:
        with _not_preempted() if self._kprobes else contextlib.nullcontext():
            self._model.apply_counters(self._counters.read(time.monotonic_ns()))

    def _drain(self) -> None:
        # What is there now and no more: a busy writer would otherwise never let go.
        for _ in range(1 + self._ring.pending_bytes // (RECORDS_PER_READ * SLOT_BYTES)):
            words = self._ring.read()
            if words is None:
                return
            self._model.apply(words)

    def _with_unmet(self, snapshot: Snapshot, wanted: str | None) -> Snapshot:
        """Say which pools were there before the probes and have not been met since."""
        met = {"zswap" if pool.owner == "zswap" else pool.name for pool in snapshot.pools}
        self._unmet = (self._unmet & _pools_in_use()) - met
        named = sorted(self._unmet if wanted is None else self._unmet & {wanted})
        if not named:
            return snapshot
        reason = f"in use since before the probes attached, not met since: {', '.join(named)}"
        health = replace(
            snapshot.health, status="unknown", reasons=(*snapshot.health.reasons, reason)
        )
        return replace(snapshot, health=health)

    def close(self) -> None:
        """Detach everything."""
        self._poll.close()
        self._ring.close()
        self._attached.close()


@contextlib.contextmanager
def open_session(
    *,
    loader: LoaderName,
    wish: AttachWish,
    skip: frozenset[str],
    ring_bytes: int,
    pool: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Session]:
    """Check the host, attach the probes and yield a running session."""
    _check_privilege()
    plan = make_plan(probe_kernel(), skip=skip)
    if pool is not None:
        _check_pool(pool)
    progress(f"attaching {len(plan.hooks)} hooks (bcc compiles them first)")
    made: list[CounterSource] = []

    def prepare(map_fds: Mapping[str, int]) -> None:
        made[:] = [CounterSource(map_fds, plan.size_classes)]
        made[0].open_places()

    attached = make_loader(loader).attach(plan, wish=wish, ring_bytes=ring_bytes, prepare=prepare)
    counting = {hook.function: hook.uncounted for hook in plan.hooks if not hook.unseen}
    made[0].watch_programs(attached.program_fds, counting)
    session = Session(plan, attached, made[0])
    try:
        yield session
    finally:
        session.close()


@contextlib.contextmanager
def _not_preempted() -> Iterator[None]:
    """Keep other tasks off this CPU meanwhile.

    While a task is inside bpf(2) on a map, the kernel skips every kprobe program
    on its CPU (bpf_disable_instrumentation in kernel/bpf/syscall.c), those of a
    task that preempts it among them.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def _coverage(plan: ProbePlan, attached: Attached) -> Coverage:
    lacking = (*plan.missing, *attached.failed)
    unseen = [f"{hook.unseen}: {hook.function} is not attached" for hook in lacking if hook.unseen]
    if not plan.frames:
        unseen.append("page frames: vmemmap_base is not in /proc/kallsyms")
    uncounted = {name for hook in lacking for name in hook.uncounted}
    if plan.realtime:
        # Spinlocks leave preemption on there, and who called whom on a CPU is not known.
        uncounted |= {"allocs", "frees", "moves"}
    return Coverage(
        hooks=len(plan.hooks) - len(attached.failed),
        missed_hooks=tuple(hook.function for hook in lacking),
        uncounted=frozenset(uncounted),
        unseen=tuple(unseen),
    )


def _check_privilege() -> None:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    lacking = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
    if lacking and not effective >> _CAP_SYS_ADMIN & 1:
        raise EnvironmentLacksError(
            "loading probes needs root",
            found=f"user {os.geteuid()} without {', '.join(lacking)}",
            hint="sudo zpobs ...",
        )


def _pools_in_use() -> set[str]:
    """Return pools that the host's own files tell of; zswap's go by the name ``zswap``."""
    names = {name for name, configured in zram_devices().items() if configured}
    return names | ({"zswap"} if _zswap_enabled() else set())


def _zswap_enabled() -> bool:
    try:
        return _ZSWAP_ENABLED.read_text(encoding="ascii").strip() == "Y"
    except OSError:
        return False


def _check_pool(name: str) -> None:
    """Refuse a pool name that nothing on this host can ever have."""
    devices = zram_devices()
    if name in devices or (re.fullmatch(r"zswap[0-9a-f]+", name) and _zswap_enabled()):
        return
    found = [f"{device}{'' if used else ' (not set up)'}" for device, used in devices.items()]
    if _zswap_enabled():
        found.append("zswap pools, by names such as zswap1")
    raise UsageError(
        f"no pool is called {name}",
        found=", ".join(found) or "no zram device, and zswap is off",
        hint="one of these names, or no --pool to see all",
    )
