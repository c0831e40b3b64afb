"""What must hold of zsmalloc's descriptors, checked on a dump of them.

Each invariant has three answers for each zspage, descriptor or class: it holds,
it is broken (a :class:`Finding`), or it could not be checked, with the reason.
A scan takes no lock: on a pool that is in use a zspage can change between two
reads. What is really broken stays so: see :meth:`Findings.lasting`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zpobs.descriptors import UNTOLD, Bools, DescriptorDump, Ints
from zpobs.kernel.pageflags import PageFlags
from zpobs.snapshot import Kernel

MAGIC = 0x58
# Findings that are told one by one, for each invariant; all are counted.
FINDINGS_MAX = 1000

_NO_CLASS = "its size class was not told"
_TORN = "it was not what its list says"
_OVERFULL = "it says that it holds more objects than fit"


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where an invariant is broken.

    ``zspage`` is an address, None where the class itself is wrong; ``page``
    counts the pages of the zspage, None where it is about the zspage.
    ``settled``: the class's statistics did not change during the walk.
    """

    invariant: str
    pool: str
    class_index: int
    zspage: int | None
    page: int | None
    found: str
    expected: str
    settled: bool

    def to_json(self) -> dict[str, Any]:
        """Return the finding as an object; the class is null if it is not known."""
        return {
            "invariant": self.invariant,
            "pool": self.pool,
            "class": None if self.class_index == UNTOLD else self.class_index,
            "zspage": None if self.zspage is None else f"{self.zspage:#x}",
            "page": self.page,
            "found": self.found,
            "expected": self.expected,
            "settled": self.settled,
        }

    def __str__(self) -> str:
        place = self.pool
        if self.class_index != UNTOLD:
            place += f" class {self.class_index}"
        if self.zspage is not None:
            place += f" zspage {self.zspage:#x}"
        if self.page is not None:
            place += f" page {self.page}"
        doubt = "" if self.settled else " (the class changed meanwhile)"
        return f"{place}: {self.invariant}: found {self.found}, expected {self.expected}{doubt}"


