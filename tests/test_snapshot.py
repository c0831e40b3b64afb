"""The ``--json`` object (schema 1), and what snapshots compute."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.factories import (
    COUNTERS,
    KERNEL,
    MONO_NS,
    TIME_NS,
    UNCOUNTED,
    make_classes,
    make_health,
    make_pool,
    make_snapshot,
    make_zspages,
)

JSON_DOC = Path(__file__).resolve().parent.parent / "docs" / "json.md"
FLAGS = re.MULTILINE | re.DOTALL
TOP_KEYS = ["schema", "time_ns", "mono_ns", "kernel", "health", "pools"]
KERNEL_KEYS = ["release", "page_size", "chain_size", "descriptor", "fullness_groups"]
HEALTH_KEYS = [
    "status",
    "lost",
    "missed_runs",
    "missed_counting_runs",
    "missed_hooks",
    "hooks",
    "scans",
    "last_scan_ns",
    "reasons",
]
POOL_KEYS = [
    "id",
    "name",
    "owner",
    "status",
    "since_ns",
    "last_scan_ns",
    "pages",
    "zspages",
    "objects",
    "kernel_pages",
    "pages_compacted",
    "counters",
    "missed",
    "classes",
]
COUNTER_KEYS = [
    "allocs",
    "frees",
    "failures",
    "moves",
    "migrations",
    "migration_failures",
    "compactions",
    "pages_freed",
]
CLASS_KEYS = [
    "index",
    "size",
    "objs_per_zspage",
    "pages_per_zspage",
    "zspages",
    "objects",
    "capacity",
    "status",
    "fullness",
    "counters",
]
CLASS_COUNTER_KEYS = ["allocs", "frees", "moves"]


def test_the_object_has_the_keys_of_schema_1() -> None:
    """Every object has exactly the documented keys, in their order."""
    out = make_snapshot(make_pool()).to_json()
    (pool,) = out["pools"]
    assert list(out) == TOP_KEYS
    assert list(out["kernel"]) == KERNEL_KEYS
    assert list(out["health"]) == HEALTH_KEYS
    assert list(pool) == POOL_KEYS
    assert list(pool["counters"]) == COUNTER_KEYS
    assert [list(each) for each in pool["classes"]] == [CLASS_KEYS] * 4
    assert [list(each["counters"]) for each in pool["classes"]] == [CLASS_COUNTER_KEYS] * 4


def test_the_object_says_what_the_snapshot_says() -> None:
    """Each figure stands under its own key."""
    health = make_health(
        "bounded",
        lost=1,
        missed_runs=2,
        missed_counting_runs=1,
        missed_hooks=("zs_malloc",),
        hooks=3,
        scans=4,
        last_scan_ns=5,
        reasons=("why",),
    )
    scanned = {"scan_ns": 8, "kernel_pages": 90, "pages_compacted": 91}
    classes = make_classes(statuses=("exact", "bounded", "unknown", "exact"))
    pool = make_pool(
        7,
        "zswapf",
        status="bounded",
        classes=classes,
        missed={"failures": 9},
        since_ns=6,
        **scanned,
    )
    out = make_snapshot(pool, health=health).to_json()
    assert (out["schema"], out["time_ns"], out["mono_ns"]) == (1, TIME_NS, MONO_NS)
    assert out["kernel"] == dict(
        zip(KERNEL_KEYS, (KERNEL.release, 4096, 8, "zpdesc", 12), strict=True)
    )
    values = ("bounded", 1, 2, 1, ["zs_malloc"], 3, 4, 5, ["why"])
    assert out["health"] == dict(zip(HEALTH_KEYS, values, strict=True))
    (told,) = out["pools"]
    assert [told[key] for key in POOL_KEYS[:6]] == [7, "zswapf", "zswap", "bounded", 6, 8]
    assert (told["kernel_pages"], told["pages_compacted"]) == (90, 91)
    assert [each["status"] for each in told["classes"]] == ["exact", "bounded", "unknown", "exact"]
    assert (told["pages"], told["zspages"], told["objects"]) == (10 + 600 + 12 + 1000, 1213, 2334)
    assert told["missed"] == {"failures": 9}
    assert list(told["counters"].values()) == [123_456, 123_056, 2, 789, 34, 5, 6, 70]
    assert told["classes"][1] == {
        "index": 107,
        "size": 1744,
        "objs_per_zspage": 7,
        "pages_per_zspage": 3,
        "zspages": 200,
        "objects": 1300,
        "capacity": 1400,
        "status": "bounded",
        "fullness": [0] * 11 + [200],
        "counters": {"allocs": 60, "frees": 40, "moves": 20},
    }


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from leaves(each)
    else:
        yield value


def test_figures_are_plain() -> None:
    """No NumPy number is in the object, so that any JSON writer takes it."""
    out = make_snapshot(make_pool(zspage_list=make_zspages())).to_json()
    assert {type(leaf) for leaf in leaves(out)} == {int, str, bool, type(None)}
    assert json.loads(json.dumps(out)) == out


def test_what_nobody_counts_is_null() -> None:
    """Counters without a hook are null, not zero."""
    classes = make_classes(allocs=None, frees=None, moves=None)
    pool = make_pool(counters=UNCOUNTED, classes=classes).to_json()
    assert set(pool["counters"].values()) == {None}
    assert [set(each["counters"].values()) for each in pool["classes"]] == [{None}] * 4


def test_zspages_are_listed_only_if_asked() -> None:
    """The list of zspages is a key of its own that is absent by default."""
    assert "zspage_list" not in make_pool().to_json()
    listed = make_pool(zspage_list=make_zspages(), address=0xFFFF888000000A00).to_json()
    assert list(listed) == [*POOL_KEYS, "address", "zspage_list"]
    assert listed["address"] == "0xffff888000000a00"
    assert listed["zspage_list"] == [
        {
            "address": "0xffff888000001000",
            "class": 107,
            "inuse": 6,
            "fullness": 9,
            "huge": False,
            "pfns": [4097, 4242],
            "first_seen_ns": 11,
            "last_seen_ns": 21,
            "freeobj": 3,
            "locked": None,
            "isolated": None,
        },
        {
            "address": "0xffff888000002000",
            "class": 254,
            "inuse": 1,
            "fullness": 11,
            "huge": True,
            "pfns": [],
            "first_seen_ns": 12,
            "last_seen_ns": 22,
            "freeobj": None,
            "locked": True,
            "isolated": False,
        },
    ]


@pytest.mark.parametrize(
    ("objs", "pages", "zspages", "objects", "freeable"),
    [
        # Whole zspages' worth of spare places alone can be freed.
        (7, 3, 200, 1300, 3 * (100 // 7)),
        (4, 1, 10, 37, 0),
        (4, 1, 10, 36, 1),
        (4, 1, 10, 0, 10),
        (1, 1, 5, 5, 0),
        # A bounded figure may exceed what fits; a class of unknown geometry frees nothing.
        (4, 1, 1, 9, 0),
        (0, 0, 3, 3, 0),
    ],
)
def test_freeable_pages_are_as_the_kernel_computes_them(
    objs: int, pages: int, zspages: int, objects: int, freeable: int
) -> None:
    """Spare places, rounded down to whole zspages, times pages: zs_can_compact()."""
    table = make_classes([(1, 1024, objs, pages, zspages, objects)])
    assert table.freeable_pages.tolist() == [freeable]
    assert table.capacity.tolist() == [objs * zspages]
    assert table.pages.tolist() == [pages * zspages]


def test_counters_are_all_in_the_object() -> None:
    """The counters object has every field of Counters."""
    assert list(COUNTERS.to_json()) == list(COUNTERS.__slots__)


def test_nothing_is_an_empty_array() -> None:
    """A class table without rows is an empty array, and a snapshot without pools an empty one."""
    empty = make_pool(classes=make_classes([], fullness=np.zeros((0, 12), dtype=np.int64)))
    assert empty.to_json()["classes"] == []
    assert make_snapshot().to_json()["pools"] == []


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from keys(each)


def test_the_docs_name_every_key() -> None:
    """docs/json.md's object has exactly the keys that are written."""
    (block,) = re.findall(r"^```\n(.*?)^```", JSON_DOC.read_text(encoding="utf-8"), FLAGS)
    # Words that stand for values, not keys, follow a colon or a bar.
    documented = set(re.findall(r'(?<![:|] )(?<![:|])"(\w+)"', block))
    assert documented == set(keys(make_snapshot(make_pool(zspage_list=make_zspages())).to_json()))
