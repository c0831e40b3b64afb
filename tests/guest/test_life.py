"""The lives of zspages on a real kernel: whole, and as long as a workload makes them."""

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
PAGES = 40
# _IO(0x12, 119), include/uapi/linux/fs.h
BLKDISCARD = 0x1277


@pytest.fixture
def watching(loader: str, attach_form: str, tmp_path: Path) -> Iterator[Top]:
    """Watch before the device is there, so that every life is seen from its birth."""
    arguments = ["--loader", loader, "--attach", attach_form, "--json", "--life"]
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


def test_every_life_is_seen_whole(watching: Top, device: ZramDevice, witness: Witness) -> None:
    """Births less deaths are the kernel's zspages, and all time that any lived is in a group."""
    free_movable_memory()
    churn = Churn(device, operations=15_000, seed=61)
    while churn.running():
        device.compact()
    churn.finish()
    move_pages(witness.walk(witness.zram_pool(device.name)))
    frame, pool = at_rest(watching, device)
    life, listed = pool["life"], pool["zspage_list"]
    assert (life["status"], life["reasons"]) == ("exact", [])
    kernel = witness.walk(witness.zram_pool(device.name))
    assert life["live"] == len(kernel.zspages) == len(listed)
    assert life["births"] == life["deaths"] + life["live"]
    assert life["deaths"] > 100
    assert (life["started"], life["found"], life["vanished"]) == (0, 0, 0)
    assert sum(each["zspages"] for each in life["lifetimes"]["buckets"]) == life["deaths"]
    assert sum(each["zspages"] for each in life["ages"]["buckets"]) == life["live"]
    alive_ns = sum(frame["mono_ns"] - each["first_seen_ns"] for each in listed)
    assert sum(life["group_ns"]) == life["lifetimes"]["sum_ns"] + alive_ns


def test_lives_are_as_long_as_a_workload_makes_them(watching: Top, device: ZramDevice) -> None:
    """Pages that do not compress fill a zspage each, which lives until its page is discarded."""
    began_ns, ended_ns = [], []
    disk = os.open(f"/dev/{device.name}", os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
    try:
        with mmap.mmap(-1, PAGE) as page:
            for at in range(PAGES):
                page[:] = os.urandom(PAGE)
                before_ns = time.monotonic_ns()
                os.pwrite(disk, page, at * PAGE)
                began_ns.append((before_ns, time.monotonic_ns()))
        time.sleep(0.5)
        for at in range(PAGES):
            before_ns = time.monotonic_ns()
            fcntl.ioctl(disk, BLKDISCARD, struct.pack("QQ", at * PAGE, PAGE))
            ended_ns.append((before_ns, time.monotonic_ns()))
    finally:
        os.close(disk)
    _, pool = at_rest(watching, device)
    life = pool["life"]
    assert (life["status"], life["births"], life["deaths"]) == ("exact", PAGES, PAGES)
    shortest = [end[0] - begin[1] for begin, end in zip(began_ns, ended_ns, strict=True)]
    longest = [end[1] - begin[0] for begin, end in zip(began_ns, ended_ns, strict=True)]
    told = life["lifetimes"]
    assert min(shortest) <= told["shortest_ns"] <= min(longest)
    assert max(shortest) <= told["longest_ns"] <= max(longest)
    assert sum(shortest) <= told["sum_ns"] <= sum(longest)
    # A huge zspage is full from birth to death.
    (huge,) = [each for each in life["classes"] if each["births"]]
    assert huge["lifetimes_known"] == PAGES
    assert huge["group_ns"][-1] >= sum(shortest)
