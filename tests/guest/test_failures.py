"""Failed allocations on a real kernel: counted as often as zram itself counts them."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from lab.comparison import pool_named
from lab.scarcity import Scarcity, spare
from lab.watcher import Top
from lab.workload import ZramDevice

LEFT_BYTES = 24 << 20
PAGES = 40_000
PROVOKE_S = 240.0


def stalls(device: ZramDevice) -> int:
    """Return how often zram had to allocate a second time (writestall in debug_stat)."""
    words = Path(f"/sys/block/{device.name}/debug_stat").read_text().split()
    return int(words[2])


@pytest.mark.needs("zram tries twice")
def test_allocations_that_fail_are_counted_with_their_error(
    loader: str, attach_form: str, tmp_path: Path
) -> None:
    """With hardly any memory free zram's first try, which does not wait, fails."""
    arguments = ["--loader", loader, "--attach", attach_form, "--json", "--latency"]
    top = Top(tmp_path / "frames.jsonl", arguments, shown=False)
    top.await_first()
    spare(top.process.pid)
    spare(os.getpid())
    device = ZramDevice("512M")
    disk = os.open(f"/dev/{device.name}", os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page, Scarcity(LEFT_BYTES) as scarcity:
            end_s = time.monotonic() + PROVOKE_S
            at = 0
            while not stalls(device) and at < PAGES and time.monotonic() < end_s:
                page[:] = os.urandom(mmap.PAGESIZE)
                os.pwrite(disk, page, at * mmap.PAGESIZE)
                at += 1
                if at % 2000 == 0:
                    scarcity.again()
        failed = stalls(device)
        assert failed > 0
        frame = top.frame_after(time.time_ns())
        pool = pool_named(frame, device.name)
        assert pool["counters"]["failures"] == failed
        assert pool["latency"]["kinds"]["alloc_failed"]["count"] == failed
    finally:
        os.close(disk)
        device.remove()
        assert top.stop() == 0
