"""Where bytes go: the parts always sum to what is held, and hold what was really asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import KERNEL, ClassLine, ints, make_classes, make_pool
from zpobs.snapshot import ClassTable, OwnerFigures, PoolView
from zpobs.waste import Range, Waste, class_waste, class_wasted_least, pool_waste

PAGE = 4096
# size, objects, pages: classes of a kernel whose chains have up to 4 pages, the last one huge.
SHAPES = (
    (32, 128, 1),
    (48, 85, 1),
    (512, 8, 1),
    (1024, 4, 1),
    (1744, 7, 3),
    (3264, 5, 4),
    (4096, 1, 1),
)
counts = st.integers(0, 2000)


@st.composite
def any_tables(draw: st.DrawFn) -> ClassTable:
    """Tables that no kernel has among them, and such as were read while they changed."""
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, PAGE), st.integers(0, 130), st.integers(0, 16), counts, counts)
        )
    )
    classes = make_classes(
        [(at, *row) for at, row in enumerate(rows)], fullness=np.zeros((len(rows), 12))
    )
    below = draw(st.lists(st.integers(-1, PAGE), min_size=len(rows), max_size=len(rows)))
    return replace(classes, size_below=ints(below))


figures = st.none() | st.builds(
    OwnerFigures,
    requested_bytes=st.none() | st.integers(0, 10**8),
    objects=st.none() | counts,
    steady=st.booleans(),
)


def assert_sums(waste: Waste) -> None:
    """Every part is there, none is negative, and they sum to the pages, and to the total."""
    rest = (waste.headers, waste.tail, waste.free_slots)
    assert min(rest) >= 0
    if waste.requested is None or waste.rounding is None:
        assert waste.requested is waste.rounding is waste.wasted is None
        assert sum(rest) <= waste.pages
    else:
        assert 0 <= waste.requested.low <= waste.requested.high
        assert 0 <= waste.rounding.low <= waste.rounding.high
        assert waste.requested.low + waste.rounding.high + sum(rest) == waste.pages
        assert waste.requested.high + waste.rounding.low + sum(rest) == waste.pages
        whole = waste.pages if waste.total is None else waste.total
        assert waste.wasted == Range(whole - waste.requested.high, whole - waste.requested.low)
    if waste.descriptors is not None:
        assert waste.total == waste.pages + waste.descriptors


@given(any_tables(), figures, st.sampled_from([0, 56]))
def test_the_parts_sum_to_the_pages(
    classes: ClassTable, owner: OwnerFigures | None, zspage_bytes: int
) -> None:
    """Whatever the figures and whatever the owner says."""
    kernel = replace(KERNEL, zspage_bytes=zspage_bytes)
    pool = make_pool(classes=classes, owner_figures=owner)
    whole, rows = pool_waste(pool, kernel), class_waste(classes, kernel)
    for each in (whole, *rows):
        assert_sums(each)
        assert (each.total is None) == (zspage_bytes == 0)
    assert whole.pages == pool.pages * PAGE
    for name in ("headers", "tail", "free_slots", "pages"):
        assert getattr(whole, name) == sum(getattr(row, name) for row in rows)
    least = class_wasted_least(classes, kernel).tolist()
    assert least == [row.headers + row.tail + row.free_slots for row in rows]


def class_of(request: int) -> int:
    """Return the place of the class that the kernel takes for a request."""
    return min(sum(size < request + 8 for size, _, _ in SHAPES), len(SHAPES) - 1)


def pool_of(requests: Sequence[int], spare: Sequence[int]) -> tuple[PoolView, list[list[int]]]:
    """Return a pool with objects of these sizes and ``spare`` zspages, and the sizes by class."""
    held: list[list[int]] = [[] for _ in SHAPES]
    for request in requests:
        held[class_of(request)].append(request)
    lines: list[ClassLine] = [
        (at, size, objs, pages, -(-len(held[at]) // objs) + spare[at], len(held[at]))
        for at, (size, objs, pages) in enumerate(SHAPES)
    ]
    return make_pool(lines=lines), held


requests_made = st.lists(st.integers(1, PAGE), max_size=300)
spares = st.lists(st.integers(0, 3), min_size=len(SHAPES), max_size=len(SHAPES))


@given(requests_made, spares)
def test_what_was_asked_for_is_within_the_bounds(requests: list[int], spare: list[int]) -> None:
    """Of each class, and of the pool; an owner's word is taken as it is."""
    pool, held = pool_of(requests, spare)
    for waste, own in zip(class_waste(pool.classes, KERNEL), held, strict=True):
        assert waste.requested is not None
        assert waste.requested.low <= sum(own) <= waste.requested.high
    owner = OwnerFigures(sum(requests), len(requests), steady=True)
    waste = pool_waste(replace(pool, owner_figures=owner), KERNEL)
    assert waste.requested == Range(sum(requests), sum(requests))
    assert waste.rounding is not None
    assert waste.rounding.exact
    assert_sums(waste)


