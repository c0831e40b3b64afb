"""Forecasts of a compaction, held against allocators that compact."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.delivery import as_words
from tests.model.support import KERNEL, SIZES, examples
from tests.true_allocator import Allocator
from tests.true_scanner import TrueScan
from zpobs.compaction import PoolForecast, compacted, forecast
from zpobs.model import Coverage, ShadowModel
from zpobs.views.compaction import compaction_lines


def sparse_pool(seed: int, objects: int, kept: float) -> Allocator:
    """Return a pool of many objects of which some are freed again."""
    chance = random.Random(seed)
    pool = Allocator()
    handles = [pool.malloc(chance.choice(SIZES)) for _ in range(objects)]
    for handle in handles:
        if chance.random() > kept:
            pool.free(handle)
    return pool


def told_of(pool: Allocator, groups: int = KERNEL.fullness_groups) -> PoolForecast:
    words = as_words(TrueScan(pool).run())
    model = ShadowModel(KERNEL, Coverage(hooks=0))
    model.apply(words)
    (view,) = model.snapshot(time_ns=10**12, mono_ns=10**12).pools
    return forecast(words, view.classes, groups, view.status)


@settings(deadline=None, max_examples=examples(40))
@given(st.integers(0, 2**32), st.integers(1, 400), st.floats(0.05, 0.95))
def test_the_outcome_is_as_forecast(seed: int, objects: int, kept: float) -> None:
    """Class by class, whatever the lists look like."""
    pool = sparse_pool(seed, objects, kept)
    before = {each.index: each.moves for each in pool.own_classes()}
    made = told_of(pool)
    assert made.pages == pool.compact()
    moved = {each.index: each.moves - before[each.index] for each in pool.own_classes()}
    assert {each.index: each.moves for each in made.classes} == {
        index: moves for index, moves in moved.items() if moves
    }
    assert made.moves == sum(moved.values())
    assert not told_of(pool).classes


def test_the_best_come_first() -> None:
    made = told_of(sparse_pool(3, 900, 0.4))
    prices = [(each.moved_bytes or 0) / each.pages for each in made.classes]
    assert len(prices) > 3
    assert prices == sorted(prices)


def test_where_the_choice_is_not_known_pages_are_a_bound() -> None:
    pool = sparse_pool(4, 900, 0.4)
    exact, made = told_of(pool), told_of(pool, groups=4)
    assert (made.moves, made.moved_bytes, made.status) == (None, None, "bounded")
    assert made.pages >= exact.pages
    lines = compaction_lines("zram0", made, 4096)
    assert lines[0].startswith(f"zram0: a compaction would free at most {made.pages:,} pages")
    assert " copy" not in lines[0]


@pytest.mark.parametrize(
    ("inuse", "group", "objs", "outcome"),
    [
        # Nothing to gain: the free places make no whole zspage.
        ([3, 3], [8, 8], 4, (0, 0)),
        # The emptiest into the fullest.
        ([1, 3], [3, 8], 4, (1, 1)),
        # Of one group the first of the list goes first: a source that is left goes back to it.
        ([2, 2, 2], [6, 6, 6], 4, (2, 1)),
        # Empty ones that wait to be freed count as places, but are none to move into.
        ([0, 1], [0, 3], 4, (0, 0)),
    ],
)
def test_small_classes(
    inuse: list[int], group: list[int], objs: int, outcome: tuple[int, int]
) -> None:
    assert compacted(inuse, group, objs) == outcome


def test_text() -> None:
    made = told_of(sparse_pool(3, 900, 0.4))
    lines = compaction_lines("zram0", made, 4096)
    assert f"would free {made.pages:,} pages" in lines[0]
    assert lines[0].endswith("(exact)")
    assert len(lines) == 3 + len(made.classes)
    assert f"{made.pages:,}" in lines[-1]
    assert max(map(len, lines)) <= 80
    empty = PoolForecast("exact", ())
    assert compaction_lines("zram0", empty, 4096) == [
        "zram0: a compaction would free nothing (exact)"
    ]
