"""Page frames are found alike however the kernel keeps the page they are reckoned from."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.workload import ZramDevice

SCAN = [sys.executable, "-m", "zpobs", "scan", "--json", "--zspages"]
HUGE = Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")


@pytest.fixture
def device() -> Iterator[ZramDevice]:
    made = ZramDevice("64M")
    with Path(f"/dev/{made.name}").open("r+b", buffering=0) as file:
        for _ in range(50):
            file.write(os.urandom(2000) + bytes(2096))
    os.sync()
    yield made
    made.remove()


def zspages(device: ZramDevice) -> list[Any]:
    done = subprocess.run([*SCAN, "--pool", device.name], check=True, capture_output=True)
    (pool,) = json.loads(done.stdout)["pools"]
    return [[each["address"], each["pfns"]] for each in pool["zspage_list"]]


def test_files_in_huge_pages(device: ZramDevice) -> None:
    """A file in memory may lie in one huge page, and then stands elsewhere in its mapping."""
    small = zspages(device)
    assert all(pfns for _, pfns in small)
    # Frames of this machine's memory, not numbers from anywhere.
    pages = os.sysconf("SC_PHYS_PAGES") * 4
    assert max(pfn for _, pfns in small for pfn in pfns) < pages
    before = HUGE.read_text()
    HUGE.write_text("always")
    try:
        assert zspages(device) == small
    finally:
        HUGE.write_text(before.partition("[")[2].partition("]")[0])
