"""The matrix as a command, with guests that are really booted."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.matrix import CHECKOUT

pytestmark = pytest.mark.lab

LIMIT_S = 60.0


def descendants(process: int) -> list[int]:
    """Return all processes below one, from any of its threads."""
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, children.read_text().split()):
            found += [child, *descendants(child)]
    return found


def is_machine(process: int) -> bool:
    return b"qemu" in Path(f"/proc/{process}/cmdline").read_bytes().partition(b"\0")[0]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_its_guest_ends_with_it(signum: signal.Signals, tmp_path: Path) -> None:
    """However it ends it leaves no guest behind, and no result of one that was cut short."""
    results = tmp_path / "results.json"
    words = ["--kernel", "7.3", "--only", "core-kprobe", "--results", str(results)]
    matrix = subprocess.Popen([sys.executable, "-m", "lab.matrix", *words], cwd=CHECKOUT)
    end_s = time.monotonic() + LIMIT_S
    try:
        while not any(map(is_machine, started := descendants(matrix.pid))):
            assert matrix.poll() is None
            assert time.monotonic() < end_s
            time.sleep(0.1)
    finally:
        matrix.send_signal(signum)
    assert matrix.wait(10) == (-signum if signum is signal.SIGKILL else 128 + signum)
    while any(Path(f"/proc/{each}").exists() for each in started):
        assert time.monotonic() < end_s
        time.sleep(0.1)
    assert not results.exists()
