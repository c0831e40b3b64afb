"""Where migratetypes are kept, from invented BTF of both forms that kernels have had."""

from __future__ import annotations

import pytest

from tests.factories import BtfBuilder
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.btf import Btf
from zpobs.kernel.pageblocks import pageblock_layout

TYPES = {
    "MIGRATE_UNMOVABLE": 0,
    "MIGRATE_MOVABLE": 1,
    "MIGRATE_RECLAIMABLE": 2,
    "MIGRATE_PCPTYPES": 3,
    "MIGRATE_HIGHATOMIC": 3,
    "MIGRATE_CMA": 4,
    "MIGRATE_ISOLATE": 5,
    "MIGRATE_TYPES": 6,
    "__MIGRATE_TYPE_END": 5,
}
OLD = {"PB_migrate": 0, "PB_migrate_end": 2, "PB_migrate_skip": 3, "NR_PAGEBLOCK_BITS": 4}
NEW = {
    "PB_migrate_0": 0,
    "PB_migrate_1": 1,
    "PB_migrate_2": 2,
    "PB_compact_skip": 3,
    "PB_migrate_isolate": 4,
    "__NR_PAGEBLOCK_BITS": 5,
}


def btf(bits: dict[str, int], *, usage: bool = True, types: dict[str, int] | None = None) -> Btf:
    made = BtfBuilder()
    word = made.integer("unsigned long", 8)
    pointer = made.pointer(word)
    made.struct("mem_section", 16, [("section_mem_map", word, 0), ("usage", pointer, 64)])
    if usage:
        flags = made.array(word, 0)
        made.struct("mem_section_usage", 24, [("pageblock_flags", flags, 192)])
    for name, values in (("migratetype", types or TYPES), ("pageblock_bits", bits)):
        made.enum(name, values)
    return made.build()


def test_isolation_as_a_type_and_as_a_bit() -> None:
    old, new = pageblock_layout(btf(OLD)), pageblock_layout(btf(NEW))
    assert (old.bits, old.isolate_mask) == (4, 0)
    assert (new.bits, new.isolate_mask) == (8, 16)
    for layout in (old, new):
        places = (layout.section_bytes, layout.map_at, layout.usage_at, layout.flags_at)
        assert places == (16, 0, 8, 24)
    assert [old.names(flags) for flags in (0, 9, 2, 3, 4, 5, 7)] == [
        *("unmovable", "movable", "reclaimable", "highatomic", "cma", "isolate", "type 7"),
    ]
    assert [new.names(flags) for flags in (0x11, 0x09, 0x01)] == ["isolate", "movable", "movable"]


@pytest.mark.parametrize(
    ("made", "lacks"),
    [
        (btf(OLD, usage=False), "mem_section pageblock_flags"),
        (btf({"PB_migrate": 0}), "enum pageblock_bits"),
        (btf(OLD, types={"MIGRATE_TYPES": 6}), "enum migratetype"),
    ],
)
def test_what_is_not_described_is_named(made: Btf, lacks: str) -> None:
    with pytest.raises(EnvironmentLacksError, match="cannot be read") as refused:
        pageblock_layout(made)
    assert lacks in refused.value.found
