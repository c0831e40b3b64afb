"""The BTF reader on blobs built by hand, and on the kernel that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories import (
    CONST,
    RESTRICT,
    TYPE_TAG,
    TYPEDEF,
    VOLATILE,
    BtfBuilder,
)
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.btf import Btf, Place

VMLINUX = Path("/sys/kernel/btf/vmlinux")


def test_a_member_lies_where_its_structure_has_it() -> None:
    """place() gives the bit offset and the width of members of every plain kind."""
    made = BtfBuilder()
    u16, u64 = made.integer("u16", 2), made.integer("u64", 8)
    pointer = made.pointer(u64)
    inner = made.struct("inner", 16, [("low", u64, 0), ("high", u64, 64)])
    members = [("a", u16, 0), ("b", pointer, 64), ("c", inner, 128), ("d", u64, 256)]
    made.struct("outer", 40, members)
    btf = made.build()
    found = {name: btf.place("outer", name) for name in "abcd"}
    assert found == {
        "a": Place(0, 16),
        "b": Place(64, 64),
        "c": Place(128, 128),
        "d": Place(256, 64),
    }
    assert found["d"].offset == 32
    assert btf.size("outer") == 40


def test_what_is_absent_is_none() -> None:
    """An unknown structure or member, or a member that is no array, gives None."""
    made = BtfBuilder()
    u64 = made.integer("u64", 8)
    made.struct("known", 8, [("a", u64, 0)])
    btf = made.build()
    assert (btf.has_struct("known"), btf.has_struct("other")) == (True, False)
    assert btf.place("known", "b") is btf.place("other", "a") is btf.size("other") is None
    assert btf.array_length("known", "a") is btf.array_length("known", "b") is None
    assert btf.array_length("other", "a") is None


def test_members_of_nested_anonymous_unions_are_found() -> None:
    """A member inside anonymous structures in anonymous unions has the sum of their offsets."""
    made = BtfBuilder()
    u32, u64 = made.integer("u32", 4), made.integer("u64", 8)
    pair = made.struct("", 8, [("low", u32, 0), ("high", u32, 32)])
    choice = made.union("", 8, [("whole", u64, 0), ("", pair, 0)])
    box = made.struct("", 16, [("before", u64, 0), ("", choice, 64)])
    made.struct("outer", 24, [("head", u64, 0), ("", box, 64)])
    btf = made.build()
    found = {name: btf.place("outer", name) for name in ("before", "whole", "low", "high")}
    assert found == {
        "before": Place(64, 64),
        "whole": Place(128, 64),
        "low": Place(128, 32),
        "high": Place(160, 32),
    }


def test_members_of_named_members_are_not_taken_for_own() -> None:
    """Only anonymous members are looked into."""
    made = BtfBuilder()
    u64 = made.integer("u64", 8)
    inner = made.struct("inner", 8, [("hidden", u64, 0)])
    made.struct("outer", 8, [("named", inner, 0)])
    assert made.build().place("outer", "hidden") is None


def test_a_bit_field_has_its_own_width() -> None:
    """A bit-field keeps its bit offset and width, also below an anonymous structure."""
    made = BtfBuilder()
    u32 = made.integer("u32", 4)
    fields = [("one", u32, 0, 1), ("four", u32, 1, 4), ("nine", u32, 5, 9), ("whole", u32, 32, 0)]
    flags = made.struct("", 8, fields)
    made.struct("outer", 16, [("before", u32, 0), ("", flags, 64)])
    btf = made.build()
    assert btf.place("outer", "one") == Place(64, 1)
    assert btf.place("outer", "four") == Place(65, 4)
    assert btf.place("outer", "nine") == Place(69, 9)
    assert btf.place("outer", "whole") == Place(96, 32)


def test_an_array_has_a_length_and_a_size() -> None:
    """array_length() counts the outermost dimension, the width all elements."""
    made = BtfBuilder()
    u16 = made.integer("u16", 2)
    row = made.array(u16, 5)
    grid = made.array(row, 3)
    made.struct("outer", 30, [("grid", grid, 0)])
    btf = made.build()
    assert btf.array_length("outer", "grid") == 3
    assert btf.place("outer", "grid") == Place(0, 8 * 2 * 5 * 3)


@pytest.mark.parametrize("kinds", [[TYPEDEF], [CONST, VOLATILE], [RESTRICT, TYPE_TAG, TYPEDEF]])
def test_names_and_qualifiers_are_seen_through(kinds: list[int]) -> None:
    """Typedefs and qualifiers, however many, change neither sizes nor lengths nor members."""
    made = BtfBuilder()
    u32 = made.integer("u32", 4)
    chained = [u32, made.array(u32, 7), made.union("", 4, [("inside", u32, 0)])]
    for kind in kinds:
        named = kind in (TYPEDEF, TYPE_TAG)
        chained = [made.add(kind, "alias" if named else "", target) for target in chained]
    number, numbers, hidden = chained
    made.struct("outer", 36, [("a", number, 0), ("b", numbers, 32), ("", hidden, 256)])
    btf = made.build()
    assert btf.place("outer", "a") == Place(0, 32)
    assert btf.place("outer", "b") == Place(32, 7 * 32)
    assert btf.array_length("outer", "b") == 7
    assert btf.place("outer", "inside") == Place(256, 32)


def test_functions_are_known_by_name() -> None:
    """has_function() knows functions, and takes no structure of that name for one."""
    made = BtfBuilder()
    made.function("zs_malloc")
    made.struct("zs_free", 0, [])
    btf = made.build()
    assert btf.has_function("zs_malloc")
    assert not btf.has_function("zs_free")


@pytest.mark.parametrize("bits", [32, 64])
def test_an_enumeration_has_its_values_in_order(bits: int) -> None:
    """enum() gives every name in the order of declaration; values may repeat."""
    made = BtfBuilder()
    u32 = made.integer("u32", 4)
    values = {"LAST": 7, "FIRST": 0, "AGAIN": 7, "TOP": (1 << bits) - 1}
    made.enum("things", values, bits=bits)
    made.struct("after", 4, [("a", u32, 0)])
    btf = made.build()
    found = btf.enum("things")
    assert found == values
    assert list(found) == list(values)
    assert btf.place("after", "a") == Place(0, 32)
    assert btf.enum("after") is btf.enum("nothing") is None


@pytest.mark.parametrize("bits", [32, 64])
def test_an_enumeration_may_hold_negative_values(bits: int) -> None:
    """A signed enumeration's values keep their sign, the lowest and the highest too."""
    made = BtfBuilder()
    values = {"LOWEST": -(1 << bits - 1), "MINUS": -1, "HIGHEST": (1 << bits - 1) - 1}
    made.enum("things", values, bits=bits)
    assert made.build().enum("things") == values