@pytest.mark.parametrize("place", range(len(SHAPES)))
def test_the_bounds_are_met(place: int) -> None:
    """The smallest and the largest request of each class are its bounds: there are none closer."""
    own = [request for request in range(1, PAGE + 1) if class_of(request) == place]
    for count in (1, 3):
        for requests, bound in (([own[0]] * count, "low"), ([own[-1]] * count, "high")):
            pool, _ = pool_of(requests, [0] * len(SHAPES))
            waste = class_waste(pool.classes, KERNEL)[place]
            assert waste.requested is not None
            assert getattr(waste.requested, bound) == sum(requests)


def test_the_parts_of_one_class() -> None:
    """Counted by hand: 2 zspages of 3 pages with 7 places of 1744 bytes, 9 of them in use."""
    pool = make_pool(lines=[(107, 1744, 7, 3, 2, 9)])
    assert pool_waste(pool, KERNEL) == Waste(
        requested=Range(9, 9 * 1736),
        rounding=Range(0, 9 * 1735),
        headers=72,
        tail=2 * (3 * PAGE - 7 * 1744),
        free_slots=5 * 1744,
        descriptors=2 * 56 + 72,
        pages=6 * PAGE,
    )


def test_a_huge_object_has_its_page_for_itself() -> None:
    """No handle stands in front of it, and what does not fit elsewhere with its own comes here."""
    (waste,) = class_waste(make_classes([(254, 4096, 1, 1, 5, 4)], size_below=ints([3264])), KERNEL)
    assert waste.requested == Range(4 * 3257, 4 * PAGE)
    assert (waste.headers, waste.tail, waste.free_slots) == (0, 0, PAGE)
    assert waste.descriptors == 5 * 56 + 4 * 8


def test_without_the_class_below_the_least_is_a_byte() -> None:
    """An object has at least one byte, whatever the smaller classes are."""
    classes = make_classes([(107, 1744, 7, 3, 2, 9)], size_below=ints([-1]))
    (waste,) = class_waste(classes, KERNEL)
    assert waste.requested == Range(9, 9 * 1736)


EXACT = OwnerFigures(20_000, 9, steady=True)


@pytest.mark.parametrize(
    ("owner", "status", "believed"),
    [
        (EXACT, "exact", False),
        (replace(EXACT, requested_bytes=15_000), "exact", True),
        (replace(EXACT, requested_bytes=15_000, objects=None), "exact", True),
        (replace(EXACT, requested_bytes=15_000, objects=8), "exact", False),
        (replace(EXACT, requested_bytes=15_000, steady=False), "exact", False),
        (replace(EXACT, requested_bytes=15_000), "bounded", False),
        (replace(EXACT, requested_bytes=15_000), "unknown", False),
        (replace(EXACT, requested_bytes=None), "exact", False),
        (replace(EXACT, requested_bytes=8), "exact", False),
        (None, "exact", False),
    ],
    ids=[
        "more than fits",
        "steady",
        "objects not told",
        "other objects",
        "not steady",
        "bounded figures",
        "unknown figures",
        "nothing told",
        "less than a byte each",
        "nobody asked",
    ],
)
def test_an_owner_is_believed_only_if_all_agrees(
    owner: OwnerFigures | None, status: str, believed: bool
) -> None:
    """Else the class spacing bounds what was asked for."""
    lines = [(107, 1744, 7, 3, 2, 9)]
    pool = make_pool(lines=lines, status=status, owner_figures=owner)  # type: ignore[arg-type]
    expected = Range(15_000, 15_000) if believed else Range(9, 9 * 1736)
    waste = pool_waste(pool, KERNEL)
    assert waste.requested == expected
    told = waste.to_json(status)["requested_status"]
    assert told == ("exact" if believed else "bounded" if status == "exact" else status)


def test_a_class_of_unknown_geometry_makes_it_all_unknown() -> None:
    """Its pages are held for something; the rest of the pool is told as far as it is known."""
    lines = [(62, 1024, 4, 1, 10, 25), (107, 0, 0, 3, 2, 9)]
    pool = make_pool(lines=lines)
    waste = pool_waste(pool, KERNEL)
    assert (waste.requested, waste.rounding, waste.wasted) == (None, None, None)
    assert (waste.pages, waste.headers, waste.free_slots) == (16 * PAGE, 200, 15 * 1024)
    told = waste.to_json("exact")
    assert (told["requested_bytes"], told["rounding_bytes"]) == (None, None)
    assert told["requested_status"] == "unknown"
    # One that holds nothing hides nothing.
    empty = make_pool(lines=[lines[0], (107, 0, 0, 0, 0, 0)])
    assert pool_waste(empty, KERNEL).requested is not None


def test_an_empty_pool_wastes_nothing() -> None:
    """No class, no byte, exactly."""
    pool = make_pool(classes=make_classes([], fullness=np.zeros((0, 12), dtype=np.int64)))
    waste = pool_waste(pool, KERNEL)
    assert (waste.total, waste.requested, waste.wasted) == (0, Range(0, 0), Range(0, 0))
    assert waste.to_json("exact")["requested_status"] == "exact"
    assert waste.to_json("unknown")["requested_status"] == "unknown"
