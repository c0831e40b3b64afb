"""The bcc loader on a bcc that is not there: what it asks of it, and what it says without."""

from __future__ import annotations

import ctypes
import os
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.factories import make_facts
from zpobs.bpf_files import bpf_text
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.hooks import all_hooks
from zpobs.kernel.plan import AttachWish, ProbePlan, make_plan
from zpobs.loaders import Attached, ProbesRefusedError
from zpobs.loaders.bcc import BccLoader

RING_BYTES = 1 << 20


class FakeBpf:
    """Stands for bcc.BPF: notes calls in order, refuses what ``refused`` names."""

    TRACING, KPROBE = "tracing", "kprobe"
    made: ClassVar[list[FakeBpf]] = []
    refused: ClassVar[set[str]] = set()
    compiler_says: ClassVar[str] = ""

    def __init__(self, text: bytes, cflags: list[str]) -> None:
        self.text, self.cflags = text.decode(), cflags
        self.done: list[tuple[str, ...]] = []
        self.closed = False
        if self.compiler_says:
            os.write(2, self.compiler_says.encode())
            raise Exception("Failed to compile BPF module <text>")
        self.made.append(self)

    def __getitem__(self, name: str) -> Any:
        return types.SimpleNamespace(map_fd=100 + len(name))

    def load_func(self, name: bytes, kind: str) -> Any:
        self._do("load", name, kind)
        return types.SimpleNamespace(fd=1000 + len(self.done))

    def attach_kfunc(self, fn_name: bytes) -> None:
        self._do("kfunc", fn_name)

    def attach_kretfunc(self, fn_name: bytes) -> None:
        self._do("kretfunc", fn_name)

    def attach_kprobe(self, event: bytes, fn_name: bytes) -> None:
        self._do("kprobe", fn_name, event.decode())

    def attach_kretprobe(self, event: bytes, fn_name: bytes) -> None:
        self._do("kretprobe", fn_name, event.decode())

    def cleanup(self) -> None:
        self.closed = True

    def _do(self, what: str, name: bytes, *more: str) -> None:
        if name.decode() in self.refused:
            os.write(2, b"0: R1=ctx()\nR1 has no business here\nprocessed 3 insns\n")
            raise Exception("Failed to load BPF program")
        self.done.append((what, name.decode(), *more))


@pytest.fixture
def bcc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[FakeBpf]:
    """Put the fake in bcc's place, with headers that are there."""
    monkeypatch.setitem(sys.modules, "bcc", types.SimpleNamespace(BPF=FakeBpf))
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(FakeBpf, "made", [])
    monkeypatch.setattr(FakeBpf, "refused", set())
    monkeypatch.setattr(FakeBpf, "compiler_says", "")
    return FakeBpf


def attach(
    plan: ProbePlan | None = None,
    wish: AttachWish = "fentry",
    prepared: list[Mapping[str, int]] | None = None,
) -> Attached:
    kept: list[Mapping[str, int]] = [] if prepared is None else prepared
    return BccLoader().attach(
        plan or make_plan(make_facts()), wish=wish, ring_bytes=RING_BYTES, prepare=kept.append
    )


def test_without_bcc_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python that lacks bcc is told which Debian package has it, and which Python it was."""
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(EnvironmentLacksError, match="python3-bpfcc") as refused:
        attach()
    assert sys.executable in refused.value.found


def test_without_headers_the_package_is_named(
    bcc: type[FakeBpf], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Missing headers are told with the places looked at and the package of this release."""
    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(tmp_path / "none"))
    with pytest.raises(EnvironmentLacksError, match=r"linux-headers-7\.3\.0-invented") as refused:
        attach()
    assert str(tmp_path / "none") in refused.value.found
    monkeypatch.delenv("BCC_KERNEL_SOURCE")
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(EnvironmentLacksError, match=r"/lib/modules/7\.3\.0-invented/build"):
        attach()
    assert bcc.made == []


def test_the_plan_becomes_constants(bcc: type[FakeBpf]) -> None:
    """Places, frames, the ring's size and the form of every hook, even of none, are constants."""
    plan = make_plan(make_facts(), vmemmap_base=0xFFFFEA0000000000)
    attach(plan)
    (made,) = bcc.made
    wanted = {f"-D{name}={value}" for name, value in plan.places.items()}
    wanted |= {f"-DZS_FORM_{hook.function}=FENTRY" for hook in plan.hooks}
    wanted |= {f"-DZS_FORM_{hook.function}=ABSENT" for hook in {*all_hooks()} - {*plan.hooks}}
    wanted |= {f"-DZS_RING_PAGES={RING_BYTES // 4096}", f"-DZS_RING_BYTES={RING_BYTES}ULL"}
    wanted |= {
        "-DZS_VMEMMAP_BASE=0xffffea0000000000ULL",
        "-DZS_BIRTHS_ON_INSERT=0",
        "-DZS_OBJECT=vmlinux",
    }
    defines = [flag for flag in made.cflags if flag.startswith("-D")]
    assert set(defines) == wanted
    assert len(defines) == len(wanted)
    assert all(flag.startswith("-Wno-") for flag in made.cflags if flag not in wanted)


def test_the_text_is_the_three_sources(bcc: type[FakeBpf]) -> None:
    """bcc gets wire format, dialect and probes as one text, each under its own name."""
    attach()
    names = ("zs_wire.h", "dialect_bcc.h", "zs_probe.h", "probes.bpf.c")
    parts = [f'#line 1 "{name}"\n{bpf_text(name)}' for name in names]
    assert bcc.made[0].text == "\n".join(parts)


