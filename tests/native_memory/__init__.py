"""Kernel memory through a BPF program that copies one page: a witness where /proc/kcore is not.

It shares no code with the scanner. Pools are found through the block device,
frames through the descriptor of a file of our own: by other ways than the
scanner's.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

from lab.witness import MemoryPages, Witness
from zpobs.bpf_build import compile_object
from zpobs.loaders.libbpf import BpfObject
from zpobs.sources import bpfmap

_SOURCE = Path(__file__).with_name("peek.bpf.c")
_PAGE = 4096


def compile_peek(folder: Path) -> Path:
    """Compile the program into ``folder``; return the object file."""
    target = folder / "peek.bpf.o"
    compile_object(_SOURCE, target)
    return target


class PeekedMemory(MemoryPages):
    """Kernel memory, a page at a time, each page once."""

    def __init__(self, loaded: BpfObject) -> None:
        super().__init__()
        self._run = loaded.program_fd("peek")
        self._request = mmap.mmap(loaded.map_fd(".bss.request"), _PAGE)
        self._copy = mmap.mmap(loaded.map_fd(".bss.page"), _PAGE)

    def close(self) -> None:
        self._request.close()
        self._copy.close()

    def _read_page(self, address: int) -> bytes | None:
        self._request[:16] = address.to_bytes(8, "little") + bytes(8)
        bpfmap.test_run(self._run)
        failed = int.from_bytes(self._request[8:16], "little")
        return None if failed else self._copy[:]

    def task(self) -> int:
        """Return the address of this thread's task_struct."""
        self._read_page(0)
        return int.from_bytes(self._request[16:24], "little")


class NativeWitness(Witness):
    """Walks pools of this very kernel."""

    def __init__(self, peek_object: Path) -> None:
        super().__init__()
        self._loaded = BpfObject(peek_object)
        self._loaded.load()
        self._vmemmap = self._calibrated()

    def close(self) -> None:
        """Unload the program."""
        self._loaded.close()

    def memory(self) -> PeekedMemory:
        return PeekedMemory(self._loaded)

    def vmemmap(self, _: MemoryPages) -> int:
        return self._vmemmap

    def _file(self, memory: PeekedMemory, fd: int) -> int:
        files = memory.u64(memory.task() + self._offset("task_struct", "files"))
        table = memory.u64(files + self._offset("files_struct", "fdt"))
        return memory.u64(memory.u64(table + self._offset("fdtable", "fd")) + 8 * fd)

    def _calibrated(self) -> int:
        """Return the base of the descriptors from a page of our own."""
        fd = os.memfd_create("witness")
        os.ftruncate(fd, _PAGE)
        with mmap.mmap(fd, _PAGE) as page, self.memory() as memory:
            page[0] = 1
            holder = ctypes.c_char.from_buffer(page)
            at = ctypes.addressof(holder) // _PAGE * 8
            del holder
            with Path("/proc/self/pagemap").open("rb") as pagemap:
                pagemap.seek(at)
                frame = int.from_bytes(pagemap.read(8), "little") & ((1 << 55) - 1)
            mapping = memory.u64(self._file(memory, fd) + self._offset("file", "f_mapping"))
            pages = mapping + self._offset("address_space", "i_pages")
            folio = memory.u64(pages + self._offset("xarray", "xa_head"))
        os.close(fd)
        return folio - frame * (self._btf.size("page") or 0)

    def zram_pool(self, device: str) -> int:
        """Return the address of a device's pool, by way of the block device."""
        fd = os.open(f"/dev/{device}", os.O_RDONLY)
        try:
            with self.memory() as memory:
                mapping = memory.u64(self._file(memory, fd) + self._offset("file", "f_mapping"))
                inode = memory.u64(mapping + self._offset("address_space", "host"))
                # struct bdev_inode (block/bdev.c): the block device, then its inode.
                bdev = inode - (self._btf.size("block_device") or 0)
                disk = memory.u64(bdev + self._offset("block_device", "bd_disk"))
                zram = memory.u64(disk + self._offset("gendisk", "private_data"))
                return memory.u64(zram + self._offset("zram", "mem_pool"))
        finally:
            os.close(fd)
