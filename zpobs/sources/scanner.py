"""Walks pools through the scanner's BPF programs and hands out their records.

Two arrays are shared with ``bpf/scan.bpf.c``: the control words (``ASK_*``,
``ANSWER_*``) and the buffer of records, which a run fills and this module
hands on before the next run.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zpobs import wire
from zpobs.closing import Closing
from zpobs.errors import EnvironmentLacksError
from zpobs.sources import bpfmap
from zpobs.sources.ring import copy_columns
from zpobs.wire import Words

_PAGEMAP = Path("/proc/self/pagemap")
# An entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
_FRAME_BITS = 55
_SWAPPED_BIT = 62
_PRESENT_BIT = 63
_ENTRY_BYTES = 8
_FIND_ATTEMPTS = 8
_CALIBRATE_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class ScanPlace:
    """What the scanner must know of this kernel.

    ``shrinker_at`` is the address of zs_shrinker_scan(), by which pools are
    found. ``locked_mask`` and ``isolated_mask`` are page flags, 0 where the
    kernel has none. ``page_bytes`` and ``descriptor_bytes`` are the sizes of a
    page and of struct page.
    """

    size_classes: int
    shrinker_at: int
    locked_mask: int
    isolated_mask: int
    page_bytes: int
    descriptor_bytes: int


@dataclass(frozen=True, slots=True)
class FoundPool:
    """A pool by its address; ``name`` is what its owner called it."""

    address: int
    name: str
    shrinker: int


@dataclass(frozen=True, slots=True)
class FoundPools:
    """The pools that exist; not ``complete`` if the search could not be ended."""

    pools: tuple[FoundPool, ...]
    complete: bool


class Scanner(Closing):
    """The only user of one loaded scanner; the descriptors stay the caller's.

    ``vmemmap_base`` is the address of the descriptor of frame 0, None if it
    could not be found: frames are unknown then. ``direct_map`` is where frame 0
    is mapped, None if that could not be found: free lists are unknown then.
    """

    def __init__(
        self, program_fds: Mapping[str, int], map_fds: Mapping[str, int], place: ScanPlace
    ) -> None:
        self._programs = program_fds
        self._place = place
        self._control_memory = mapped(map_fds[".bss.control"], 8 * wire.CONTROL_WORDS)
        self._record_memory = mapped(map_fds[".bss.records"], 8 * wire.SCAN_WORDS)
        self._control: Words = np.frombuffer(
            self._control_memory, dtype=np.uint64, count=wire.CONTROL_WORDS
        )
        self._records: Words = np.frombuffer(
            self._record_memory, dtype=np.uint64, count=wire.SCAN_WORDS
        )
        self.vmemmap_base: int | None = None
        self.direct_map: int | None = None
        self._calibrate()

    @property
    def program_fds(self) -> Mapping[str, int]:
        """The scanner's programs by name."""
        return self._programs

    def _run(self, program: str) -> None:
        bpfmap.test_run(self._programs[program])

    def _answer(self, word: int) -> int:
        return int(self._control[word])

    # -- where things are -------------------------------------------------------

    def _calibrate(self) -> None:
        """Learn both bases from a page of our own, whose frame and content we know."""
        page_bytes = self._place.page_bytes
        token = int.from_bytes(os.urandom(8), "little")
        fd = os.memfd_create("zpobs")
        try:
            os.ftruncate(fd, page_bytes)
            with mmap.mmap(fd, page_bytes) as page:
                page[:8] = token.to_bytes(8, "little")
                for _ in range(_CALIBRATE_ATTEMPTS):
                    frame = _frame_of(page)
                    if not frame:
                        return
                    self._control[wire.ASK_FD] = fd
                    self._control[wire.ASK_FRAME] = frame
                    self._control[wire.ASK_TOKEN] = token
                    self._run("find_descriptor")
                    descriptor = self._answer(wire.ANSWER_POINTER)
                    self._run("find_direct_map")
                    direct_map = self._answer(wire.ANSWER_POINTER)
                    # The kernel may have moved the page meanwhile.
                    if _frame_of(page) == frame:
                        base = descriptor - frame * self._place.descriptor_bytes
                        whole = base % (1 << self._place.descriptor_bytes.bit_length() - 1) == 0
                        self.vmemmap_base = base if descriptor and base > 0 and whole else None
                        self.direct_map = direct_map or None
                        return
        finally:
            os.close(fd)

    def find_pools(self) -> FoundPools:
        """Return all pools of the system, zram's and zswap's alike."""
        self._control[wire.ASK_FUNCTION] = self._place.shrinker_at
        fd = os.memfd_create("zpobs")
        try:
            self._control[wire.ASK_FD] = fd
            for _ in range(_FIND_ATTEMPTS):
                self._run("find_pools")
                complete = bool(self._answer(wire.ANSWER_DONE))
                if complete:
                    break
        finally:
            os.close(fd)
        words = self._records[: self._answer(wire.ANSWER_WORDS)]
        found = words.reshape(-1, wire.FOUND_WORDS).copy()
        pools = [
            FoundPool(
                address=int(row[0]),
                shrinker=int(row[1]),
                name=row[2:].tobytes().split(b"\0", 1)[0].decode(errors="replace"),
            )
            for row in found
        ]
        return FoundPools(pools=tuple(pools), complete=complete)

    # -- a pool ---------------------------------------------------------------

    def scan(
        self,
        address: int,
        serial: int,
        apply: Callable[[Words], None],
        *,
        classes: range | None = None,
        detail: bool = False,
    ) -> None:
        """Walk a pool, or some of its size classes; hand batches (N, RECORD_WORDS) to ``apply``.

        ``detail`` adds DETAIL_LINKS and DETAIL_DESCRIPTOR records. Raise
        EnvironmentLacksError if the walk does not end.
        """
        classes = classes or range(self._place.size_classes)
        control = self._control
        control[wire.ASK_POOL] = address
        control[wire.ASK_SERIAL] = serial
        control[wire.ASK_FIRST_CLASS] = classes.start
        control[wire.ASK_LAST_CLASS] = classes.stop - 1
        control[wire.ASK_DETAIL] = detail
        control[wire.ASK_VMEMMAP] = self.vmemmap_base or 0
        control[wire.ASK_DIRECT_MAP] = self.direct_map or 0
        control[wire.ASK_LOCKED_MASK] = self._place.locked_mask
        control[wire.ASK_ISOLATED_MASK] = self._place.isolated_mask
        control[wire.ASK_RESUME] = 0
        while True:
            self._run("scan_pool")
            count = self._answer(wire.ANSWER_WORDS) // wire.RECORD_WORDS
            done = self._answer(wire.ANSWER_DONE)
            if count:
                rows = self._records[: count * wire.RECORD_WORDS]
                apply(copy_columns(rows.reshape(count, wire.RECORD_WORDS)).T)
            elif not done:
                raise EnvironmentLacksError(
                    "a pool cannot be walked",
                    found=f"no progress in pool {address:#x}",
                    hint="please report this kernel",
                )
            if done:
                return
            control[wire.ASK_RESUME] = 1

    def close(self) -> None:
        """Unmap the shared arrays."""
        if hasattr(self, "_control"):
            # An mmap cannot be closed while arrays look into it.
            del self._control, self._records
            # Nor while a failed walk's traceback holds some; then they end with it.
            with contextlib.suppress(BufferError):
                self._control_memory.close()
                self._record_memory.close()


def mapped(map_fd: int, size_bytes: int) -> mmap.mmap:
    """Map an array of a loaded object, so many bytes of it at least."""
    page = mmap.PAGESIZE
    return mmap.mmap(map_fd, -(-size_bytes // page) * page)


def _frame_of(page: mmap.mmap) -> int:
    """Return the frame of a mapped page of ours, 0 if the kernel does not tell."""
    number = int(np.frombuffer(page, dtype=np.uint8).ctypes.data) // mmap.PAGESIZE
    try:
        fd = os.open(_PAGEMAP, os.O_RDONLY)
    except OSError:
        return 0
    try:
        entry = os.pread(fd, _ENTRY_BYTES, number * _ENTRY_BYTES)
    finally:
        os.close(fd)
    word = int.from_bytes(entry, sys.byteorder)
    there = word >> _PRESENT_BIT & 1 and not word >> _SWAPPED_BIT & 1
    return word & ((1 << _FRAME_BITS) - 1) if there else 0
