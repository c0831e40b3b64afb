"""Invariants: none is broken in healthy dumps, and each planted error is found, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import KERNEL
from tests.scan_records import (
    CLASSES,
    FLAGS,
    UNMARKED,
    ScanRecords,
    addresses,
    find,
    group_of,
    healthy,
)
from zpobs import wire
from zpobs.descriptors import UNTOLD, descriptor_dump
from zpobs.invariants import FINDINGS_MAX, Check, Finding, Findings, check, implied_group
from zpobs.kernel.pageflags import PageFlags
from zpobs.snapshot import Kernel
from zpobs.wire import Words


def judged(words: Words, *, kernel: Kernel = KERNEL, flags: PageFlags = FLAGS) -> Findings:
    return check(descriptor_dump(words, flags), kernel, flags, pool="zram0")


def counts(findings: Findings, invariant: str) -> Check:
    (found,) = [each for each in findings.checks if each.invariant == invariant]
    return found


def test_nothing_is_broken_in_a_healthy_pool() -> None:
    """A pool as the kernel keeps it has no finding, and everything that can be is checked."""
    findings = judged(healthy())
    assert findings.findings == ()
    answers = {each.invariant: (each.unit, each.checked, each.broken) for each in findings.checks}
    assert answers == {
        "magic": ("zspage", 10, 0),
        "class_table": ("class", 4, 0),
        "geometry": ("zspage", 10, 0),
        "chain_length": ("zspage", 10, 0),
        "back_pointer": ("descriptor", 22, 0),
        "page_type": ("descriptor", 22, 0),
        "first_obj_offset": ("descriptor", 22, 0),
        "first_page": ("descriptor", 22, 0),
        "free_list": ("zspage", 8, 0),
        "fullness": ("zspage", 10, 0),
        "membership": ("zspage", 10, 0),
    }
    assert counts(findings, "free_list").unchecked == (("huge zspages have no free list", 2),)
    assert [each.invariant for each in findings.checks if each.unchecked] == ["free_list"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), max_size=30))
@pytest.mark.parametrize("groups", [12, 4])
def test_no_healthy_pool_has_findings(groups: int, drawn: list[tuple[int, int]]) -> None:
    """Whatever a pool holds, with twelve groups and with four, no invariant is broken."""
    zspages = [(row, min(inuse, CLASSES[row].objs)) for row, inuse in drawn]
    kernel = replace(KERNEL, fullness_groups=groups)
    findings = judged(healthy(zspages, groups=groups), kernel=kernel)
    assert findings.findings == ()
    assert counts(findings, "fullness").checked == len(zspages)


STATE, LINKS, DESCRIPTOR = wire.KIND_STATE, wire.DETAIL_LINKS, wire.DETAIL_DESCRIPTOR
BEGIN, END = wire.KIND_SCAN_BEGIN, wire.KIND_SCAN_END


def spoil(kind: int, number: int, word: int, value: Callable[[int], int]) -> Words:
    """Return a healthy pool's records with one word of one record changed."""
    words = healthy()
    row = find(words, kind, number)
    words[row, word] = value(int(words[row, word])) % 2**64
    return words


def low_half(value: int) -> Callable[[int], int]:
    return lambda word: word & ~0xFFFFFFFF | value


def inuse_of(row: int, inuse: int) -> Words:
    """Return a pool in which a zspage's inuse is wrong, and its group as that implies."""
    words = spoil(STATE, row, 3, low_half(inuse))
    for kind in (STATE, LINKS):
        at = find(words, kind, row)
        words[at, 0] = int(words[at, 0]) & ~0xFF0000 | 11 << 16
    words[find(words, LINKS, row), 6] = 11
    return words


