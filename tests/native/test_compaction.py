"""A forecast on this very kernel, and what the kernel then frees."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.native.device import NativeDevice

pytestmark = pytest.mark.native


@pytest.mark.parametrize("step", [2, 3, 5])
def test_the_kernel_frees_what_was_forecast(device: NativeDevice, step: int) -> None:
    """Pages given back one by one leave holes; compaction frees as many pages as forecast."""
    device.fill("mixed", 3000, seed=step)
    for page in range(0, 3000, step):
        device.discard(page, 1)
    command = [sys.executable, "-m", "zpobs", "scan", "--compaction", "--json"]
    told = subprocess.run(
        [*command, "--pool", device.name], check=True, capture_output=True, text=True
    )
    (pool,) = json.loads(told.stdout)["pools"]
    made = pool["compaction"]
    assert made["status"] == "exact"
    before = device.mm_stat()
    device.compact()
    after = device.mm_stat()
    assert made["pages"] == after[6] - before[6] == (before[2] - after[2]) // 4096
    assert made["pages"] > 100
    assert made["pages"] == sum(each["pages"] for each in made["classes"])
    assert made["moved_bytes"] == sum(each["moves"] * each["size"] for each in made["classes"])
