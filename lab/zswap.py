"""zswap inside a guest: a swap device in memory, and a process that is pressed into it.

What zswap did is told by the kernel's own counters (:class:`ZswapFigures`),
since the kernel alone decides which page goes to swap and when. Everything is
made once by :class:`Zswap`; each :class:`ZswapPressure` is one process in a
memory cgroup of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

from lab.workload import PAGE_BYTES

_Read = TypeVar("_Read")
_MODULE = Path("/sys/module/zswap/parameters")
_DEBUG = Path("/sys/kernel/debug/zswap")
_GROUPS = Path("/sys/fs/cgroup")
_SWAP = "/dev/ram0"
# What stands in the way of comparing zswap's figures with a pool's, where it can be turned off.
_SETTINGS = {"zpool": "zsmalloc", "same_filled_pages_enabled": "N"}
# Whichever is not in use makes a new pool.
_COMPRESSORS = ("lzo", "lz4")
_GROUP_GONE_S = 20.0
# Times the pressure's own limit: nothing is to meet it.
_HARD_LIMIT = 4


@dataclass(frozen=True, slots=True)
class ZswapFigures:
    """What the kernel says of zswap, of all its pools together, since the machine booted.

    ``pool_bytes`` and ``stored`` come from /proc/meminfo, ``stores``, ``loads`` and
    ``writebacks`` (pages) from /proc/vmstat, ``debug_stored`` and ``failures``
    (pages that zsmalloc had no room for) from zswap's files in debugfs. With one
    operation on the way these do not belong together. Where vmstat does not count
    ``writebacks`` there are none: zsmalloc could not give anything back.
    """

    pool_bytes: int
    stored: int
    debug_stored: int
    stores: int
    loads: int
    writebacks: int
    failures: int

    def since(self, before: ZswapFigures) -> ZswapFigures:
        """Return the same with what happened only after an earlier reading."""
        return replace(
            self,
            stores=self.stores - before.stores,
            loads=self.loads - before.loads,
            writebacks=self.writebacks - before.writebacks,
            failures=self.failures - before.failures,
        )


def writes_back() -> bool:
    """Tell whether this kernel's zswap can write pages of zsmalloc back to the swap device."""
    return "zswpwb" in _table(Path("/proc/vmstat"))


@cache
def reckons_at_once() -> bool:
    """Tell whether meminfo's Zswap is as of now, or else as of when zswap was last used."""
    return " zswap_total_pages" in Path("/proc/kallsyms").read_text()


def zswap_figures() -> ZswapFigures:
    """Read zswap's figures as they are now."""
    memory = _table(Path("/proc/meminfo"))
    events = _table(Path("/proc/vmstat"))
    return ZswapFigures(
        pool_bytes=memory["Zswap"] * 1024,
        stored=memory["Zswapped"] * 1024 // PAGE_BYTES,
        debug_stored=_debug("stored_pages"),
        stores=events["zswpout"],
        loads=events["zswpin"],
        writebacks=events.get("zswpwb", 0),
        failures=_debug("reject_alloc_fail"),
    )


def _debug(name: str) -> int:
    # The files come with the first pool.
    return int((_DEBUG / name).read_text()) if _DEBUG.exists() else 0


def _table(path: Path) -> dict[str, int]:
    lines = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in lines}


def put_zsmalloc_behind_zswap() -> None:
    """Have zswap store in zsmalloc, every page, where it has a choice: before its pool is made."""
    for name, value in _SETTINGS.items():
        if (_MODULE / name).exists():
            (_MODULE / name).write_text(value)