# What is planted -> the records, and the finding that must come, alone. Zspages of healthy():
# rows 0 to 2 have one page each, 3 to 5 three, 6 and 7 four, 8 and 9 are huge; so descriptor 4
# is page 1 of zspage 3.
PLANTED: dict[str, tuple[Callable[[], Words], str, int, int, int | None, str, str]] = {
    "magic": (
        lambda: spoil(LINKS, 4, 3, lambda word: word ^ 1),
        *("magic", 107, 4, None, "0x59", "0x58"),
    ),
    "more objects than fit": (
        lambda: inuse_of(5, 8),
        *("geometry", 107, 5, None, "8 objects", "at most 7"),
    ),
    "huge without the mark": (
        lambda: spoil(STATE, 8, 0, lambda word: word & ~(wire.FLAG_HUGE << 8)),
        *("geometry", 254, 8, None, "not marked huge", "marked huge"),
    ),
    "the mark of huge on another": (
        lambda: spoil(STATE, 1, 0, lambda word: word | wire.FLAG_HUGE << 8),
        *("geometry", 62, 1, None, "marked huge", "not marked huge"),
    ),
    "chain too short": (
        lambda: spoil(DESCRIPTOR, 4, 5, lambda _: 0),
        *("chain_length", 107, 3, None, "2", "3"),
    ),
    "chain too long": (
        lambda: spoil(DESCRIPTOR, 5, 5, lambda _: 0xFFFFEA0000000040),
        *("chain_length", 107, 3, None, "more than 3", "3"),
    ),
    "one page and a next": (
        lambda: spoil(DESCRIPTOR, 0, 5, lambda _: 0xFFFFEA0000000040),
        *("chain_length", 62, 0, None, "more than 1", "1"),
    ),
    "back-pointer to another": (
        lambda: spoil(DESCRIPTOR, 4, 1, lambda _: 0xFFFF888001000008),
        *("back_pointer", 107, 3, 1, "0xffff888001000008", f"{addresses(4)[3]:#x}"),
    ),
    "back-pointer to nothing": (
        lambda: spoil(DESCRIPTOR, 4, 1, lambda _: 0),
        *("back_pointer", 107, 3, 1, "0x0", f"{addresses(4)[3]:#x}"),
    ),
    "type of another kind of page": (
        lambda: spoil(DESCRIPTOR, 4, 6, lambda word: word ^ 0xF6000000 ^ 0xF0000000),
        *("page_type", 107, 3, 1, "0xf0", "0xf6"),
    ),
    "first object elsewhere": (
        lambda: spoil(DESCRIPTOR, 4, 6, lambda word: word + 16),
        *("first_obj_offset", 107, 3, 1, "1152", "1136"),
    ),
    "first page without its mark": (
        lambda: spoil(DESCRIPTOR, 3, 4, lambda word: word ^ FLAGS.mask("private")),
        *("first_page", 107, 3, 0, "not marked as first page", "marked as first page"),
    ),
    "a later page with the first's mark": (
        lambda: spoil(DESCRIPTOR, 5, 4, lambda word: word | FLAGS.mask("private")),
        *("first_page", 107, 3, 2, "marked as first page", "not marked as first page"),
    ),
    "free list too long": (
        lambda: spoil(LINKS, 4, 5, lambda word: word + 1),
        *("free_list", 107, 4, None, "2 free objects", "1"),
    ),
    "free list too short": (
        lambda: spoil(LINKS, 0, 5, lambda word: word - 1),
        *("free_list", 62, 0, None, "3 free objects", "4"),
    ),
    "free list of a full zspage": (
        lambda: spoil(LINKS, 5, 5, lambda word: word + 1),
        *("free_list", 107, 5, None, "1 free objects", "0"),
    ),
    "free list that leads astray": (
        lambda: spoil(LINKS, 4, 5, lambda _: wire.UNKNOWN),
        *("free_list", 107, 4, None, "a free list that leads to no free object", "1"),
    ),
    "another zspage of a pool": (
        lambda: spoil(LINKS, 4, 6, lambda word: word | wire.LINK_FOREIGN << 8),
        *("membership", 107, 4, None, "in the list of group 9, a zspage of another pool"),
        "one of this pool",
    ),
    "a list node that does not lead back": (
        lambda: spoil(LINKS, 4, 6, lambda word: word | wire.LINK_BACK_BROKEN << 8),
        *("membership", 107, 4, None, "in the list of group 9, another list node before it"),
        "the one that led to it",
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_error_is_found_and_nothing_else(planted: str) -> None:
    """One wrong word gives one finding that names the place, what is there and what should be."""
    words, invariant, index, row, page, found, expected = PLANTED[planted]
    findings = judged(words())
    address = addresses(10)[row]
    assert findings.findings == (
        Finding(invariant, "zram0", index, address, page, found, expected, settled=True),
    )
    assert {each.invariant: each.broken for each in findings.checks if each.broken} == {
        invariant: 1
    }


def test_a_wrong_group_is_found() -> None:
    """A zspage in a group that its inuse does not imply is told with what it holds."""
    made = ScanRecords()
    made.begin(CLASSES[1], 7, 3)
    made.zspage(0x1000, CLASSES[1], 3, group=6)
    made.end(CLASSES[1], 7, 3)
    (finding,) = judged(made.words).findings
    assert (finding.invariant, finding.found) == ("fullness", "group 6")
    assert finding.expected == "group 5 for 3 of 7 objects"


@pytest.mark.parametrize(
    ("geometry", "found", "expected"),
    [
        (1744 | 6 << 32 | 3 << 48, "6 objects of 1744 bytes in 3 pages", "7 objects"),
        (4096 | 9 << 32 | 9 << 48, "9 pages", "1 to 8"),
        (1744, "0 pages", "1 to 8"),
    ],
)
def test_a_wrong_class_is_found(geometry: int, found: str, expected: str) -> None:
    """A class whose objects do not fit its pages, or with too long chains, is told by index."""
    findings = judged(spoil(BEGIN, 1, 4, lambda _: geometry)).findings
    (mine,) = [each for each in findings if each.invariant == "class_table"]
    assert (mine.class_index, mine.zspage, mine.page) == (107, None, None)
    assert (mine.found, mine.expected) == (found, expected)


def test_chains_of_any_length_are_well_where_the_longest_is_not_known() -> None:
    """Without the kernel's chain size only the number of objects can be judged."""
    words = spoil(BEGIN, 1, 4, lambda _: 4096 | 9 << 32 | 9 << 48)
    findings = judged(words, kernel=replace(KERNEL, chain_size=0)).findings
    assert "class_table" not in {each.invariant for each in findings}


def test_a_zspage_on_two_lists_is_found_once() -> None:
    """Membership in two lists is one finding, which names both."""
    made = ScanRecords()
    made.begin(CLASSES[1], 14, 6)
    made.zspage(0x1000, CLASSES[1], 3)
    made.end(CLASSES[1], 14, 6)
    made.begin(CLASSES[2], 5, 2)
    made.zspage(0x1000, CLASSES[2], 2)
    made.end(CLASSES[2], 5, 2)
    (finding,) = judged(made.words).findings
    assert (finding.invariant, finding.class_index, finding.zspage) == ("membership", 202, 0x1000)
    assert finding.found == "in the list of group 5, and in that of class 107 group 5"


def test_a_break_and_another_list_are_one_finding() -> None:
    """A zspage that breaks one list and stands rightly on another is told by the break alone."""
    made = ScanRecords()
    made.begin(CLASSES[1], 14, 6)
    made.torn(0x1000, group=3)
    made.zspage(0x1000, CLASSES[1], 3)
    made.end(CLASSES[1], 14, 6, steady=False)
    (finding,) = judged(made.words).findings
    assert finding.found.startswith("in the list of group 3")


def torn(**how: int) -> Findings:
    made = ScanRecords()
    made.begin(CLASSES[1], 14, 6)
    made.zspage(0x1000, CLASSES[1], 3)
    made.torn(0x2000, group=5, **how)
    made.end(CLASSES[1], 14, 6, steady=False)
    return judged(made.words)


def test_a_torn_list_is_found() -> None:
    """A list that cannot be followed is a finding; what it hides counts as not checked."""
    findings = torn()
    (finding,) = findings.findings
    assert (finding.invariant, finding.zspage) == ("membership", 0x2000)
    assert finding.found == "in the list of group 5, which cannot be followed from there"
    for each in findings.checks:
        skipped = dict(each.unchecked).get("it was not what its list says", 0)
        hidden = {"geometry", "chain_length", "free_list", "fullness"}
        assert skipped == (each.invariant in hidden), each


def test_a_torn_zspage_with_a_wrong_magic_is_told_so() -> None:
    """What stands where a zspage should is told by both invariants that it breaks."""
    assert {each.invariant for each in torn(magic=0x11).findings} == {"magic", "membership"}


def test_a_torn_zspage_that_was_not_read_has_no_wrong_magic() -> None:
    """Zeros where nothing was read are no finding about the magic."""
    made = ScanRecords()
    made.begin(CLASSES[1], 14, 6)
    made.torn(0x2000, group=5, magic=0)
    words = made.words
    words[-1, 4] = 0
    findings = judged(words)
    assert {each.invariant for each in findings.findings} == {"membership"}
    assert counts(findings, "magic").unchecked == (("it was not read", 1),)


def test_a_class_that_changed_leaves_doubt() -> None:
    """A finding of a class whose statistics changed during the walk says so."""
    words = spoil(LINKS, 4, 5, lambda word: word + 1)
    words[find(words, END, 1), 6] += np.uint64(1)
    (finding,) = judged(words).findings
    assert not finding.settled
    assert str(finding).endswith("expected 1 (the class changed meanwhile)")


def test_what_lasts_is_what_two_scans_found() -> None:
    """Of two scans' findings only those remain that both have at the same place."""
    both = spoil(LINKS, 4, 5, lambda word: word + 1)
    later = both.copy()
    later[find(later, LINKS, 3), 5] += np.uint64(1)
    earlier, now = judged(both), judged(later)
    assert len(now.findings) == 2
    assert now.lasting(earlier) == earlier.findings
    assert now.lasting(judged(healthy())) == ()


@pytest.mark.parametrize("value", [0, 1, 2**32 - 1, 0x7FFFFFFF, 7])
def test_the_first_free_object_of_a_full_zspage_means_nothing(value: int) -> None:
    """None of the values that kernels leave in a full zspage's freeobj is a finding."""
    assert judged(spoil(STATE, 5, 3, lambda word: word & 0xFFFFFFFF | value << 32)).findings == ()


def unchecked(findings: Findings, invariant: str) -> tuple[int, dict[str, int]]:
    found = counts(findings, invariant)
    return found.checked, dict(found.unchecked)


def test_without_a_direct_map_no_free_list_is_checked() -> None:
    """Where no list could be walked all are unchecked, none broken."""
    words = healthy()
    words[wire.kinds(words) == LINKS, 5] = wire.UNKNOWN
    findings = judged(words)
    assert findings.findings == ()
    assert unchecked(findings, "free_list") == (
        0,
        {"huge zspages have no free list": 2, "no free list of the pool could be read": 8},
    )


def test_without_a_page_type_it_is_not_checked() -> None:
    """A kernel that marks no type leaves that unchecked, and offsets are still checked."""
    findings = judged(healthy(page_type=0), flags=UNMARKED)
    assert findings.findings == ()
    assert unchecked(findings, "page_type") == (
        0,
        {"this kernel marks no page type for zsmalloc": 22},
    )
    assert counts(findings, "first_obj_offset").checked == 22
    wrong = healthy(page_type=0)
    wrong[find(wrong, DESCRIPTOR, 4), 6] += np.uint64(16)
    assert len(judged(wrong, flags=UNMARKED).findings) == 1


def test_an_offset_of_unknown_form_is_not_checked() -> None:
    """Where every offset has bits that no offset can have the word's form is not known."""
    findings = judged(healthy(page_type=0xFB), flags=UNMARKED)
    assert findings.findings == ()
    assert counts(findings, "first_obj_offset").checked == 0


def test_without_the_flag_first_pages_are_not_checked() -> None:
    """A kernel without that flag leaves the invariant unchecked."""
    flags = PageFlags({}, {}, 24, 0xF6)
    findings = judged(healthy(), flags=flags)
    assert findings.findings == ()
    assert counts(findings, "first_page").checked == 0


def test_other_numbers_of_groups_are_not_checked() -> None:
    """What no known kernel has is not judged by a formula of another."""
    findings = judged(healthy(), kernel=replace(KERNEL, fullness_groups=20))
    assert findings.findings == ()
    assert counts(findings, "fullness").checked == 0


def test_without_its_class_a_zspage_is_hardly_checked() -> None:
    """What depends on the class's geometry is unchecked, the rest is not."""
    made = ScanRecords()
    made.zspage(0x1000, CLASSES[1], 3)
    findings = judged(made.words)
    assert findings.findings == ()
    told = {each.invariant: each.checked for each in findings.checks}
    assert told["geometry"] == told["chain_length"] == told["free_list"] == told["fullness"] == 0
    assert told["magic"] == told["membership"] == 1
    assert told["back_pointer"] == told["first_page"] == 3


def test_a_zspage_without_descriptors_is_not_checked() -> None:
    """Descriptors that were not told are no chain of length nought."""
    words = healthy()
    words = np.delete(words, find(words, DESCRIPTOR), axis=0)
    findings = judged(words)
    assert findings.findings == ()
    assert dict(counts(findings, "chain_length").unchecked) == {"its descriptors were not told": 1}


def test_an_empty_dump_is_well() -> None:
    """Nothing scanned: nothing checked, nothing broken."""
    findings = judged(healthy()[:0])
    assert findings.findings == ()
    assert {each.checked for each in findings.checks} == {0}


def test_many_findings_are_counted_and_some_told() -> None:
    """Of more findings than can be told all are counted."""
    words = healthy([(0, 1)] * (FINDINGS_MAX + 5))
    words[wire.kinds(words) == LINKS, 3] = 0x59
    findings = judged(words)
    assert len(findings.findings) == FINDINGS_MAX
    assert counts(findings, "magic").broken == FINDINGS_MAX + 5


@pytest.mark.parametrize("groups", [12, 4])
@pytest.mark.parametrize("objs", [1, 2, 3, 5, 7, 10, 128, 255])
def test_the_group_is_the_kernels(groups: int, objs: int) -> None:
    """Every number of objects gives the group that the kernel's own steps give."""
    inuse = np.arange(objs + 1)
    found = implied_group(inuse, np.full(objs + 1, objs), groups)
    assert found is not None
    assert found.tolist() == [group_of(each, objs, groups) for each in inuse.tolist()]


def test_findings_have_a_line_and_an_object() -> None:
    """A finding names invariant, pool, class, zspage and page, in words and in JSON."""
    (finding,) = judged(spoil(DESCRIPTOR, 4, 6, lambda word: word + 16)).findings
    where = f"{addresses(4)[3]:#x}"
    assert str(finding) == (
        f"zram0 class 107 zspage {where} page 1: first_obj_offset: found 1152, expected 1136"
    )
    assert finding.to_json() == {
        "invariant": "first_obj_offset",
        "pool": "zram0",
        "class": 107,
        "zspage": where,
        "page": 1,
        "found": "1152",
        "expected": "1136",
        "settled": True,
    }
    bare = replace(finding, class_index=UNTOLD, zspage=None, page=None)
    assert str(bare).startswith("zram0: first_obj_offset")
    assert (bare.to_json()["class"], bare.to_json()["zspage"]) == (None, None)
    assert counts(judged(healthy()), "free_list").to_json() == {
        "invariant": "free_list",
        "unit": "zspage",
        "checked": 8,
        "broken": 0,
        "unchecked": {"huge zspages have no free list": 2},
    }
