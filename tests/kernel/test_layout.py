"""``bpf/zs_layout.h`` as data: every member is listed, read and placed once."""

from __future__ import annotations

import re

import pytest

from tests.factories import BtfBuilder, make_btf
from zpobs.bpf_files import bpf_text
from zpobs.kernel.btf import Btf, Place
from zpobs.kernel.layout import (
    Member,
    constants,
    members,
    owner_members,
    resolve,
    stores_every_page,
    walk_members,
    zswap_lags,
)

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# The member stands second with GET and GET_BITS, else first.
_READ = re.compile(r"\bZS_(GET_BITS|GET|READ|OFFSET)\(&?(\w+)(?:, (\w+)\))?")


def code(name: str) -> str:
    """Return a C file without its comments."""
    return _COMMENT.sub("", bpf_text(name))


def reads() -> set[tuple[str, str]]:
    """Return (macro, member) for every member that the probes name."""
    return {
        (macro, second if macro.startswith("GET") else first)
        for macro, first, second in _READ.findall(code("probes.bpf.c") + code("zs_probe.h"))
    }


def test_every_line_is_understood() -> None:
    """What the parser finds are all lines of the file that are not comment or blank."""
    lines = [line for line in code("zs_layout.h").splitlines() if line.strip()]
    found = [*members(), *walk_members(), *owner_members()]
    assert len(found) == len(lines)
    assert all(f"({m.name}, " in line for m, line in zip(found, lines, strict=True))


def test_names_differ() -> None:
    """No two lines have one name."""
    names = [member.name for member in (*members(), *walk_members(), *owner_members())]
    assert sorted(set(names)) == sorted(names)


def test_the_scanners_members_are_not_the_probes() -> None:
    """Lines that begin with ZS_WALK_ are listed apart: a kernel without them has probes still."""
    walked = {member.name: member for member in walk_members()}
    assert walked["zspage_magic"] == Member("zspage_magic", True, (("zspage", "magic"),))
    assert "zspage_magic" not in {member.name for member in members()}


def test_a_line_has_one_candidate_and_either_has_two() -> None:
    """ZS_EITHER lists two places, the newer first; the others one."""
    found = {member.name: member for member in members()}
    assert found["zspage_first"].candidates == (
        ("zspage", "first_zpdesc"),
        ("zspage", "first_page"),
    )
    assert found["zspage_huge"] == Member("zspage_huge", True, (("zspage", "huge"),))
    assert found["zspage_inuse"] == Member("zspage_inuse", False, (("zspage", "inuse"),))


def test_the_probes_read_what_is_listed_and_nothing_else() -> None:
    """Every member that probes.bpf.c names is in zs_layout.h, and every line there is used."""
    assert {name for _, name in reads()} == {member.name for member in members()}


def test_bit_fields_are_read_as_bit_fields() -> None:
    """ZS_GET_BITS reads exactly the ZS_BITS lines."""
    listed = {member.name for member in members() if member.is_bits}
    assert {name for macro, name in reads() if macro == "GET_BITS"} == listed
    assert not {name for macro, name in reads() if macro != "GET_BITS"} & listed


def one_with(*names: str) -> Btf:
    made = BtfBuilder()
    u64 = made.integer("u64", 8)
    made.struct("thing", 64, [(name, u64, 64 * at) for at, name in enumerate(names)])
    return made.build()


EITHER = Member("thing_x", False, (("thing", "newer"), ("thing", "older")))


@pytest.mark.parametrize(
    ("names", "place"),
    [
        (("older", "newer"), Place(64, 64)),
        (("other", "older"), Place(64, 64)),
        (("newer",), Place(0, 64)),
        (("other",), None),
    ],
)
def test_either_takes_the_newer_if_there(names: tuple[str, ...], place: Place | None) -> None:
    """With both candidates the newer is taken, with one that one, with none nothing."""
    assert resolve(one_with(*names), EITHER) == place


@pytest.mark.parametrize("descriptor", ["zpdesc", "page"])
def test_every_member_has_a_place_in_old_and_new_kernels(descriptor: str) -> None:
    """All lines resolve with struct zpdesc and without it."""
    btf = make_btf((), descriptor=descriptor)
    assert [member.name for member in members() if resolve(btf, member) is None] == []


def test_constants_of_a_whole_member() -> None:
    """A member becomes byte offset and unsigned type; a structure is read by its first word."""
    member = Member("x", False, ())
    assert constants(member, Place(96, 32)) == {"ZS_OFF_x": "12", "ZS_TYPE_x": "u32"}
    assert constants(member, Place(8, 8)) == {"ZS_OFF_x": "1", "ZS_TYPE_x": "u8"}
    assert constants(member, Place(192, 128)) == {"ZS_OFF_x": "24", "ZS_TYPE_x": "u64"}


def test_constants_of_a_bit_field() -> None:
    """A bit-field becomes the byte offset of its 32-bit word, a shift in it and a mask."""
    member = Member("x", True, ())
    wanted = {"ZS_OFF_x": "4", "ZS_SHIFT_x": "5", "ZS_MASK_x": str(0x1FF)}
    assert constants(member, Place(37, 9)) == wanted


def test_pages_of_one_value_show_in_zswaps_entries() -> None:
    """Where an entry can hold a value, pages can be stored without an object."""

    def kernel(*members: str) -> Btf:
        made = BtfBuilder()
        word = made.integer("unsigned long", 8)
        made.struct("zswap_entry", 16, [(name, word, 64) for name in members])
        return made.build()

    assert stores_every_page(kernel("handle"))
    assert not stores_every_page(kernel("handle", "value"))


def test_zswap_lags_where_nothing_reckons_its_pages() -> None:
    """By the function that meminfo asks, not by a version."""

    def kernel(*functions: str) -> Btf:
        made = BtfBuilder()
        for function in functions:
            made.function(function)
        return made.build()

    assert zswap_lags(kernel("zs_malloc"))
    assert not zswap_lags(kernel("zs_malloc", "zswap_total_pages"))
