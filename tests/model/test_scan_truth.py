"""Scans against the true allocator: at any moment, with loss, with and without probes."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.support import (
    FULL_COVERAGE,
    KERNEL,
    Workload,
    listed,
    snapshot,
    truth,
    without_times,
)
from tests.true_allocator import Allocator, Machine, as_words, deliver
from tests.true_scanner import TrueScan
from zpobs import wire
from zpobs.model import CountersReading, Coverage, PoolReading, ShadowModel
from zpobs.model.scans import BIRTH_NS

OPERATIONS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 10_000)), min_size=1, max_size=200
)
NO_PROBES = Coverage(hooks=0)


class Observer:
    """A model of a machine, fed by probes (with loss), by scans, or by both."""

    def __init__(self, seed: int, *, coverage: Coverage = FULL_COVERAGE, loss: float = 0) -> None:
        self.random = random.Random(seed)
        self.machine = Machine(seed)
        self.workload = Workload(self.machine)
        self.model = ShadowModel(KERNEL, coverage)
        self.probes = coverage.hooks > 0
        self.loss = loss
        self._drained = 0
        self.scans: list[TrueScan] = []

    def operate(self, operations: list[tuple[int, int]]) -> None:
        for operation, pick in operations:
            self.workload.step(operation, pick)

    def drain(self) -> None:
        records = self.machine.records[self._drained :]
        self._drained = len(self.machine.records)
        arriving, lost = deliver(records, self.random.random(), loss=self.loss, duplicates=0.1)  # type: ignore[arg-type]
        self.machine.lost += lost
        if self.probes and arriving:
            self.model.apply(as_words(arriving))

    def forget(self) -> None:
        """Let what the probes told so far pass by, as if they were not attached yet."""
        self._drained = len(self.machine.records)
        for pool in self.machine.pools:
            pool.late = True

    def read(self) -> None:
        reading = self.machine.reading()
        if not self.probes:
            pools = tuple(
                PoolReading(pool.serial, pool.address, pool.name, pool.since_mono_ns, False)
                for pool in reading.pools
            )
            reading = CountersReading(reading.mono_ns, 0, 0, 0, 0, pools)
        self.model.apply_counters(reading)

    def scan(self, operations: list[tuple[int, int]], *, only: int | None = None) -> None:
        """Scan all pools, in slices, while these operations run, the scan going on inside them."""
        self.drain()
        self.read()
        begin_ns = self.machine.tick()
        todo = list(operations)
        for pool in list(self.machine.pools):
            scan = TrueScan(pool, only=only)
            self.scans.append(scan)
            steps = scan.steps()
            self._sliced = 0
            self.machine.meanwhile = lambda steps=steps: self._go_on(steps)  # type: ignore[misc]
            while next(steps, self) is not self:
                for _ in range(min(self.random.choice((0, 1, 1, 4)), len(todo))):
                    self.workload.step(*todo.pop())
                if self.random.random() < 0.05:
                    self._hand_over(scan)
            self.machine.meanwhile = lambda: None
            self._hand_over(scan)
        self.drain()
        self.model.note_scan(begin_ns, self.machine.tick(), ())

    def _go_on(self, steps: object) -> None:
        # Not inside of itself: a step does nothing that calls back.
        for _ in range(self.random.choice((0, 0, 1, 3, 30))):
            if next(steps, self) is self:  # type: ignore[call-overload]
                return

    def _hand_over(self, scan: TrueScan) -> None:
        records = scan.records[self._sliced :]
        self._sliced = len(scan.records)
        if records:
            self.model.apply(as_words(records))

    def rest(self) -> None:
        """Let what is under way end, and births grow old enough to be found by any walk."""
        self.workload.settle()
        self.machine.now_ns += int(BIRTH_NS)

    def check_exact_classes(self) -> int:
        """Compare every class that is marked exact with the truth; return how many are."""
        self.drain()
        self.read()
        shot = snapshot(self.model)
        right, found = truth(self.machine), without_times(listed(shot))
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
        return exact

    def check_all_exact(self) -> None:
        self.drain()
        self.read()
        shot = snapshot(self.model)
        assert without_times(listed(shot)) == truth(self.machine)
        assert {view.status for view in shot.pools} <= {"exact"}
        assert shot.health.status == "exact"
        self.check_free_slots()
        if self.probes:
            assert shot.health.reasons == ()

    def check_free_slots(self) -> None:
        for view, pool in zip(
            snapshot(self.model).pools,
            sorted(self.machine.pools, key=lambda each: each.serial),
            strict=True,
        ):
            table = view.zspage_list
            assert table is not None
            free = dict(zip(table.address.tolist(), table.freeobj.tolist(), strict=True))
            assert free == {
                each.address: each.free_slots[-1] if each.free_slots else -1
                for each in pool.zspages
            }


@settings(max_examples=25, deadline=None)
@given(OPERATIONS, OPERATIONS, OPERATIONS, st.integers(0, 1000), st.booleans())
def test_without_loss_scans_change_nothing(
    before: list[tuple[int, int]],
    during: list[tuple[int, int]],
    after: list[tuple[int, int]],
    seed: int,
    late: bool,
) -> None:
    """Probes that see everything stay exact whatever a scan meets, inside operations or between."""
    observer = Observer(seed)
    observer.operate(before)
    if late:
        observer.rest()
        observer.forget()
        observer.scan([])
    observer.scan(during)
    observer.rest()
    observer.check_all_exact()
    observer.operate(after)
    observer.scan(during)
    observer.rest()
    observer.check_all_exact()


@settings(max_examples=25, deadline=None)
@given(
    OPERATIONS,
    OPERATIONS,
    st.integers(0, 1000),
    st.sampled_from([0.003, 0.03, 0.3]),
    st.booleans(),
)
def test_a_class_marked_exact_is_never_wrong(
    before: list[tuple[int, int]],
    during: list[tuple[int, int]],
    seed: int,
    loss: float,
    late: bool,
) -> None:
    """With loss and scans at bad moments, what is called exact is; a scan at rest heals all."""
    observer = Observer(seed, loss=loss)
    observer.operate(before)
    if late:
        observer.forget()
    for at in range(0, len(during), 40):
        observer.scan(during[at : at + 40])
        observer.rest()
        observer.check_exact_classes()
        observer.operate(during[at : at + 40][::-1])
        observer.rest()
        observer.check_exact_classes()
    observer.scan([])
    observer.check_all_exact()


@settings(max_examples=25, deadline=None)
@given(OPERATIONS, OPERATIONS, st.integers(0, 1000))
def test_without_probes_exact_is_the_moment_of_the_scan(
    before: list[tuple[int, int]], during: list[tuple[int, int]], seed: int
) -> None:
    """Scans alone: a class marked exact holds what it held; at rest a scan is the truth."""
    observer = Observer(seed, coverage=NO_PROBES)
    observer.operate(before)
    observer.scan(during)
    observer.read()
    walks = {scan.pool.serial: scan.walks for scan in observer.scans}
    for view in snapshot(observer.model).pools:
        table, classes = view.zspage_list, view.classes
        assert table is not None
        for row, index in enumerate(classes.index.tolist()):
            walk = walks[view.id].get(index)
            if walk is None or not walk.stats:
                assert classes.statuses[row] != "exact"
                continue
            # Exact or not: the sums are the kernel's own.
            each = next(scan.pool for scan in observer.scans if scan.pool.serial == view.id)
            objs = each.classes[index].objs
            assert classes.zspages[row] * objs == walk.stats[-2]
            assert classes.objects[row] == walk.stats[-1]
            if classes.statuses[row] == "exact":
                ours = set(table.address[table.class_index == index].tolist())
                assert {zspage.address for zspage in walk.before & walk.after} <= ours
    observer.rest()
    observer.scan([])
    observer.read()
    observer.check_all_exact()


def test_scans_meet_busy_classes_and_quiet_ones() -> None:
    """Some walks are steady and some are not: the properties above are not idle."""
    heads = []
    for seed in range(6):
        rng = random.Random(seed)
        operations = [(rng.randrange(100), rng.randrange(10_000)) for _ in range(600)]
        observer = Observer(seed, loss=0.02)
        observer.operate(operations[:300])
        observer.scan(operations[300:])
        observer.rest()
        observer.check_exact_classes()
        heads += [record[0] for scan in observer.scans for record in scan.records]
    ends = [head for head in heads if head & 0xFF == wire.KIND_SCAN_END]
    steady = sum(head >> 8 & wire.FLAG_STEADY for head in ends)
    assert 0 < steady < len(ends) - 5


def test_counters_of_pools_are_not_touched_by_scans() -> None:
    """A scan adds no class counter and no event."""
    observer = Observer(5)
    pool = Allocator(observer.machine)
    for _ in range(40):
        pool.malloc(2000)
    observer.drain()
    observer.read()
    before = snapshot(observer.model)
    observer.scan([])
    after = snapshot(observer.model)
    assert after.pools[0].counters == before.pools[0].counters
    assert len(after.events) == len(before.events)
    assert replace(after.health, scans=0, last_scan_ns=None) == before.health
