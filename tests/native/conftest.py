"""Pools of this very kernel: zram devices of our own, a scanner, and a witness."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.workload import PAGE_BYTES, ZramDevice
from tests.native_memory import NativeWitness, compile_peek
from tests.ring_producer import why_not

_PAGES_PER_WRITE = 64
_TEXT = "the allocator under zram and zswap keeps objects of one size class in zspages; "


def page_of(kind: str, made: random.Random, number: int) -> bytes:
    """Return one page of content."""
    if kind == "constant":
        return bytes([number % 251]) * PAGE_BYTES
    if kind == "text":
        words = _TEXT.split()
        text = " ".join(made.choice(words) + str(made.randrange(99)) for _ in range(900))
        return text.encode()[:PAGE_BYTES].ljust(PAGE_BYTES, b".")
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
        os.system(
            f"blkdiscard --offset {first * PAGE_BYTES} --length {pages * PAGE_BYTES} {self.path}"
        )


@pytest.fixture(scope="session", autouse=True)
def _native() -> None:
    lacking = why_not()
    if lacking:
        pytest.skip(lacking)


@pytest.fixture
def make_device() -> Iterator[Callable[[str], NativeDevice]]:
    """Return a maker of devices, which are all removed at the end."""
    made: list[NativeDevice] = []

    def make(disksize: str = "2G") -> NativeDevice:
        made.append(NativeDevice(disksize))
        return made[-1]

    yield make
    for device in made:
        device.remove()


@pytest.fixture
def device(make_device: Callable[[], NativeDevice]) -> NativeDevice:
    """Return an empty device."""
    return make_device()


@pytest.fixture(scope="session")
def native_witness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NativeWitness]:
    """Return the independent walker."""
    witness = NativeWitness(compile_peek(tmp_path_factory.mktemp("peek")))
    yield witness
    witness.close()
