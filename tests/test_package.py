"""What a user installs: built, put into an empty environment, run from another folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.workload import ZramDevice

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(shutil.which("clang") is None, reason="needs clang"),
    pytest.mark.timeout(600),
]


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # Nothing of this checkout may help: neither its folder nor what its environment sets.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        list(map(str, command)),
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=kept | variables,
    )


def run_well(*command: str | Path, cwd: Path) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive, of it alone the wheel, and return that."""
    folder = tmp_path_factory.mktemp("package")
    venv.create(folder / "builder", with_pip=True)
    python = folder / "builder" / "bin" / "python"
    run_well(python, "-m", "pip", "install", "--quiet", "hatchling", cwd=folder)
    run_well(python, "-m", "hatchling", "build", "-t", "sdist", "-d", folder, cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    run_well(python, "-m", "pip", "wheel", "--quiet", "--no-deps", archive, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of an environment that has the wheel and what it asks for."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", with_pip=True, system_site_packages=False)
    programs = folder / "venv" / "bin"
    run_well(programs / "python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    return programs


@pytest.fixture
def device() -> Iterator[ZramDevice]:
    """Return a zram device of our own that holds a few pages."""
    if os.geteuid() != 0 or not Path("/sys/class/zram-control").exists():
        pytest.skip("needs root and zram")
    made = ZramDevice("16M")
    try:
        with Path(f"/dev/{made.name}").open("r+b", buffering=0) as file:
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())
        yield made
    finally:
        made.remove()


def test_the_wheel_carries_sources_and_objects(wheel: Path) -> None:
    """Everything of bpf/ is in it, an object for every *.bpf.c, and it is for this machine only."""
    names = {Path(name) for name in zipfile.ZipFile(wheel).namelist()}
    carried = {name.name for name in names if name.parent == Path("zpobs/_bpf")}
    sources = {path.name for path in (ROOT / "bpf").iterdir()}
    objects = {name.replace(".bpf.c", ".bpf.o") for name in sources if name.endswith(".bpf.c")}
    assert {"probes.bpf.o", "scan.bpf.o"} <= objects
    assert carried == sources | objects
    assert wheel.name.endswith(f"-py3-none-linux_{os.uname().machine}.whl")
    assert Path("zpobs/bpf_build.py") not in names


def test_the_installation_has_manual_pages(installed: Path) -> None:
    """One of each command, where man looks beside the programs of PATH."""
    pages = {path.name for path in (installed.parent / "share" / "man" / "man1").iterdir()}
    assert {"zpobs.1", "zpobs-top.1", "zpobs-doctor.1"} <= pages
    assert not list(installed.parent.rglob("man_build.py"))


def test_the_installation_has_what_the_exporter_goes_with(installed: Path) -> None:
    """Rules, dashboards and a unit."""
    names = {path.name for path in (installed.parent / "share" / "zpobs").rglob("*.*")}
    assert {"zpobs.rules.yml", "zpobs-on-call.json", "zpobs-exporter.service"} <= names


def test_it_runs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    """The program is there, and it is that of the wheel."""
    assert "Usage: zpobs" in run_well(installed / "zpobs", "--help", cwd=tmp_path)
    where = "import zpobs; print(zpobs.__file__)"
    assert str(installed.parent) in run_well(installed / "python", "-c", where, cwd=tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_its_objects_load_without_a_compiler(installed: Path, tmp_path: Path) -> None:
    """libbpf loads both objects of the wheel into this kernel, with no program on PATH."""
    script = """
from zpobs.bpf_files import bpf_object
from zpobs.loaders.libbpf import BpfObject
for name in ("probes.bpf.o", "scan.bpf.o"):
    with BpfObject(bpf_object(name)) as opened:
        opened.load()
    print(bpf_object(name))
"""
    done = run(installed / "python", "-c", script, cwd=tmp_path, PATH="/nowhere")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert all(line.startswith(str(installed.parent)) for line in done.stdout.splitlines())


def test_scan_works_from_there(installed: Path, device: ZramDevice, tmp_path: Path) -> None:
    """``zpobs scan --json`` in the empty environment tells what mm_stat tells."""
    out = run_well(installed / "zpobs", "scan", "--json", cwd=tmp_path)
    before = device.mm_stat()
    (pool,) = [pool for pool in json.loads(out)["pools"] if pool["name"] == device.name]
    assert before == device.mm_stat()
    assert pool["status"] == "exact"
    assert pool["objects"] == before[0] // 4096 - before[5] > 0
    assert pool["pages"] * 4096 == before[2]


def test_without_clang_the_build_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    """Building from source on a machine without clang ends with the package to install."""
    (archive,) = wheel.parent.glob("*.tar.gz")
    python = wheel.parent / "builder" / "bin" / "python"
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", str(archive)]
    done = run(python, *command, cwd=tmp_path, PATH="/nowhere")
    assert done.returncode != 0
    assert "apt install clang libbpf-dev" in done.stdout + done.stderr
    assert list(tmp_path.glob("*.whl")) == []
