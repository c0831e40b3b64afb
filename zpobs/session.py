"""The pump: feeds the model from scans and probes, and publishes snapshots.

One thread owns sources and model. Views get frozen snapshots and nothing else.
A session begins with a scan; then probes are attached, if any can be, and a
scan repairs the model whenever records were lost, and on a slow clock. What
the probes leave unseen, or everything if there are none, is scanned anew for
each snapshot.
"""

from __future__ import annotations

import contextlib
import select
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from zpobs.blocks import with_pageblocks
from zpobs.bpf_files import StaleObjectError
from zpobs.coverage import coverage_of, no_probes
from zpobs.descriptors import Look, descriptor_dump
from zpobs.errors import EnvironmentLacksError, ShortageError
from zpobs.extras import Extras
from zpobs.forecasts import ForecastBook
from zpobs.host import (
    check_pool,
    check_privilege,
    not_preempted,
    pools_in_use,
    why_no_frames,
)
from zpobs.kernel.facts import KernelFacts, probe_kernel
from zpobs.kernel.layout import stores_every_page, zswap_lags
from zpobs.kernel.pageflags import page_flags
from zpobs.kernel.plan import ProbePlan, make_plan
from zpobs.loaders import Attached, ProbesRefusedError, make_loader
from zpobs.model.inputs import Coverage
from zpobs.model.objects import ObjectLedger
from zpobs.model.shadow import ShadowModel
from zpobs.model.state import ModelState
from zpobs.scans import Found, ScanResult, find_pools, open_scanner, walk_pools
from zpobs.snapshot import Kernel, Snapshot, ZspagesOf
from zpobs.sources.counters import CounterSource
from zpobs.sources.nodes import NodeMap
from zpobs.sources.pools import PoolRegistry, reading_of
from zpobs.sources.ring import RingConsumer
from zpobs.sources.scanner import FoundPool, Scanner
from zpobs.surroundings import Surroundings
from zpobs.upkeep import Upkeep
from zpobs.wire import Words
from zpobs.wishes import Wishes

# The longest that places of pools that are gone stay taken, and losses untold.
TICK_S = 0.25
# Repairs take at most this share of the time while records are being lost, and half of it
# when no more are: that scan will have been the last.
_REPAIR_SHARE = 0.1
_CALM_SHARE = 0.5
# How long a frame waits for what a CPU has begun to tell: a virtual one may be stopped there.
_PATIENCE_S = 2.0
# What wall-clock and monotonic time drift apart by is no setting of a clock.
_CLOCK_SET_NS = 10_000_000


class ModelMaker(Protocol):
    """Makes the model that a session feeds."""

    def __call__(self, kernel: Kernel, coverage: Coverage, *, life: bool) -> ShadowModel:
        """Return a model of which nothing is known."""
        ...


