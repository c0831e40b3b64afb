"""The core loader on this very kernel, as far as it lets probes come; the rest is for guests."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.factories import make_facts
from tests.loaders.objects import program_names
from zpobs.bpf_files import StaleObjectError, bpf_object, bpf_text
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.hooks import Hook, all_hooks
from zpobs.kernel.plan import AttachForm, ProbePlan, make_plan
from zpobs.loaders import MAPS, ProbesRefusedError, bcc, core, libbpf, make_loader, programs
from zpobs.loaders.bcc import BccLoader
from zpobs.loaders.core import CoreLoader
from zpobs.loaders.libbpf import BpfObject, LibbpfError
from zpobs.wire import POOLS_MAX

RING_BYTES = 1 << 20
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def plan() -> ProbePlan:
    """Return the plan for the running kernel."""
    return make_plan(probe_kernel(), vmemmap_base=0xFFFFEA0000000000)


def load(plan: ProbePlan, hooks: tuple[Hook, ...], form: AttachForm) -> BpfObject:
    return programs.load_all(
        bpf_object("probes.bpf.o"),
        hooks,
        form,
        lambda loaded: core.prepare_maps(loaded, plan, RING_BYTES),
    )


def map_info(fd: int) -> dict[str, str]:
    text = Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii")
    return dict(re.findall(r"^(\w+):\s+(\S+)$", text, re.MULTILINE))


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- the object -------------------------------------------------------------


def test_the_object_has_every_hook_in_both_forms() -> None:
    """Its programs are those of hooks.py, by the names that the loader asks for, and no other."""
    wanted = {
        program
        for hook in all_hooks()
        for form in ("fentry", "kprobe")
        for program, _ in programs.programs_of(hook, form)  # type: ignore[arg-type]
    }
    with BpfObject(bpf_object("probes.bpf.o")) as opened:
        assert sorted(program_names(opened)) == sorted(wanted)


def test_the_dialect_has_the_maps_that_loaders_promise() -> None:
    """Every map that a loader hands out stands in the dialect."""
    declared = set(re.findall(r"^\} (\w+) SEC\(\"\.maps\"\);", bpf_text("dialect_core.h"), re.M))
    assert set(MAPS) - declared == set()


def test_the_words_of_the_setup_are_those_of_the_dialect() -> None:
    """What is packed for .rodata.setup has the members of struct zs_setup."""
    (body,) = re.findall(r"struct zs_setup \{(.*?)\};", bpf_text("dialect_core.h"), re.DOTALL)
    assert re.findall(r"u64 (\w+);", body) == ["ring_bytes", "vmemmap_base", "births_on_insert"]
    assert programs._SETUP.size == 24


@pytest.mark.native
@needs_root
def test_maps_get_the_sizes_of_the_plan(plan: ProbePlan) -> None:
    """Loaded with no program at all, ring and class counters are as large as was asked."""
    before = open_descriptors()
    with load(plan, (), "fentry") as loaded:
        sizes = {name: int(map_info(loaded.map_fd(name))["max_entries"]) for name in MAPS}
        assert sizes["zs_events"] == RING_BYTES
        assert sizes["zs_class_counters"] == POOLS_MAX * plan.size_classes
        assert sizes["zs_pool_counters"] == POOLS_MAX
        with pytest.raises(LibbpfError, match="fexit__obj_malloc is not loaded"):
            loaded.program_fd("fexit__obj_malloc")
    assert open_descriptors() == before


@pytest.mark.native
@needs_root
@pytest.mark.parametrize("hook", all_hooks(), ids=lambda hook: hook.function)
def test_the_verifier_takes_every_kprobe_program(plan: ProbePlan, hook: Hook) -> None:
    """Each hook's kprobe programs load here, with frames and without, though none can attach."""
    for base in (plan.vmemmap_base, None):
        with load(replace(plan, vmemmap_base=base), (hook,), "kprobe") as loaded:
            own = programs.programs_of(hook, "kprobe")
            fds = [loaded.program_fd(program) for program, _ in own]
            assert all(map_info(fd)["prog_type"] == "2" for fd in fds)


@pytest.mark.native
@needs_root
def test_a_hook_that_cannot_be_loaded_is_sorted_out(plan: ProbePlan) -> None:
    """What the object has no program for is told with a reason, and the others are loaded."""
    stranger = Hook("zs_no_such_function", ("return",), "nothing")
    hooks = (plan.hooks[0], stranger, plan.hooks[1])
    more = replace(plan, hooks=hooks)
    loaded, failed = CoreLoader()._load(more, "kprobe", RING_BYTES, sort_out=True)
    assert list(failed) == [stranger]
    assert failed[stranger].startswith("zs_no_such_function: ")
    assert loaded is not None
    with loaded:
        for hook in (hooks[0], hooks[2]):
            assert [
                loaded.program_fd(program) for program, _ in programs.programs_of(hook, "kprobe")
            ]
    assert CoreLoader()._load(more, "kprobe", RING_BYTES, sort_out=False)[0] is None


