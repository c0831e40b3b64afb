"""Histograms of latencies: sums, ranks and what is written of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.factories import make_latency
from zpobs.latency import KINDS, below_ns


def counts(**buckets: int) -> np.ndarray:
    made = np.zeros(40, dtype=np.int64)
    for name, count in buckets.items():
        made[int(name[1:])] = count
    return made


@pytest.mark.parametrize(
    ("buckets", "share", "end_ns"),
    [
        ({}, 0.5, None),
        ({"b3": 1}, 0.5, 8),
        ({"b3": 1}, 0.0, 8),
        ({"b3": 50, "b7": 50}, 0.5, 8),
        ({"b3": 49, "b7": 51}, 0.5, 128),
        ({"b3": 99, "b7": 1}, 0.99, 8),
        ({"b3": 99, "b7": 1}, 1.0, 128),
        ({"b39": 1}, 1.0, None),
    ],
)
def test_so_many_are_shorter(buckets: dict[str, int], share: float, end_ns: int | None) -> None:
    """The end of the bucket in which the call of that rank lies; the last one has none."""
    assert below_ns(counts(**buckets), share) == end_ns


def test_sums_by_class_are_those_of_the_kind() -> None:
    """Counts, durations and buckets alike; every kind there is has a place."""
    told = make_latency().to_json()
    assert set(told["kinds"]) == set(KINDS)
    for kind in told["kinds"].values():
        assert kind["count"] == sum(each["count"] for each in kind["classes"])
        assert kind["sum_ns"] == sum(each["sum_ns"] for each in kind["classes"])
        assert kind["count"] == sum(each["count"] for each in kind["buckets"])
    assert told["kinds"]["alloc"]["buckets"][-1] == {"below_ns": None, "count": 2}
    assert told["kinds"]["alloc_failed"]["classes"][0]["index"] is None


def test_what_is_unknown_shows_no_figure() -> None:
    unknown = make_latency(status="unknown", reasons=("no probes",)).to_json()
    assert unknown == {"status": "unknown", "reasons": ["no probes"]}
