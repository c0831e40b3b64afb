"""The C of the probes: where it is found, and that Python hands it all that it wants."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.factories import make_facts
from zpobs import bpf_files
from zpobs.bpf_files import bpf_folder, bpf_text
from zpobs.kernel.plan import AttachWish, ProbePlan, make_plan
from zpobs.loaders import MAPS, bcc
from zpobs.sources.counters import POOL_ENTRY

ROOT = Path(__file__).resolve().parent.parent
needs_clang = pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang")
_PROGRAM = re.compile(r"\bint ((?:kfunc|kretfunc|entry|call|return)__\w+)\(")


def test_a_checkout_uses_its_own_files() -> None:
    """In a checkout the sources are those in bpf/, all four of them."""
    assert bpf_folder() == ROOT / "bpf"
    assert bpf_text("zs_wire.h") == (ROOT / "bpf" / "zs_wire.h").read_text(encoding="utf-8")


def test_an_installed_package_brings_them_along(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When the package has a folder _bpf, as a wheel puts it there, that one is used."""
    monkeypatch.setattr(bpf_files, "_PACKAGE", tmp_path / "zpobs")
    assert bpf_folder() == tmp_path / "bpf"
    installed = tmp_path / "zpobs" / "_bpf"
    installed.mkdir(parents=True)
    (installed / "zs_wire.h").write_text("installed")
    assert bpf_folder() == installed
    assert bpf_text("zs_wire.h") == "installed"


def test_a_wheel_carries_them() -> None:
    """The wheel's build puts bpf/ where bpf_folder() looks."""
    assert '"bpf" = "zpobs/_bpf"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_pool_entry_is_the_same_in_c_and_python() -> None:
    """POOL_ENTRY has the members of struct zs_pool_entry, in their order and size."""
    (body,) = re.findall(r"struct zs_pool_entry \{(.*?)\};", bpf_text("zs_wire.h"), re.DOTALL)
    codes = {"u32": "I", "u64": "Q", "char": "32s"}
    form = "".join(
        codes[kind] for kind in re.findall(r"^\s*(u32|u64|char) \w+", body, re.MULTILINE)
    )
    assert struct.calcsize(form) == POOL_ENTRY.size
    assert form.replace("QQQQ", "4Q") == POOL_ENTRY.format.lstrip("<=@")
    # Natural alignment of C must leave no hole.
    assert struct.calcsize(f"={form}") == struct.calcsize(f"@{form}")


def test_the_loader_hands_out_maps_that_the_dialect_has() -> None:
    """Every map that the loader promises is declared in the dialect."""
    declared = set(re.findall(r"^BPF_\w+\((\w+),", bpf_text("dialect_bcc.h"), re.MULTILINE))
    assert set(MAPS) - declared == set()


def preprocessed(plan: ProbePlan, wish: AttachWish) -> str:
    """Return the text that clang's preprocessor makes of what bcc gets, kernel headers left out."""
    text = "\n".join(bpf_text(name) for name in bcc._SOURCES)
    text = re.sub(r"^#include.*$", "", text, flags=re.MULTILINE)
    flags = [f for f in bcc._flags(plan, plan.forms(wish)[0], 1 << 20) if f.startswith("-D")]
    done = subprocess.run(
        ["clang", "-E", "-P", "-D__x86_64__", *flags, "-x", "c", "-"],
        input=text,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


PLANS = {
    "7.3": make_plan(make_facts("7.3")),
    "6.18": make_plan(make_facts("6.18")),
    "6.12": make_plan(make_facts("6.12")),
    "with frames": make_plan(make_facts(), vmemmap_base=0xFFFFEA0000000000),
    "some skipped": make_plan(make_facts(), skip=frozenset({"obj_malloc", "zs_create_pool"})),
}


@needs_clang
@pytest.mark.parametrize("wish", ["fentry", "kprobe"])
@pytest.mark.parametrize("name", PLANS)
def test_every_constant_that_the_probes_want_is_given(name: str, wish: AttachWish) -> None:
    """With the flags of a plan no constant or macro of ours is left undefined."""
    assert set(re.findall(r"\bZS_\w+", preprocessed(PLANS[name], wish))) == set()


@needs_clang
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_makes_exactly_its_programs(name: str) -> None:
    """The compiled text has those programs that the loader will attach, and no other."""
    plan = PLANS[name]
    fentry = {
        f"{'kfunc' if moment == 'entry' else 'kretfunc'}__vmlinux__{hook.function}"
        for hook in plan.hooks
        for moment in hook.moments
    }
    kprobe = {
        f"{part}__{hook.function}"
        for hook in plan.hooks
        for moment in hook.moments
        for part in (["entry"] if moment == "entry" else ["call", "return"])
    }
    for wish, wanted in (("fentry", fentry), ("kprobe", kprobe)):
        found = _PROGRAM.findall(preprocessed(plan, wish))
        assert sorted(found) == sorted(wanted)
