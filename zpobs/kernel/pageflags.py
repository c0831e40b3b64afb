"""Names for the flags word and the type byte of a page's descriptor, from this kernel's BTF."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zpobs.kernel.btf import Btf

_PREFIX = "PG_"
_COUNT = "__NR_PAGEFLAGS"
# Names that share a bit with others, and are what the bit means on a zsmalloc page.
_MEANT = ("movable_ops", "movable_ops_isolated", "isolated")
# What a flag is asked for by -> the names that kernels have had for it.
_KNOWN_AS = {"isolated": ("movable_ops_isolated", "isolated")}


@dataclass(frozen=True, slots=True)
class PageFlags:
    """The page flags of one kernel.

    ``bits`` maps every name, without PG_ and with all aliases, to its bit;
    ``chosen`` holds for each bit below ``count`` the name that it is shown by.
    Bits from ``count`` on are no flags: zone, node and section stand there.
    ``page_type`` is the byte that marks zsmalloc's pages, in the top byte of
    the word whose other bits are first_obj_offset; None where the kernel has
    no such mark and the whole word is the offset.
    """

    bits: Mapping[str, int]
    chosen: Mapping[int, str]
    count: int
    page_type: int | None = None

    def names(self, word: int) -> tuple[str, ...]:
        """Return the names of the flags that are set, lowest bit first."""
        return tuple(
            self.chosen.get(bit, f"bit_{bit}") for bit in range(self.count) if word >> bit & 1
        )

    def mask(self, name: str) -> int:
        """Return the mask of a flag, 0 if the kernel lacks it.

        "isolated" is an isolated page's under whichever name the kernel has for it.
        """
        for known in _KNOWN_AS.get(name, (name,)):
            if known in self.bits:
                return 1 << self.bits[known]
        return 0


def page_flags(btf: Btf) -> PageFlags:
    """Return the flags that this kernel describes; none at all if it does not describe them."""
    declared = btf.enum("pageflags") or {}
    bits = {
        name.removeprefix(_PREFIX): bit
        for name, bit in declared.items()
        if name.startswith(_PREFIX) and bit >= 0
    }
    count = declared.get(_COUNT, max(bits.values(), default=-1) + 1)
    chosen: dict[int, str] = {}
    # The generic name of a bit is declared before its aliases.
    for name, bit in bits.items():
        if bit not in chosen or name in _MEANT:
            chosen[bit] = name
    return PageFlags(bits, chosen, count, (btf.enum("pagetype") or {}).get("PGTY_zsmalloc"))
