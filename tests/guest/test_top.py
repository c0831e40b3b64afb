"""The command as people and machines use it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.workload import Churn, ZramDevice
from tests.terminal import Terminal

TOP = [sys.executable, "-m", "zpobs", "top"]
# A height of a sparkline that is neither none nor the most.
SPARK = re.compile("[\u2582-\u2587]")


@pytest.fixture(scope="module")
def device() -> ZramDevice:
    """Return a device that was in use before any probe of these tests attached."""
    made = ZramDevice("64M")
    Churn(made, operations=500, seed=41).finish()
    return made


def test_without_a_scan_it_says_what_it_cannot_know(device: ZramDevice, loader: str) -> None:
    """A pool older than the probes is not met without a scan: unknown, and the status is 0."""
    command = [*TOP, "--once", "--json", "--interval", "1", "--loader", loader, "--no-scan"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (line,) = done.stdout.splitlines()
    frame = json.loads(line)
    assert frame["schema"] == 1
    assert frame["health"]["status"] == "unknown"
    assert frame["health"]["scans"] == 0
    assert any(device.name in reason for reason in frame["health"]["reasons"])
    assert done.stderr == ""


def test_a_late_pool_is_exact_and_a_signal_ends_with_a_last_frame(
    device: ZramDevice, loader: str
) -> None:
    """Text frames, one pool only, the first before the probes; SIGTERM gives status 0."""
    other = ZramDevice("64M")
    command = [*TOP, "--interval", "1", "--pool", device.name, "--loader", loader]
    with running_until_the_end(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        out = running.stdout.readline()
        assert out.startswith("zpobs top")
        with Path(f"/dev/{device.name}").open("r+b", buffering=0) as file:
            file.write(os.urandom(4096))
        # Twice with the probes.
        while len(re.findall(r", hooks [1-9]", out)) < 2:
            line = running.stdout.readline()
            assert line
            out += line
        running.send_signal(signal.SIGTERM)
        out += running.stdout.read()
    assert running.returncode == 0
    *_, last = out.split("zpobs top  ")
    assert "exact" in last
    assert "unknown" not in last
    assert device.name in last
    assert other.name not in last
    other.remove()


# Where zsmalloc is a module, a device brings it.
@pytest.mark.usefixtures("device")
def test_in_a_terminal_it_is_interactive(loader: str) -> None:
    """From the pools to a zspage's descriptors and the events, rates as they happen."""
    # An emulated machine is slow: 2 % of its core would be a frame or two a minute.
    with Terminal(
        [*TOP, "--interval", "1", "--budget", "60", "--loader", loader], rows=30
    ) as terminal:
        terminal.shows("pools", timeout_s=120)
        # Counted from here: the probes are attached.
        terminal.until(lambda lines: not any("attaching" in line for line in lines), "probes", 120)
        fresh = ZramDevice("64M")
        work = Churn(fresh, operations=3000, seed=42, rate=200)
        terminal.until(lambda lines: rates_of(lines, fresh.name) > 0, "rates", 60)
        terminal.press("/")
        terminal.type(fresh.name)
        terminal.press("Enter", "Enter")
        terminal.shows(f"pools > {fresh.name}", "CLASS")
        terminal.resize(120, 30)
        terminal.until(lambda lines: any(SPARK.search(line) for line in lines), "sparkline", 60)
        work.finish()
        # At rest; while it works a class can be busy whenever it is scanned.
        terminal.shows("health exact", timeout_s=60)
        fresh.compact()
        terminal.press("e")
        terminal.shows("compaction", fresh.name, timeout_s=60)
        terminal.press("e", "Enter")
        terminal.shows("ADDRESS", "0xffff", timeout_s=60)
        terminal.press("Enter")
        terminal.shows("magic", "PFN", timeout_s=60)
        terminal.press("Space")
        terminal.shows("PAUSED", timeout_s=60)
        terminal.press("Space")
        fresh.reset()
        terminal.shows(f"{fresh.name} is gone", timeout_s=60)
        terminal.press("q")
        assert "health exact" in terminal.ends(0, timeout_s=60)
        assert terminal.stderr() == ""
    fresh.remove()


def rates_of(lines: list[str], name: str) -> int:
    """Return the allocations a second that the row of a pool shows, 0 if it shows none."""
    head = next((line for line in lines if line.startswith("POOL ")), "")
    row = next((line for line in lines if line.startswith(name)), "")
    at = head.find("ALLOC/s")
    word = row[: at + len("ALLOC/s")].split()[-1] if at > 0 and row else "-"
    return int(word.replace(",", "")) if word.replace(",", "").isdecimal() else 0


@contextlib.contextmanager
def running_until_the_end(command: list[str], **streams: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a command; after the block it must have ended by itself, or is killed."""
    running = subprocess.Popen(command, **streams)
    try:
        yield running
        running.wait(20)
    finally:
        running.kill()
        running.wait()
