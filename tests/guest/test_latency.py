"""How long calls take on a real kernel: as many as counters tell, and as long as a caller waits."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.comparison import Json, pool_named
from lab.watcher import Top
from lab.witness import Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages

PAGE = 4096
PAGES = 200
# _IO(0x12, 119), include/uapi/linux/fs.h
BLKDISCARD = 0x1277


@pytest.fixture
def watching(loader: str, attach_form: str, tmp_path: Path) -> Iterator[Top]:
    """Watch before the device is there, so that every call is measured."""
    arguments = ["--loader", loader, "--attach", attach_form, "--json", "--latency"]
    top = Top(tmp_path / "frames.jsonl", arguments, shown=False)
    top.await_first()
    yield top
    assert top.stop() == 0


@pytest.fixture
def device(watching: Top) -> Iterator[ZramDevice]:  # noqa: ARG001 - it is there first
    made = ZramDevice("256M")
    yield made
    made.remove()


def at_rest(watching: Top, device: ZramDevice) -> tuple[Json, Json]:
    """Return an exact frame between two equal readings of the device, and its pool."""
    while True:
        before = device.mm_stat()
        frame = watching.frame_after(time.time_ns())
        if before == device.mm_stat() and frame["health"]["status"] == "exact":
            return frame, pool_named(frame, device.name)


def counts_by_class(kind: Json) -> dict[int, int]:
    """Return how many calls of a kind each size class had."""
    return {each["index"]: each["count"] for each in kind["classes"]}


def test_every_call_is_in_a_histogram(watching: Top, device: ZramDevice, witness: Witness) -> None:
    """Sums equal the counters of the probes, class by class, whatever goes on meanwhile."""
    free_movable_memory()
    churn = Churn(device, operations=15_000, seed=63)
    while churn.running():
        device.compact()
    made = churn.finish()
    move_pages(witness.walk(witness.zram_pool(device.name)))
    frame, pool = at_rest(watching, device)
    latency, counters = pool["latency"], pool["counters"]
    (addon,) = frame["health"]["addons"]
    assert (addon["name"], addon["missed_hooks"]) == ("latency", [])
    (cells,) = addon["maps"]
    assert (cells["used"] > 100, cells["used"] < cells["size"], cells["refused"]) == (True, True, 0)
    print(latency["status"], latency["reasons"])
    # A preempted probe can make the kernel skip another's run: that is told, and how many.
    assert (latency["status"], latency["reasons"]) == (addon["status"], addon["reasons"])
    assert (latency["status"] == "exact") == (latency["reasons"] == [])
    kinds = latency["kinds"]
    assert (counters["allocs"], counters["frees"]) == (made["zs_malloc"], made["zs_free"])
    # What a histogram lacks is told.
    lacking = sum(int(reason.split()[0]) for reason in latency["reasons"])
    for kind, counter in (("alloc", "allocs"), ("free", "frees"), ("migration", "migrations")):
        assert 0 <= counters[counter] - kinds[kind]["count"] <= lacking
    if latency["status"] == "exact":
        for kind, counter in (("alloc", "allocs"), ("free", "frees")):
            by_class = {
                each["index"]: each["counters"][counter]
                for each in pool["classes"]
                if each["counters"][counter]
            }
            assert counts_by_class(kinds[kind]) == by_class
            assert kinds[kind]["count"] == counters[counter]
        assert kinds["alloc_lock"]["count"] + kinds["alloc_grow"]["count"] == counters["allocs"]
        assert kinds["free_lock"]["count"] == counters["frees"]
        assert kinds["migration"]["count"] == counters["migrations"] > 0
        assert kinds["migration_failed"]["count"] == counters["migration_failures"]
    for kind in kinds.values():
        assert sum(each["count"] for each in kind["buckets"]) == kind["count"]
        assert sum(each["sum_ns"] for each in kind["classes"]) == kind["sum_ns"]
    # A part is not longer than the whole.
    waited_ns = kinds["alloc_lock"]["sum_ns"] + kinds["alloc_grow"]["sum_ns"]
    assert 0 < waited_ns < kinds["alloc"]["sum_ns"]
    assert 0 < kinds["free_lock"]["sum_ns"] < kinds["free"]["sum_ns"]


def test_no_call_is_longer_than_its_callers_wait(watching: Top, device: ZramDevice) -> None:
    """All calls of one writer together take less than it waits; every call takes some time."""
    waited_ns = 0
    disk = os.open(f"/dev/{device.name}", os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
    try:
        with mmap.mmap(-1, PAGE) as page:
            for at in range(PAGES):
                page[:] = os.urandom(PAGE)
                begin_ns = time.monotonic_ns()
                os.pwrite(disk, page, at * PAGE)
                waited_ns += time.monotonic_ns() - begin_ns
        for at in range(PAGES):
            begin_ns = time.monotonic_ns()
            fcntl.ioctl(disk, BLKDISCARD, struct.pack("QQ", at * PAGE, PAGE))
            waited_ns += time.monotonic_ns() - begin_ns
    finally:
        os.close(disk)
    _, pool = at_rest(watching, device)
    kinds = pool["latency"]["kinds"]
    if pool["latency"]["status"] == "exact":
        # What does not compress has a zspage of its own, which is made for it.
        assert [kinds[kind]["count"] for kind in ("alloc", "alloc_grow", "free")] == [PAGES] * 3
        assert kinds["alloc_lock"]["count"] == 0
        (huge,) = kinds["alloc"]["classes"]
        assert huge["count"] == PAGES
    measured_ns = kinds["alloc"]["sum_ns"] + kinds["free"]["sum_ns"]
    assert 0 < measured_ns < waited_ns
    shortest = min(each["below_ns"] for each in kinds["free"]["buckets"])
    assert shortest > 1
