"""A model of a machine, and its checks against the truth."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np

from tests.delivery import Arrival, arrivals, as_words
from tests.model.support import (
    FULL_COVERAGE,
    KERNEL,
    Workload,
    listed,
    snapshot,
    truth,
    without_times,
)
from tests.plain_model import Listed
from tests.true_allocator import GROUPS, Allocator, Machine, Record
from tests.true_scanner import TrueScan
from zpobs.model import CountersReading, Coverage, PoolReading, ShadowModel
from zpobs.model.scans import BIRTH_NS
from zpobs.snapshot import PoolView, Snapshot

NO_PROBES = Coverage(hooks=0)


class Observer:
    """A model of a machine, fed by probes (with loss), by scans, or by both.

    Of what the probes tell, ``loss`` finds the ring full, ``skipped`` runs the kernel skips,
    and each record overtakes at most ``reach`` others, whether or not these arrive with it.
    """

    def __init__(
        self,
        seed: int,
        *,
        coverage: Coverage = FULL_COVERAGE,
        loss: float = 0,
        skipped: float = 0,
        reach: int = 0,
        step_ns: int = 1,
    ) -> None:
        self.random = random.Random(seed)
        self.machine = Machine(seed, step_ns=step_ns)
        self.machine.skipping = skipped
        self.workload = Workload(self.machine)
        self.model = ShadowModel(KERNEL, coverage)
        self.probes = coverage.hooks > 0
        self.loss = loss
        self.reach = reach
        self._drained = 0
        # What was told and is not lost, but has not arrived.
        self._coming: list[Arrival] = []
        # Scans that a later one overtakes.
        self.overtaken: float = 0
        # How often what a walk told so far is handed over before it goes on.
        self.slicing: float = 0.05
        self._kept: list[Record] = []
        self.scans: list[TrueScan] = []

    def operate(self, operations: list[tuple[int, int]]) -> None:
        for operation, pick in operations:
            self.step(operation, pick)

    def step(self, operation: int, pick: int) -> None:
        """Do one operation; now and then some of what was told arrives."""
        self.workload.step(operation, pick)
        if self.random.random() < 0.5:
            self.drain(late=self.random.choice((1, 3, 10)))

    def warm_up(self, operations: int) -> None:
        """Do so many operations that nobody chose, to have something there."""
        for _ in range(operations):
            self.step(self.random.randrange(100), self.random.randrange(10_000))

    def drain(self, *, late: int = 0) -> None:
        """Give the model what arrived; the last ``late`` of what the probes told come later.

        Those may be overtaken by what is told only after this.
        """
        if not self.probes:
            return
        records = self.machine.records[self._drained :]
        arriving, lost = arrivals(
            records,
            self.random.randrange(1 << 32),
            first=self._drained,
            loss=self.loss,
            duplicates=0.1,
            reach=self.reach,
        )
        self._drained = len(self.machine.records)
        self.machine.lost += lost
        coming = sorted(self._coming + arriving)
        count = max(len(coming) - late, 0)
        self._coming = coming[count:]
        if count:
            self.model.apply(as_words([record for _, _, record in coming[:count]]))

    def attach(self) -> None:
        """Attach probes where there were none."""
        self.begin_late()
        self.model.cover(FULL_COVERAGE)

    def begin_late(self) -> None:
        """Let the probes tell from now on, and only now meet the pools that there are."""
        self.probes = True
        self._drained = len(self.machine.records)
        self._coming.clear()
        for pool in self.machine.pools:
            pool.late = True
            # The beginning of what is under way was not seen.
            pool.deferred_begin_ns = 0
            pool.freed_untold.clear()

    def read(self) -> None:
        reading = self.machine.reading()
        if not self.probes:
            pools = tuple(
                PoolReading(pool.serial, pool.address, pool.name, pool.since_mono_ns, False)
                for pool in reading.pools
            )
            reading = CountersReading(reading.mono_ns, 0, 0, 0, 0, pools)
        self.model.apply_counters(reading)

    def scan(self, operations: list[tuple[int, int]]) -> None:
        """Scan all pools, in slices, while these operations run, the scan going on inside them.

        Classes that were busy are walked again, as a session does.
        """
        self.drain(late=self._late())
        self.read()
        begin_ns = self.machine.tick()
        todo = list(operations)
        for pool in list(self.machine.pools):
            self._walk(TrueScan(pool), todo)
            for index in self.model.busy_classes(pool.serial):
                if pool in self.machine.pools:
                    self.drain(late=self._late())
                    self._walk(TrueScan(pool, only=index), todo)
        self.drain()
        self.model.note_scan(begin_ns, self.machine.tick(), ())

    def _late(self) -> int:
        # As when a probe has a place in the ring and has not filled it yet.
        return self.random.choice((0, 0, 1, 10))

    def _walk(self, scan: TrueScan, todo: list[tuple[int, int]]) -> None:
        self.scans.append(scan)
        steps = scan.steps()
        self._sliced = 0
        kept = self.random.random() < self.overtaken
        self.machine.meanwhile = lambda: self._go_on(steps)
        while next(steps, self) is not self:
            for _ in range(min(self.random.choice((0, 1, 1, 4)), len(todo))):
                self.workload.step(*todo.pop())
            if not kept and self.random.random() < self.slicing:
                self._hand_over(scan)
        self.machine.meanwhile = lambda: None
        if kept:
            self._kept += scan.records
        else:
            self._hand_over(scan)
            self._hand_over_kept()

    def _go_on(self, steps: object) -> None:
        # Not inside of itself: a step does nothing that calls back.
        for _ in range(self.random.choice((0, 0, 1, 3, 30))):
            if next(steps, self) is self:  # type: ignore[call-overload]
                return

    def _hand_over_kept(self) -> None:
        if self._kept:
            self.model.apply(as_words(self._kept))
            self._kept.clear()

    def _hand_over(self, scan: TrueScan) -> None:
        records = scan.records[self._sliced :]
        self._sliced = len(scan.records)
        if records:
            self.model.apply(as_words(records))

    def rest(self) -> None:
        """Let what is under way end or arrive, and births grow as old as any walk finds."""
        self.workload.settle()
        self._hand_over_kept()
        self.machine.now_ns += int(BIRTH_NS)

    def check_exact_classes(self) -> int:
        """Compare every class that is marked exact with the truth; return how many are.

        At any moment at which no lock is held.
        """
        self.drain()
        self.read()
        shot = snapshot(self.model)
        right, found = truth(self.machine), without_times(listed(shot))
        self._leave_out_what_goes_on(found, right)
        exact = 0
        assert {view.id for view in shot.pools} == set(right)
        for view in shot.pools:
            for index, status in zip(
                view.classes.index.tolist(), view.classes.statuses, strict=True
            ):
                if status == "exact":
                    exact += 1
                    ours, theirs = (
                        {address: row for address, row in rows[view.id].items() if row[0] == index}
                        for rows in (found, right)
                    )
                    assert ours == theirs
            if view.status == "exact":
                assert found[view.id] == right[view.id]
            check_sums(view)
        if shot.health.status == "exact":
            assert {view.status for view in shot.pools} <= {"exact"}
        return exact

    def _leave_out_what_goes_on(self, found: Listed, right: Listed) -> None:
        """Drop what cannot be told before its operation ends.

        What a deferred free has given back may be listed, as empty, until it returns (or until
        the next one does, if it was empty only after this one had begun), and the
        frames of a zspage are told when its page has moved.
        """
        for pool in self.machine.pools:
            ours, theirs = found.get(pool.serial, {}), right[pool.serial]
            for address in pool.freed_untold.keys() - theirs.keys():
                if address in ours and ours[address][1] == 0:
                    del ours[address]
            for zspage in pool.zspages:
                if zspage.moving:
                    for rows in (ours, theirs):
                        if zspage.address in rows:
                            rows[zspage.address] = rows[zspage.address][:4]

    def check_all_exact(self) -> None:
        self.drain()
        self.read()
        shot = snapshot(self.model)
        assert without_times(listed(shot)) == truth(self.machine)
        assert {view.status for view in shot.pools} <= {"exact"}
        assert shot.health.status == "exact"
        self.check_free_slots()
        for view, pool in self._with_pools(shot):
            check_sums(view)
            if self.probes and not pool.late:
                counted = (view.counters.allocs, view.counters.frees, view.counters.moves)
                each = pool.own_classes()
                assert counted == (
                    sum(one.allocs for one in each),
                    sum(one.frees for one in each),
                    sum(one.moves for one in each),
                )
        if self.probes:
            assert shot.health.reasons == ()

    def _with_pools(self, shot: Snapshot) -> Iterator[tuple[PoolView, Allocator]]:
        pools = sorted(self.machine.pools, key=lambda each: each.serial)
        return zip(shot.pools, pools, strict=True)

    def check_free_slots(self) -> None:
        for view, pool in self._with_pools(snapshot(self.model)):
            table = view.zspage_list
            assert table is not None
            free = dict(zip(table.address.tolist(), table.freeobj.tolist(), strict=True))
            assert free == {
                each.address: each.free_slots[-1] if each.free_slots else -1
                for each in pool.zspages
            }


def check_sums(view: PoolView) -> None:
    """Hold what is exact of a pool's sums against the zspages that are listed."""
    table, classes = view.zspage_list, view.classes
    assert table is not None
    for row, index in enumerate(classes.index.tolist()):
        if classes.statuses[row] == "exact":
            own = table.class_index == index
            assert classes.zspages[row] == np.count_nonzero(own)
            assert classes.objects[row] == table.inuse[own].sum()
            groups = np.bincount(table.fullness[own], minlength=GROUPS)
            assert classes.fullness[row].tolist() == groups.tolist()
    if view.status == "exact":
        assert set(table.class_index.tolist()) <= set(classes.index.tolist())
        assert view.zspages == len(table.address)
        assert view.objects == table.inuse.sum()
        assert view.pages == classes.pages.sum()
