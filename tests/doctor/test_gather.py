"""Finding facts out: every file there, not there, or closed; every trial made, refused, or not."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.doctor.support import whole_btf
from tests.factories import make_facts
from zpobs.bpf_files import StaleObjectError
from zpobs.doctor import gather
from zpobs.doctor.facts import Absent, AttachTrial, HostFacts, ScanTrial, Unknown
from zpobs.doctor.judge import judge_host
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.facts import KernelFacts
from zpobs.loaders import Attached, ProbesRefusedError
from zpobs.sources import witnesses
from zpobs.sources.scanner import FoundPool

KERNEL = make_facts(btf=whole_btf(), shrinker_at=1)
PLAN = gather._plan(KERNEL)


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def closed(folder: Path, name: str) -> None:
    """Put something that even root cannot read as a file."""
    (folder / name).mkdir(parents=True, exist_ok=True)


# ---- files ----------------------------------------------------------------------


def test_a_sysctl(tmp_path: Path) -> None:
    """Its value, or that the kernel has none, or why it cannot be read."""
    put(tmp_path, "kernel/kptr_restrict", "1\n")
    closed(tmp_path, "net/core/bpf_jit_enable")
    assert gather._sysctl(tmp_path, "kernel.kptr_restrict") == "1"
    assert isinstance(gather._sysctl(tmp_path, "kernel.nothing"), Absent)
    assert isinstance(gather._sysctl(tmp_path, "net.core.bpf_jit_enable"), Unknown)


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("[none] integrity confidentiality\n", "none"),
        ("none [integrity] confidentiality\n", "integrity"),
        ("none integrity [confidentiality]\n", "confidentiality"),
    ],
)
def test_lockdown(tmp_path: Path, text: str, state: str) -> None:
    """The state is the one in brackets."""
    put(tmp_path, "lockdown", text)
    assert gather._lockdown(tmp_path) == state


def test_lockdown_that_is_not_told(tmp_path: Path) -> None:
    """A kernel without it is told from securityfs that is not mounted, and from an odd file."""
    unmounted = gather._lockdown(tmp_path)
    assert isinstance(unmounted, Unknown)
    assert "mount -t securityfs" in unmounted.hint
    put(tmp_path, "lsm", "capability")
    assert isinstance(gather._lockdown(tmp_path), Absent)
    closed(tmp_path, "lockdown")
    assert isinstance(gather._lockdown(tmp_path), Unknown)
    (tmp_path / "lockdown").rmdir()
    put(tmp_path, "lockdown", "something")
    assert isinstance(gather._lockdown(tmp_path), Unknown)


def test_zram(tmp_path: Path) -> None:
    """No driver, a driver without devices, and devices with a pool and without."""
    assert isinstance(gather._zram(tmp_path), Absent)
    put(tmp_path, "sys/class/zram-control/hot_add", "")
    assert gather._zram(tmp_path) == {}
    put(tmp_path, "sys/block/zram0/initstate", "1\n")
    put(tmp_path, "sys/block/zram1/initstate", "0\n")
    assert gather._zram(tmp_path) == {"zram0": True, "zram1": False}


def test_zswap(tmp_path: Path) -> None:
    """Not there, closed, off, or its allocator; kernels without a choice have zsmalloc."""
    assert isinstance(gather._zswap(tmp_path), Absent)
    closed(tmp_path, "parameters/enabled")
    assert isinstance(gather._zswap(tmp_path), Unknown)
    (tmp_path / "parameters/enabled").rmdir()
    put(tmp_path, "parameters/enabled", "N\n")
    assert gather._zswap(tmp_path) == Absent("off")
    put(tmp_path, "parameters/enabled", "Y\n")
    assert gather._zswap(tmp_path) == "zsmalloc"
    put(tmp_path, "parameters/zpool", "zbud\n")
    assert gather._zswap(tmp_path) == "zbud"


def test_memory(tmp_path: Path) -> None:
    """Bytes, or why they are not known."""
    put(tmp_path, "meminfo", "MemTotal:  10 kB\nMemAvailable:    2048 kB\n")
    assert gather._available(tmp_path / "meminfo") == 2 << 20
    put(tmp_path, "meminfo", "MemTotal:  10 kB\n")
    assert isinstance(gather._available(tmp_path / "meminfo"), Unknown)
    assert isinstance(gather._available(tmp_path / "none"), Unknown)


def test_witnesses_that_are_closed_are_not_absent() -> None:
    """What only root may read could not be found out."""
    refused = witnesses.Absent(f"/proc/slabinfo: {os.strerror(13)}")
    assert isinstance(gather._witness(refused, "x"), Unknown)
    assert isinstance(gather._witness(witnesses.Absent("no such file"), "x"), Absent)
    assert gather._witness({}, "x") == "x"


def test_no_witness_is_left_out(tmp_path: Path) -> None:
    """All kinds are told, of a host that has none of them too."""
    found = gather._witnesses(tmp_path)
    assert len(found) == len(witnesses.Witnesses.__slots__)
    assert all(isinstance(each, Absent) for each in found.values())


# ---- the kernel -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(2, "No such file", "/sys/kernel/btf/vmlinux"), Absent),
        (PermissionError(13, "Permission denied", "/proc/kallsyms"), Unknown),
        (EnvironmentLacksError("cannot read", found="magic 0x1"), Absent),
    ],
)
def test_a_kernel_that_is_not_known(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type
) -> None:
    """No BTF is told from BTF or symbols that may not be read."""

    def refuse() -> None:
        raise error

    monkeypatch.setattr(gather, "read_btf", refuse)
    assert isinstance(gather._kernel(), kind)


def test_there_is_no_plan_without_zsmalloc_or_its_structures() -> None:
    """Why there can be none goes on to the trials."""
    without = gather._plan(make_facts(btf=whole_btf(), functions=frozenset()))
    assert isinstance(without, Absent)
    assert "zsmalloc is not in this kernel" in without.found
    strange = gather._plan(make_facts(btf=whole_btf(without=["zspage.inuse"])))
    assert isinstance(strange, Absent)
    assert "zspage.inuse" in strange.found
    assert gather._plan(strange) is strange
    assert gather._attach_trial(strange, "fentry", None) is strange
    assert gather._scanner(KERNEL, strange, None) is strange


@pytest.mark.parametrize(
    ("held", "may"),
    [
        ({"CAP_BPF", "CAP_PERFMON"}, True),
        ({"CAP_SYS_ADMIN"}, True),
        ({"CAP_BPF", "CAP_SYSLOG"}, False),
        (set(), False),
    ],
)
def test_nothing_is_tried_without_rights(held: set[str], may: bool) -> None:
    """What is not tried is unknown, and says which capabilities it needs."""
    lacking = gather._lacking(frozenset(held))
    assert (lacking is None) == may
    if lacking:
        assert "CAP_PERFMON" in lacking.reason
        assert gather._attach_trial(PLAN, "fentry", lacking) is lacking
        assert gather._scanner(KERNEL, PLAN, lacking) is lacking


# ---- trials -------------------------------------------------------------------------


class FakeLoader:
    """A loader that attaches two hooks, and refuses one."""

    closed = 0
    error: Exception | None = None

    def attach(self, plan: Any, **asked: Any) -> Attached:
        if self.error:
            raise self.error
        first, second, third = plan.hooks[:3]

        def close() -> None:
            type(self).closed += 1

        return Attached(
            form=asked["wish"],
            ring_bytes=asked["ring_bytes"],
            map_fds={},
            program_fds={f"{first.function}/entry": 3, f"{second.function}/call": 4},
            failed={third: "busy"},
            close=close,
        )


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> type[FakeLoader]:
    made = type("Fake", (FakeLoader,), {"closed": 0})
    monkeypatch.setattr(gather, "CoreLoader", made)
    return made


def test_hooks_are_detached_again(loader: type[FakeLoader]) -> None:
    """What could be attached and what not is told, and nothing stays attached."""
    trial = gather._attach_trial(PLAN, "fentry", None)
    names = [hook.function for hook in PLAN.hooks]  # type: ignore[union-attr]
    assert trial == AttachTrial(tuple(names[:2]), {names[2]: "busy"})
    assert loader.closed == 1


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (ProbesRefusedError("x", found="fentry: Operation not permitted"), "refused: Operation"),
        (StaleObjectError("the object is out of date", found="y"), "the object is out of date: y"),
        (OSError(5, "creating maps: no memory\nmore lines"), "refused: creating maps: no memory"),
    ],
)
def test_a_refusal_is_told(loader: type[FakeLoader], error: Exception, found: str) -> None:
    """Whatever the loader raises becomes one line."""
    loader.error = error
    trial = gather._attach_trial(PLAN, "fentry", None)
    assert isinstance(trial, Absent)
    assert trial.found.startswith(found)
    assert "\n" not in trial.found


@pytest.mark.parametrize(
    ("form", "changed"),
    [("kprobe", {"kprobes": False}), ("fentry", {"btf": whole_btf(functions=["zs_malloc"])})],
)
def test_a_form_that_cannot_be_is_not_tried(
    loader: type[FakeLoader], form: Any, changed: dict[str, Any]
) -> None:
    """Kernels without kprobes, or with hooks outside BTF: known before anything is loaded."""
    plan = gather._plan(make_facts(**({"btf": whole_btf()} | changed)))
    loader.error = AssertionError("was tried")
    assert isinstance(gather._attach_trial(plan, form, None), Absent)


def test_the_scanner_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it located and which pools it found; pools that are in use and were not found."""
    pool = FoundPool(4096, "zram0", 8192)
    scanner = SimpleNamespace(
        vmemmap_base=1,
        direct_map=None,
        find_pools=lambda: SimpleNamespace(pools=(pool,), complete=True),
    )

    @contextmanager
    def opened(*_: Any) -> Iterator[Any]:
        yield scanner

    monkeypatch.setattr(gather, "open_scanner", opened)
    monkeypatch.setattr("zpobs.scans.pools_in_use", lambda: {"zram0", "zram1"})
    trial = gather._scanner(KERNEL, PLAN, None)
    assert isinstance(trial, ScanTrial)
    assert (trial.frames, trial.direct_map, trial.pools) == (True, False, ("zram0",))
    assert trial.missing == ("zram1 is in use, but no pool of it was found",)


