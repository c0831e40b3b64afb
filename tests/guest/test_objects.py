"""Objects on a real kernel: sizes, lives and owners as workloads make them that know theirs."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.comparison import Json, pool_named
from lab.watcher import Top
from lab.workload import Churn, ZramDevice

PAGE = 4096
PAGES = 60
# _IO(0x12, 119), include/uapi/linux/fs.h
BLKDISCARD = 0x1277
REST_S = 120.0

Watch = Callable[..., Top]


@pytest.fixture
def watch(loader: str, attach_form: str, tmp_path: Path) -> Iterator[Watch]:
    """Return what starts a ``zpobs top --objects``, before any device that a test makes."""
    started: list[Top] = []

    def start(*more: str) -> Top:
        arguments = ["--loader", loader, "--attach", attach_form, "--json", "--objects", *more]
        top = Top(tmp_path / f"frames{len(started)}.jsonl", arguments, shown=False)
        top.await_first()
        started.append(top)
        return top

    # Loaded, so that its functions can be hooked.
    ZramDevice("16M").remove()
    yield start
    for top in started:
        assert top.stop() == 0


@pytest.fixture
def devices() -> Iterator[list[ZramDevice]]:
    made: list[ZramDevice] = []
    yield made
    for device in made:
        device.remove()


def at_rest(watching: Top, device: ZramDevice) -> tuple[Json, Json]:
    """Return an exact frame between two equal readings of the device, and what it tells."""
    end_s = time.monotonic() + REST_S
    while time.monotonic() < end_s:
        before = device.mm_stat()
        frame = watching.frame_after(time.time_ns())
        if before == device.mm_stat() and frame["health"]["status"] == "exact":
            return frame, pool_named(frame, device.name)
    pytest.fail("the device never came to rest")


def well(told: Json) -> None:
    """Hold what was told to be exact, or bounded for skipped runs of probes alone."""
    skipped = [why for why in told["reasons"] if "runs of its probes were skipped" in why]
    assert told["status"] == ("bounded" if skipped else "exact"), told["reasons"]
    assert told["reasons"] == skipped


def test_objects_are_as_large_and_live_as_long_as_a_workload_makes_them(
    watch: Watch, devices: list[ZramDevice]
) -> None:
    """Every page is an object of a size that zram sums up itself, from its write to its discard."""
    watching = watch()
    device = ZramDevice("256M")
    devices.append(device)
    rng = random.Random(5)
    lives: list[list[int]] = []
    disk = os.open(f"/dev/{device.name}", os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
    try:
        with mmap.mmap(-1, PAGE) as page:
            for at in range(PAGES):
                noise = rng.randrange(64, PAGE - 64)
                page[:] = rng.randbytes(noise) + bytes(PAGE - noise)
                before_ns = time.monotonic_ns()
                os.pwrite(disk, page, at * PAGE)
                lives.append([before_ns, time.monotonic_ns()])
        _, pool = at_rest(watching, device)
        told = pool["objects_told"]
        well(told)
        stat = device.mm_stat()
        assert (told["stored"], told["live"], told["freed"], told["unseen"]) == (PAGES, PAGES, 0, 0)
        assert told["sized"] == PAGES
        assert told["live_bytes"] == stat[1]
        assert told["estimates"]["live_bytes"]["low"] == stat[1]
        time.sleep(0.5)
        for at in range(0, PAGES, 2):
            before_ns = time.monotonic_ns()
            fcntl.ioctl(disk, BLKDISCARD, struct.pack("QQ", at * PAGE, PAGE))
            lives[at] += [before_ns, time.monotonic_ns()]
    finally:
        os.close(disk)
    frame, pool = at_rest(watching, device)
    told = pool["objects_told"]
    well(told)
    ended = [life for life in lives if len(life) == 4]
    assert (told["stored"], told["freed"], told["vanished"]) == (PAGES, len(ended), 0)
    assert told["live"] == told["stored"] - told["freed"] == pool["objects"]
    assert told["live_bytes"] == device.mm_stat()[1]
    shortest = sum(life[2] - life[1] for life in ended)
    longest = sum(life[3] - life[0] for life in ended)
    assert shortest <= told["lifetimes"]["sum_ns"] <= longest
    assert sum(each["objects"] for each in told["lifetimes"]["buckets"]) == len(ended)
    counted = sum(each["counters"]["allocs"] for each in pool["classes"])
    assert told["stored"] == counted
    (view,) = [each for each in frame["health"]["addons"] if each["name"] == "objects"]
    assert {each["name"]: each["used"] for each in view["maps"]}["ledger"] == told["live"]


def test_churn_and_compaction_leave_every_object_accounted_for(
    watch: Watch, devices: list[ZramDevice]
) -> None:
    """Counts by class equal the counters, bytes equal zram's, and no move is taken for a store."""
    watching = watch()
    device = ZramDevice("256M")
    devices.append(device)
    churn = Churn(device, operations=15_000, seed=62)
    while churn.running():
        device.compact()
    churn.finish()
    _, pool = at_rest(watching, device)
    told = pool["objects_told"]
    well(told)
    assert told["stored"] == told["freed"] + told["vanished"] + told["live"]
    if told["status"] == "exact":
        assert (told["vanished"], told["freed_unseen"], told["unseen"]) == (0, 0, 0)
        assert told["live_bytes"] == device.mm_stat()[1]
        by_class = {each["index"]: each for each in told["classes"]}
        for each in pool["classes"]:
            mine = by_class.get(each["index"])
            if mine is None:
                assert each["counters"]["allocs"] == 0
                continue
            counters = each["counters"]
            assert (mine["stored"], mine["freed"], mine["moves"]) == (
                counters["allocs"],
                counters["frees"],
                counters["moves"],
            )
            assert mine["live"] == each["objects"]
    assert told["moves"] > 0
