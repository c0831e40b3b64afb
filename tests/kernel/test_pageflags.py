"""Names of page flags, for the enumerations of kernels of three ages and of the one that runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.factories import BtfBuilder
from zpobs.kernel.btf import Btf
from zpobs.kernel.pageflags import PageFlags, page_flags

VMLINUX = Path("/sys/kernel/btf/vmlinux")

# As declared: plain flags, the count, then aliases.
OLD = {
    "PG_locked": 0,
    "PG_uptodate": 2,
    "PG_owner_priv_1": 10,
    "PG_private": 13,
    "PG_reclaim": 18,
    "__NR_PAGEFLAGS": 25,
    "PG_readahead": 18,
    "PG_swapcache": 10,
    "PG_isolated": 18,
    "PG_reported": 2,
}
MIDDLE = {
    "PG_locked": 0,
    "PG_uptodate": 3,
    "PG_private": 14,
    "PG_reclaim": 16,
    "__NR_PAGEFLAGS": 24,
    "PG_isolated": 16,
    "PG_reported": 3,
    "PG_partially_mapped": 16,
}
NEW = {
    "PG_locked": 0,
    "PG_uptodate": 3,
    "PG_private": 14,
    "PG_reclaim": 16,
    "__NR_PAGEFLAGS": 24,
    "PG_movable_ops_isolated": 16,
    "PG_movable_ops": 3,
    "PG_reported": 3,
    "PG_partially_mapped": 16,
}


def made(declared: dict[str, int], pagetype: dict[str, int] | None = None) -> PageFlags:
    btf = BtfBuilder()
    btf.enum("pageflags", declared)
    if pagetype:
        btf.enum("pagetype", pagetype)
    return page_flags(btf.build())


@pytest.mark.parametrize(
    ("declared", "word", "names"),
    [
        (OLD, 1 << 0 | 1 << 2 | 1 << 13 | 1 << 18, ("locked", "uptodate", "private", "isolated")),
        (OLD, 1 << 10, ("owner_priv_1",)),
        (MIDDLE, 1 << 3 | 1 << 14 | 1 << 16, ("uptodate", "private", "isolated")),
        (NEW, 1 << 3 | 1 << 16, ("movable_ops", "movable_ops_isolated")),
        (NEW, 0, ()),
    ],
)
def test_a_bit_has_the_name_that_means_something(
    declared: dict[str, int], word: int, names: tuple[str, ...]
) -> None:
    """Of several names for a bit a zsmalloc page's own is shown, else the one declared first."""
    assert made(declared).names(word) == names


def test_zone_node_and_section_are_no_flags() -> None:
    """Bits from __NR_PAGEFLAGS on are left out."""
    assert made(NEW).names(0x0017_FFFF_C000_0000 | 1 << 24 | 1 << 14) == ("private",)


def test_a_flag_without_a_name_is_not_hidden() -> None:
    """A flag bit that no name stands for is told by its number."""
    assert made(NEW).names(1 << 22) == ("bit_22",)


@pytest.mark.parametrize(
    ("declared", "locked", "isolated", "private"),
    [(OLD, 0, 18, 13), (MIDDLE, 0, 16, 14), (NEW, 0, 16, 14)],
)
def test_masks(declared: dict[str, int], locked: int, isolated: int, private: int) -> None:
    """mask() finds a flag under the name that this kernel has for it."""
    flags = made(declared)
    found = [flags.mask(name) for name in ("locked", "isolated", "private")]
    assert found == [1 << locked, 1 << isolated, 1 << private]


def test_what_a_kernel_lacks_has_an_empty_mask() -> None:
    """A flag that is not declared, or no declaration at all, gives 0 and no names."""
    assert made(OLD).mask("movable_ops") == 0
    bare = page_flags(BtfBuilder().build())
    assert (bare.mask("locked"), bare.mask("isolated"), bare.names(-1), bare.page_type) == (
        0,
        0,
        (),
        None,
    )


def test_the_page_type_is_the_kernels_own() -> None:
    """The type byte comes from enum pagetype, and is None where the kernel has none."""
    assert made(NEW, {"PGTY_buddy": 0xF0, "PGTY_zsmalloc": 0xF6}).page_type == 0xF6
    assert made(OLD).page_type is None


@pytest.mark.native
@pytest.mark.skipif(not VMLINUX.exists(), reason="this kernel tells no BTF")
def test_the_running_kernel_has_the_flags_that_matter() -> None:
    """Locked, isolated and private are three different flags of this very kernel."""
    flags = page_flags(Btf.read(VMLINUX))
    masks = {flags.mask(name) for name in ("locked", "isolated", "private")}
    assert len(masks) == 3
    assert 0 not in masks
    assert all(mask < 1 << flags.count for mask in masks)
    assert 15 < flags.count < 40