@pytest.mark.native
@needs_root
@pytest.mark.parametrize("wish", ["auto", "fentry", "kprobe"])
def test_a_kernel_that_refuses_is_reported(plan: ProbePlan, wish: Any) -> None:
    """Where neither form can attach, the error has the kernel's reason, and nothing stays open."""
    before = open_descriptors()
    prepared: list[Mapping[str, int]] = []
    try:
        attached = make_loader("core").attach(
            plan, wish=wish, ring_bytes=RING_BYTES, prepare=prepared.append
        )
    except ProbesRefusedError as error:
        # Its own line, so that pytest shows it.
        found = error.found
    else:
        attached.close()
        pytest.skip(f"this kernel attaches {attached.form}")
    form = "kprobe" if wish == "kprobe" else "fentry"
    assert re.match(rf"{form}: .*(not permitted|No such|not supported|no kprobes)", found)
    assert "\n" not in found
    assert open_descriptors() == before
    assert [set(fds) for fds in prepared] == [set(MAPS)] * len(prepared)


@pytest.mark.parametrize("wish", ["auto", "kprobe"])
def test_kprobes_are_not_tried_where_there_are_none(plan: ProbePlan, wish: Any) -> None:
    """The error says so, instead of what a kernel says of an event it does not know."""
    without = replace(plan, kprobes=False, trampolines=False)
    prepared: list[Mapping[str, int]] = []
    with pytest.raises(ProbesRefusedError) as refused:
        make_loader("core").attach(
            without, wish=wish, ring_bytes=RING_BYTES, prepare=prepared.append
        )
    assert refused.value.found == "kprobe: this kernel has no kprobes"
    assert prepared == []


# ---- what may be missing -----------------------------------------------------


@pytest.fixture
def without_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take libbpf away as if it were not installed."""
    real = ctypes.CDLL

    def no_libbpf(name: str | None, *arguments: Any, **more: Any) -> ctypes.CDLL:
        name = "libbpf.so.1-gone" if name == "libbpf.so.1" else name
        return real(name, *arguments, **more)

    monkeypatch.setattr(ctypes, "CDLL", no_libbpf)
    monkeypatch.setattr(libbpf, "_loaded", [])


@pytest.mark.usefixtures("without_libbpf")
def test_without_libbpf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package to install is named; auto takes bcc where there is one, else says the same."""
    with pytest.raises(EnvironmentLacksError, match="apt install libbpf1") as lacking:
        make_loader("core")
    assert "libbpf.so.1-gone" in lacking.value.found
    assert not isinstance(lacking.value, ProbesRefusedError)
    monkeypatch.setattr(bcc, "is_there", lambda: True)
    assert isinstance(make_loader("auto"), BccLoader)
    monkeypatch.setattr(bcc, "is_there", lambda: False)
    with pytest.raises(EnvironmentLacksError, match=r"libbpf\.so\.1"):
        make_loader("auto")


def test_an_object_that_is_out_of_date_is_never_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even auto goes on with bcc then: the checkout is not what its user believes."""

    def stale(name: str) -> Path:
        raise StaleObjectError(f"{name} is out of date", hint="make setup")

    monkeypatch.setattr(core, "bpf_object", stale)
    monkeypatch.setattr(bcc, "is_there", lambda: True)
    for name in ("auto", "core"):
        with pytest.raises(StaleObjectError, match="make setup"):
            make_loader(name)  # type: ignore[arg-type]
    assert isinstance(make_loader("bcc"), BccLoader)


def test_core_is_what_auto_takes() -> None:
    """With everything there auto is core."""
    assert isinstance(make_loader("auto"), CoreLoader)


# ---- reasons -------------------------------------------------------------------

VERIFIER = """\
libbpf: prog 'x': BPF program load failed: Permission denied
libbpf: prog 'x': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
R1 has no business here
processed 3 insns (limit 1000000) max_states_per_insn 0
-- END PROG LOAD LOG --
libbpf: prog 'x': failed to load: -13
"""
# As newer verifiers have it.
VERIFIER_REPORT = VERIFIER.replace(
    "processed 3",
    """
Verification failed: it is not allowed

Reason:
  R1 is told so.

Suggestion:
  Ask for something else.
processed 3""",
)


@pytest.mark.parametrize(
    ("log", "reason", "verifier"),
    [
        (VERIFIER, "R1 has no business here", "R1 has no business here"),
        (VERIFIER_REPORT, "R1 is told so.", "R1 is told so."),
        ("libbpf: first\nlibbpf: second", "first", ""),
        ("", "loading: Operation not permitted", ""),
    ],
)
def test_the_reason_is_the_line_that_says_most(log: str, reason: str, verifier: str) -> None:
    """The verifier's last word before all, then what was logged first, then the error's name."""
    error = LibbpfError("loading", 1, log)
    assert error.reason == reason
    assert error.verifier == verifier


def test_an_invented_plan_has_programs_for_all_its_hooks() -> None:
    """Whatever kernel a plan is for, the object has what the loader will switch on."""
    with BpfObject(bpf_object("probes.bpf.o")) as opened:
        there = set(program_names(opened))
    for like in ("7.3", "6.18", "6.12"):
        for hook in make_plan(make_facts(like)).hooks:
            assert {program for program, _ in programs.programs_of(hook, "fentry")} <= there
