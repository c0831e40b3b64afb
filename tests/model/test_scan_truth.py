"""Scans against the true allocator: at any moment, with loss, with and without probes."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.observer import NO_PROBES, Observer
from tests.model.support import examples, snapshot
from tests.true_allocator import Allocator
from tests.true_scanner import Walk
from zpobs import wire

OPERATIONS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 10_000)), min_size=20, max_size=200
)


@settings(max_examples=examples(25), deadline=None)
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
    observer.probes = not late
    observer.operate(before)
    if late:
        observer.rest()
        observer.begin_late()
        observer.scan([])
    observer.scan(during)
    observer.rest()
    observer.check_all_exact()
    observer.operate(after)
    observer.scan(during)
    observer.rest()
    observer.check_all_exact()


@settings(max_examples=examples(25), deadline=None)
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
    observer.probes = not late
    observer.operate(before)
    if late:
        observer.begin_late()
    for at in range(0, len(during), 40):
        observer.scan(during[at : at + 40])
        observer.rest()
        observer.check_exact_classes()
        observer.operate(during[at : at + 40][::-1])
        observer.rest()
        observer.check_exact_classes()
    observer.scan([])
    observer.check_all_exact()


@settings(max_examples=examples(25), deadline=None)
@given(OPERATIONS, OPERATIONS, st.integers(0, 1000))
def test_without_probes_exact_is_the_moment_of_the_scan(
    before: list[tuple[int, int]], during: list[tuple[int, int]], seed: int
) -> None:
    """Scans alone: a class marked exact holds what it held; at rest a scan is the truth."""
    observer = Observer(seed, coverage=NO_PROBES)
    observer.operate(before)
    observer.scan(during)
    observer.read()
    # Of each class the last: a busy one was walked again.
    walks: dict[int, dict[int, Walk]] = {}
    for scan in observer.scans:
        walks.setdefault(scan.pool.serial, {}).update(scan.walks)
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
