"""What the kernel itself holds: a walk of one pool through /proc/kcore.

A witness for tests and the demonstration. It shares no code with the probes:
no BPF program, no record, no model; only the reader of BTF, which tells where
structure members lie. The walk takes no lock, so the pool must be at rest.
"""

from __future__ import annotations

import os
import re
import struct
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from zpobs.closing import Closing
from zpobs.kernel.btf import Btf

_PAGE = 4096
_PT_LOAD = 1
_ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_MAGIC = 0x58
_BTF = Path("/sys/kernel/btf")


@dataclass(frozen=True, slots=True)
class KernelZspage:
    """One zspage as it lies in kernel memory."""

    address: int
    class_index: int
    inuse: int
    fullness: int
    huge: bool
    pfns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class KernelClass:
    """One size class by its own statistics (struct zs_size_stat)."""

    index: int
    size: int
    objs_per_zspage: int
    pages_per_zspage: int
    zspages_by_group: tuple[int, ...]
    capacity: int
    objects: int


@dataclass(frozen=True, slots=True)
class KernelPool:
    """One pool as it lies in kernel memory; zspages by class, group and place in its list."""

    name: str
    pages_allocated: int
    pages_compacted: int
    classes: tuple[KernelClass, ...]
    zspages: tuple[KernelZspage, ...]


class MemoryPages(Closing):
    """Kernel memory by pages, each read once; how a page is read is the subclass's."""

    def __init__(self) -> None:
        self._pages: dict[int, bytes] = {}

    def close(self) -> None:
        """Nothing is held."""

    @abstractmethod
    def _read_page(self, address: int) -> bytes | None:
        """Return the page at an address, None if it cannot be read."""

    def _page(self, address: int) -> bytes:
        page = self._pages.get(address)
        if page is None:
            page = self._read_page(address)
            if page is None or len(page) != _PAGE:
                raise LookupError(f"kernel memory cannot be read at {address:#x}")
            self._pages[address] = page
        return page

    def read(self, address: int, count: int) -> bytes:
        """Return ``count`` bytes at a kernel address."""
        out = b""
        while len(out) < count:
            at = address + len(out)
            inside = at % _PAGE
            out += self._page(at - inside)[inside : inside + count - len(out)]
        return out

    def u32(self, address: int) -> int:
        """Return the unsigned 32-bit number at an address."""
        return int.from_bytes(self.read(address, 4), "little")

    def u64(self, address: int) -> int:
        """Return the unsigned 64-bit number at an address."""
        return int.from_bytes(self.read(address, 8), "little")


class KcoreMemory(MemoryPages):
    """Kernel memory through /proc/kcore."""

    def __init__(self) -> None:
        super().__init__()
        self._fd = os.open("/proc/kcore", os.O_RDONLY)
        header = _ELF_HEADER.unpack(os.pread(self._fd, _ELF_HEADER.size, 0))
        at, count = header[5], header[10]
        table = os.pread(self._fd, _PROGRAM_HEADER.size * count, at)
        self._spans = [
            (vaddr, vaddr + size, offset - vaddr)
            for kind, _, offset, vaddr, _, size, _, _ in _PROGRAM_HEADER.iter_unpack(table)
            if kind == _PT_LOAD
        ]

    def close(self) -> None:
        """Close /proc/kcore."""
        os.close(self._fd)

    def _read_page(self, address: int) -> bytes | None:
        for begin, end, shift in self._spans:
            if begin <= address < end:
                return os.pread(self._fd, _PAGE, address + shift)
        return None