@dataclass(frozen=True, slots=True)
class Check:
    """How far one invariant was checked: counts of ``unit``, by answer.

    ``checked`` counts those that were checked, ``broken`` those of them that
    were found broken, ``unchecked`` the others, by reason.
    """

    invariant: str
    unit: Literal["class", "zspage", "descriptor"]
    checked: int
    broken: int
    unchecked: tuple[tuple[str, int], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the counts as an object."""
        return {
            "invariant": self.invariant,
            "unit": self.unit,
            "checked": self.checked,
            "broken": self.broken,
            "unchecked": dict(self.unchecked),
        }


@dataclass(frozen=True, slots=True)
class Findings:
    """The answers of all invariants for one pool."""

    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]

    def lasting(self, earlier: Findings) -> tuple[Finding, ...]:
        """Return the findings that an earlier scan's findings held too: no effect of a walk."""
        known = {_place(finding) for finding in earlier.findings}
        return tuple(finding for finding in self.findings if _place(finding) in known)


def _place(finding: Finding) -> tuple[Any, ...]:
    return (
        finding.invariant,
        finding.pool,
        finding.class_index,
        finding.zspage,
        finding.page,
        finding.found,
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    """One invariant's answers: masks over the rows of its unit.

    ``unchecked`` names masks of rows that cannot be checked; the first that
    fits a row tells its reason. ``told`` gives what was found and what was
    expected of a broken row.
    """

    invariant: str
    unit: Literal["class", "zspage", "descriptor"]
    broken: Bools
    told: Callable[[int], tuple[str, str]]
    unchecked: tuple[tuple[str, Bools], ...] = ()


class _Case:
    """A dump with what several invariants need of it, by zspage and by descriptor."""

    def __init__(self, dump: DescriptorDump, kernel: Kernel, flags: PageFlags) -> None:
        self.classes, self.zspages, self.descriptors = dump.classes, dump.zspages, dump.descriptors
        self.kernel, self.flags = kernel, flags
        row = self.zspages.class_row
        self.classless = row == UNTOLD
        self.size = _by_class(self.classes.size, row)
        self.objs = _by_class(self.classes.objs_per_zspage, row)
        self.pages = _by_class(self.classes.pages_per_zspage, row)
        # Huge by the class: one object that fills the one page.
        self.single = (self.objs == 1) & (self.pages == 1)
        self.overfull = self.zspages.inuse > self.objs
        self.settled = _by_class(self.classes.unchanged.astype(np.int64), row) > 0
        owner = self.descriptors.zspage
        self.d_classless = self.classless[owner]
        self.d_pages = self.pages[owner]
        self.d_size = self.size[owner]

    def none(self) -> Bools:
        return np.zeros(len(self.zspages.address), dtype=bool)


def _by_class(column: Ints, row: Ints) -> Ints:
    """Spread a class's column over its zspages, 0 for those without a class."""
    if not len(column):
        return np.zeros(len(row), dtype=np.int64)
    return np.where(row == UNTOLD, 0, column[row])


def _magic(case: _Case) -> _Answer:
    magic, torn = case.zspages.magic, case.zspages.torn
    # A zspage that cannot be read, or whose list leads in circles, is told as zeros.
    unread = torn & (magic == 0) & (case.zspages.first == 0)
    return _Answer(
        "magic",
        "zspage",
        magic != MAGIC,
        lambda row: (f"{int(magic[row]):#x}", f"{MAGIC:#x}"),
        (("it was not read", unread),),
    )


def _class_table(case: _Case) -> _Answer:
    """Check that objects are as many as fit the pages, and these no more than a chain can have."""
    classes, kernel = case.classes, case.kernel
    fit = classes.pages_per_zspage * kernel.page_size // np.maximum(classes.size, 1)
    longest = kernel.chain_size or np.iinfo(np.int64).max
    pages = classes.pages_per_zspage

    def told(row: int) -> tuple[str, str]:
        found = f"{int(classes.objs_per_zspage[row])} objects of {int(classes.size[row])} bytes"
        if not 1 <= pages[row] <= longest:
            return f"{int(pages[row])} pages", f"1 to {longest}"
        return f"{found} in {int(pages[row])} pages", f"{int(fit[row])} objects"

    broken = (classes.objs_per_zspage != fit) | (pages < 1) | (pages > longest)
    return _Answer("class_table", "class", broken, told)


def _geometry(case: _Case) -> _Answer:
    zspages = case.zspages

    def told(row: int) -> tuple[str, str]:
        if case.overfull[row]:
            return f"{int(zspages.inuse[row])} objects", f"at most {int(case.objs[row])}"
        words = ("not marked huge", "marked huge")
        return words[int(zspages.huge[row])], words[int(case.single[row])]

    return _Answer(
        "geometry",
        "zspage",
        case.overfull | (zspages.huge != case.single),
        told,
        ((_TORN, zspages.torn), (_NO_CLASS, case.classless)),
    )


def _chain_length(case: _Case) -> _Answer:
    """Check that every descriptor but the last leads on; a huge zspage's holds a handle."""
    zspages, descriptors = case.zspages, case.descriptors
    ends = descriptors.next_or_handle == 0
    counts = np.diff(zspages.descriptor_start)
    last = descriptors.page == case.d_pages - 1
    wrong = (ends != last) & ~case.single[descriptors.zspage]
    broken = counts != case.pages
    broken[descriptors.zspage[wrong]] = True

    def told(row: int) -> tuple[str, str]:
        begin, end = zspages.descriptor_start[row : row + 2].tolist()
        ended = np.flatnonzero(ends[begin:end])
        pages = int(case.pages[row])
        length = f"{int(ended[0]) + 1}" if len(ended) else f"more than {end - begin}"
        return (f"{end - begin}" if case.single[row] else length), f"{pages}"

    return _Answer(
        "chain_length",
        "zspage",
        broken,
        told,
        (
            (_TORN, zspages.torn),
            (_NO_CLASS, case.classless),
            ("its descriptors were not told", counts == 0),
        ),
    )


def _back_pointer(case: _Case) -> _Answer:
    descriptors = case.descriptors
    owner = case.zspages.address[descriptors.zspage]
    return _Answer(
        "back_pointer",
        "descriptor",
        descriptors.back != owner,
        lambda row: (f"{int(descriptors.back[row]):#x}", f"{int(owner[row]):#x}"),
    )


def _page_type(case: _Case) -> _Answer:
    kind, wanted = case.descriptors.page_type, case.flags.page_type
    unmarked = np.full(len(kind), wanted is None)
    return _Answer(
        "page_type",
        "descriptor",
        kind != (UNTOLD if wanted is None else wanted),
        lambda row: (f"{int(kind[row]):#x}", f"{wanted or 0:#x}"),
        (("this kernel marks no page type for zsmalloc", unmarked),),
    )


def _first_obj_offset(case: _Case) -> _Answer:
    """Reckon where the first object that begins on a page begins: objects stand end to end."""
    descriptors, page_size = case.descriptors, case.kernel.page_size
    size = np.maximum(case.d_size, 1)
    wanted = -(descriptors.page * page_size) % size
    offset = descriptors.first_obj_offset
    # Between kernels without a page type and those with one some used other bits of the word.
    foreign = case.flags.page_type is None and bool(len(offset)) and bool((offset >> 16).all())
    return _Answer(
        "first_obj_offset",
        "descriptor",
        offset != wanted,
        lambda row: (f"{int(offset[row])}", f"{int(wanted[row])}"),
        (
            (_NO_CLASS, case.d_classless),
            ("this kernel's word for it has an unknown form", np.full(len(offset), foreign)),
        ),
    )


def _first_page(case: _Case) -> _Answer:
    descriptors, mask = case.descriptors, case.flags.mask("private")
    marked = descriptors.flags & np.uint64(mask) != 0
    first = descriptors.page == 0
    words = ("not marked as first page", "marked as first page")
    return _Answer(
        "first_page",
        "descriptor",
        marked != first,
        lambda row: (words[int(marked[row])], words[int(first[row])]),
        (("this kernel has no flag for first pages", np.full(len(marked), not mask)),),
    )


def _free_list(case: _Case) -> _Answer:
    zspages = case.zspages
    wanted = case.objs - zspages.inuse
    unwalked = zspages.free_list == UNTOLD
    huge = zspages.huge | case.single
    # Where some lists could be walked memory can be read: the others are broken.
    unreadable = unwalked & ~(~zspages.torn & ~huge & ~unwalked).any()

    def told(row: int) -> tuple[str, str]:
        found = f"{int(zspages.free_list[row])} free objects"
        if unwalked[row]:
            found = "a free list that leads to no free object"
        return found, f"{int(wanted[row])}"

    return _Answer(
        "free_list",
        "zspage",
        zspages.free_list != wanted,
        told,
        (
            (_TORN, zspages.torn),
            (_NO_CLASS, case.classless),
            ("huge zspages have no free list", huge),
            (_OVERFULL, case.overfull),
            ("no free list of the pool could be read", unreadable),
        ),
    )


def _fullness(case: _Case) -> _Answer:
    zspages, groups = case.zspages, case.kernel.fullness_groups
    wanted = implied_group(zspages.inuse, case.objs, groups)
    other = case.none() if wanted is not None else ~case.none()
    expected = zspages.inuse if wanted is None else wanted

    def told(row: int) -> tuple[str, str]:
        share = f"{int(zspages.inuse[row])} of {int(case.objs[row])} objects"
        return f"group {int(zspages.fullness[row])}", f"group {int(expected[row])} for {share}"

    return _Answer(
        "fullness",
        "zspage",
        zspages.fullness != expected,
        told,
        (
            (_TORN, zspages.torn),
            (_NO_CLASS, case.classless),
            (_OVERFULL, case.overfull),
            (f"what {groups} fullness groups stand for is not known", other),
        ),
    )


def implied_group(inuse: Ints, objs_per_zspage: Ints, groups: int) -> Ints | None:
    """Return the fullness group of zspages that hold so many objects.

    None if it is not known what this number of groups stands for.
    """
    objs = np.maximum(objs_per_zspage, 1)
    if groups == 12:
        partly = 100 * inuse // objs // 10 + 1
        full = 11
    elif groups == 4:
        partly = np.where(inuse <= 3 * objs // 4, 1, 2)
        full = 3
    else:
        return None
    group: Ints = np.where(inuse == 0, 0, np.where(inuse == objs_per_zspage, full, partly))
    return group


def _membership(case: _Case) -> _Answer:
    """Check that each is on the list of its class and group, and on no other."""
    zspages = case.zspages
    # One that is met where a list breaks and on another as well is told once, by the break.
    whole = np.flatnonzero(~zspages.torn)
    order = whole[np.argsort(zspages.address[whole], kind="stable")]
    again = case.none()
    again[order[1:]] = zspages.address[order[1:]] == zspages.address[order[:-1]]

    def told(row: int) -> tuple[str, str]:
        mine = f"the list of group {int(zspages.list_group[row])}"
        if zspages.foreign[row]:
            return f"in {mine}, a zspage of another pool", "one of this pool"
        if zspages.back_broken[row]:
            return f"in {mine}, another list node before it", "the one that led to it"
        if zspages.fullness[row] != zspages.list_group[row]:
            return f"in {mine}", f"in that of group {int(zspages.fullness[row])}, as it says"
        if again[row]:
            others = np.flatnonzero(zspages.address == zspages.address[row])
            other = int(others[others != row][0])
            where = f"class {int(zspages.class_index[other])} group {zspages.list_group[other]}"
            return f"in {mine}, and in that of {where}", "in one list"
        return f"in {mine}, which cannot be followed from there", "a zspage of this class"

    broken = zspages.torn | zspages.back_broken | zspages.foreign | again
    return _Answer("membership", "zspage", broken, told)


_INVARIANTS: tuple[Callable[[_Case], _Answer], ...] = (
    _magic,
    _class_table,
    _geometry,
    _chain_length,
    _back_pointer,
    _page_type,
    _first_obj_offset,
    _first_page,
    _free_list,
    _fullness,
    _membership,
)


def check(dump: DescriptorDump, kernel: Kernel, flags: PageFlags, *, pool: str) -> Findings:
    """Check every invariant on every zspage, descriptor and class of one pool's dump."""
    case = _Case(dump, kernel, flags)
    checks: list[Check] = []
    findings: list[Finding] = []
    for invariant in _INVARIANTS:
        answer = invariant(case)
        left = np.ones(len(answer.broken), dtype=bool)
        unchecked = []
        for reason, mask in answer.unchecked:
            count = int((left & mask).sum())
            if count:
                unchecked.append((reason, count))
            left &= ~mask
        broken = np.flatnonzero(left & answer.broken)
        checks.append(
            Check(answer.invariant, answer.unit, int(left.sum()), len(broken), tuple(unchecked))
        )
        findings += _told(case, answer, broken[:FINDINGS_MAX], pool)
    return Findings(tuple(checks), tuple(findings))


def _told(case: _Case, answer: _Answer, rows: Ints, pool: str) -> Iterator[Finding]:
    for row in rows.tolist():
        found, expected = answer.told(row)
        zspage = page = None
        if answer.unit == "class":
            index, settled = int(case.classes.index[row]), bool(case.classes.unchanged[row])
        else:
            at = row
            if answer.unit == "descriptor":
                at = int(case.descriptors.zspage[row])
                page = int(case.descriptors.page[row])
            zspage = int(case.zspages.address[at])
            index, settled = int(case.zspages.class_index[at]), bool(case.settled[at])
        yield Finding(answer.invariant, pool, index, zspage, page, found, expected, settled)
