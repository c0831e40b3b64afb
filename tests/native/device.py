"""A zram device of our own on this very machine, filled with content of a chosen kind."""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import subprocess
from pathlib import Path

from lab.workload import PAGE_BYTES, ZramDevice

_PAGES_PER_WRITE = 64
# _IO(0x12, 119), include/uapi/linux/fs.h
_BLKDISCARD = 0x1277
_TEXT = "the allocator under zram and zswap keeps objects of one size class in zspages; "


def page_of(kind: str, made: random.Random, number: int) -> bytes:
    """Return one page of content."""
    if kind == "constant":
        return bytes([number % 251]) * PAGE_BYTES
    if kind == "text":
        words = _TEXT.split()
        text = " ".join(made.choice(words) + str(made.randrange(99)) for _ in range(900))
        return text.encode()[:PAGE_BYTES].ljust(PAGE_BYTES, b".")
    if kind == "half":
        return made.randbytes(PAGE_BYTES // 2) + bytes(PAGE_BYTES // 2)
    whole = PAGE_BYTES if kind == "incompressible" else made.randrange(PAGE_BYTES)
    return made.randbytes(whole) + bytes(PAGE_BYTES - whole)


class NativeDevice(ZramDevice):
    """A zram device of our own on this machine; content is written past the page cache."""

    @property
    def path(self) -> Path:
        return Path("/dev") / self.name

    def fill(self, kind: str, pages: int, *, first: int = 0, seed: int = 1) -> None:
        """Write ``pages`` pages of a kind of content from page ``first`` on."""
        made = random.Random(seed)
        buffer = mmap.mmap(-1, PAGE_BYTES * _PAGES_PER_WRITE)
        fd = os.open(self.path, os.O_RDWR | os.O_DIRECT)
        try:
            for begin in range(first, first + pages, _PAGES_PER_WRITE):
                count = min(_PAGES_PER_WRITE, first + pages - begin)
                content = b"".join(page_of(kind, made, begin + at) for at in range(count))
                buffer[: len(content)] = content
                os.pwritev(fd, [memoryview(buffer)[: len(content)]], begin * PAGE_BYTES)
        finally:
            os.close(fd)

    def discard(self, first: int, pages: int) -> None:
        """Give pages back."""
        place = ["--offset", str(first * PAGE_BYTES), "--length", str(pages * PAGE_BYTES)]
        subprocess.run(["blkdiscard", *place, str(self.path)], check=True)

    def discard_every_other(self, pages: int) -> None:
        """Give every other of the first pages back."""
        fd = os.open(self.path, os.O_RDWR)
        try:
            for page in range(0, pages, 2):
                place = struct.pack("QQ", page * PAGE_BYTES, PAGE_BYTES)
                fcntl.ioctl(fd, _BLKDISCARD, place)
        finally:
            os.close(fd)

    def limit(self, size: str) -> None:
        """Set how much memory the pool may take (mem_limit)."""
        (Path("/sys/block") / self.name / "mem_limit").write_text(size)
