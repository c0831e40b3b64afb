"""An allocator that tells of its objects, for tests of what hears of them."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from tests.true_allocator import Allocator, Zspage
from zpobs import wire
from zpobs.objects import Sampling

HANDLES = 0xFFFF_8882_0000_0000
COMMAND = np.frombuffer(b"a_long_command\0\0", dtype=np.uint64).tolist()


class Told:
    """What is told of objects by an allocator's operations, and the truth beside it."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        # By handle's address: bytes and time of the store of those that live.
        self.sizes: dict[int, int] = {}
        self.stored_ns: dict[int, int] = {}
        self.lifetimes: Counter[int] = Counter()

    def tells(self, pool: Allocator, handle: int) -> int:
        """Return the address of a handle, 0 if it is none of those that are told."""
        address = HANDLES + pool.serial * (1 << 24) + handle * 8
        return address if self.sampling.tells(np.array([address], dtype=np.uint64))[0] else 0

    def emit(self, pool: Allocator, kind: int, handle: int, *words: int, flags: int = 0) -> int:
        time_ns = pool.machine.tick()
        head = wire.head(kind, flags=flags, serial=pool.serial)
        pool.machine.emit(head, time_ns, handle, *words)
        return time_ns


@contextlib.contextmanager
def telling() -> Iterator[list[Told]]:
    """Have allocators tell of objects as bpf/objects.bpf.c does; the last entry is who listens."""
    listening: list[Told] = []
    place, malloc, free = Allocator._place, Allocator.malloc, Allocator.free

    def placed(self: Allocator, zspage: Zspage, handle: int) -> None:
        flags = wire.FLAG_MOVED if handle in self.handles else 0
        place(self, zspage, handle)
        if address := listening[-1].tells(self, handle):
            where = zspage.size_class.index | handle % 4 << 32 | handle % 2 << 48
            words = (zspage.address, where, 5 << 24)
            kind = wire.KIND_OBJECT_STORED
            time_ns = listening[-1].emit(self, kind, address, *words, flags=flags)
            if not flags:
                listening[-1].stored_ns[address] = time_ns

    def allocated(self: Allocator, size: int, *, no_pages: bool = False) -> int:
        handle = malloc(self, size, no_pages=no_pages)
        if address := listening[-1].tells(self, handle):
            listening[-1].sizes[address] = size
            words = (size | handle << 32, 42, *COMMAND)
            flags = wire.FLAG_OF_PAGE if handle % 2 else 0
            listening[-1].emit(self, wire.KIND_OBJECT_OWNER, address, *words, flags=flags)
            if handle % 3:
                flags = wire.FLAG_SWAP if handle % 5 else 0
                listening[-1].emit(self, wire.KIND_OBJECT_SLOT, address, handle, flags=flags)
        return handle

    def freed(self: Allocator, handle: int) -> None:
        if address := listening[-1].tells(self, handle):
            time_ns = listening[-1].emit(self, wire.KIND_OBJECT_FREED, address, 0, 3 << 32)
            del listening[-1].sizes[address]
            listening[-1].lifetimes[self.serial] += time_ns - listening[-1].stored_ns.pop(address)
        free(self, handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Allocator, "_place", placed)
        patch.setattr(Allocator, "malloc", allocated)
        patch.setattr(Allocator, "free", freed)
        yield listening
