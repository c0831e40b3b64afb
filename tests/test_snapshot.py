"""The ``--json`` object (schema 1), and what snapshots compute."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
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
    ints,
    make_classes,
    make_forecast,
    make_health,
    make_latency,
    make_life,
    make_pool,
    make_runs,
    make_snapshot,
    make_zspages,
)
from tests.object_values import make_objects
from zpobs import wire
from zpobs.addons import AddOnView, MapFill
from zpobs.latency import KINDS
from zpobs.migration import PoolMigration, Refusal
from zpobs.model.publish import event_of
from zpobs.pageblocks import Pageblocks, blocks_of
from zpobs.runs import TRIGGERS
from zpobs.snapshot import Event

JSON_DOC = Path(__file__).resolve().parent.parent / "docs" / "json.md"
FLAGS = re.MULTILINE | re.DOTALL
TOP_KEYS = ["schema", "time_ns", "mono_ns", "kernel", "health", "pools"]
KERNEL_KEYS = [
    "release",
    "page_size",
    "chain_size",
    "descriptor",
    "fullness_groups",
    "zspage_bytes",
]
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
    "addons",
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
    "waste",
    "classes",
]
WASTE_KEYS = [
    "page_bytes",
    "descriptor_bytes",
    "requested_bytes",
    "rounding_bytes",
    "header_bytes",
    "tail_bytes",
    "free_slot_bytes",
    "requested_status",
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
    "waste",
]
CLASS_COUNTER_KEYS = ["allocs", "frees", "moves"]


ADDON = AddOnView("latency", "bounded", ("why",), 4, ("zs_free",), (MapFill("cells", 3, 9, 1),))


def test_an_addon_says_how_full_its_tables_are() -> None:
    """Each with its size, and what found no place."""
    assert ADDON.to_json() == {
        "name": "latency",
        "status": "bounded",
        "reasons": ["why"],
        "hooks": 4,
        "missed_hooks": ["zs_free"],
        "maps": [{"name": "cells", "used": 3, "size": 9, "refused": 1}],
    }


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
    assert list(pool["waste"]) == ["total_bytes", *WASTE_KEYS]
    assert [list(each["waste"]) for each in pool["classes"]] == [WASTE_KEYS] * 4


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
        addons=(ADDON,),
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
        zip(KERNEL_KEYS, (KERNEL.release, 4096, 8, "zpdesc", 12, 56), strict=True)
    )
    values = ("bounded", 1, 2, 1, ["zs_malloc"], 3, 4, 5, ["why"], [ADDON.to_json()])
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
        "waste": {
            "page_bytes": 200 * 3 * 4096,
            "descriptor_bytes": 200 * 56 + 1300 * 8,
            # Larger than what the class of 1024 bytes holds with its handle.
            "requested_bytes": {"low": 1300 * 1017, "high": 1300 * 1736},
            "rounding_bytes": {"low": 0, "high": 1300 * 719},
            "header_bytes": 1300 * 8,
            "tail_bytes": 200 * (3 * 4096 - 7 * 1744),
            "free_slot_bytes": 100 * 1744,
            "requested_status": "bounded",
        },
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
    pool = make_pool(counters=UNCOUNTED, classes=classes).to_json(KERNEL)
    assert set(pool["counters"].values()) == {None}
    assert [set(each["counters"].values()) for each in pool["classes"]] == [{None}] * 4


def test_zspages_are_listed_only_if_asked() -> None:
    """The list of zspages is a key of its own that is absent by default."""
    assert "zspage_list" not in make_pool().to_json(KERNEL)
    listed = make_pool(zspage_list=make_zspages(), address=0xFFFF888000000A00).to_json(KERNEL)
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
            "born": True,
            "nodes": [0, 1],
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
            "born": False,
            "nodes": None,
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


def test_a_doubted_snapshot_is_bounded_at_most() -> None:
    """Every status that was exact; what is unknown stays so, and the reason is told."""
    shot = make_snapshot(make_pool())
    doubted = shot.doubted("it may be behind")
    assert doubted.health.reasons[-1] == "it may be behind"
    both = [
        [one.health.status, *(p.status for p in one.pools)]
        + [each for pool in one.pools for each in pool.classes.statuses]
        for one in (shot, doubted)
    ]
    assert "exact" in both[0]
    assert both[1] == ["bounded" if each == "exact" else each for each in both[0]]


def test_counters_are_all_in_the_object() -> None:
    """The counters object has every field of Counters."""
    assert list(COUNTERS.to_json()) == list(COUNTERS.__slots__)


def test_nothing_is_an_empty_array() -> None:
    """A class table without rows is an empty array, and a snapshot without pools an empty one."""
    empty = make_pool(classes=make_classes([], fullness=np.zeros((0, 12), dtype=np.int64)))
    assert empty.to_json(KERNEL)["classes"] == []
    assert make_snapshot().to_json()["pools"] == []


def test_nodes_are_told_only_where_all_are_known() -> None:
    """The distinct nodes of a zspage; one that is not known makes the answer unknown."""

    def nodes(*told: int) -> Any:
        table = replace(make_zspages(), nodes=ints(told))
        return [each["nodes"] for each in table.to_json()]

    assert nodes(1, 1) == [[1], None]
    assert nodes(3, 2) == [[2, 3], None]
    assert nodes(-1, 2) == [None, None]


def test_rows_are_taken_with_their_frames_and_nodes() -> None:
    """In the order given, each with what is its own."""
    table = make_zspages()
    turned = table.take(ints([1, 0]))
    assert turned.to_json() == table.to_json()[::-1]
    assert turned.nodes.tolist() == [0, 1]
    assert table.take(ints([1])).nodes.tolist() == []


EVENTS = [
    (Event("pool_created", 1, 2, None, ()), {}),
    (Event("pool_destroyed", 1, 2, None, ()), {}),
    (Event("compact_begin", 1, 2, None, ()), {}),
    (
        Event("compact_end", 1, 2, None, (3, 4, 5)),
        {"moved": 3, "freed_pages": 4, "begin_ns": 5},
    ),
    (
        Event("migration", 1, 2, 0xFFFF888000001000, (3, 4, -11)),
        {"zspage": "0xffff888000001000", "old_pfn": 3, "new_pfn": 4, "result": -11},
    ),
    (Event("alloc_failure", 1, 2, None, (3, -12)), {"bytes": 3, "error": -12}),
    (Event("deferred_free", 1, 2, None, (3,)), {"begin_ns": 3}),
]


@pytest.mark.parametrize(("event", "told"), EVENTS)
def test_an_events_values_have_names(event: Event, told: dict[str, Any]) -> None:
    """Kind, time and pool, and what there is of its own."""
    assert event.to_json() == {"kind": event.kind, "time_ns": 1, "pool": 2, **told}


def test_every_kind_of_event_has_names() -> None:
    """What the model makes of a record of each kind can be written."""
    kinds = range(wire.KIND_POOL_CREATED, wire.KIND_DEFERRED_FREE + 1)
    made = [event_of(np.array([kind, 1, 2, 3, 4, 5, 6], dtype=np.uint64)) for kind in kinds]
    assert [event.kind for event in made] == [event.kind for event, _ in EVENTS]
    assert [list(event.to_json())[3:] for event in made] == [list(told) for _, told in EVENTS]


def keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from keys(each)


REFUSED = PoolMigration("exact", {}, (Refusal(1, 2, 3, -16, 4),), 0)


def test_the_docs_name_every_key() -> None:
    """docs/json.md's object has exactly the keys that are written."""
    (block,) = re.findall(r"^```\n(.*?)^```", JSON_DOC.read_text(encoding="utf-8"), FLAGS)
    # Words that stand for values, not keys, follow a colon or a bar.
    documented = set(re.findall(r'(?<![:|] )(?<![:|])"(\w+)"', block))
    runs = make_runs()
    runs = replace(runs, by_trigger=dict.fromkeys(TRIGGERS, runs.by_trigger["sysfs"]))
    zspages = make_zspages()
    whole = make_pool(
        zspage_list=zspages,
        life=make_life(),
        migration=REFUSED,
        latency=make_latency(),
        runs=runs,
        compaction=make_forecast(),
        objects_told=make_objects(),
        pageblocks=Pageblocks(9, blocks_of(zspages, 9), 0, movable=True),
    )
    told = set(keys(make_snapshot(whole, health=make_health(addons=(ADDON,))).to_json()))
    # Kinds of calls are told below the object.
    assert documented == told - (set(KINDS) - {"migration"})
