"""At rest the model, fed by probes alone, equals the kernel to the unit."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from lab.comparison import Check, Json, compare_health, compare_pool, pool_named
from lab.watcher import Top
from lab.witness import KernelPool, Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


@contextlib.contextmanager
def devices(count: int) -> Iterator[list[ZramDevice]]:
    made = [ZramDevice("256M") for _ in range(count)]
    try:
        yield made
    finally:
        for device in made:
            device.remove()


def at_rest(top: Top, *watched: ZramDevice) -> Json:
    """Return a frame between two equal readings of all counters."""
    while True:
        before = [device.mm_stat() for device in watched]
        frame = top.frame_after(time.time_ns())
        if before == [device.mm_stat() for device in watched]:
            return frame


def walk(witness: Witness, device: ZramDevice) -> KernelPool:
    return witness.walk(witness.zram_pool(device.name))


def assert_passed(checks: list[Check]) -> None:
    assert [check for check in checks if not check.passed] == []


def assert_equals_kernel(
    top: Top, witness: Witness, runs: dict[str, tuple[ZramDevice, dict[str, int]]]
) -> Json:
    frame = at_rest(top, *(device for device, _ in runs.values()))
    assert_passed(compare_health(frame))
    for name, (device, made) in runs.items():
        pool = pool_named(frame, name)
        assert_passed(compare_pool(pool, device.mm_stat(), walk(witness, device), made))
    return frame


def test_two_devices_at_once(top: Top, witness: Witness) -> None:
    """Two busy devices, compacted by sysfs and shrinker and moved about meanwhile, come out exact.

    Compaction's moves are not counted as allocations: those equal churn's own count.
    """
    free_movable_memory()
    with devices(2) as (one, two):
        churns = [
            Churn(one, operations=30_000, seed=11, mix="45:10:45"),
            Churn(two, operations=30_000, seed=12, mix="60:20:20"),
        ]
        with repeatedly(lambda: compact_both_ways(one)):
            while any(churn.running() for churn in churns):
                move_pages(walk_moving(witness, two))
        made = [churn.finish() for churn in churns]
        one.compact()
        runs = {one.name: (one, made[0]), two.name: (two, made[1])}
        frame = assert_equals_kernel(top, witness, runs)
        assert pool_named(frame, one.name)["counters"]["moves"] > 0
        assert pool_named(frame, two.name)["counters"]["migrations"] > 0


def compact_both_ways(device: ZramDevice) -> None:
    """Compact by the driver's file, and by the shrinker of every pool."""
    device.compact()
    DROP_CACHES.write_text("2")


@contextlib.contextmanager
def repeatedly(action: Callable[[], None]) -> Iterator[None]:
    """Do something again and again meanwhile, on a thread of its own."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.2):
            action()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        over.set()
        worker.join()


def walk_moving(witness: Witness, device: ZramDevice) -> KernelPool:
    """Walk a pool that is not at rest: good for its page frames alone, so try until it holds."""
    while True:
        with contextlib.suppress(LookupError, OSError):
            return walk(witness, device)


def test_reset_and_set_up_again(top: Top, witness: Witness) -> None:
    """A device that is reset and set up again is a new pool: new id, counters from zero."""
    with devices(1) as (device,):
        first_made = Churn(device, operations=4_000, seed=21).finish()
        first = assert_equals_kernel(top, witness, {device.name: (device, first_made)})
        device.reset()
        gone = top.frame_after(time.time_ns())
        assert device.name not in [pool["name"] for pool in gone["pools"]]
        device.set_up("64M")
        made = Churn(device, operations=3_000, seed=22).finish()
        second = assert_equals_kernel(top, witness, {device.name: (device, made)})
        ids = [pool_named(frame, device.name)["id"] for frame in (first, second)]
        assert ids[0] != ids[1]


def test_many_lives_of_a_device(top: Top, witness: Witness) -> None:
    """A hundred pools, one after the other, find a place although there are 32.

    Places come back within half a second, so ten new pools a second are no hurry.
    """
    with devices(1) as (device,):
        for _ in range(100):
            device.reset()
            device.set_up("64M")
            time.sleep(0.1)
        made = Churn(device, operations=1_000, seed=23).finish()
        assert_equals_kernel(top, witness, {device.name: (device, made)})


def test_empty_pool(top: Top, witness: Witness) -> None:
    """A pool without a zspage is there, exact, with its whole class table and all zeros."""
    with devices(1) as (device,):
        made = {"zs_malloc": 0, "zs_free": 0, "live_objects": 0}
        frame = assert_equals_kernel(top, witness, {device.name: (device, made)})
        # As many as chains of eight pages give, or of four.
        assert len(pool_named(frame, device.name)["classes"]) in (119, 69)


def test_same_filled_and_huge(top: Top, witness: Witness) -> None:
    """Same-filled pages need no object; incompressible ones fill a zspage each, marked huge."""
    with devices(1) as (device,):
        churn = Churn(device, operations=3_000, seed=24, kinds="same:1,zero:1,random:2")
        made = churn.finish()
        frame = assert_equals_kernel(top, witness, {device.name: (device, made)})
        pool = pool_named(frame, device.name)
        assert pool["objects"] == pool["zspages"] == device.mm_stat()[7] > 0
        assert all(zspage["huge"] for zspage in pool["zspage_list"])


def test_figures_stay_between_the_readings(top: Top) -> None:
    """While a writer only adds, every frame lies between mm_stat read before and after it."""
    with devices(1) as (device,):
        churn = Churn(device, operations=6_000, seed=25, mix="100:0:0", rate=300)
        seen = 0
        while churn.running():
            before = device.mm_stat()
            frame = top.frame_after(time.time_ns())
            after = device.mm_stat()
            pool = pool_named(frame, device.name)
            # orig_data_size counts a page once its object is stored; one may be in flight.
            assert before[0] // 4096 - before[5] <= pool["objects"] + 1
            assert pool["objects"] <= after[0] // 4096 - after[5] + 1
            assert before[2] <= pool["pages"] * 4096 + 8 * 4096
            seen += 1
        churn.finish()
        assert seen >= 3
