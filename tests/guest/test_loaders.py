"""One contract for every loader in either form: the same plan in, the same programs and records."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.workload import ZramDevice
from zpobs import wire
from zpobs.kernel.facts import KernelFacts, probe_kernel
from zpobs.kernel.hooks import Hook, all_hooks
from zpobs.kernel.plan import AttachForm, AttachWish, ProbePlan, make_plan
from zpobs.loaders import MAPS, Attached, LoaderName, make_loader
from zpobs.sources.bpfmap import recursion_misses
from zpobs.sources.counters import CounterSource
from zpobs.sources.ring import RingConsumer
from zpobs.wire import Words

RING_BYTES = 1 << 20
PAGES = 300
LOADERS: tuple[LoaderName, ...] = ("core", "bcc")
FORMS: tuple[AttachForm, ...] = ("fentry", "kprobe")
each_loader = pytest.mark.parametrize("loader", LOADERS)
each_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture(scope="module")
def facts() -> KernelFacts:
    """Return what this kernel has, with zram there."""
    ZramDevice("16M").remove()
    return probe_kernel()


@pytest.fixture(scope="module")
def plan(facts: KernelFacts) -> ProbePlan:
    """Return the plan for this kernel, without page frames."""
    return make_plan(facts)


class Watch:
    """Attached probes and all that comes from them."""

    def __init__(self, loader: LoaderName, plan: ProbePlan, wish: AttachWish) -> None:
        made: list[CounterSource] = []

        def prepare(map_fds: Mapping[str, int]) -> None:
            made[:] = [CounterSource(map_fds, plan.size_classes)]
            made[0].open_places()

        self.attached: Attached = make_loader(loader).attach(
            plan, wish=wish, ring_bytes=RING_BYTES, prepare=prepare
        )
        self.counters = made[0]
        self.ring = RingConsumer(self.attached.map_fds["zs_events"], RING_BYTES)

    def records(self) -> Words:
        """Return all records that wait, in one batch."""
        batches = [np.empty((0, wire.RECORD_WORDS), np.uint64)]
        while (batch := self.ring.read()) is not None:
            batches.append(batch)
        return np.concatenate(batches)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.ring.close()
        self.attached.close()


def programs(hooks: tuple[Hook, ...], form: AttachForm) -> set[str]:
    """Return the names that programs of these hooks must have."""
    moments = {"entry": ["entry"], "return": ["return"]}
    if form == "kprobe":
        moments["return"] = ["call", "return"]
    return {
        f"{hook.function}/{name}"
        for hook in hooks
        for moment in hook.moments
        for name in moments[moment]
    }


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def info(fd: int) -> dict[str, str]:
    lines = Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@each_loader
@each_form
def test_a_plan_becomes_programs_and_maps(
    loader: LoaderName, form: AttachForm, plan: ProbePlan
) -> None:
    """Every hook has its programs, of the form's type; maps have their sizes; closing ends all."""
    before = open_descriptors()
    with Watch(loader, plan, form) as watch:
        attached = watch.attached
        assert attached.form == form
        assert attached.failed == {}
        assert set(attached.program_fds) == programs(plan.hooks, form)
        types = {info(fd)["prog_type"] for fd in attached.program_fds.values()}
        assert types == ({"26"} if form == "fentry" else {"2"})
        assert [recursion_misses(fd) for fd in attached.program_fds.values()] == [0] * len(
            attached.program_fds
        )
        assert set(attached.map_fds) == set(MAPS)
        sizes = {name: int(info(fd)["max_entries"]) for name, fd in attached.map_fds.items()}
        assert sizes["zs_events"] == attached.ring_bytes == RING_BYTES
        assert sizes["zs_class_counters"] == wire.POOLS_MAX * plan.size_classes
    if loader == "core":
        assert open_descriptors() == before


@pytest.fixture
def absent(facts: KernelFacts) -> Hook:
    """Return a hook whose function this kernel does not have."""
    return next(hook for hook in all_hooks() if hook.function not in facts.functions)


