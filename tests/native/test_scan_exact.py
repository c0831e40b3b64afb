"""A scan of a pool at rest equals mm_stat and an independent walk, zspage by zspage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from lab.witness import KernelPool
from lab.workload import PAGE_BYTES
from tests.native.device import NativeDevice
from tests.native_memory import NativeWitness
from zpobs.single_scan import scan_once
from zpobs.snapshot import PoolView
from zpobs.waste import Range, pool_waste

pytestmark = pytest.mark.native

KINDS = ("incompressible", "text", "constant", "mixed")


def scanned(device: NativeDevice) -> PoolView:
    """Return what one scan tells of a device's pool."""
    result = scan_once(pool=device.name, zspages=True)
    (pool,) = result.snapshot.pools
    assert (pool.name, pool.owner) == (device.name, "zram")
    assert (result.snapshot.health.status, pool.status) == ("exact", "exact")
    assert result.snapshot.health.scans == 1
    assert result.snapshot.health.hooks == 0
    return pool


def assert_equals_kernel(pool: PoolView, kernel: KernelPool, mm_stat: list[int]) -> None:
    """Everything the scan told is what the independent walk found, and what zram says."""
    assert pool.pages == pool.kernel_pages == kernel.pages_allocated == mm_stat[2] // PAGE_BYTES
    assert pool.objects == mm_stat[0] // PAGE_BYTES - mm_stat[5]
    assert pool.pages_compacted == kernel.pages_compacted == mm_stat[6]
    table = pool.zspage_list
    assert table is not None
    truth = sorted(kernel.zspages, key=lambda zspage: zspage.address)
    assert table.address.tolist() == [zspage.address for zspage in truth]
    assert table.class_index.tolist() == [zspage.class_index for zspage in truth]
    assert table.inuse.tolist() == [zspage.inuse for zspage in truth]
    assert table.fullness.tolist() == [zspage.fullness for zspage in truth]
    assert table.huge.tolist() == [zspage.huge for zspage in truth]
    assert table.frames.tolist() == [frame for zspage in truth for frame in zspage.pfns]
    assert np.diff(table.frame_start).tolist() == [len(zspage.pfns) for zspage in truth]
    assert table.scanned.all()
    capacity = {each.index: each.objs_per_zspage for each in kernel.classes}
    free = np.array([capacity[index] for index in table.class_index.tolist()]) - table.inuse
    assert ((table.freeobj >= 0) == (free > 0)).all()
    classes = {each.index: each for each in kernel.classes}
    assert pool.classes.index.tolist() == sorted(classes)
    for row, index in enumerate(pool.classes.index.tolist()):
        expected = classes[index]
        assert pool.classes.size[row] == expected.size
        assert pool.classes.objs_per_zspage[row] == expected.objs_per_zspage
        assert pool.classes.pages_per_zspage[row] == expected.pages_per_zspage
        assert tuple(pool.classes.fullness[row].tolist()) == expected.zspages_by_group
        assert pool.classes.capacity[row] == expected.capacity
        assert pool.classes.objects[row] == expected.objects


def compare(device: NativeDevice, witness: NativeWitness) -> PoolView:
    pool = scanned(device)
    assert_equals_kernel(pool, witness.walk(witness.zram_pool(device.name)), device.mm_stat())
    return pool


@pytest.mark.parametrize("kind", KINDS)
def test_content(kind: str, device: NativeDevice, native_witness: NativeWitness) -> None:
    """Whatever is stored, what the scan tells is what is there."""
    device.fill(kind, 6000)
    pool = compare(device, native_witness)
    assert (pool.zspages > 0) == (kind != "constant")


@pytest.mark.parametrize("kind", KINDS)
def test_where_the_bytes_go(kind: str, device: NativeDevice) -> None:
    """At rest the sum that was asked for is zram's own, within what the classes allow."""
    device.fill(kind, 3000)
    device.discard(100, 700)
    (pool,) = (result := scan_once(pool=device.name)).snapshot.pools
    stat = device.mm_stat()
    waste = pool_waste(pool, result.snapshot.kernel)
    assert waste.requested == Range(stat[1], stat[1])
    assert waste.pages == stat[2]
    told = [waste.requested.low, waste.rounding.low if waste.rounding else -1]
    assert sum([*told, waste.headers, waste.tail, waste.free_slots]) == stat[2]
    assert waste.wasted == Range(waste.total - stat[1], waste.total - stat[1])  # type: ignore[operator]
    bounds = pool_waste(replace(pool, owner_figures=None), result.snapshot.kernel).requested
    assert bounds is not None
    assert bounds.low <= stat[1] <= bounds.high
    # No object can be off by more than classes are apart, a huge one by a handle more.
    gap = int((pool.classes.size - pool.classes.size_below).max()) + 8
    assert bounds.high - bounds.low <= pool.objects * gap
    assert (pool.classes.size_below >= 0).all()


def test_empty_pool(device: NativeDevice, native_witness: NativeWitness) -> None:
    """A pool without a zspage is exact, and knows all its classes."""
    pool = compare(device, native_witness)
    assert (pool.zspages, pool.objects, pool.pages) == (0, 0, 0)


def test_after_discards_and_compaction(device: NativeDevice, native_witness: NativeWitness) -> None:
    """Sparse zspages, then compacted ones, are told as they are."""
    device.fill("mixed", 8000)
    full = compare(device, native_witness)
    for first in range(0, 8000, 10):
        device.discard(first, 7)
    sparse = compare(device, native_witness)
    assert sparse.objects < full.objects
    device.compact()
    compacted = compare(device, native_witness)
    assert compacted.objects == sparse.objects
    assert compacted.pages < sparse.pages
    assert compacted.pages_compacted == sparse.pages - compacted.pages


def test_several_pools(
    make_device: Callable[[], NativeDevice], native_witness: NativeWitness
) -> None:
    """One scan tells of all pools, each what is its own."""
    first, second = make_device(), make_device()
    first.fill("text", 2000)
    second.fill("mixed", 3000)
    names = {pool.name for pool in scan_once().snapshot.pools}
    assert {first.name, second.name} <= names
    compare(first, native_witness)
    compare(second, native_witness)


def test_many_zspages(
    make_device: Callable[[str], NativeDevice], native_witness: NativeWitness
) -> None:
    """A pool of over 300,000 zspages, in many slices."""
    device = make_device("4G")
    device.fill("incompressible", 290_000)
    device.fill("mixed", 60_000, first=290_000)
    pool = compare(device, native_witness)
    assert pool.zspages >= 300_000
