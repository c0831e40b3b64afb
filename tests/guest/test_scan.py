"""Scans beside probes: pools older than the probes, and records that were lost."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.comparison import Check, Json, compare_state, pool_named
from lab.watcher import Top
from lab.witness import KernelPool, Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages

SCAN = [sys.executable, "-m", "zpobs", "scan", "--json", "--zspages"]


@pytest.fixture
def device() -> Iterator[ZramDevice]:
    made = ZramDevice("256M")
    yield made
    made.remove()


def walk(witness: Witness, device: ZramDevice) -> KernelPool:
    return witness.walk(witness.zram_pool(device.name))


def assert_passed(checks: list[Check]) -> None:
    assert [check for check in checks if not check.passed] == []


def exact_frame(top: Top) -> Json:
    """Return the first frame that claims to be exact."""
    while True:
        frame = top.frame_after(time.time_ns())
        if frame["health"]["status"] == "exact":
            return frame


def test_scan_equals_kernel_memory(device: ZramDevice, witness: Witness) -> None:
    """A scan finds frames by itself, and they are those of the kernel's own symbol."""
    Churn(device, operations=8_000, seed=71).finish()
    done = subprocess.run([*SCAN, "--pool", device.name], check=True, capture_output=True)
    pool = pool_named(json.loads(done.stdout), device.name)
    assert_passed(compare_state(pool, device.mm_stat(), walk(witness, device)))
    assert any(zspage["pfns"] for zspage in pool["zspage_list"])


def test_attached_late(
    device: ZramDevice, witness: Witness, loader: str, attach_form: str, tmp_path: Path
) -> None:
    """Probes and one scan know a pool that was there before as if they had seen it born."""
    free_movable_memory()
    Churn(device, operations=8_000, seed=72).finish()
    arguments = ["--loader", loader, "--attach", attach_form, "--rescan", "0", "--json"]
    top = Top(tmp_path / "frames.jsonl", arguments)
    top.await_first()
    first = exact_frame(top)
    before = pool_named(first, device.name)
    assert_passed(compare_state(before, device.mm_stat(), walk(witness, device)))
    assert before["counters"]["allocs"] == 0
    churn = Churn(device, operations=8_000, seed=73)
    while churn.running():
        device.compact()
    made = churn.finish()
    move_pages(walk(witness, device))
    last = exact_frame(top)
    pool = pool_named(last, device.name)
    # No scan since the one behind the attaching.
    assert last["health"]["scans"] == first["health"]["scans"]
    assert pool["last_scan_ns"] == before["last_scan_ns"]
    assert pool["since_ns"] == before["since_ns"]
    assert pool["counters"]["allocs"] == made["zs_malloc"]
    assert_passed(compare_state(pool, device.mm_stat(), walk(witness, device)))
    assert top.stop() == 0


def test_lost_records_are_counted_and_repaired(
    device: ZramDevice, witness: Witness, loader: str, attach_form: str, tmp_path: Path
) -> None:
    """A ring of one page loses most of a churn; a scan makes the model exact again."""
    arguments = ["--loader", loader, "--attach", attach_form, "--ring-size", "4K", "--json"]
    top = Top(tmp_path / "frames.jsonl", [*arguments, "--rescan", "0"])
    top.await_first()
    made = Churn(device, operations=20_000, seed=74).finish()
    frame = exact_frame(top)
    assert frame["health"]["lost"] > 1000
    assert frame["health"]["scans"] > 1
    pool = pool_named(frame, device.name)
    assert pool["counters"]["allocs"] == made["zs_malloc"]
    assert pool["counters"]["frees"] == made["zs_free"]
    assert_passed(compare_state(pool, device.mm_stat(), walk(witness, device)))
    assert top.stop() == 0


@pytest.mark.parametrize(
    "hook", ["obj_malloc", "fix_fullness_group", "trylock_zspage", "__free_zspage"]
)
def test_scans_stand_in_for_a_hook(
    hook: str, device: ZramDevice, witness: Witness, loader: str, tmp_path: Path
) -> None:
    """What a missing hook hides every frame scans anew: exact, but for what only it counts."""
    arguments = ["--loader", loader, "--skip-hook", hook, "--json"]
    top = Top(tmp_path / "frames.jsonl", arguments)
    top.await_first()
    Churn(device, operations=5_000, seed=76).finish()
    frame = top.frame_after(time.time_ns())
    assert frame["health"]["status"] == "exact"
    assert frame["health"]["missed_hooks"] == [hook]
    assert any(hook in reason for reason in frame["health"]["reasons"])
    pool = pool_named(frame, device.name)
    assert_passed(compare_state(pool, device.mm_stat(), walk(witness, device)))
    assert (pool["counters"]["frees"] is None) == (hook not in ("trylock_zspage", "__free_zspage"))
    assert top.stop() == 0
