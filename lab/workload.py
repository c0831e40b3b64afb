"""Workloads inside a guest whose effect is known: zram devices, churn, moving pages."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lab.watcher import paused
from lab.witness import KernelPool

PAGE_BYTES = 4096

_ZRAM_CONTROL = Path("/sys/class/zram-control")
_MEMORY_BLOCKS = Path("/sys/devices/system/memory")
_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
_COMPACT_MEMORY = Path("/proc/sys/vm/compact_memory")
_MIGRATION_S = 15.0
_MIGRATION_BLOCKS = 3
_OFFLINE_S = 6.0


def load_zsmalloc() -> None:
    """Have the zram driver there, and so zsmalloc, which are modules on some kernels."""
    if not _ZRAM_CONTROL.exists():
        subprocess.run(["modprobe", "zram", "num_devices=0"], check=True)


class ZramDevice:
    """A zram device of our own, removed by :meth:`remove`.

    It compresses with the first of ``algorithms`` that the kernel has, or as the kernel likes.
    """

    def __init__(self, disksize: str, *, algorithms: Sequence[str] = ()) -> None:
        load_zsmalloc()
        number = (_ZRAM_CONTROL / "hot_add").read_text().strip()
        self.name = f"zram{number}"
        self._sysfs = Path("/sys/block") / self.name
        self._algorithms = algorithms
        self.set_up(disksize)

    def set_up(self, disksize: str) -> None:
        """Give the device its size; the driver creates a pool."""
        algorithm = self._sysfs / "comp_algorithm"
        known = algorithm.read_text().replace("[", "").replace("]", "").split()
        # A reset takes the choice back.
        for name in [name for name in self._algorithms if name in known][:1]:
            algorithm.write_text(name)
        (self._sysfs / "disksize").write_text(disksize)

    def compact(self) -> None:
        """Compact the pool."""
        (self._sysfs / "compact").write_text("1")

    def mm_stat(self) -> list[int]:
        """Return the columns of mm_stat (Documentation/admin-guide/blockdev/zram.rst)."""
        return [int(word) for word in (self._sysfs / "mm_stat").read_text().split()]

    def reset(self) -> None:
        """Drop everything; the pool is destroyed."""
        (self._sysfs / "reset").write_text("1")

    def remove(self) -> None:
        """Remove the device from the system."""
        self.reset()
        (_ZRAM_CONTROL / "hot_remove").write_text(self.name.removeprefix("zram"))


class Churn:
    """The churn program, running on a device; :meth:`finish` tells the operations it made."""

    def __init__(
        self,
        device: ZramDevice,
        *,
        operations: int,
        seed: int,
        pages: int = 12_000,
        first: int = 0,
        mix: str = "48:12:40",
        kinds: str | None = None,
        rate: int = 0,
    ) -> None:
        command = ["churn", "--device", f"/dev/{device.name}", "--pages", str(pages), "--json"]
        command += ["--operations", str(operations), "--seed", str(seed), "--mix", mix]
        command += ["--first", str(first), "--rate", str(rate)]
        command += ["--kinds", kinds] if kinds else []
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def running(self) -> bool:
        """Tell whether operations are still being made."""
        return self._process.poll() is None

    def paused(self) -> AbstractContextManager[None]:
        """Stop it between two operations meanwhile."""
        return paused(self._process)

    def stop(self) -> dict[str, int]:
        """End it after the operation that it is at; return the same as :meth:`finish`."""
        self._process.terminate()
        return self.finish()

    def finish(self) -> dict[str, int]:
        """Wait for the end; return counts by name: zs_malloc, zs_free, live_objects and more."""
        out, _ = self._process.communicate()
        if self._process.returncode not in (0, 128 + signal.SIGTERM):
            raise RuntimeError(f"churn ended with status {self._process.returncode}")
        made: dict[str, int] = json.loads(out)
        return made


def free_movable_memory() -> None:
    """Drop the page cache, so that a new pool comes to lie where pages can be moved from."""
    _DROP_CACHES.write_text("1")


def move_pages(*pools: KernelPool) -> int:
    """Take memory blocks that hold the pools' pages offline and online again; return how many.

    They come back movable, so that they can be taken again. Where none can be taken,
    the kernel is asked to compact its memory, which moves pages too.
    """
    block_pages = int((_MEMORY_BLOCKS / "block_size_bytes").read_text(), 16) // PAGE_BYTES
    zspages = (zspage for pool in pools for zspage in pool.zspages)
    held = Counter(pfn // block_pages for zspage in zspages for pfn in zspage.pfns)
    offline: list[Path] = []
    end_s = time.monotonic() + _MIGRATION_S
    for number, _ in held.most_common():
        if time.monotonic() > end_s or len(offline) == _MIGRATION_BLOCKS:
            break
        state = _MEMORY_BLOCKS / f"memory{number}" / "state"
        if _went_offline(state):
            offline.append(state)
    if not offline:
        _COMPACT_MEMORY.write_text("1")
    for state in offline:
        state.write_text("online_movable")
    return len(offline)


def _went_offline(state: Path) -> bool:
    """Take a memory block offline; return False if it holds pages that do not move."""
    # The kernel tries for ever while pages are in use, unless a signal ends it.
    command = ["sh", "-c", 'echo offline >"$0"', str(state)]
    try:
        done = subprocess.run(command, check=False, stderr=subprocess.DEVNULL, timeout=_OFFLINE_S)
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return state.read_text().strip() == "offline"