def test_a_module_sees_its_bases_enumerations() -> None:
    """enum() finds the module's own and the kernel's, each with its own strings."""
    kernel = BtfBuilder()
    kernel.enum("pageflags", {"PG_locked": 0, "PG_private": 14})
    module = BtfBuilder(base=kernel)
    module.enum("groups", {"EMPTY": 0, "FULL": 11})
    btf = module.build(base=kernel.build())
    assert btf.enum("pageflags") == {"PG_locked": 0, "PG_private": 14}
    assert btf.enum("groups") == {"EMPTY": 0, "FULL": 11}


@pytest.fixture
def split() -> Btf:
    """Return a module's BTF whose types use those of its base."""
    kernel = BtfBuilder()
    u32 = kernel.integer("u32", 4)
    numbers = kernel.array(u32, 9)
    kernel.struct("page", 64, [("private", u32, 64)])
    hidden = kernel.union("", 4, [("inside", u32, 0)])
    kernel.function("schedule")
    module = BtfBuilder(base=kernel)
    own = module.array(u32, 2)
    alias = module.add(TYPEDEF, "numbers_t", numbers)
    members = [("a", u32, 0), ("b", alias, 32), ("c", own, 320), ("", hidden, 384)]
    module.struct("zspage", 56, members)
    module.function("zs_malloc")
    return module.build(base=kernel.build())


def test_a_module_sees_its_own_and_its_bases_names(split: Btf) -> None:
    """Structures and functions of module and kernel are found through the module's BTF."""
    assert (split.size("zspage"), split.size("page")) == (56, 64)
    assert split.place("page", "private") == Place(64, 32)
    assert split.has_function("zs_malloc")
    assert split.has_function("schedule")
    assert not split.has_function("nothing")


def test_a_modules_members_may_have_types_of_the_base(split: Btf) -> None:
    """Types of the base have their sizes and lengths behind a module's members and typedefs."""
    assert split.place("zspage", "a") == Place(0, 32)
    assert split.place("zspage", "b") == Place(32, 9 * 32)
    assert split.array_length("zspage", "b") == 9
    assert split.place("zspage", "c") == Place(320, 64)
    assert split.array_length("zspage", "c") == 2
    assert split.place("zspage", "inside") == Place(384, 32)


def test_bytes_that_are_no_btf_are_refused() -> None:
    """A wrong magic is an environment error that names what was found."""
    with pytest.raises(EnvironmentLacksError, match="0x9feb") as refused:
        Btf(b"\xeb\x9f" + BtfBuilder().data()[2:])
    assert "CONFIG_DEBUG_INFO_BTF" in str(refused.value)


def test_a_kind_of_the_future_is_refused() -> None:
    """A type of unknown kind has an unknown length, so reading ends with its id and kind."""
    made = BtfBuilder()
    made.integer("u32", 4)
    made.add(25, "wonder")
    with pytest.raises(EnvironmentLacksError, match="BTF type 2 of unknown kind 25"):
        made.build()


@pytest.mark.native
@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel tells no BTF")
def test_the_running_kernels_own_types_are_plausible() -> None:
    """struct page, list_head and, where built in, zspage of this very kernel are as expected."""
    btf = Btf.read(VMLINUX)
    assert btf.size("page") in (56, 64, 72, 80)
    assert btf.place("list_head", "prev") == Place(64, 64)
    assert btf.has_function("schedule")
    if not btf.has_struct("zspage"):
        pytest.skip("zsmalloc is not built into this kernel")
    huge, fullness, index = (btf.place("zspage", name) for name in ("huge", "fullness", "class"))
    assert huge and fullness and index
    assert (huge.bits, fullness.bits in (2, 4), index.bits in (8, 9)) == (1, True, True)
    assert fullness.bit_offset == huge.bit_offset + 1
    assert index.bit_offset == fullness.bit_offset + fullness.bits
    groups = btf.array_length("size_class", "fullness_list")
    assert groups is not None
    assert 4 <= groups <= 1 << fullness.bits
    assert 100 < (btf.array_length("zs_pool", "size_class") or 0) <= 512
