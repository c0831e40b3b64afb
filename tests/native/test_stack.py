"""``make stack`` on this very kernel: all is up, the rules among it, and nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.prometheus import LOOPBACK
from lab.stack import CHECKOUT, ENDED_BY_ITSELF, EXPORTER_OPTIONS

pytestmark = [pytest.mark.native, pytest.mark.timeout(600)]

PATIENCE_S = 120.0


class Running:
    """A stack on ports that are taken, so that it finds others; its folders lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._taken = [socket.create_server((LOOPBACK, 0)) for _ in range(2)]
        ports = [str(each.getsockname()[1]) for each in self._taken]
        command = [sys.executable, "-m", "lab.stack"]
        command += ["--exporter-port", ports[0], "--prometheus-port", ports[1]]
        self.process = subprocess.Popen(
            command,
            cwd=CHECKOUT,
            env=os.environ | {"TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.told = ""
        for line in self.process.stdout:
            self.told += line
            if line.startswith("stack: up"):
                break
        self.children = psutil.Process(self.process.pid).children(recursive=True)

    def found(self, pattern: str) -> str:
        match = re.search(pattern, self.told)
        assert match, (self.told, self.process.stderr)
        return match[1]

    @property
    def device(self) -> Path:
        return Path("/sys/block") / self.found(r"/dev/(zram\d+)")

    def part(self, name: str) -> psutil.Process:
        """Return the process of prometheus or of the exporter."""
        is_server = [Path(each.cmdline()[0]).name == "prometheus" for each in self.children]
        assert sorted(is_server) == [False, True]
        return self.children[is_server.index(name == "prometheus")]

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end; return the status, and what was said since."""
        out, error = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, error

    def close(self) -> None:
        for each in self._taken:
            each.close()
        if self.process.poll() is None:
            self.process.terminate()
            self.process.communicate()


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    started = Running(folder)
    try:
        yield started
    finally:
        started.close()


def get(address: str) -> Any:
    with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
        return json.load(answer)["data"]


def until(holds: Callable[[], object]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.3)


def nothing_is_left(stack: Running, device: Path, folder: Path) -> bool:
    """Tell whether there is no process, no device and no file of it."""
    return (
        not any(each.is_running() for each in stack.children)
        and not device.exists()
        and not list(folder.iterdir())
    )


def test_all_is_up_and_ended_by_one_signal(tmp_path: Path) -> None:
    """Every target is scraped, rules record the device's pool; SIGINT leaves nothing behind."""
    with running(tmp_path) as stack:
        device = stack.device
        server = stack.found(r"Prometheus: (http://\S+/) ")
        targets = get(f"{server}api/v1/targets")["activeTargets"]
        assert [each["health"] for each in targets] == ["up"]
        assert targets[0]["scrapeUrl"] == stack.found(r"exporter: +(http://\S+)")
        record = f'instance_pool:zpobs_pool_freeable:share{{pool="{device.name}"}}'
        asked = f"{server}api/v1/query?" + urllib.parse.urlencode({"query": record})
        until(lambda: get(asked)["result"])
        assert get(f"{server}api/v1/rules")["groups"]
        assert len(stack.children) == 2
        assert device.exists()
        stack.process.send_signal(signal.SIGINT)
        assert stack.ended() == (0, "stack: ending\n", "")
        assert nothing_is_left(stack, device, tmp_path)


@pytest.mark.parametrize("name", ["prometheus", "the exporter"])
def test_the_end_of_a_part_ends_all(tmp_path: Path, name: str) -> None:
    """With a line that says which, and nothing is left behind."""
    with running(tmp_path) as stack:
        device = stack.device
        stack.part(name).kill()
        status, _, error = stack.ended()
        assert status == ENDED_BY_ITSELF
        assert error.startswith(f"stack: {name} ended\n")
        assert nothing_is_left(stack, device, tmp_path)


def test_a_signal_while_it_starts_ends_it(tmp_path: Path) -> None:
    """No less cleanly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.stack", "--exporter-port", "0", "--prometheus-port", "0"],
        cwd=CHECKOUT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    found = re.search(r"/dev/(zram\d+)", process.stdout.readline())
    assert found
    assert list(tmp_path.iterdir())
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "up;" in out) == (0, False)
    assert not list(tmp_path.iterdir())
    assert not (Path("/sys/block") / found[1]).exists()


def test_the_exporter_serves_every_tier() -> None:
    """That no panel is empty for want of an option, but for figures of BPF programs."""
    assert {"--per-class-fullness", "--latency"} <= set(EXPORTER_OPTIONS)
