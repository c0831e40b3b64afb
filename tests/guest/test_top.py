"""The command as people and machines use it."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.workload import Churn, ZramDevice

TOP = [sys.executable, "-m", "zpobs", "top"]


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
        first = running.stdout.readline()
        assert first.startswith("zpobs top")
        with Path(f"/dev/{device.name}").open("r+b", buffering=0) as file:
            file.write(os.urandom(4096))
        time.sleep(20)
        running.send_signal(signal.SIGTERM)
        out = first + running.stdout.read()
    assert running.returncode == 0
    frames = out.split("zpobs top  ")[1:]
    assert len(frames) >= 3
    last = frames[-1]
    assert "exact" in last
    assert "unknown" not in last
    assert device.name in last
    assert other.name not in last
    other.remove()


def test_in_a_terminal_it_redraws_and_obeys_keys() -> None:
    """In a terminal frames replace each other; s sorts, q ends with status 0 and a last frame."""
    controller, terminal = pty.openpty()
    command = [*TOP, "--interval", "1"]
    with running_until_the_end(
        command, stdin=terminal, stdout=terminal, stderr=terminal
    ) as running:
        os.close(terminal)
        screen = read_until(controller, "\x1b[?1049h", 120)
        fresh = ZramDevice("64M")
        Churn(fresh, operations=400, seed=42).finish()
        screen += read_until(controller, "(by pages)", 20)
        os.write(controller, b"s")
        screen += read_until(controller, "(by freeable)", 20)
        os.write(controller, b"r")
        screen += read_until(controller, "(reversed, by freeable)", 20)
        os.write(controller, b"q")
        screen += read_until(controller, "\x1b[?1049l", 20)
        rest = read_until(controller, fresh.name, 5)
    os.close(controller)
    assert running.returncode == 0
    assert screen.count("\x1b[H") >= 4
    assert "q quit" in screen
    assert fresh.name in rest
    fresh.remove()


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


def read_until(descriptor: int, text: str, timeout_s: float) -> str:
    """Return what a terminal shows up to a text; AssertionError if it does not come."""
    seen = b""
    end_s = time.monotonic() + timeout_s
    while text.encode() not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0, end_s - time.monotonic()))
        assert ready, f"no {text!r} in {timeout_s} s, but {seen[-500:]!r}"
        try:
            seen += os.read(descriptor, 65536)
        except OSError:
            break  # the other side is closed
    return seen.decode(errors="replace")
