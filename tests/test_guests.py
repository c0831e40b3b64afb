"""Runs the tests of ``tests/guest`` inside guests: what they check is said there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent

# The witness does not know pages without a descriptor of their own, so nothing that needs it.
OLDER = [f"tests/guest/test_{name}.py" for name in ("loaders", "top", "frames")]
OLDER += ["-k", "not bcc and not tell_the_same"]
# These have a guest of their own.
OWN = [f"--ignore=tests/guest/test_{name}.py" for name in ("demo", "lockdown")]
# Kernel, loader, form of attaching, and the tests. Migration in a guest wants movable memory.
RUNS = {
    "all on 7.3": ("7.3", "core", "auto", ["tests/guest", *OWN]),
    "locked down, on 7.3": ("7.3", "core", "auto", ["tests/guest/test_lockdown.py"]),
    "kprobes on 7.3": ("7.3", "core", "kprobe", ["tests/guest/test_exact.py"]),
    "bcc on 7.3": ("7.3", "bcc", "auto", ["tests/guest/test_exact.py", "tests/guest/test_top.py"]),
    "each hook taken away on 7.3": ("7.3", "auto", "auto", ["tests/guest/test_demo.py"]),
    "another path of zspage death, on 7.2": (
        "7.2",
        "core",
        "auto",
        ["tests/guest/test_exact.py", "-k", "two_devices or reset"],
    ),
    "zsmalloc before zpdesc, on 6.12": (
        "6.12",
        "core",
        "auto",
        ["tests/guest/test_doctor.py", *OLDER],
    ),
    "zsmalloc as a module, on 6.1": ("6.1", "core", "auto", OLDER),
}


@pytest.mark.lab
@pytest.mark.parametrize("name", RUNS)
def test_in_a_guest(name: str) -> None:
    """Every test of the run passes in a guest, none skipped."""
    kernel, loader, form, tests = RUNS[name]
    command = [sys.executable, "-m", "lab", "run", "--kernel", kernel, "--timeout", "2400"]
    command += ["--append", "movablecore=512M", "--", "env", "ZPOBS_GUEST=1"]
    command += [f"ZPOBS_LOADER={loader}", f"ZPOBS_ATTACH={form}"]
    command += ["python3", "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no"]
    # To be followed while it runs, which takes minutes.
    log = CHECKOUT / "build" / f"guest-{'-'.join(name.replace(',', '').split())}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as out:
        done = subprocess.run(
            [*command, *tests, "-v", "--durations=5"],
            check=False,
            cwd=CHECKOUT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    assert done.returncode == 0, log.read_text()
