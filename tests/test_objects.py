"""Sampling by handle: which are told, and that intervals hold the truth.

Simulated, not drawn anew in each run: seeds are fixed, so nothing here is luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from zpobs.objects import (
    VARIANCE_GROUPS,
    Control,
    Estimate,
    Sampling,
    estimate,
    group_squares,
    variance_group,
)

RUNS = 100
HANDLES = 0xFFFF_8881_0000_0000
Ints = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]


def handles_of(numbers: Ints) -> U64:
    """Return the handle of each number: slab pages of 512, pages anywhere."""
    page, place = np.divmod(numbers, 512)
    offset = (page * 7919 % 65_536) * 4096 + place * 8
    return np.uint64(HANDLES) + offset.astype(np.uint64)


@dataclass
class Trace:
    """What happened: of each object its handle, its size, its lifetime in ns, whether it lives."""

    handle: U64
    size: Ints
    lifetime_ns: Ints
    live: npt.NDArray[np.bool_]


def with_reuse(
    rng: np.random.Generator, count: int, pick: Callable[[list[int]], int], live: int
) -> Trace:
    """Store ``count`` objects, freeing others so that no more than ``live`` are there.

    ``pick`` chooses which of the free handles is used next, by its place in the list of them.
    """
    free: list[int] = []
    there: list[int] = []
    handle_of, born, died = [], [], {}
    fresh = 0
    frees = rng.random(count)
    for number in range(count):
        if there and len(there) >= live:
            at = int(frees[number] * len(there))
            there[at], there[-1] = there[-1], there[at]
            gone = there.pop()
            died[gone] = number
            free.append(handle_of[gone])
        if free:
            handle_of.append(free.pop(pick(free)))
        else:
            handle_of.append(fresh)
            fresh += 1
        born.append(number)
        there.append(number)
    return _trace(rng, np.array(handle_of), born, died)


def _trace(rng: np.random.Generator, numbers: Ints, born: list[int], died: dict[int, int]) -> Trace:
    count = len(numbers)
    lifetime = np.array([died.get(each, count) - born[each] for each in range(count)])
    live = np.array([each not in died for each in range(count)])
    # Sizes go with handles, so that objects of one handle are alike: the worst for clusters.
    size = 64 + (numbers * 2654435761 % 3000) + rng.integers(0, 200, count)
    return Trace(handles_of(numbers), size, lifetime * 1000, live)


def never(rng: np.random.Generator, count: int) -> Trace:
    """Every object has a handle of its own."""
    numbers = np.arange(count)
    lives = rng.random(count) < 0.3
    died = {int(at): int(at) + int(rng.integers(1, 1000)) for at in np.flatnonzero(~lives)}
    return _trace(rng, numbers, list(range(count)), died)


def newest_first(rng: np.random.Generator, count: int) -> Trace:
    """As slabs do: what was freed last is used next."""
    return with_reuse(rng, count, lambda free: len(free) - 1, live=count // 20)


def oldest_first(rng: np.random.Generator, count: int) -> Trace:
    return with_reuse(rng, count, lambda _: 0, live=count // 20)


def anywhere(rng: np.random.Generator, count: int) -> Trace:
    return with_reuse(rng, count, lambda free: int(rng.integers(len(free))), live=count // 10)


def few_are_hot(rng: np.random.Generator, count: int) -> Trace:
    """Two handles in turn have nine of ten objects: one page written over and over."""
    hot = rng.random(count) < 0.9
    numbers = np.where(hot, np.arange(count) % 2, np.arange(count) + 2)
    live = np.zeros(count, dtype=bool)
    live[~hot] = rng.random(int((~hot).sum())) < 0.5
    died = {int(at): int(at) + (2 if hot[at] else 500) for at in np.flatnonzero(~live)}
    return _trace(rng, numbers, list(range(count)), died)


def skewed(rng: np.random.Generator, count: int) -> Trace:
    """Handles are used as often as words of a language are."""
    numbers = np.minimum(rng.zipf(1.6, count), 50_000)
    last = {int(number): at for at, number in enumerate(numbers)}
    died = {at: at + 3 for at, number in enumerate(numbers.tolist()) if last[number] != at}
    return _trace(rng, numbers, list(range(count)), died)


PATTERNS = (never, newest_first, oldest_first, anywhere, few_are_hot, skewed)


def over_time(trace: Trace, amount: Ints, sampling: Sampling, most: int) -> Estimate:
    """Estimate a sum over all objects there ever were, as the ledger does."""
    told = sampling.tells(trace.handle)
    groups = np.zeros(VARIANCE_GROUPS, dtype=np.int64)
    np.add.at(groups, variance_group(trace.handle[told]), amount[told])
    seen = int(amount[told].sum())
    stored = np.zeros(VARIANCE_GROUPS, dtype=np.int64)
    np.add.at(stored, variance_group(trace.handle[told]), 1)
    told_count = int(told.sum())
    likely = estimate(told_count, max(group_squares(stored), told_count), sampling.rate)
    squares = max(group_squares(groups), float((amount[told] ** 2).sum()))
    made = estimate(seen, squares, sampling.rate, most)
    return Control(likely, told_count, len(trace.handle)).applied(made, seen, most)


@pytest.mark.parametrize("count", [300, 5_000])
@pytest.mark.parametrize("rate", [4, 16])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_intervals_hold_the_truth_in_95_of_100_samplings(
    pattern: Callable[[np.random.Generator, int], Trace], rate: int, count: int
) -> None:
    trace = pattern(np.random.default_rng(17), count)
    ones = np.ones(count, dtype=np.int64)
    short = ((trace.lifetime_ns < 64_000) & ~trace.live).astype(np.int64)
    figures = {
        "stored": (ones, 1),
        "freed": ((~trace.live).astype(np.int64), 1),
        "short lives": (short, 1),
    }
    held = dict.fromkeys((*figures, "live", "live bytes"), 0)
    for seed in range(RUNS):
        sampling = Sampling.seeded(rate, seed)
        for name, (amount, most) in figures.items():
            made = over_time(trace, amount, sampling, most)
            held[name] += made.low <= int(amount.sum()) <= made.high
        living = sampling.tells(trace.handle) & trace.live
        size = trace.size[living]
        made = estimate(len(size), len(size), rate)
        held["live"] += made.low <= int(trace.live.sum()) <= made.high
        made = estimate(int(size.sum()), float((size.astype(float) ** 2).sum()), rate, 4096)
        held["live bytes"] += made.low <= int(trace.size[trace.live].sum()) <= made.high
    assert {name: times for name, times in held.items() if times < 95} == {}, held