@pytest.mark.parametrize(
    "error", [EnvironmentLacksError("the scanner cannot be loaded", found="x"), OSError(1, "no")]
)
def test_a_scanner_that_is_refused(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """It is absent, with the reason."""

    def refuse(*_: Any) -> None:
        raise error

    monkeypatch.setattr(gather, "open_scanner", refuse)
    trial = gather._scanner(KERNEL, PLAN, None)
    assert isinstance(trial, Absent)
    assert trial.found.startswith("the scanner cannot be ")


# ---- this very host -----------------------------------------------------------------


def test_this_host_is_told() -> None:
    """Whoever asks and whatever there is: facts and a report, and no exception."""
    facts = gather.gather()
    assert isinstance(facts, HostFacts)
    report = judge_host(facts)
    assert report.subject == os.uname().release
    assert len(report.verdicts) == 2
    if isinstance(facts.kernel, KernelFacts) and os.geteuid() == 0:
        assert not any(isinstance(trial, Unknown) for trial in facts.trials.values())


def test_nobody_is_told_what_could_not_be_found_out() -> None:
    """Without any right it goes on to the end, with status 0 and nothing on standard error."""
    code = (
        "import os, sys, zpobs.doctor.gather, zpobs.doctor.judge, zpobs.views.doctor\n"
        "from zpobs.cli import main\n"
        # After the imports: that user may not read this folder.
        "if os.geteuid() == 0: os.setgroups([]); os.setuid(65534)\n"
        "sys.argv = ['zpobs', 'doctor']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "CAP_BPF" in done.stdout
    assert "zpobs scan: cannot be told: not tried without CAP_BPF and CAP_PERFMON" in done.stdout