@each_loader
@each_form
def test_a_hook_that_is_refused_is_told(
    loader: LoaderName, form: AttachForm, plan: ProbePlan, absent: Hook
) -> None:
    """The hook is told with a reason of one line, has no program, and the others have theirs."""
    with Watch(loader, replace(plan, hooks=(absent, *plan.hooks)), form) as watch:
        ((hook, reason),) = watch.attached.failed.items()
        assert hook == absent
        assert absent.function in reason
        assert "\n" not in reason
        assert set(watch.attached.program_fds) == programs(plan.hooks, form)


@each_loader
def test_auto_takes_the_other_form_for_all(
    loader: LoaderName, plan: ProbePlan, absent: Hook
) -> None:
    """Where fentry is refused for one hook, every hook is a kprobe; else every one is fentry."""
    with Watch(loader, replace(plan, hooks=(*plan.hooks, absent)), "auto") as watch:
        assert watch.attached.form == "kprobe"
        assert list(watch.attached.failed) == [absent]
    with Watch(loader, plan, "auto") as watch:
        assert watch.attached.form == "fentry"


def work(device: ZramDevice) -> None:
    """Write pages of many sizes, compressed, in one thread, and some of them again."""
    made = np.random.default_rng(5)
    buffer = mmap.mmap(-1, mmap.PAGESIZE)
    fd = os.open(f"/dev/{device.name}", os.O_RDWR | os.O_DIRECT)
    try:
        for number in [*range(PAGES), *range(0, PAGES, 7)]:
            random_bytes = int(made.integers(16, mmap.PAGESIZE))
            buffer[:] = bytes(mmap.PAGESIZE)
            buffer[:random_bytes] = made.bytes(random_bytes)
            os.pwrite(fd, buffer, number * mmap.PAGESIZE)
    finally:
        os.close(fd)
    device.compact()


def observed(watch: Watch, device: ZramDevice) -> tuple[Counter[Any], Any]:
    """Return the records of a device's pool but for addresses and times, and its counters."""
    reading = watch.counters.read(0)
    assert (reading.ring_full, reading.unpaired) == (0, 0)
    (pool,) = [pool for pool in reading.pools if pool.name == device.name]
    assert pool.created
    records = watch.records()
    own = records[records[:, 0] >> np.uint64(32) == pool.serial]
    kind = own[:, 0] & np.uint64(0xFF)
    own[:, 0] &= np.uint64(0xFFFFFFFF)
    # What stands in words 3 and 4 of these is neither address nor time.
    plain = np.isin(kind, [wire.KIND_STATE, wire.KIND_DEATH, wire.KIND_POOL_CREATED])
    seen = Counter(tuple(row) for row in own[plain][:, [0, 3, 4]].tolist())
    seen.update(int(each) for each in kind[~plain])
    counted = pool.class_counters
    assert counted is not None
    return seen, counted.tolist()


def results(plan: ProbePlan, loaders: Sequence[LoaderName]) -> Iterator[tuple[str, Any]]:
    for loader in loaders:
        for form in FORMS:
            with Watch(loader, plan, form) as watch:
                device = ZramDevice("16M")
                try:
                    work(device)
                    yield f"{loader} {form}", observed(watch, device)
                finally:
                    device.remove()


def test_all_tell_the_same(plan: ProbePlan, features: frozenset[str]) -> None:
    """The same work gives the same records and counters, whoever loaded the probes, and how."""
    loaders = LOADERS if "headers" in features else LOADERS[:1]
    told = dict(results(plan, loaders))
    first, *others = told
    seen, counted = told[first]
    assert sum(np.array(counted)[:, wire.CLASS_ALLOCS]) >= PAGES
    assert sum(count for row, count in seen.items() if isinstance(row, tuple)) > PAGES
    assert [name for name in others if told[name] != told[first]] == []
