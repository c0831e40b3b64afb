"""Reads the flags of pageblocks through the programs of ``bpf/pageblocks.bpf.c``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.closing import Closing
from zpobs.errors import EnvironmentLacksError
from zpobs.sources import bpfmap
from zpobs.sources.scanner import mapped

Ints = npt.NDArray[np.int64]
_PAGE_TYPES = Path("/proc/pagetypeinfo")
_NOTE = Path("/sys/kernel/vmcoreinfo")
_NOTE_BYTES_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class SectionPlace:
    """Where sections are: the first element of mem_section, the order of a section in pages."""

    mem_section: int
    order: int


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Places of a section's members and the size of a block's flags, in bytes and bits."""

    section_bytes: int
    map_at: int
    usage_at: int
    flags_at: int
    bits: int
    page_bytes: int
    vmemmap_base: int


def pageblock_order() -> int:
    """Return how many pages a block has, as a power of two (/proc/pagetypeinfo).

    Raise EnvironmentLacksError if the kernel does not tell.
    """
    try:
        with _PAGE_TYPES.open(encoding="ascii") as file:
            head = file.readline()
        found = re.fullmatch(r"Page block order:\s*(\d+)\s*", head)
        if found:
            return int(found[1])
        problem = f"{_PAGE_TYPES} begins with {head.strip()!r}"
    except OSError as error:
        problem = f"{_PAGE_TYPES}: {error.strerror or error}"
    raise EnvironmentLacksError(
        "it is not known how large a pageblock is",
        found=problem,
        hint="root, who may read that file",
    )


class PageblockReader(Closing):
    """The only user of the loaded programs; their descriptors stay the caller's."""

    def __init__(self, program_fds: Mapping[str, int], map_fds: Mapping[str, int]) -> None:
        self._programs = program_fds
        self._control_memory = mapped(map_fds[".bss.control"], 8 * wire.BLOCKS_CONTROL_WORDS)
        self._block_memory = mapped(map_fds[".bss.blocks"], 8 * wire.BLOCKS_WORDS)
        self._control = np.frombuffer(
            self._control_memory, dtype=np.uint64, count=wire.BLOCKS_CONTROL_WORDS
        )
        self._blocks = np.frombuffer(self._block_memory, dtype=np.uint64, count=wire.BLOCKS_WORDS)

    def find_sections(self, direct_map: int | None, page_bytes: int) -> SectionPlace:
        """Return what the kernel tells crash dumps of its sections (kernel/vmcore_info.c).

        ``direct_map`` is where frame 0 is mapped, None if that is not known. Raise
        EnvironmentLacksError if it cannot be had.
        """
        try:
            address, size = (int(word, 16) for word in _NOTE.read_text("ascii").split())
        except (OSError, ValueError) as error:
            raise _unfound(f"{_NOTE}: {getattr(error, 'strerror', None) or error}") from error
        if direct_map is None:
            raise _unfound("it is not known where memory is mapped")
        self._control[wire.BLOCKS_ADDRESS] = direct_map + address
        count = min(size, _NOTE_BYTES_MAX) // 8
        self._control[wire.BLOCKS_COUNT] = count
        bpfmap.test_run(self._programs["read_words"])
        note = self._blocks[:count].tobytes()
        symbol = re.search(rb"^SYMBOL\(mem_section\)=([0-9a-f]+)$", note, re.MULTILINE)
        bits = re.search(rb"^NUMBER\(SECTION_SIZE_BITS\)=(\d+)$", note, re.MULTILINE)
        if not symbol or not bits:
            raise _unfound("the note for crash dumps names no mem_section")
        return SectionPlace(int(symbol[1], 16), int(bits[1]) - page_bytes.bit_length() + 1)

    def flags(self, blocks: Ints, order: int, sections: SectionPlace, place: BlockPlace) -> Ints:
        """Return the flags of each block, -1 where they are not known, shape (N,)."""
        control = self._control
        control[wire.BLOCKS_ORDER] = order
        control[wire.BLOCKS_BITS] = place.bits
        control[wire.BLOCKS_SECTION_SHIFT] = sections.order
        control[wire.BLOCKS_MEM_SECTION] = sections.mem_section
        control[wire.BLOCKS_VMEMMAP] = place.vmemmap_base
        control[wire.BLOCKS_SECTION_BYTES] = place.section_bytes
        control[wire.BLOCKS_MAP_AT] = place.map_at
        control[wire.BLOCKS_USAGE_AT] = place.usage_at
        control[wire.BLOCKS_FLAGS_AT] = place.flags_at
        control[wire.BLOCKS_PAGE_BYTES] = place.page_bytes
        found = [np.zeros(0, dtype=np.int64)]
        for begin in range(0, len(blocks), wire.BLOCKS_WORDS):
            some = blocks[begin : begin + wire.BLOCKS_WORDS]
            control[wire.BLOCKS_COUNT] = len(some)
            self._blocks[: len(some)] = some.astype(np.uint64)
            bpfmap.test_run(self._programs["read_blocks"])
            found.append(self._blocks[: len(some)].astype(np.int64))
        return np.concatenate(found)

    def close(self) -> None:
        """Unmap the shared arrays."""
        if hasattr(self, "_control"):
            # An mmap cannot be closed while arrays look into it.
            del self._control, self._blocks
            with contextlib.suppress(BufferError):
                self._control_memory.close()
                self._block_memory.close()


def _unfound(problem: str) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        "migratetypes of pageblocks cannot be read",
        found=problem,
        hint="a kernel with CONFIG_VMCORE_INFO=y (CONFIG_CRASH_CORE before 6.9)",
    )
