"""A recorded churn, replayed: at every moment the model is what the kernel was."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.comparison import Json, compare_pool, compare_state, pool_named
from lab.witness import KernelPool, Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages
from tests.guest.test_exact import assert_passed, devices, walk
from zpobs import open_capture
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player

INSTANTS = 10
# Operations a second; it catches up with what it would have done while it stood still.
RATE = 500
STARTED_S = 600.0
ENDED_S = 300.0


class Recorder:
    """A running ``zpobs record``."""

    def __init__(self, file: Path, *options: str) -> None:
        self.file = file
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zpobs", "record", str(file), "--json", *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        end_s = time.monotonic() + STARTED_S
        # Its first block comes when the probes are attached.
        while not (file.exists() and file.stat().st_size):
            assert self.process.poll() is None, "zpobs record ended"
            assert time.monotonic() < end_s, "zpobs record did not begin"
            time.sleep(0.2)

    def stop(self) -> Json:
        self.process.terminate()
        out, _ = self.process.communicate(timeout=ENDED_S)
        assert self.process.returncode == 0
        told: Json = json.loads(out)
        return told


class Recorded:
    """What was recorded, and what the kernel said meanwhile and at the end."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.told: Json = {}
        self.name = ""
        self.made: dict[str, int] = {}
        self.instants: list[tuple[int, list[int], KernelPool]] = []


@pytest.fixture(scope="module")
def recorded(
    witness: Witness,
    loader: str,
    attach_form: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Recorded]:
    found = Recorded(tmp_path_factory.mktemp("record") / "churn.zpcap")
    options = ("--loader", loader, "--attach", attach_form, "--rescan", "0", "--quiet")
    recorder = Recorder(found.file, *options)
    free_movable_memory()
    with devices(1) as (device,):
        found.name = device.name
        churn = Churn(device, operations=1_000_000, seed=31, mix="45:15:40", rate=RATE)
        while len(found.instants) < INSTANTS - 1:
            time.sleep(0.5)
            with churn.paused():
                device.compact()
                move_pages(walk(witness, device))
                found.instants.append(instant(witness, device))
        found.made = churn.stop()
        device.compact()
        found.instants.append(instant(witness, device))
        found.told = recorder.stop()
        yield found


def instant(witness: Witness, device: ZramDevice) -> tuple[int, list[int], KernelPool]:
    """Return a moment at rest, and what the kernel says of it."""
    # The counters are read a few times a second.
    time.sleep(1.0)
    while True:
        before, time_ns = device.mm_stat(), time.monotonic_ns()
        pool = walk(witness, device)
        if device.mm_stat() == before:
            return time_ns, before, pool


def test_the_replayed_end_equals_the_kernel(recorded: Recorded) -> None:
    """Zspage by zspage; and the counts are those of the operations made.

    By probes alone, before the scan with which a recording ends; and behind it.
    """
    time_ns, mm_stat, kernel = recorded.instants[-1]
    with CaptureReader(recorded.file) as reader:
        at = ["--at", str(time_ns + reader.offset_ns)]
    for when in (at, []):
        out = zpobs("scan", "--replay", str(recorded.file), "--json", "--zspages", *when)
        pool = pool_named(json.loads(out), recorded.name)
        if when:
            assert_passed(compare_pool(pool, mm_stat, kernel, recorded.made))
        assert_passed(compare_state(pool, mm_stat, kernel))
        assert pool["status"] == "exact"
    assert recorded.told["lost"] == {} or not any(recorded.told["lost"].values())


def zpobs(*arguments: str) -> str:
    command = [sys.executable, "-m", "zpobs", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_at_ten_instants_the_replay_equals_the_kernel(recorded: Recorded) -> None:
    """Forwards, and backwards, where seeking begins at keys or at the beginning."""
    assert len(recorded.instants) == INSTANTS
    with CaptureReader(recorded.file) as reader:
        player = Player(reader)
        for at_ns, mm_stat, kernel in [*recorded.instants, *reversed(recorded.instants)]:
            player.seek_precisely(at_ns)
            shot = player.snapshot(zspages=True).to_json()
            assert_passed(compare_state(pool_named(shot, recorded.name), mm_stat, kernel))


def test_verify_compares_the_last_scan_with_the_probes(recorded: Recorded) -> None:
    """The model that probes alone had fed equals what the scan at the end found."""
    reports = [json.loads(line) for line in verified(recorded.file)]
    assert [report["verdict"] for report in reports] == ["equal"] * len(reports)
    assert reports


def verified(file: Path) -> list[str]:
    return zpobs("verify", "--replay", str(file), "--json").splitlines()


def test_every_operation_is_told_as_an_object(recorded: Recorded) -> None:
    """Stored and freed as often as the churn did it; sizes, CPUs and latencies are told."""
    counts: dict[str, int] = dict.fromkeys(("stored", "moved", "freed", "owners"), 0)
    sizes: list[Any] = []
    with open_capture(recorded.file) as capture:
        serial = serial_of(recorded)
        for batch in capture.batches():
            assert not batch.lost
            assert not batch.gaps
            stored = of(batch["object_stored"], serial)
            counts["stored"] += int((stored["moved"] == 0).sum())
            counts["moved"] += int(stored["moved"].sum())
            counts["freed"] += len(of(batch["object_freed"], serial)["handle"])
            owners = of(batch["object_owner"], serial)
            counts["owners"] += len(owners["handle"])
            sizes.append(owners["requested_bytes"])
            assert (owners["took_ns"] > 0).all()
    assert counts["stored"] == counts["owners"] == recorded.made["zs_malloc"]
    assert counts["freed"] == recorded.made["zs_free"]
    pool = pool_named(at_the_end(recorded), recorded.name)
    assert counts["moved"] == pool["counters"]["moves"] > 0
    assert np.concatenate(sizes).min() > 0


def of(columns: Any, serial: int) -> dict[str, Any]:
    own = columns["pool_serial"] == serial
    return {name: values[own] for name, values in columns.items()}


def at_the_end(recorded: Recorded) -> Json:
    with open_capture(recorded.file) as capture:
        shot: Json = capture.at(capture.end_ns, zspages=True).to_json()
        return shot


def serial_of(recorded: Recorded) -> int:
    return int(pool_named(at_the_end(recorded), recorded.name)["id"])


@pytest.mark.parametrize(("options", "bytes_max"), [((), 24), (("--no-objects",), 12)])
def test_an_operation_takes_few_bytes(
    options: tuple[str, ...], bytes_max: int, loader: str, attach_form: str, tmp_path: Path
) -> None:
    """With all its records, at full pace; half as much again as is budgeted is too much.

    The budget is 16 and 8. A busy host's clock in a guest takes its part of what there is:
    docs/decisions/0008-captures.md has what was measured.
    """
    chosen = ("--loader", loader, "--attach", attach_form, "--rescan", "0", "--quiet")
    recorder = Recorder(tmp_path / "fast.zpcap", *chosen, *options)
    with devices(1) as (device,):
        made = Churn(device, operations=30_000, seed=31, mix="45:15:40").finish()
        told = recorder.stop()
    operations = made["zs_malloc"] + made["zs_free"]
    assert told["bytes"] / operations <= bytes_max