class Session:
    """A model and what feeds it: a scanner, probes, or both."""

    def __init__(
        self,
        facts: KernelFacts,
        plan: ProbePlan,
        wishes: Wishes,
        scanner: Scanner | None,
        why_no_scanner: str = "",
        *,
        model: ModelMaker = ShadowModel,
    ) -> None:
        self.zswap_lags = zswap_lags(facts.btf)
        self._page_flags = page_flags(facts.btf)
        self._surroundings = Surroundings(
            facts.page_size, stores_every_page(facts.btf), NodeMap(facts.page_size)
        )
        self._facts = facts
        self._plan = plan
        self._wishes = wishes
        self._scanner = scanner
        self._why_no_scanner = why_no_scanner
        self._unmet = pools_in_use()
        self._names: tuple[str, ...] = ()
        self._forecasts = ForecastBook()
        self._attached: Attached | None = None
        self._ring: RingConsumer | None = None
        self._extras = Extras(wishes)
        self._pools: PoolRegistry | CounterSource = PoolRegistry()
        self._model = model(plan.kernel, no_probes(plan, "not yet"), life=wishes.life)
        self._model.objects = self._extras.ledger
        self._upkeep = Upkeep(plan, timed=wishes.timed)
        self._upkeep.watch(scanner.program_fds if scanner else {})
        self._poll = select.epoll()
        self._scan_each = self.scans
        self._loss = self._loss_scanned = self._loss_ticked = 0
        self._offset_ns = _wall_offset_ns()
        self._next_repair_s = self._next_calm_s = self._next_scan_s = float("inf")

    # The kernel goes on for ever.
    ended = False

    @property
    def plan(self) -> ProbePlan:
        """What was to be attached."""
        return self._plan

    @property
    def attached(self) -> Attached | None:
        """What is attached, None without probes."""
        return self._attached

    @property
    def nodes(self) -> NodeMap:
        """On which node each page frame is."""
        return self._surroundings.nodes

    @property
    def objects(self) -> ObjectLedger | None:
        """What is known of objects, if they are told one by one."""
        return self._model.objects

    def state(self) -> ModelState:
        """Return all that the model knows."""
        return self._model.state()

    @property
    def scans(self) -> bool:
        """Whether scans feed the model."""
        return self._scanner is not None and self._wishes.scan

    # -- set-up -------------------------------------------------------------------

    def attach(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Attach what probes there can be, and scan what they may have missed until then.

        Raise EnvironmentLacksError if there is nothing to go on with: no probe
        and no scanner, or a loader that was asked for and cannot be had.
        """
        known = self._pools.known if isinstance(self._pools, PoolRegistry) else ()
        made: list[CounterSource] = []

        def prepare(map_fds: Mapping[str, int]) -> None:
            made[:] = [CounterSource(map_fds, self._plan.size_classes)]
            made[0].open_places(known)

        progress(f"attaching {len(self._plan.hooks)} hooks")
        try:
            attached = make_loader(self._wishes.loader).attach(
                self._plan,
                wish=self._wishes.attach,
                ring_bytes=self._wishes.ring_bytes,
                prepare=prepare,
            )
        except ProbesRefusedError as error:
            if not self.scans:
                raise self._nothing(error) from error
            self._model.cover(no_probes(self._plan, error.found))
            self._extras.refuse(error.found)
            self._scan_each = True
            return
        self._attached = attached
        self._upkeep.attached(attached, self._plan)
        self._pools = made[0]
        self._pools.begin(time.monotonic_ns())
        self._pools.watch_programs(attached.program_fds, self._plan.counted_by())
        self._ring = RingConsumer(attached.map_fds["zs_events"], attached.ring_bytes)
        # By edge: the probes wake us when the ring fills, not whenever it holds something.
        self._poll.register(self._ring.fileno(), select.EPOLLIN | select.EPOLLET)
        self._extras.attach(self._plan, attached)
        coverage = coverage_of(self._plan, attached)
        self._model.cover(coverage)
        self._scan_each = self.scans and bool(coverage.unseen)
        if self.scans:
            self.scan()

    def _nothing(self, error: ProbesRefusedError) -> EnvironmentLacksError:
        """Return the error for a host that gives no probe, and no scan either if one was wanted."""
        if not self._why_no_scanner or not self._wishes.scan:
            return error
        return EnvironmentLacksError(
            "there are neither scans nor probes",
            found=f"{self._why_no_scanner}; {error.found}",
            hint="zpobs doctor, which tells what each lacks",
        )

    # -- feeding the model ----------------------------------------------------------

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
                if self._attached:
                    self._drain()
                    self._read_counters()
                    self._repair()
                if any(descriptor in watch for descriptor, _ in ready):
                    return True
                if left_s <= 0:
                    return False
        finally:
            for descriptor in watch:
                self._poll.unregister(descriptor)

    def snapshot(
        self,
        *,
        zspages: bool | ZspagesOf = False,
        pool: str | None = None,
        compaction: bool = False,
    ) -> Snapshot:
        """Read everything that is there and return it frozen.

        ``zspages`` lists those of all pools, or only some of one pool. ``compaction``, or a wish
        for it, adds what one would do now, for which pools are scanned, if they can be.
        """
        owners = self._surroundings.owners()
        # The time first: whatever happened before it is in what is read now.
        now_ns = time.monotonic_ns()
        if self._scan_each:
            self.scan()
        # The reading last, so that whatever was lost so far is told.
        self._drain(_PATIENCE_S)
        self._read_counters()
        with self._undisturbed():
            self._extras.read()
        snapshot = self._model.snapshot(
            time_ns=now_ns + self._wall_offset_ns(),
            mono_ns=now_ns,
            zspages=zspages,
            pool=pool,
        )
        snapshot = self._extras.added_to(snapshot)
        snapshot = self._surroundings.added_to(snapshot, owners, self._names)
        snapshot = replace(snapshot, footing=self._upkeep.footing())
        if self._ring and self._ring.held_back:
            snapshot = snapshot.doubted(f"a CPU has held a record back for {_PATIENCE_S:.0f} s")
        if (compaction or self._wishes.compaction) and self._scanner is not None:
            snapshot = self._forecasts.added_to(
                snapshot, lambda: self.scan_kernel(pool=pool, zspages=False, keep=True).forecast()
            )
        return snapshot if self.scans else self._with_unmet(snapshot, pool)

    def _wall_offset_ns(self) -> int:
        """Return wall-clock less monotonic time; the same as before unless a clock was set.

        So that one moment has one wall-clock time in all snapshots.
        """
        offset_ns = _wall_offset_ns()
        if abs(offset_ns - self._offset_ns) > _CLOCK_SET_NS:
            self._offset_ns = offset_ns
        return self._offset_ns

    def _with_unmet(self, snapshot: Snapshot, wanted: str | None) -> Snapshot:
        """Without scans: say so, and which pools were there before and have not been met since."""
        met = {"zswap" if pool.owner == "zswap" else pool.name for pool in snapshot.pools}
        self._unmet = (self._unmet & pools_in_use()) - met
        named = sorted(self._unmet if wanted is None else self._unmet & {wanted})
        health = snapshot.health
        reasons = list(health.reasons)
        if self._why_no_scanner:
            reasons.append(f"no scans: {self._why_no_scanner}")
        if named:
            reasons.append(
                f"in use since before the probes attached, not met since: {', '.join(named)}"
            )
        status = "unknown" if named else health.status
        return replace(snapshot, health=replace(health, status=status, reasons=tuple(reasons)))

    def scan(self) -> None:
        """Scan all pools into the model."""
        assert self._scanner is not None
        begin_s = time.monotonic()
        begin_ns = time.monotonic_ns()
        self._drain()
        found = self._find(begin_ns)
        self._read_counters()
        self._loss_scanned = self._loss
        serials = self._wanted(found.serials)
        walk_pools(self._scanner, serials, self._model, drain=self._drain)
        if isinstance(self._pools, PoolRegistry):
            # Without probes only a second look tells which pools went meanwhile.
            self._pools.keep(self._scanner.find_pools())
        self._read_counters()
        self._model.note_scan(begin_ns, time.monotonic_ns(), found.missing)
        end_s = time.monotonic()
        self._upkeep.scanned(round((end_s - begin_s) * 1e9))
        self._next_repair_s = end_s + (end_s - begin_s) / _REPAIR_SHARE
        self._next_calm_s = end_s + (end_s - begin_s) / _CALM_SHARE
        self._next_scan_s = end_s + (self._wishes.rescan_s or float("inf"))

    def scan_kernel(
        self,
        *,
        pool: str | None = None,
        zspages: bool = True,
        detail: bool = False,
        keep: bool = False,
    ) -> ScanResult:
        """Scan into a model of its own; this session's model is left as it is."""
        scanner = self._needed_scanner()
        model = ShadowModel(self._plan.kernel, Coverage(hooks=0))
        owners = self._surroundings.owners()
        begin_ns = time.monotonic_ns()
        found = self._find(begin_ns)
        serials = self._wanted(found.serials, pool)
        model.apply_counters(reading_of(serials, begin_ns))
        names = [place.name for place in found.serials]
        details = walk_pools(scanner, serials, model, detail=detail, keep=keep)
        # A pool that went meanwhile was not scanned, whatever was read where it had been.
        again = scanner.find_pools()
        if isinstance(self._pools, PoolRegistry):
            self._pools.keep(again)
        if again.complete:
            serials = {pool: serial for pool, serial in serials.items() if pool in again.pools}
            model.apply_counters(reading_of(serials, time.monotonic_ns()))
            details = {serial: details[serial] for serial in serials.values() if details}
        model.note_scan(begin_ns, time.monotonic_ns(), found.missing)
        snapshot = model.snapshot(
            time_ns=time.time_ns(), mono_ns=time.monotonic_ns(), zspages=zspages, pool=pool
        )
        snapshot = self._surroundings.added_to(snapshot, owners, names)
        if scanner.vmemmap_base is None:
            reasons = (*snapshot.health.reasons, f"page frames are unknown: {why_no_frames()}")
            snapshot = replace(snapshot, health=replace(snapshot.health, reasons=reasons))
        return ScanResult(
            snapshot=snapshot,
            page_flags=self._page_flags,
            details=details,
            missing=found.missing,
        )

    def pageblocks(self, *, pool: str | None = None) -> Snapshot:
        """Scan the kernel, and tell in which pageblocks the pages of its zspages lie.

        Raise EnvironmentLacksError without a scanner, and where a block's size is not known.
        """
        scanner = self._needed_scanner()
        shot = with_pageblocks(self.scan_kernel(pool=pool).snapshot, self._facts, scanner)
        bare = tuple(replace(each, zspage_list=None) for each in shot.pools)
        return replace(shot, pools=bare)

    def look(self, pool: int, class_index: int) -> Look | None:
        """Read the descriptors of one size class; None if there is no pool of this id any more.

        Nothing of it goes to the model. Raise EnvironmentLacksError without a scanner.
        """
        scanner = self._needed_scanner()
        begin_ns = time.monotonic_ns()
        place = next((at for at, id_ in self._find(begin_ns).serials.items() if id_ == pool), None)
        if place is None:
            return None
        batches: list[Words] = []
        classes = range(class_index, class_index + 1)
        scanner.scan(place.address, pool, batches.append, classes=classes, detail=True)
        again = scanner.find_pools()
        # Where the pool was there may have been anything meanwhile.
        if again.complete and place not in again.pools:
            return None
        dump = descriptor_dump(np.concatenate(batches), self._page_flags)
        return Look(pool, class_index, begin_ns, dump, self._page_flags)

    def _needed_scanner(self) -> Scanner:
        if self._scanner is None:
            raise EnvironmentLacksError(
                "the kernel cannot be scanned", found=self._why_no_scanner, hint="zpobs doctor"
            )
        return self._scanner

    def _find(self, begin_ns: int) -> Found:
        assert self._scanner is not None
        return find_pools(self._scanner, lambda pools: self._pools.meet(pools, begin_ns))

    def _wanted(
        self, serials: Mapping[FoundPool, int], pool: str | None = None
    ) -> dict[FoundPool, int]:
        wanted = pool or self._wishes.pool
        return {
            found: serial
            for found, serial in serials.items()
            if wanted is None or wanted in (found.name, str(serial))
        }

    def _repair(self) -> None:
        """Scan if records were lost since the last scan, or if its time has come."""
        if not self.scans:
            return
        now_s = time.monotonic()
        lost = self._loss > self._loss_scanned
        calm = self._loss == self._loss_ticked
        self._loss_ticked = self._loss
        if (
            now_s >= self._next_scan_s
            or (lost and calm and now_s >= self._next_calm_s)
            or (now_s >= self._next_repair_s and (lost or self._model.unverified))
        ):
            self.scan()

    def _read_counters(self) -> None:
        with self._undisturbed():
            reading = self._pools.read(time.monotonic_ns())
        self._loss = reading.loss
        self._upkeep.read(reading)
        self._names = tuple(pool.name for pool in reading.pools)
        self._model.apply_counters(reading)

    def _undisturbed(self) -> contextlib.AbstractContextManager[None]:
        """Return what maps are read within, so that no run of a probe is skipped for that."""
        form = self._attached.form if self._attached else None
        return not_preempted() if form == "kprobe" else contextlib.nullcontext()

    def _drain(self, patience_s: float = 0.0) -> None:
        # What is there now and no more: a busy writer would otherwise never let go.
        for words in self._ring.batches(patience_s) if self._ring else ():
            self._model.apply(words)

    def close(self) -> None:
        """Detach everything."""
        self._poll.close()
        self._upkeep.close()
        if self._ring:
            self._ring.close()
        self._extras.close()
        if self._attached:
            self._attached.close()


@contextlib.contextmanager
def open_session(
    wishes: Wishes,
    *,
    attach: bool = True,
    model: ModelMaker = ShadowModel,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[Session]:
    """Check the host, scan once, attach the probes and yield a running session.

    With ``attach=False`` probes wait for :meth:`Session.attach`. ``model`` makes what is fed.
    """
    check_privilege(scans=wishes.scan, kprobes=wishes.attach == "kprobe")
    facts = probe_kernel()
    # A wrong name of a hook or a pool is told before anything is loaded.
    plan = make_plan(facts, skip=wishes.skip)
    if wishes.pool is not None:
        check_pool(wishes.pool)
    with contextlib.ExitStack() as held:
        scanner, why_not = _scanner(held, facts, plan)
        if scanner is not None:
            plan = replace(plan, vmemmap_base=scanner.vmemmap_base)
        session = Session(facts, plan, wishes, scanner, why_not, model=model)
        held.callback(session.close)
        if session.scans:
            session.scan()
        if attach:
            session.attach(progress)
        yield session


def _wall_offset_ns() -> int:
    """Return wall-clock less monotonic time, never too much.

    What comes between the two readings makes it too little: the best of some is taken.
    """
    return max(time.time_ns() - time.monotonic_ns() for _ in range(5))


def _scanner(
    held: contextlib.ExitStack, facts: KernelFacts, plan: ProbePlan
) -> tuple[Scanner | None, str]:
    """Return the scanner, or None and why the host cannot run it: then probes must do."""
    try:
        return held.enter_context(open_scanner(facts, plan.size_classes)), ""
    except (StaleObjectError, ShortageError):
        raise
    except EnvironmentLacksError as error:
        return None, f"{error.problem}: {error.found} (try: {error.hint})"