def test_fentry_attaches_each_moment_in_the_plans_order(bcc: type[FakeBpf]) -> None:
    """Each program is loaded and attached as kfunc or kretfunc, pool creation last."""
    plan = make_plan(make_facts())
    attached = attach(plan)
    wanted: list[tuple[str, ...]] = []
    for hook in plan.hooks:
        for moment in hook.moments:
            how = "kfunc" if moment == "entry" else "kretfunc"
            name = f"{how}__vmlinux__{hook.function}"
            wanted += [("load", name, "tracing"), (how, name)]
    assert bcc.made[0].done == wanted
    assert list(attached.program_fds) == [
        f"{h.function}/{m}" for h in plan.hooks for m in h.moments
    ]
    assert len(set(attached.program_fds.values())) == len(attached.program_fds)


def test_kprobes_attach_the_return_before_the_call(bcc: type[FakeBpf]) -> None:
    """A return hook is two probes: no call is noted before its return can be."""
    attached = attach(wish="kprobe")
    own = [each for each in bcc.made[0].done if each[1].endswith("__obj_malloc")]
    assert own == [
        ("load", "return__obj_malloc", "kprobe"),
        ("load", "call__obj_malloc", "kprobe"),
        ("kretprobe", "return__obj_malloc", "obj_malloc"),
        ("kprobe", "call__obj_malloc", "obj_malloc"),
    ]
    assert ("kprobe", "entry__zs_destroy_pool", "zs_destroy_pool") in bcc.made[0].done
    assert {"obj_malloc/call", "obj_malloc/return", "zs_destroy_pool/entry"} <= set(
        attached.program_fds
    )


def test_maps_are_handed_over_before_anything_runs(bcc: type[FakeBpf]) -> None:
    """prepare() gets every map while no program is attached, and the result has the same maps."""
    done_before: list[int] = []
    prepared: list[Mapping[str, int]] = []

    def prepare(fds: Mapping[str, int]) -> None:
        done_before.append(len(bcc.made[-1].done))
        prepared.append(fds)

    plan = make_plan(make_facts())
    attached = BccLoader().attach(plan, wish="auto", ring_bytes=RING_BYTES, prepare=prepare)
    assert done_before == [0]
    assert prepared == [attached.map_fds]
    assert "zs_events" in attached.map_fds
    assert attached.ring_bytes == RING_BYTES
    attached.close()
    assert bcc.made[0].closed


def test_what_the_kernel_refuses_is_told(bcc: type[FakeBpf], tmp_path: Path) -> None:
    """A refused hook is told with the verifier's last word, and the others stay attached."""
    bcc.refused.add("kretfunc__vmlinux__obj_malloc")
    attached = attach()
    ((hook, why),) = attached.failed.items()
    assert hook.function == "obj_malloc"
    log = tmp_path / "state" / "zpobs" / "verifier-obj_malloc.log"
    assert why == f"obj_malloc: R1 has no business here (whole log in {log})"
    assert log.read_text().startswith("0: R1=ctx()")
    assert "obj_malloc/return" not in attached.program_fds
    assert "fix_fullness_group/return" in attached.program_fds


def test_auto_falls_back_to_kprobes(bcc: type[FakeBpf]) -> None:
    """When the best form is refused anywhere, it is taken away and all hooks become kprobes."""
    bcc.refused.add("kretfunc__vmlinux__obj_malloc")
    prepared: list[Mapping[str, int]] = []
    attached = attach(wish="auto", prepared=prepared)
    first, second = bcc.made
    assert (first.closed, second.closed) == (True, False)
    assert attached.form == "kprobe"
    assert attached.failed == {}
    assert len(prepared) == 2


def test_nothing_attached_is_an_error(bcc: type[FakeBpf]) -> None:
    """Where every hook is refused, one line tells why, and nothing stays loaded."""
    plan = make_plan(make_facts())
    bcc.refused.update(f"return__{hook.function}" for hook in plan.hooks)
    bcc.refused.update(f"entry__{hook.function}" for hook in plan.hooks)
    with pytest.raises(ProbesRefusedError, match="no probe could be attached") as refused:
        attach(plan, wish="kprobe")
    assert "no business here" in refused.value.found
    assert bcc.made[0].closed


def test_a_compiler_error_is_told_and_kept(bcc: type[FakeBpf], tmp_path: Path) -> None:
    """clang's first error stands in the message, its whole log in a file that stays."""
    bcc.compiler_says = "warning: meh\nprobes.bpf.c:7:1: error: what is this\nmore\n"
    with pytest.raises(EnvironmentLacksError, match="what is this") as refused:
        attach()
    (kept,) = tmp_path.glob("zpobs-bcc-failed-*")
    assert str(kept) in refused.value.hint
    assert kept.read_text() == bcc.compiler_says
    assert list(tmp_path.glob("zpobs-bcc-*.log")) == [kept]


def test_what_bcc_prints_does_not_reach_the_user(
    bcc: type[FakeBpf], capfd: pytest.CaptureFixture[str]
) -> None:
    """The verifier's chatter is kept off standard error, which works again afterwards."""
    bcc.refused.add("kretfunc__vmlinux__obj_malloc")
    attach()
    os.write(2, b"after\n")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().err == "after\n"


def test_bccs_own_attaching_is_off(bcc: type[FakeBpf]) -> None:
    """bcc attaches by name prefix by itself; that is switched off, so that refusals are seen."""
    attach()
    autoload = type(bcc.made[0])._trace_autoload  # type: ignore[attr-defined]
    assert type(bcc.made[0]) is not FakeBpf
    assert autoload(bcc.made[0]) is None