class Zswap:
    """zswap in front of a swap device that is a RAM disk, so in no zsmalloc pool itself."""

    def __init__(self, swap_mebibytes: int = 512) -> None:
        size = f"rd_size={swap_mebibytes << 10}"
        subprocess.run(["modprobe", "brd", "rd_nr=1", size], check=True)
        subprocess.run(["mkswap", _SWAP], check=True, capture_output=True)
        subprocess.run(["swapon", _SWAP], check=True)
        (_GROUPS / "cgroup.subtree_control").write_text("+memory")
        (_MODULE / "max_pool_percent").write_text("50")
        put_zsmalloc_behind_zswap()
        self.new_pool()
        (_MODULE / "enabled").write_text("Y")
        self._on = True

    def new_pool(self) -> None:
        """Take another compressor: what is stored from now on goes to a new pool.

        The pool before it is destroyed as soon as nothing is stored there.
        """
        now = (_MODULE / "compressor").read_text().strip()
        other = next(name for name in _COMPRESSORS if name != now)
        (_MODULE / "compressor").write_text(other)

    def close(self) -> None:
        """Turn zswap off and take the swap device away; the pools stay, with nothing in them.

        Until then some kernels keep pages in zswap whose swap slots were freed, a few for each
        processor, so as to free many slots at once.
        """
        if self._on:
            self._on = False
            (_MODULE / "enabled").write_text("N")
            subprocess.run(["swapoff", _SWAP], check=True)


class ZswapPressure:
    """The churn program on memory of its own, with less of it than it uses.

    It writes, overwrites, discards and reads single pages, the same for the same
    seed, and compares what it reads. Pages that do not fit below ``memory_high``
    bytes go to zswap (stores), come back when they are touched (loads), and are
    dropped with what is overwritten or discarded (invalidations). What zswap
    keeps for it counts as its memory too; beyond ``zswap_max`` bytes pages are
    written back to the swap device.
    """

    def __init__(
        self,
        name: str,
        *,
        pages: int,
        operations: int,
        seed: int,
        memory_high: int,
        zswap_max: int | None = None,
        mix: str = "40:15:15:0:30",
        kinds: str | None = None,
        rate: int = 0,
        verify: bool = True,
    ) -> None:
        self._group = _GROUPS / name
        self._group.mkdir()
        # Not memory.max: pages that are isolated for a migration cannot be reclaimed, and
        # where these are much of so little memory the process would be killed.
        (self._group / "memory.high").write_text(str(memory_high))
        (self._group / "memory.max").write_text(str(_HARD_LIMIT * memory_high))
        if zswap_max is not None:
            (self._group / "memory.zswap.max").write_text(str(zswap_max))
        command = ["churn", "--memory", "--hold", "--json", "--pages", str(pages)]
        command += ["--operations", str(operations), "--seed", str(seed), "--mix", mix]
        command += ["--rate", str(rate), *(["--kinds", kinds] if kinds else [])]
        command += ["--verify"] if verify else []
        entering = 'echo $$ >"$0" && exec "$@"'
        self._process = subprocess.Popen(
            ["sh", "-c", entering, str(self._group / "cgroup.procs"), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def name(self) -> str:
        """The name of its cgroup, which is right below the root."""
        return self._group.name

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    def rest(self) -> dict[str, int]:
        """Wait until all operations are made; return counts by name: writes, reads and more.

        The process keeps its memory, and so zswap what is stored, until :meth:`end`.
        Raises RuntimeError if it was killed, or read back anything else than it wrote.
        """
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"churn in memory ended with status {self._process.wait()}")
        made: dict[str, int] = json.loads(line)
        return made

    def end(self) -> None:
        """End the process, which drops all it stored, and remove its cgroup."""
        self._process.communicate()
        end_s = time.monotonic() + _GROUP_GONE_S
        while self._group.exists():
            try:
                self._group.rmdir()
            except OSError:  # the process is not quite gone
                if time.monotonic() > end_s:
                    raise
                time.sleep(0.05)


def zswap_at_rest(read: Callable[[], _Read]) -> tuple[_Read, ZswapFigures]:
    """Read something between two equal readings of zswap's figures; return both."""
    while True:
        before = zswap_figures()
        found = read()
        if before == (after := zswap_figures()):
            return found, after
