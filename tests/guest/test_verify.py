"""``zpobs verify`` with probes attached: beside a writer, from probes alone, and after loss."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.watcher import ATTACH_TIMEOUT_S, Verify
from lab.witness import Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages

REST_TIMEOUT_S = 60.0


@pytest.fixture
def device() -> Iterator[ZramDevice]:
    made = ZramDevice("256M")
    yield made
    made.remove()


def test_probes_alone(
    device: ZramDevice, witness: Witness, loader: str, attach_form: str, tmp_path: Path
) -> None:
    """No scan ever feeds the model; beside churn, compaction and migration nothing differs."""
    free_movable_memory()
    device.reset()
    arguments = ["--loader", loader, "--attach", attach_form, "--no-scan", "--pool", device.name]
    verify = Verify(tmp_path / "rounds.jsonl", *arguments, "--wait", "1")
    verify.await_round(0, ATTACH_TIMEOUT_S)
    device.set_up("256M")
    churn = Churn(device, operations=20_000, seed=81, rate=2000)
    while churn.running():
        device.compact()
        time.sleep(0.3)
    churn.finish()
    move_pages(witness.walk(witness.zram_pool(device.name)))
    last = verify.await_round(time.time_ns(), REST_TIMEOUT_S)
    (pool,) = last["pools"]
    assert (last["verdict"], pool["status"], pool["at_rest"]) == ("equal", "exact", True)
    assert pool["frames"] * 4096 == device.mm_stat()[2]
    assert (last["health"]["scans"], pool["busy"]) == (0, [])
    verdicts = [each["verdict"] for each in verify.rounds()]
    assert "differs" not in verdicts
    assert verify.stop() == 0


def _is_exact(told: dict[str, Any]) -> bool:
    return (told["verdict"], told["pools"][0]["status"]) == ("equal", "exact")


def test_after_loss(device: ZramDevice, loader: str, attach_form: str, tmp_path: Path) -> None:
    """What a tiny ring loses makes figures bounded, and only those differ, until a scan."""
    arguments = ["--loader", loader, "--attach", attach_form, "--pool", device.name]
    verify = Verify(tmp_path / "rounds.jsonl", *arguments, "--ring-size", "4K", "--wait", "5")
    verify.await_round(0, ATTACH_TIMEOUT_S)
    Churn(device, operations=20_000, seed=82).finish()
    # A round may have begun before the end of the writing; a scan after it heals, in its time.
    end_s = time.monotonic() + REST_TIMEOUT_S
    last = verify.await_round(time.time_ns(), REST_TIMEOUT_S)
    while not _is_exact(last) and time.monotonic() < end_s:
        last = verify.await_round(last["time_ns"], REST_TIMEOUT_S)
    assert last["health"]["lost"] > 0
    assert _is_exact(last)
    wrong = [
        each["standing"]
        for told in verify.rounds()
        for pool in told["pools"]
        for each in [*pool["differences"], *(busy for busy in pool["busy"] if busy["outside"])]
    ]
    assert "exact" not in wrong
    verify.stop()


def test_an_old_pool_with_all_its_invariants(
    device: ZramDevice, loader: str, attach_form: str
) -> None:
    """A pool older than the probes is verified too, descriptors included."""
    Churn(device, operations=8_000, seed=83).finish()
    command = [sys.executable, "-m", "zpobs", "verify", "--json", "--invariants"]
    options = ["--pool", device.name, "--loader", loader, "--attach", attach_form]
    done = subprocess.run([*command, *options], check=True, capture_output=True)
    told = json.loads(done.stdout)
    assert told["verdict"] == "equal"
    assert told["health"]["hooks"] > 0
    (checked,) = told["invariants"]
    assert checked["violated"] == []
    assert sum(each["checked"] for each in checked["checks"]) > 0
