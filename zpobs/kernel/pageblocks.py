"""Where this kernel keeps the migratetypes of pageblocks, from its BTF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.btf import Btf

# An enumerator of migratetype that counts, or is another name for one.
_NO_TYPES = ("MIGRATE_PCPTYPES", "MIGRATE_TYPES")
_TYPE_BITS = 3


@dataclass(frozen=True, slots=True)
class PageblockLayout:
    """How a block's flags are kept: places in bytes, ``bits`` for each block.

    ``types`` are the names of migratetypes by number, such as "movable". A block with
    ``isolate_mask`` is isolated whatever its type is; 0 where that is a type of its own.
    """

    section_bytes: int
    map_at: int
    usage_at: int
    flags_at: int
    bits: int
    isolate_mask: int
    types: Mapping[int, str]

    def names(self, flags: int) -> str:
        """Return the migratetype that the flags of a block tell."""
        if flags & self.isolate_mask:
            return "isolate"
        number = flags & (1 << _TYPE_BITS) - 1
        return self.types.get(number, f"type {number}")


def pageblock_layout(btf: Btf) -> PageblockLayout:
    """Return the layout; raise EnvironmentLacksError if BTF does not tell all of it.

    Flags stand in struct mem_section_usage with SPARSEMEM since 5.3; the bits are an enum
    (include/linux/pageblock-flags.h), rounded up to a power of two since isolation got one.
    """
    places = {
        "section_mem_map": btf.place("mem_section", "section_mem_map"),
        "usage": btf.place("mem_section", "usage"),
        "pageblock_flags": btf.place("mem_section_usage", "pageblock_flags"),
    }
    bits = btf.enum("pageblock_bits") or {}
    count = bits.get("NR_PAGEBLOCK_BITS") or _power_of_two(bits.get("__NR_PAGEBLOCK_BITS", 0))
    types = {
        value: name.removeprefix("MIGRATE_").lower()
        for name, value in (btf.enum("migratetype") or {}).items()
        if name.startswith("MIGRATE_") and name not in _NO_TYPES
    }
    lacking = [f"mem_section {name}" for name, place in places.items() if place is None]
    lacking += [] if count else ["enum pageblock_bits"]
    lacking += [] if types else ["enum migratetype"]
    found = [place.offset for place in places.values() if place is not None]
    if lacking or len(found) != len(places):
        raise EnvironmentLacksError(
            "migratetypes of pageblocks cannot be read",
            found=f"no {', '.join(lacking)} in this kernel's BTF",
            hint="a kernel with CONFIG_SPARSEMEM_VMEMMAP=y",
        )
    isolate = bits.get("PB_migrate_isolate")
    return PageblockLayout(
        section_bytes=btf.size("mem_section") or 0,
        map_at=found[0],
        usage_at=found[1],
        flags_at=found[2],
        bits=count,
        isolate_mask=0 if isolate is None else 1 << isolate,
        types=types,
    )


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length() if least > 0 else 0
