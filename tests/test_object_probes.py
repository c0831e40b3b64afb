"""The add-on of objects on this very kernel, as far as it lets probes come."""

from __future__ import annotations

import os
import re

import pytest

from tests.factories import make_snapshot
from zpobs.bpf_files import bpf_object, bpf_text
from zpobs.extras import Extras
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.hooks import OBJECT_HOOKS, Hook, object_hooks
from zpobs.kernel.plan import ProbePlan, make_plan
from zpobs.loaders.libbpf import BpfObject
from zpobs.loaders.programs import load_all, setup_value
from zpobs.object_probes import ObjectProbes
from zpobs.objects import Sampling
from zpobs.sources import objects as source
from zpobs.sources.objects import ObjectSource
from zpobs.wishes import Wishes

SAMPLING = Sampling.seeded(4, 9)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def plan() -> ProbePlan:
    return make_plan(probe_kernel(), vmemmap_base=0xFFFFEA0000000000)


def load(plan: ProbePlan, hooks: tuple[Hook, ...]) -> BpfObject:
    def prepare(loaded: BpfObject) -> None:
        loaded.resize_map("zs_events", 1 << 16)
        loaded.set_initial_value(".rodata.setup", setup_value(plan, 1 << 16))
        loaded.set_initial_value(".rodata.sampling", SAMPLING.setup(blocks=True, timed=True))

    return load_all(bpf_object("objects.bpf.o"), hooks, "kprobe", prepare)


def test_every_hook_has_its_programs() -> None:
    """Function by function and moment by moment, hooks.py and objects.bpf.c say the same."""
    found = re.findall(
        r"^ON_(ENTRY|RETURN)\((\w+), \w+\)$", bpf_text("objects.bpf.c"), re.MULTILINE
    )
    in_c = {(function, moment.lower()) for moment, function in found}
    hooks = object_hooks(timed=True)
    assert in_c == {(hook.function, moment) for hook in hooks for moment in hook.moments}


def test_allocations_are_seen_to_begin_only_where_they_are_timed() -> None:
    """Who does not ask for it enters no program for it."""
    more = set(object_hooks(timed=True)) - set(object_hooks(timed=False))
    assert object_hooks(timed=False) == OBJECT_HOOKS
    assert [(hook.function, hook.moments) for hook in more] == [("zs_malloc", ("entry", "return"))]


@needs_root
@pytest.mark.parametrize("hook", object_hooks(timed=True), ids=lambda hook: hook.function)
def test_the_verifier_takes_each_program(plan: ProbePlan, hook: Hook) -> None:
    """Also those of functions that this kernel has not: members that it lacks are never read."""
    with load(plan, (hook,)) as loaded:
        assert loaded.map_fd("zs_object_tasks") > 0


@needs_root
def test_maps_are_read_whole_and_nothing_is_lost_at_first(plan: ProbePlan) -> None:
    with load(plan, OBJECT_HOOKS) as loaded:
        fds = {name: loaded.map_fd(name) for name in source.MAPS}
        programs = {"zs_free/entry": loaded.program_fd("entry__zs_free")}
        reading = ObjectSource(fds, programs, loaded.map_fd("zs_loss")).read()
    assert reading.losses == ()
    assert [(fill.name, fill.used, fill.size) for fill in reading.maps] == [
        ("zs_object_tasks", 0, 4096),
        ("zs_calls", 0, 4096),
    ]


def test_without_a_wish_there_is_nothing() -> None:
    extras = Extras(Wishes())
    extras.refuse("none may")
    extras.read()
    snapshot = make_snapshot()
    assert extras.added_to(snapshot) is snapshot
    assert extras.ledger is None


def test_a_refusal_is_told() -> None:
    probes = ObjectProbes(SAMPLING)
    probes.refuse("none may")
    probes.read()
    (view,) = probes.added_to(make_snapshot()).health.addons
    assert (view.name, view.status, view.hooks) == ("objects", "unknown", 0)
    assert view.reasons == ("no probe tells of objects: none may",)
    assert [(fill.name, fill.used) for fill in view.maps] == [("ledger", 0)]
