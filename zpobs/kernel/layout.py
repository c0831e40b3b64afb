"""Where this kernel keeps the members that the probes read.

``bpf/zs_layout.h`` is the one list of them; this module reads it as data and
resolves it in BTF.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from zpobs.bpf_files import bpf_text
from zpobs.kernel.btf import Btf, Place

_LINE = re.compile(r"^ZS_(WALK_|OWNER_|)(FIELD|BITS|EITHER)\(([\w, ]+)\)$", re.MULTILINE)
_WORD_BITS = 32

# What a kernel's lack of a member costs: one of those that the probes read, and one that
# only the scanner reads.
COST = "neither scans nor probes: nothing can be shown"
WALK_COST = "no scans: only what probes see from their start on"
# Members that cost nothing where another one is there -> that one, and what is done then.
_INSTEAD: Mapping[str, tuple[str, str]] = {
    "zspage_lock_holders": ("zspage_lock", "the lock is told by its own word"),
    "shrinker_owner": ("zs_pool_shrinker", "pools hold their shrinkers"),
    "zs_pool_shrinker": ("shrinker_owner", "shrinkers name their pools"),
}


@dataclass(frozen=True, slots=True)
class Member:
    """One line of zs_layout.h: candidates are (structure, member), newest kernel first."""

    name: str
    is_bits: bool
    candidates: tuple[tuple[str, str], ...]


def members() -> tuple[Member, ...]:
    """Return what the probes read: the plain lines of ``bpf/zs_layout.h``."""
    return _lines("")


def walk_members() -> tuple[Member, ...]:
    """Return what the scanner alone reads, where the kernel has it: the ZS_WALK_ lines."""
    return _lines("WALK_")


def owner_members() -> tuple[Member, ...]:
    """Return what tells whose an object is, where the kernel has it: the ZS_OWNER_ lines."""
    return _lines("OWNER_")


def _lines(wanted: str) -> tuple[Member, ...]:
    found = []
    for prefix, form, arguments in _LINE.findall(bpf_text("zs_layout.h")):
        if prefix != wanted:
            continue
        name, *words = (word.strip() for word in arguments.split(","))
        width = 2 if form == "BITS" else 3
        pairs = tuple((words[at], words[at + width - 1]) for at in range(0, len(words), width))
        found.append(Member(name, form == "BITS", pairs))
    return tuple(found)


def resolve(btf: Btf, member: Member) -> Place | None:
    """Return where this kernel has a member, None if it has none of the candidates."""
    for struct_name, field in member.candidates:
        place = btf.place(struct_name, field)
        if place:
            return place
    return None


def stores_every_page(btf: Btf) -> bool:
    """Tell whether each page that zswap counts is an object of its pool.

    Where it is not, pages of one value are kept as that value, in their entries.
    """
    return btf.place("zswap_entry", "value") is None


def zswap_lags(btf: Btf) -> bool:
    """Tell whether meminfo's Zswap is as of the last page that was stored or dropped.

    So it was kept, as zswap_pool_total_size, before zswap_total_pages() reckoned it for each reader
    (mm/zswap.c): what compaction frees is not seen until then.
    """
    return not btf.has_function("zswap_total_pages")


def instead(btf: Btf, member: Member) -> str:
    """Return what is done where this kernel lacks a member; empty if nothing can be."""
    other, done = _INSTEAD.get(member.name, ("", ""))
    there = any(each.name == other and resolve(btf, each) for each in walk_members())
    return done if there else ""


def constants(member: Member, place: Place) -> dict[str, str]:
    """Return the -D constants by which the bcc dialect reads a member."""
    if member.is_bits:
        word, shift = divmod(place.bit_offset, _WORD_BITS)
        return {
            f"ZS_OFF_{member.name}": str(word * _WORD_BITS // 8),
            f"ZS_SHIFT_{member.name}": str(shift),
            f"ZS_MASK_{member.name}": str((1 << place.bits) - 1),
        }
    # A structure member (a list head) is read by its first word.
    width = place.bits if place.bits in (8, 16, 32, 64) else 64
    return {f"ZS_OFF_{member.name}": str(place.offset), f"ZS_TYPE_{member.name}": f"u{width}"}
