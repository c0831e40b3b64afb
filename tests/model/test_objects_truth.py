"""The ledger of objects against an allocator that knows every one of its own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.support import FULL_COVERAGE, KERNEL, Workload, examples, feed
from tests.model.telling import Told, telling
from tests.true_allocator import Allocator, Machine
from zpobs.model import ShadowModel
from zpobs.model.objects import ObjectLedger
from zpobs.objects import PIN_SHARE, PoolObjects, Sampling

OPERATIONS = st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2**16)), max_size=150)


@pytest.fixture(scope="module")
def told() -> Iterator[list[Told]]:
    """Have allocators tell of objects; the last entry is who listens."""
    with telling() as listening:
        yield listening


def compare(pool: Allocator, objects: PoolObjects, told: Told) -> None:
    """Hold what the model has of a pool against the pool."""
    addresses = {handle: told.tells(pool, handle) for handle in pool.handles}
    live = {handle: address for handle, address in addresses.items() if address}
    by_class = Counter(pool.handles[handle][0].size_class.index for handle in live)
    counted = dict(zip(objects.index.tolist(), objects.live.tolist(), strict=True))
    assert {index: count for index, count in counted.items() if count} == by_class
    assert int(objects.live_bytes.sum()) == sum(told.sizes[each] for each in live.values())
    assert int(objects.sized.sum()) == len(live)
    assert (int(objects.vanished.sum()), objects.freed_unseen) == (0, 0)
    assert (objects.stored == objects.freed + objects.live).all()
    assert int(objects.lifetime_ns.sum()) == told.lifetimes[pool.serial]
    assert int(objects.lifetimes.sum()) == int(objects.freed.sum())
    thin = [each for each in pool.zspages if each.inuse * PIN_SHARE <= each.size_class.objs]
    pinning = {
        address
        for each in thin
        for handle in each.objects.values()
        if (address := addresses[handle])
    }
    assert objects.pins is not None
    assert objects.pins.objects == len(pinning)
    if len(pinning) == len(objects.pins.handle):
        assert set(objects.pins.handle.tolist()) == pinning
    if told.sampling.rate == 1:
        moves = {each.index: each.moves for each in pool.classes if each.moves}
        counted = dict(zip(objects.index.tolist(), objects.moves.tolist(), strict=True))
        assert {index: count for index, count in counted.items() if count} == moves


@pytest.mark.parametrize("rate", [1, 3])
@settings(deadline=None, max_examples=examples(30))
@given(seed=st.integers(0, 2**32), operations=OPERATIONS)
def test_every_object_is_where_the_allocator_has_it(
    told: list[Told], rate: int, seed: int, operations: list[tuple[int, int]]
) -> None:
    """Through compactions, migrations and reclaim inside allocations, in batches of any length."""
    machine = Machine(seed)
    workload = Workload(machine)
    told.append(Told(Sampling.seeded(rate, seed)))
    model = ShadowModel(KERNEL, FULL_COVERAGE)
    model.objects = ObjectLedger(told[-1].sampling)
    model.objects.begin(1, "")
    rng = random.Random(seed)
    for _ in range(100):
        workload.step(rng.randrange(100), rng.randrange(10_000))
    for operation, pick in operations:
        workload.step(operation, pick)
    workload.settle()
    feed(model, machine.records, rng)
    model.apply_counters(machine.reading())
    now_ns = machine.tick() + 2 * 10**9
    shot = model.snapshot(time_ns=now_ns, mono_ns=now_ns)
    found = {pool.id: pool.objects_told for pool in shot.pools}
    for pool in machine.pools:
        objects = found[pool.serial]
        assert objects is not None
        assert (objects.status, objects.unseen) == ("exact", 0 if rate == 1 else None)
        compare(pool, objects, told[-1])
