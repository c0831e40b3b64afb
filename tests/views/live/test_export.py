"""What is copied is what is shown: all rows, sorted and filtered."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.views.live.support import (
    BUSY_CLASS,
    busy,
    changed_pool,
    compacted,
    described,
    mapped,
    no_pools,
    typed,
)
from zpobs.views.live.export import export_name, exported
from zpobs.views.live.listing import listing
from zpobs.views.live.scene import Scene
from zpobs.views.live.state import Screen, ViewState
from zpobs.views.live.view import OVERLAYS

TO_31 = ("enter", "slash", *str(BUSY_CLASS), "enter", "enter")
TO_107 = ("enter", "slash", *"107", "enter", "enter", "enter")
VIEWS: dict[str, tuple[Scene, tuple[str, ...]]] = {
    "pools": (busy(), ()),
    "classes": (busy(), ("enter", "s", "r", "slash", *"size>1k", "enter")),
    "zspages": (busy(), (*TO_31, "slash", *"inuse>3", "enter")),
    "descriptors": (described(), TO_107),
    "compaction": (compacted(), ("m",)),
    "pageblocks": (mapped(), ("b",)),
    "events": (busy(), ("e", "slash", *"zram0", "enter")),
    "nothing": (no_pools(), ()),
}


def view(name: str) -> tuple[Scene, ViewState]:
    scene, keys = VIEWS[name]
    return scene, typed(scene, keys)


def read_json(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(exported(*view(name), "json"))
    return found


@pytest.mark.parametrize("name", VIEWS)
def test_json_holds_the_rows_that_are_shown(name: str) -> None:
    """As many rows, in the same order, by their identity."""
    scene, state = view(name)
    rows = listing(scene, state)
    ids = rows.table.ids[rows.order].tolist()
    told = read_json(name)["rows"]
    key = {
        "pools": "id",
        "classes": "index",
        "compaction": "index",
        "zspages": "address",
        "descriptors": "page",
    }
    if name == "pageblocks":
        assert [row["first_frame"] for row in told] == [each * 32 << 9 for each in ids]
        return
    of = key.get(name, "number")
    assert [int(str(row[of]), 0) for row in told] == ids


@pytest.mark.parametrize("name", VIEWS)
def test_json_says_what_must_be_known_to_read_it(name: str) -> None:
    """Schema, time, kernel, health, order and filter."""
    scene, state = view(name)
    told = read_json(name)
    assert told["schema"] == 1
    assert told["view"] == state.screen.value
    assert told["time_ns"] == scene.snapshot.time_ns
    assert told["health"] == scene.snapshot.health.to_json()
    assert told["kernel"]["release"] == scene.snapshot.kernel.release
    assert told["filter"] == (state.place.filter or None)
    assert told["reverse"] == state.place.reverse


def test_json_tells_the_waste_of_the_pool() -> None:
    """Below the pools the split of the pool is there, and its parts sum to its bytes."""
    told = read_json("zspages")
    pool = told["pool"]
    assert pool["name"] == "zram0"
    assert told["class"] == BUSY_CLASS
    names = ("requested_bytes_low", "rounding_bytes_low", "header_bytes", "tail_bytes")
    parts = sum(pool[name] for name in (*names, "free_slot_bytes"))
    assert parts == busy().snapshot.pools[0].pages * 4096


def test_json_of_descriptors_tells_their_zspage() -> None:
    """What stands above the table is there as well."""
    scene, state = view("descriptors")
    told = read_json("descriptors")
    assert told["zspage"]["address"] == f"{state.zspage:#x}"
    assert told["zspage"]["magic"] == "0x58"
    assert scene.look is not None
    assert told["read_ns"] == scene.look.seen_ns
    assert told["rows"][0]["node"] == 0
    unread = json.loads(exported(replace(scene, look=None), state, "json"))
    assert (unread["rows"], unread["read_ns"]) == ([], None)


def test_json_of_events_tells_how_many_there_were() -> None:
    """Those that are not kept are counted."""
    told = read_json("events")
    assert told["events_seen"] == 1007
    assert [row["number"] for row in told["rows"]] == [1000, 1001, 1002, 1003, 1005]
    assert told["rows"][2]["what"] == "migration of frame 4097 -> 90210, ok"


@pytest.mark.parametrize("name", VIEWS)
def test_csv_equals_json(name: str) -> None:
    """The same rows with the same values; nothing stands for what is not known."""
    scene, state = view(name)
    lines = list(csv.DictReader(io.StringIO(exported(scene, state, "csv"))))
    told = read_json(name)
    assert len(lines) == len(told["rows"])
    for line, row in zip(lines, told["rows"], strict=True):
        assert line.pop("snapshot_time_ns") == str(told["time_ns"])
        assert line == {name: field(value) for name, value in row.items()}


@pytest.mark.parametrize("name", VIEWS)
def test_csv_of_no_rows_has_its_column_names(name: str) -> None:
    """The same as with rows, also where a filter fits none."""
    scene, state = view(name)
    table = listing(scene, state).table
    rows = table.records(np.arange(len(table.ids)))
    assert {tuple(row) for row in rows} <= {table.fields}
    none = state.at(state.screen, replace(state.place, filter="zram99 0xfffffffffffffff1"))
    if state.screen not in (Screen.POOLS, Screen.CLASSES, Screen.ZSPAGES, *OVERLAYS):
        # There is no filter there: nothing was read yet.
        scene, none = replace(scene, look=None), state
    if state.screen == Screen.ZSPAGES:
        none = state.at(state.screen, replace(state.place, filter="0x1"))
    text = exported(scene, none, "csv")
    assert text == ",".join(["snapshot_time_ns", *table.fields]) + "\n"


def field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        return " ".join("" if each is None else str(each) for each in value)
    return str(value)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("pools", "zpobs-pools-20260102-030407.json"),
        ("classes", "zpobs-zram0-classes-20260102-030407.json"),
        ("events", "zpobs-events-20260102-030407.json"),
    ],
)
def test_files_are_named_after_what_they_hold(name: str, wanted: str) -> None:
    """Pool, view and time."""
    assert export_name(*view(name), "json") == wanted
    assert export_name(*view(name), "csv") == wanted.replace("json", "csv")


@pytest.mark.parametrize(
    ("name", "safe"),
    [("../../etc/passwd", "_.._etc_passwd"), ("a b\n", "a_b_"), ("..", "pool"), ("é", "_")],
)
def test_no_pool_name_leads_out_of_the_directory(name: str, safe: str) -> None:
    """Owners choose pools' names."""
    scene = changed_pool(busy(), name=name)
    state = typed(scene, ("enter",))
    assert export_name(scene, state, "csv") == f"zpobs-{safe}-classes-20260102-030407.csv"
