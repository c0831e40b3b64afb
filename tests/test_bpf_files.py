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
from zpobs.bpf_build import build_objects
from zpobs.bpf_files import StaleObjectError, bpf_folder, bpf_object, bpf_text, built_name
from zpobs.errors import EnvironmentLacksError
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


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a checkout of its own with one object's sources and a built object."""
    monkeypatch.setattr(bpf_files, "_PACKAGE", tmp_path / "zpobs")
    (tmp_path / "bpf").mkdir()
    (tmp_path / "bpf" / "one.bpf.c").write_text('#include "one.h"\nint one = ONE;\n')
    (tmp_path / "bpf" / "one.h").write_text("#define ONE 1\n")
    (tmp_path / "build" / "bpf").mkdir(parents=True)
    (tmp_path / "build" / "bpf" / built_name("one.bpf.o")).write_text("object")
    return tmp_path


def test_a_checkout_finds_the_object_of_its_sources(checkout: Path) -> None:
    """As long as no source changes, the object that was built of them is found."""
    assert bpf_object("one.bpf.o").read_text() == "object"
    (checkout / "bpf" / "two.bpf.c").write_text("of another object")
    assert bpf_object("one.bpf.o").read_text() == "object"


@pytest.mark.parametrize("changed", ["one.bpf.c", "one.h", "new.h"])
def test_an_object_of_older_sources_is_refused(checkout: Path, changed: str) -> None:
    """When its source or any header has changed, one line says so and names make setup."""
    with (checkout / "bpf" / changed).open("a") as file:
        file.write("/* more */\n")
    with pytest.raises(StaleObjectError, match=r"out of date.*make setup"):
        bpf_object("one.bpf.o")


@pytest.mark.usefixtures("checkout")
def test_an_object_that_was_never_built_is_told() -> None:
    """A missing object is another error than one out of date, with the same remedy."""
    with pytest.raises(EnvironmentLacksError, match=r"is not there.*make setup") as missing:
        bpf_object("two.bpf.o")
    assert not isinstance(missing.value, StaleObjectError)


def test_an_installed_package_uses_the_object_it_brought(checkout: Path) -> None:
    """In a wheel the object has a plain name and is whatever was built with it."""
    installed = checkout / "zpobs" / "_bpf"
    installed.mkdir(parents=True)
    with pytest.raises(EnvironmentLacksError, match="the package anew"):
        bpf_object("one.bpf.o")
    (installed / "one.bpf.o").write_text("installed")
    assert bpf_object("one.bpf.o").read_text() == "installed"


@needs_clang
def test_building_again_makes_what_is_out_of_date_and_no_more(checkout: Path) -> None:
    """An object of present sources stays as it is, an older one is replaced."""
    assert build_objects() == {"one.bpf.o": bpf_object("one.bpf.o")}
    assert bpf_object("one.bpf.o").read_text() == "object"
    (checkout / "bpf" / "one.h").write_text("#define ONE 2\n")
    assert build_objects() == {"one.bpf.o": bpf_object("one.bpf.o")}
    assert bpf_object("one.bpf.o").read_bytes()[:4] == b"\x7fELF"
    assert str(checkout).encode() not in bpf_object("one.bpf.o").read_bytes()
    assert len(list((checkout / "build" / "bpf").iterdir())) == 1


@needs_clang
def test_what_the_compiler_says_is_told(checkout: Path) -> None:
    """A source that does not compile leaves the first error and no object, old or half."""
    (checkout / "bpf" / "one.h").write_text("#define ONE nonsense\n")
    with pytest.raises(EnvironmentLacksError, match=r"one\.bpf\.c.*nonsense"):
        build_objects()
    with pytest.raises(StaleObjectError):
        bpf_object("one.bpf.o")
    assert [path.suffix for path in (checkout / "build" / "bpf").iterdir()] == [".o"]


def test_without_clang(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no clang, the packages that bring it are named."""
    (checkout / "bpf" / "one.h").write_text("#define ONE 2\n")
    monkeypatch.setenv("PATH", str(checkout))
    with pytest.raises(EnvironmentLacksError, match=r"no clang.*apt install clang"):
        build_objects()


def test_the_pool_entry_is_the_same_in_c_and_python() -> None:
    """POOL_ENTRY has the members of struct zs_pool_entry, in their order and size."""
    (body,) = re.findall(r"struct zs_pool_entry \{(.*?)\};", bpf_text("zs_wire.h"), re.DOTALL)
    codes = {"u32": "I", "u64": "Q", "char": "32s"}
    form = "".join(
        codes[kind] for kind in re.findall(r"^\s*(u32|u64|char) \w+", body, re.MULTILINE)
    )
    assert struct.calcsize(form) == POOL_ENTRY.size
    assert re.sub("Q{3,}", lambda run: f"{len(run[0])}Q", form) == POOL_ENTRY.format.lstrip("<=@")
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
