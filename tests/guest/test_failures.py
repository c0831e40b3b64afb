"""Failed allocations on a real kernel: counted as often as zram itself counts them."""

from __future__ import annotations

import mmap
import os
import re
import time
from pathlib import Path

import pytest

from lab.comparison import pool_named
from lab.watcher import Top
from lab.workload import ZramDevice

# What the kernel is to keep free, beyond what is: it gets that from the page cache, in a while.
BEYOND_KIB = 32 << 10
PAGES_AT_ONCE = 64
DISK_PAGES = 16_384
PROVOKE_S = 120.0
MIN_FREE = Path("/proc/sys/vm/min_free_kbytes")


def stalls(device: ZramDevice) -> int:
    """Return how often zram had to allocate a second time (writestall in debug_stat)."""
    words = Path(f"/sys/block/{device.name}/debug_stat").read_text().split()
    return int(words[2])


def free_kib() -> int:
    """Return what is free now."""
    (free,) = re.findall(r"^MemFree: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(free)


def write_while_short(device: ZramDevice) -> None:
    """Write pages that do not compress while less is free than is to be, until one try failed."""
    kept = MIN_FREE.read_text()
    disk = os.open(f"/dev/{device.name}", os.O_WRONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            page[:] = os.urandom(mmap.PAGESIZE)
            end_s = time.monotonic() + PROVOKE_S
            at = 0
            while not stalls(device) and time.monotonic() < end_s:
                MIN_FREE.write_text(str(free_kib() + BEYOND_KIB))
                for _ in range(PAGES_AT_ONCE):
                    os.pwritev(disk, [page], at % DISK_PAGES * mmap.PAGESIZE)
                    at += 1
                MIN_FREE.write_text(kept)
    finally:
        MIN_FREE.write_text(kept)
        os.close(disk)


@pytest.mark.needs("zram tries twice")
def test_allocations_that_fail_are_counted(loader: str, attach_form: str, tmp_path: Path) -> None:
    """With less memory free than is to be zram's first try, which does not wait, fails."""
    arguments = ["--loader", loader, "--attach", attach_form, "--json", "--latency"]
    top = Top(tmp_path / "frames.jsonl", arguments, shown=False)
    top.await_first()
    device = ZramDevice(str(DISK_PAGES * mmap.PAGESIZE))
    try:
        write_while_short(device)
        failed = stalls(device)
        assert failed > 0
        pool = pool_named(top.frame_after(time.time_ns()), device.name)
        assert pool["counters"]["failures"] == failed
        assert pool["latency"]["kinds"]["alloc_failed"]["count"] == failed
    finally:
        device.remove()
        assert top.stop() == 0
