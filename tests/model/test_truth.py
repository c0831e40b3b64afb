"""The model against the true allocator and the plain model."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.delivery import deliver
from tests.model.support import (
    Workload,
    examples,
    feed,
    listed,
    make_model,
    snapshot,
    truth,
    without_times,
)
from tests.plain_model import PlainModel
from tests.true_allocator import Machine

OPERATIONS = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 10_000)), min_size=20, max_size=300
)


def run(operations: list[tuple[int, int]], seed: int) -> Machine:
    machine = Machine(seed)
    workload = Workload(machine)
    for operation, pick in operations:
        workload.step(operation, pick)
    workload.settle()
    return machine


def random_operations(seed: int, count: int) -> list[tuple[int, int]]:
    rng = random.Random(seed)
    return [(rng.randrange(100), rng.randrange(10_000)) for _ in range(count)]


def check_counters(machine: Machine) -> None:
    model = make_model()
    feed(model, machine.records, random.Random(1))
    model.apply_counters(machine.reading())
    views = {view.id: view for view in snapshot(model).pools}
    for pool in machine.pools:
        view = views[pool.serial]
        assert view.objects == len(pool.handles)
        assert view.pages == sum(len(each.frames) for each in pool.zspages)
        assert view.counters.allocs == sum(each.allocs for each in pool.own_classes())
        assert view.counters.frees == sum(each.frees for each in pool.own_classes())
        assert view.counters.moves == sum(each.moves for each in pool.own_classes())
        assert view.counters.failures == pool.failures
        assert view.counters.migrations == pool.migrations
        assert view.counters.migration_failures == pool.migration_failures
        assert view.counters.compactions == pool.compactions
        assert view.counters.pages_freed == pool.pages_freed
        geometry = {each.index: each for each in pool.own_classes() if each.met}
        assert view.classes.index.tolist() == sorted(geometry)
        for row, index in enumerate(view.classes.index.tolist()):
            each = geometry[index]
            assert view.classes.size[row] == each.size
            assert view.classes.objs_per_zspage[row] == each.objs
            assert view.classes.pages_per_zspage[row] == each.pages
            assert view.classes.capacity[row] == each.capacity
            assert view.classes.freeable_pages[row] == each.spare_pages()
            fullness = [len(group) for group in each.lists]
            assert view.classes.fullness[row].tolist() == fullness


@settings(max_examples=examples(60), deadline=None)
@given(OPERATIONS, st.integers(0, 1000))
def test_without_loss_the_model_is_the_allocator(
    operations: list[tuple[int, int]], seed: int
) -> None:
    """In order and without loss, every zspage is exactly the allocator's, and exact."""
    machine = run(operations, seed)
    model = make_model()
    feed(model, machine.records, random.Random(seed))
    model.apply_counters(machine.reading())
    shot = snapshot(model)
    assert without_times(listed(shot)) == truth(machine)
    assert shot.health.status == "exact"
    assert {pool.status for pool in shot.pools} <= {"exact"}


@settings(max_examples=examples(60), deadline=None)
@given(OPERATIONS, st.integers(0, 1000))
def test_duplicates_and_reordering_change_nothing(
    operations: list[tuple[int, int]], seed: int
) -> None:
    """Records that come twice or overtake each other lead to the same zspages."""
    machine = run(operations, seed)
    arriving, _ = deliver(machine.records, seed, duplicates=0.2, reach=30)
    model = make_model()
    feed(model, arriving, random.Random(seed), batch=40)
    model.apply_counters(machine.reading())
    shot = snapshot(model)
    assert without_times(listed(shot)) == truth(machine)
    assert shot.health.status == "exact"


@settings(max_examples=examples(60), deadline=None)
@given(OPERATIONS, st.integers(0, 1000), st.sampled_from([0.001, 0.01, 0.1, 0.5]))
def test_a_pool_marked_exact_is_never_wrong(
    operations: list[tuple[int, int]], seed: int, loss: float
) -> None:
    """With loss, a pool that is marked exact after a reading equals the allocator's."""
    machine = run(operations, seed)
    arriving, machine.lost = deliver(machine.records, seed, loss=loss, reach=5)
    model = make_model()
    feed(model, arriving, random.Random(seed))
    model.apply_counters(machine.reading())
    shot = snapshot(model)
    right = truth(machine)
    found = without_times(listed(shot))
    for view in shot.pools:
        if machine.lost:
            assert view.status != "exact"
        if view.status == "exact":
            assert found[view.id] == right[view.id]
    if machine.lost and shot.pools:
        assert shot.health.status != "exact"
        assert shot.health.reasons
    assert set(found) == set(right)


@pytest.mark.parametrize("seed", range(12))
def test_the_model_equals_the_plain_model(seed: int) -> None:
    """Loss, duplicates and reordering together: same answers as the per-record model, times too."""
    machine = run(random_operations(seed, 1500), seed)
    arriving, _ = deliver(machine.records, seed, loss=0.1, duplicates=0.1, reach=200)
    plain = PlainModel()
    for record in arriving:
        plain.apply(record)
    model = make_model()
    feed(model, arriving, random.Random(seed), batch=(1, 7, 100, 5000)[seed % 4])
    assert listed(snapshot(model)) == plain.live()


@pytest.mark.parametrize("seed", range(4))
def test_arrival_order_does_not_matter(seed: int) -> None:
    """Records shuffled altogether give the same zspages as in order."""
    machine = run(random_operations(seed, 800), seed)
    shuffled = list(machine.records)
    random.Random(seed).shuffle(shuffled)
    model = make_model()
    feed(model, shuffled, random.Random(seed))
    model.apply_counters(machine.reading())
    assert without_times(listed(snapshot(model))) == truth(machine)


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_geometry_are_the_allocators(seed: int) -> None:
    """Sums, counters and class geometry of each pool are exactly the allocator's."""
    check_counters(run(random_operations(seed, 2000), seed))
