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

import numpy as np
import pytest

from lab.comparison import Json, pool_named
from lab.watcher import Top
from lab.workload import Churn, ZramDevice, free_movable_memory
from lab.zswap import Zswap, ZswapPressure, zswap_at_rest
from zpobs import wire
from zpobs.kernel.plan import AttachWish
from zpobs.loaders import LoaderName
from zpobs.model import ShadowModel
from zpobs.objects import Sampling
from zpobs.session import open_session
from zpobs.wishes import Wishes

PAGE = 4096
# Control groups of no other test.
GROUPS = ("pinning-one", "pinning-other")
PAGES = 60
EVERY = Sampling.seeded(1, 1)
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


@pytest.mark.parametrize("timed", [True, False])
def test_recorders_are_told_times_and_processors(
    loader: LoaderName,
    attach_form: AttachWish,
    devices: list[ZramDevice],
    monkeypatch: pytest.MonkeyPatch,
    timed: bool,
) -> None:
    """How long each allocation took, if that is wanted, and where it and its free ran."""
    told: list[wire.Words] = []
    apply = ShadowModel.apply

    def listen(model: ShadowModel, words: wire.Words) -> None:
        told.append(words.copy())
        apply(model, words)

    monkeypatch.setattr(ShadowModel, "apply", listen)
    ZramDevice("16M").remove()
    one, other = sorted(os.sched_getaffinity(0))[:2]
    wishes = Wishes(loader=loader, attach=attach_form, objects=EVERY, timed_objects=timed)
    with open_session(wishes) as session:
        devices.append(ZramDevice("64M"))
        disk = os.open(f"/dev/{devices[0].name}", os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
        try:
            with mmap.mmap(-1, PAGE) as page:
                page[:PAGE] = random.Random(7).randbytes(2000) + bytes(PAGE - 2000)
                os.sched_setaffinity(0, {one})
                began_ns = time.monotonic_ns()
                for at in range(PAGES):
                    os.pwrite(disk, page, at * PAGE)
                longest_ns = time.monotonic_ns() - began_ns
            os.sched_setaffinity(0, {other})
            fcntl.ioctl(disk, BLKDISCARD, struct.pack("QQ", 0, PAGES * PAGE))
        finally:
            os.sched_setaffinity(0, {one, other})
            os.close(disk)
        (view,) = [each for each in session.snapshot().pools if each.name == devices[0].name]
    words = np.concatenate(told)
    words = words[words[:, 0] >> np.uint64(32) == view.id]
    owners, frees, stores = (
        words[wire.kinds(words) == kind]
        for kind in (wire.KIND_OBJECT_OWNER, wire.KIND_OBJECT_FREED, wire.KIND_OBJECT_STORED)
    )
    assert len(owners) == len(frees) == len(stores) == PAGES
    sizes = (owners[:, 3] & np.uint64(0xFFFFFFFF)).tolist()
    assert 2000 <= min(sizes) <= max(sizes) < PAGE
    took_ns = (owners[:, 3] >> np.uint64(32)).tolist()
    assert sum(took_ns) <= longest_ns
    assert min(took_ns) > 0 if timed else max(took_ns) == 0
    assert set((stores[:, 4] >> np.uint64(32)).tolist()) == {one}
    assert set(frees[:, 4].tolist()) == {other << 32}


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
            spread = mine["lifetimes"]["buckets"]
            assert sum(bucket["objects"] for bucket in spread) == counters["frees"]
    assert told["moves"] > 0


@pytest.fixture
def zswap() -> Iterator[Zswap]:
    free_movable_memory()
    turned_on = Zswap()
    yield turned_on
    turned_on.close()


def test_pins_of_a_device_are_its_blocks(watch: Watch, devices: list[ZramDevice]) -> None:
    """Of pages of one size class most are discarded: those that are left pin their zspages."""
    watching = watch()
    device = ZramDevice("64M")
    devices.append(device)
    kept = range(7, 640, 80)
    rng = random.Random(6)
    disk = os.open(f"/dev/{device.name}", os.O_WRONLY | os.O_DIRECT | os.O_SYNC)
    try:
        with mmap.mmap(-1, PAGE) as page:
            for at in range(640):
                page[:] = rng.randbytes(200) + bytes(PAGE - 200)
                os.pwrite(disk, page, at * PAGE)
        for at in set(range(640)) - set(kept):
            fcntl.ioctl(disk, BLKDISCARD, struct.pack("QQ", at * PAGE, PAGE))
    finally:
        os.close(disk)
    _, pool = at_rest(watching, device)
    told = pool["objects_told"]
    well(told)
    own = Path("/proc/self/cgroup").read_text().splitlines()[-1].rpartition(":")[2]
    pins = told["pins"]["listed"]
    assert pins
    assert {each["place"]["block"] for each in pins} <= set(kept)
    assert told["pins"]["objects"] == len(pins)
    assert {each["cgroup"] for each in pins} == {own}
    assert {each["command"] for each in pins} == {Path("/proc/self/comm").read_text().strip()}
    assert {each["node"] for each in pins} == {0}
    near = [each for each in pool["zspage_list"] if each["inuse"] and thin(each, pool)]
    assert told["pins"]["zspages"] == len(near)
    assert told["pins"]["objects"] == sum(each["inuse"] for each in near)
    assert {each["zspage"] for each in pins} == {each["address"] for each in near}


def thin(zspage: Json, pool: Json) -> bool:
    """Tell whether at most a quarter of a zspage's places are taken."""
    places = {each["index"]: each["objs_per_zspage"] for each in pool["classes"]}
    return bool(zspage["inuse"] * 4 <= places[zspage["class"]])


def test_pins_are_of_the_cgroup_whose_page_they_hold(watch: Watch, zswap: Zswap) -> None:  # noqa: ARG001
    """Two cgroups are pressed into zswap: what each leaves behind in thin zspages is its own.

    Both die down to few pages, so that their objects stay in zspages that were full.
    """
    watching = watch()
    pressed = [
        ZswapPressure(
            name, pages=3_000, operations=6_000, seed=seed, memory_high=6 << 20, verify=False
        )
        for name, seed in zip(GROUPS, (71, 72), strict=True)
    ]
    for each in pressed:
        each.rest()
    ids = {f"/{name}": Path("/sys/fs/cgroup", name).stat().st_ino for name in GROUPS}
    swaps = swap_types()
    frame, figures = zswap_at_rest(lambda: watching.frame_after(time.time_ns()))
    (pool,) = [each for each in frame["pools"] if each["owner"] == "zswap" and each["objects"]]
    told = pool["objects_told"]
    well(told)
    assert told["live"] == figures.stored
    assert [each for each in told["reasons"] if "unknown" in each] == []
    pins = told["pins"]["listed"]
    owners = {each["cgroup"] for each in pins}
    assert owners == set(ids), (told["pins"]["objects"], owners)
    for each in pins:
        assert each["cgroup_id"] == ids[each["cgroup"]]
        assert each["cgroup_of"] == "page"
        assert each["place"]["swap_type"] in swaps
        assert 0 < each["place"]["swap_offset"] < swaps[each["place"]["swap_type"]]
        assert each["command"]
        assert each["node"] == 0
        assert each["inuse"] * 4 <= each["objs_per_zspage"]
    slots = [(each["place"]["swap_type"], each["place"]["swap_offset"]) for each in pins]
    assert len(set(slots)) == len(slots)
    # What each process has in which slot, as its page table says.
    swapped = {f"/{each.name}": swap_slots(each.pid) for each in pressed}
    one, other = (f"/{name}" for name in GROUPS)
    others = {one: other, other: one}
    own = 0
    for each, slot in zip(pins, slots, strict=True):
        assert slot not in swapped[others[each["cgroup"]]]
        own += slot in swapped[each["cgroup"]]
    # Pages that were read back may keep their slots for a while.
    assert own > len(pins) / 2
    # One cgroup ends: what is left is the other's.
    pressed[0].end()
    frame, figures = zswap_at_rest(lambda: watching.frame_after(time.time_ns()))
    pool = pool_named(frame, pool["name"])
    told = pool["objects_told"]
    assert told["live"] == figures.stored
    left = {each["cgroup"] for each in told["pins"]["listed"]}
    # Where freed slots are kept to be given back many at a time, so are their objects.
    if " free_swap_slot\n" in Path("/proc/kallsyms").read_text():
        left.discard(one)
    assert left == {other}
    pressed[1].end()


def swap_slots(pid: int) -> set[tuple[int, int]]:
    """Return types and offsets of a process's pages in swap (admin-guide/mm/pagemap.rst)."""
    found: set[tuple[int, int]] = set()
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(each, 16) for each in line.split()[0].split("-"))
            if end > 1 << 63:
                continue
            pagemap.seek(begin // PAGE * 8)
            words = np.frombuffer(pagemap.read((end - begin) // PAGE * 8), dtype=np.uint64)
            words = words[(words >> np.uint64(62)) & np.uint64(1) == 1]
            entries = words & np.uint64((1 << 55) - 1)
            found |= {(entry & 31, entry >> 5) for entry in entries.tolist()}
    return found


def swap_types() -> dict[int, int]:
    """Return the pages of each swap device: the kernel numbers them as it lists them."""
    lines = Path("/proc/swaps").read_text().splitlines()[1:]
    return {at: int(line.split()[2]) * 1024 // PAGE for at, line in enumerate(lines)}


def test_a_sample_holds_whole_lives_and_its_intervals_the_truth(
    watch: Watch, devices: list[ZramDevice]
) -> None:
    """1 in 8 by handle, twice with other handles: every object told is told to its end."""
    seeds = (1, 2)
    samples = [watch("--objects-rate", "8", "--objects-seed", str(seed)) for seed in seeds]
    device = ZramDevice("256M")
    devices.append(device)
    churn = Churn(device, operations=12_000, seed=63)
    churn.finish()
    for seed, watching in zip(seeds, samples, strict=True):
        _, pool = at_rest(watching, device)
        told = pool["objects_told"]
        well(told)
        assert told["rate"] == 8
        assert 0 < told["stored"] < pool["counters"]["allocs"] / 2
        assert told["stored"] == told["freed"] + told["vanished"] + told["live"]
        truth = {
            "stored": pool["counters"]["allocs"],
            "freed": pool["counters"]["frees"],
            "live": pool["objects"],
            "live_bytes": device.mm_stat()[1],
        }
        for name, figure in truth.items():
            estimate = told["estimates"][name]
            assert estimate["low"] <= figure <= estimate["high"], (name, figure, estimate)
            assert estimate["high"] - estimate["low"] < 1.5 * figure, (name, figure, estimate)
        # The kernel's hash is ours.
        handles = [int(each["handle"], 16) for each in told["pins"]["listed"]]
        assert Sampling.seeded(8, seed).tells(np.array(handles, dtype=np.uint64)).all()
