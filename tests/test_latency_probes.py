"""The add-on that measures latencies on this very kernel, as far as it lets probes come."""

from __future__ import annotations

import os
import re

import pytest

from tests.factories import make_pool, make_snapshot
from zpobs.bpf_files import bpf_object, bpf_text
from zpobs.extras import Extras
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.hooks import LATENCY_HOOKS, Hook
from zpobs.kernel.plan import ProbePlan, make_plan
from zpobs.loaders.libbpf import BpfObject
from zpobs.loaders.programs import load_all, setup_value
from zpobs.sources import bpfmap
from zpobs.sources.counters import POOL_ENTRY
from zpobs.sources.latency import MAPS, LatencySource, class_setup, kinds_of
from zpobs.wire import LATENCY_BUCKETS, LATENCY_CELLS
from zpobs.wishes import Wishes

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
VALUE_WORDS = 2 + LATENCY_BUCKETS


@pytest.fixture(scope="module")
def plan() -> ProbePlan:
    return make_plan(probe_kernel(), vmemmap_base=0xFFFFEA0000000000)


def load(plan: ProbePlan, hooks: tuple[Hook, ...]) -> BpfObject:
    def prepare(loaded: BpfObject) -> None:
        loaded.resize_map("zs_events", 1 << 16)
        loaded.set_initial_value(".rodata.setup", setup_value(plan, 1 << 16))
        loaded.set_initial_value(".rodata.classes", class_setup(4096, 255))

    return load_all(bpf_object("latency.bpf.o"), hooks, "kprobe", prepare)


def test_every_hook_has_its_programs() -> None:
    """Function by function and moment by moment, hooks.py and latency.bpf.c say the same."""
    found = re.findall(
        r"^ON_(ENTRY|RETURN)\((\w+), \w+\)$", bpf_text("latency.bpf.c"), re.MULTILINE
    )
    in_c = {(function, moment.lower()) for moment, function in found}
    assert in_c == {(hook.function, moment) for hook in LATENCY_HOOKS for moment in hook.moments}


@needs_root
@pytest.mark.parametrize("hook", LATENCY_HOOKS, ids=lambda hook: hook.function)
def test_the_verifier_takes_each_program(plan: ProbePlan, hook: Hook) -> None:
    with load(plan, (hook,)) as loaded:
        assert loaded.map_fd("zs_latencies") > 0


@needs_root
def test_cells_are_read_by_pool_kind_and_class(plan: ProbePlan) -> None:
    """Those of all CPUs are summed; those of a pool that is gone are dropped for good."""
    with load(plan, LATENCY_HOOKS) as loaded:
        fds = {name: loaded.map_fd(name) for name in MAPS}
        pools_fd = loaded.map_fd("zs_pools")
        unused = POOL_ENTRY.unpack(bytes(POOL_ENTRY.size))[5:]
        entry = POOL_ENTRY.pack(7, 0, 1, 0, b"zram7", *unused)
        bpfmap.insert(pools_fd, (0xFFFF888000001000).to_bytes(8, "little"), entry)
        cpus = bpfmap.possible_cpus()
        words = [0] * VALUE_WORDS
        words[0], words[1], words[2 + 5] = 3, 60, 3
        value = b"".join(word.to_bytes(8, "little") for word in words) * cpus
        for serial, class_index, kind in ((7, 9, 2), (7, 3, 2), (7, 0xFFFF, 1), (8, 3, 2)):
            key = kind | class_index << 16 | serial << 32
            bpfmap.insert(fds["zs_latencies"], key.to_bytes(8, "little"), value)
        source = LatencySource(fds, {}, pools_fd)
        for _ in range(2):
            reading = source.read()
            assert reading.used == 3 <= LATENCY_CELLS
            assert list(reading.cells) == [7]
            free = reading.cells[7]["free"]
            assert free.index.tolist() == [3, 9]
            assert free.sum_ns.tolist() == [60 * cpus] * 2
            assert free.buckets[:, 5].tolist() == [3 * cpus] * 2
            assert reading.cells[7]["alloc_failed"].index.tolist() == [-1]
            assert (reading.unpaired, reading.no_cell, reading.skipped_runs) == (0, 0, 0)
        assert len(list(bpfmap.keys(fds["zs_latencies"], 8))) == 3


def test_a_kind_needs_all_its_functions() -> None:
    """Of a free obj_free() tells the class, and when the lock is held."""
    assert kinds_of(["zs_malloc", "zs_free"]) == ("alloc", "alloc_failed")
    assert set(kinds_of(hook.function for hook in LATENCY_HOOKS)) == {
        "alloc", "alloc_failed", "alloc_lock", "alloc_grow",
        "free", "free_lock", "migration", "migration_failed",
    }  # fmt: skip


def test_sizes_become_classes_as_in_the_kernel() -> None:
    """The smallest size, the step, and what a handle takes, for pages of 4 and of 16 KiB."""
    assert class_setup(4096, 255) == b"".join(n.to_bytes(8, "little") for n in (32, 16, 8))
    assert class_setup(16384, 257)[:16] == b"".join(n.to_bytes(8, "little") for n in (32, 64))


def test_where_no_probe_attaches_it_is_unknown_and_says_why() -> None:
    extras = Extras(Wishes(latency=True))
    extras.refuse("none may")
    extras.read()
    shot = extras.added_to(make_snapshot(make_pool()))
    (view,) = shot.health.addons
    assert (view.name, view.status, view.hooks) == ("latency", "unknown", 0)
    assert shot.pools[0].latency is not None
    assert shot.pools[0].latency.to_json() == {
        "status": "unknown",
        "reasons": ["no probe is attached: none may"],
    }
    extras.close()
