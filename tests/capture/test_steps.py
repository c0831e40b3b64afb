"""Readings of counters told by what changed, coverage, and back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpobs.capture.steps import Changes, ReadingCoder, told_coverage, understood_coverage
from zpobs.errors import BadInputError
from zpobs.model.inputs import CountersReading, Coverage, PoolReading
from zpobs.wire import CLASS_WORDS, POOL_WORDS

CLASSES = 5


def reading(mono_ns: int, pools: dict[int, list[list[int]] | None], **more: Any) -> CountersReading:
    return CountersReading(
        mono_ns=mono_ns,
        ring_full=1,
        unpaired=2,
        missed_runs=3,
        untracked_pools=4,
        missed_counting_runs=5,
        missed_counts={"failures": 6},
        pools=tuple(
            PoolReading(
                serial,
                0xFFFF_8880_0000_0000 + serial,
                f"zram{serial}",
                7,
                serial % 2 == 0,
                class_counters=None if classes is None else np.array(classes, dtype=np.uint64),
                pool_counters=None
                if classes is None
                else np.arange(POOL_WORDS, dtype=np.uint64) + np.uint64(2**63),
            )
            for serial, classes in pools.items()
        ),
        **more,
    )


def same(one: CountersReading | None, other: CountersReading) -> bool:
    def plain(value: CountersReading) -> Any:
        pools = [
            [
                pool.serial,
                pool.address,
                pool.name,
                pool.since_mono_ns,
                pool.created,
                None if pool.class_counters is None else pool.class_counters.tolist(),
                None if pool.pool_counters is None else pool.pool_counters.tolist(),
            ]
            for pool in value.pools
        ]
        names = ("mono_ns", "ring_full", "unpaired", "missed_runs", "untracked_pools")
        more = [value.missed_counting_runs, dict(value.missed_counts)]
        return [[getattr(value, name) for name in names], more, pools]

    return one is not None and plain(one) == plain(other)


CELL = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 3))
TABLE = st.lists(
    st.lists(CELL, min_size=CLASS_WORDS, max_size=CLASS_WORDS), min_size=CLASSES, max_size=CLASSES
)
POOLS = st.dictionaries(st.integers(1, 3), st.one_of(st.none(), TABLE), max_size=3)


@given(st.lists(st.tuples(POOLS, st.booleans()), max_size=6))
def test_readings_come_back(rounds: list[tuple[dict[int, list[list[int]] | None], bool]]) -> None:
    """Whatever changed, pools that come and go, and where the teller began again."""
    teller, reader = ReadingCoder(), ReadingCoder()
    found = []
    for at, (pools, again) in enumerate(rounds):
        if again:
            teller.restart()
        now = reading(at, pools)
        found.append((reader.understood(json.loads(json.dumps(teller.told(now))), at), now))
    # Those before are what they were, too.
    assert all(same(one, other) for one, other in found)


def test_only_what_changed_is_told() -> None:
    teller = ReadingCoder()
    counters = [[0] * CLASS_WORDS for _ in range(CLASSES)]
    counters[2][0] = 9
    first = teller.told(reading(1, {1: counters}))
    assert first["whole"] and first["ring_full"] == 1
    names = {"serial", "address", "name", "since_mono_ns", "created", "counters", "size_classes"}
    assert first["pools"][0].keys() == names | {"classes"}
    assert first["pools"][0]["classes"] == [[2, 9, 0, 0]]
    assert teller.told(reading(2, {1: counters})) == {"pools": [{"serial": 1}]}
    counters[2][1], counters[4][0] = 1, 7
    third = teller.told(replace(reading(3, {1: counters, 2: None}), ring_full=9))
    assert third.keys() == {"ring_full", "pools"} and third["ring_full"] == 9
    assert third["pools"][0] == {"serial": 1, "classes": [[2, 0, 1, 0], [4, 7, 0, 0]]}
    assert third["pools"][1].keys() == names, "a pool is told whole at its first"
    assert teller.told(reading(4, {2: None})) == {"ring_full": 1, "pools": [{"serial": 2}]}
    teller.restart()
    again = teller.told(reading(5, {1: counters}))
    assert again["whole"] and again["pools"][0].keys() == names | {"classes"}


def test_what_is_told_by_changes_needs_a_whole_one_before() -> None:
    teller, reader = ReadingCoder(), ReadingCoder()
    counters = [[1] * CLASS_WORDS for _ in range(CLASSES)]
    teller.told(reading(1, {1: counters}))
    told = teller.told(reading(2, {1: counters}))
    assert reader.understood(told, 2) is None
    teller.restart()
    whole = reading(3, {1: counters})
    assert same(reader.understood(teller.told(whole), 3), whole)
    reader.restart()
    assert reader.understood(teller.told(whole), 3) is None


def test_what_changes_is_told_and_understood() -> None:
    """Of whatever has the same members: the first one whole, then what is other."""
    teller, reader = Changes(), Changes()
    assert not teller.began and reader.understood({"a": 1}, whole=False) is None
    for at, now in enumerate([{"a": 1, "b": [2]}, {"a": 1, "b": []}, {"a": 1, "b": []}]):
        told = teller.told(now)
        assert told == ({"a": 1, "b": [2]}, {"b": []}, {})[at]
        assert reader.understood(told, whole=at == 0) == now
    assert teller.began


POOL = {
    "serial": 1,
    "address": 4096,
    "name": "zram0",
    "since_mono_ns": 1,
    "created": True,
    "counters": None,
}


@pytest.mark.parametrize(
    "spoilt",
    [
        {"ring_full": None},
        {"pools": 7},
        {"pools": [{}]},
        {"missed_counts": [1]},
        {"pools": [POOL | {"size_classes": 0}]},
        {"pools": [POOL | {"size_classes": 1 << 40}]},
        {"pools": [POOL | {"size_classes": 2, "classes": [[2, 0, 0, 0, 0]]}]},
    ],
)
def test_a_reading_that_is_none_is_refused(spoilt: dict[str, Any]) -> None:
    told = {**ReadingCoder().told(reading(1, {1: None})), **spoilt}
    with pytest.raises(BadInputError, match="is none"):
        ReadingCoder().understood(told, 1)


def test_a_reading_that_is_one_is_not_refused() -> None:
    """What the ones above are spoilt from."""
    told = {**ReadingCoder().told(reading(1, {1: None})), "pools": [POOL | {"size_classes": 2}]}
    found = ReadingCoder().understood(told, 7)
    assert found is not None and found.mono_ns == 7 and found.pools[0].name == "zram0"


def test_coverage_comes_back() -> None:
    coverage = Coverage(
        hooks=3,
        missed_hooks=("zs_free",),
        uncounted=frozenset({"frees", "moves"}),
        unseen=("deaths",),
        why_no_hooks="refused",
        untold=("frames",),
    )
    assert understood_coverage(json.loads(json.dumps(told_coverage(coverage)))) == coverage
    with pytest.raises(BadInputError):
        understood_coverage({"hooks": "x"})