class Witness:
    """Walks pools of the running kernel; needs root, and zsmalloc there if it is a module."""

    def __init__(self) -> None:
        kernel = Btf.read(_BTF / "vmlinux")
        module = _BTF / "zsmalloc"
        self._kernel_btf = kernel
        self._btf = Btf.read(module, base=kernel) if module.exists() else kernel
        # Where the chain of a zspage's pages begins and goes on; without struct zpdesc
        # zsmalloc keeps the next page in the index of struct page.
        zpdesc = ("zspage", "first_zpdesc"), ("zpdesc", "next")
        page = ("zspage", "first_page"), ("page", "index")
        self._first, self._next = zpdesc if self._btf.has_struct("zpdesc") else page
        self._listing = ""
        self._symbols: dict[str, int] = {}
        self._modules: dict[str, Btf] = {}

    def memory(self) -> MemoryPages:
        """Return kernel memory as it is now."""
        return KcoreMemory()

    def vmemmap(self, memory: MemoryPages) -> int:
        """Return the address of the descriptor of frame 0."""
        return memory.u64(self._symbol("vmemmap_base"))

    def block_flags(self, memory: MemoryPages, block: int) -> int:
        """Return the flags of a pageblock of x86-64, as get_pfnblock_flags_mask() reads them.

        Sections have 128 MiB there and blocks 2 MiB; a block has four flags, since 6.17 eight.
        """
        size = self._kernel_btf.size("mem_section")
        if size is None:
            raise LookupError("no mem_section in BTF")
        number, in_section = divmod(block, 64)
        root, in_root = divmod(number, _PAGE // size)
        roots = memory.u64(self._symbol("mem_section"))
        section = memory.u64(roots + 8 * root) + in_root * size
        usage = memory.u64(section + self._offset("mem_section", "usage"))
        flags = usage + self._offset("mem_section_usage", "pageblock_flags")
        isolated_apart = "PB_migrate_isolate" in (self._kernel_btf.enum("pageblock_bits") or {})
        bit = in_section * (8 if isolated_apart else 4)
        return memory.u64(flags + bit // 64 * 8) >> bit % 64 & (0x17 if isolated_apart else 0x7)

    def _symbol(self, name: str) -> int:
        """Return the address of a symbol; the listing is long, so it is read when it must be."""
        pattern = re.compile(rf"^([0-9a-f]+) \w {name}\b", re.MULTILINE)
        if name not in self._symbols:
            found = pattern.search(self._listing)
            if not found:
                self._listing = Path("/proc/kallsyms").read_text("ascii", "replace")
                found = pattern.search(self._listing)
            if not found:
                raise LookupError(f"no {name} in /proc/kallsyms")
            self._symbols[name] = int(found[1], 16)
        return self._symbols[name]

    def _offset(self, struct_name: str, member: str) -> int:
        place = self._btf.place(struct_name, member)
        if place is None:
            raise LookupError(f"no {struct_name}.{member} in BTF")
        return place.offset

    def _bits(self, word: int, member: str) -> int:
        place = self._btf.place("zspage", member)
        if place is None:
            raise LookupError(f"no zspage.{member} in BTF")
        return word >> place.bit_offset & (1 << place.bits) - 1

    def zram_pool(self, device: str) -> int:
        """Return the address of the pool of a zram device, found through the driver's own table."""
        if "zram" not in self._modules:
            self._modules["zram"] = Btf.read(_BTF / "zram", base=self._kernel_btf)
        mem_pool = self._modules["zram"].place("zram", "mem_pool")
        if not mem_pool:
            raise LookupError("no zram.mem_pool in BTF")
        with self.memory() as memory:
            head = memory.u64(
                self._symbol("zram_index_idr")
                + self._offset("idr", "idr_rt")
                + self._offset("xarray", "xa_head")
            )
            zram = self._xarray_entry(memory, head, int(device.removeprefix("zram")))
            return memory.u64(zram + mem_pool.offset)

    def zswap_pools(self) -> list[int]:
        """Return the addresses of zswap's pools, that which is stored to now first.

        Up to 6.17 a struct zpool stands between (mm/zpool.c), which zsmalloc need not be behind;
        those that others are behind are left out.
        """
        head = self._symbol("zswap_pools")
        node_at = self._offset("zswap_pool", "list")
        direct = self._btf.place("zswap_pool", "zs_pool")
        found = []
        with self.memory() as memory:
            node = memory.u64(head)
            while node != head:
                pool = node - node_at
                if direct:
                    found.append(memory.u64(pool + direct.offset))
                else:
                    zpool = memory.u64(pool + self._offset("zswap_pool", "zpool"))
                    found += self._behind_zpool(memory, zpool)
                node = memory.u64(node)
        return found

    def _behind_zpool(self, memory: MemoryPages, zpool: int) -> list[int]:
        driver = memory.u64(zpool + self._offset("zpool", "driver"))
        name_at = memory.u64(driver + self._offset("zpool_driver", "type"))
        if memory.read(name_at, 9) != b"zsmalloc\0":
            return []
        return [memory.u64(zpool + self._offset("zpool", "pool"))]

    def _xarray_entry(self, memory: MemoryPages, entry: int, index: int) -> int:
        """Return what an xarray holds at an index (include/linux/xarray.h: xa_is_node)."""
        while entry & 3 == 2:
            node = entry - 2
            shift = memory.read(node + self._offset("xa_node", "shift"), 1)[0]
            slot = index >> shift & 63
            index &= (1 << shift) - 1
            entry = memory.u64(node + self._offset("xa_node", "slots") + 8 * slot)
        if not entry or index:
            raise LookupError("the zram driver has no such device")
        return entry

    def walk(self, pool: int) -> KernelPool:
        """Return everything that the pool at this address holds now."""
        with self.memory() as memory:
            name_at = memory.u64(pool + self._offset("zs_pool", "name"))
            slots = self._btf.array_length("zs_pool", "size_class") or 0
            table = pool + self._offset("zs_pool", "size_class")
            classes, zspages = [], []
            for slot in range(slots):
                size_class = memory.u64(table + 8 * slot)
                if memory.u32(size_class + self._offset("size_class", "index")) == slot:
                    classes.append(self._class(memory, size_class, slot))
                    zspages += self._zspages(memory, size_class)
            return KernelPool(
                name=memory.read(name_at, 32).split(b"\0")[0].decode(),
                pages_allocated=memory.u64(pool + self._offset("zs_pool", "pages_allocated")),
                pages_compacted=memory.u64(pool + self._offset("zs_pool", "stats")),
                classes=tuple(classes),
                zspages=tuple(zspages),
            )

    def _class(self, memory: MemoryPages, size_class: int, index: int) -> KernelClass:
        groups = self._btf.array_length("size_class", "fullness_list") or 0
        stats_at = size_class + self._offset("size_class", "stats")
        stats = [memory.u64(stats_at + 8 * number) for number in range(groups + 2)]

        def field(name: str) -> int:
            return memory.u32(size_class + self._offset("size_class", name))

        return KernelClass(
            index=index,
            size=field("size"),
            objs_per_zspage=field("objs_per_zspage"),
            pages_per_zspage=field("pages_per_zspage"),
            zspages_by_group=tuple(stats[:groups]),
            capacity=stats[groups],
            objects=stats[groups + 1],
        )

    def _zspages(self, memory: MemoryPages, size_class: int) -> list[KernelZspage]:
        groups = self._btf.array_length("size_class", "fullness_list") or 0
        lists = size_class + self._offset("size_class", "fullness_list")
        node_at = self._offset("zspage", "list")
        pages = memory.u32(size_class + self._offset("size_class", "pages_per_zspage"))
        found: list[KernelZspage] = []
        seen: set[int] = set()
        for group in range(groups):
            head = lists + 16 * group
            node = memory.u64(head)
            while node != head:
                if node in seen:
                    raise LookupError(f"a list that leads back to {node:#x}: not at rest")
                seen.add(node)
                found.append(self._zspage(memory, node - node_at, pages))
                node = memory.u64(node)
        return found

    def _zspage(self, memory: MemoryPages, zspage: int, pages: int) -> KernelZspage:
        word = memory.u32(zspage)
        if self._bits(word, "magic") != _MAGIC:
            raise LookupError(f"no zspage at {zspage:#x}: the pool is not at rest")
        vmemmap = self.vmemmap(memory)
        page_bytes = self._btf.size("page") or 64
        descriptor = memory.u64(zspage + self._offset(*self._first))
        pfns = []
        for _ in range(pages):
            pfns.append((descriptor - vmemmap) // page_bytes)
            descriptor = memory.u64(descriptor + self._offset(*self._next))
        return KernelZspage(
            address=zspage,
            class_index=self._bits(word, "class"),
            inuse=memory.u32(zspage + self._offset("zspage", "inuse")),
            fullness=self._bits(word, "fullness"),
            huge=bool(self._bits(word, "huge")),
            pfns=tuple(pfns),
        )
