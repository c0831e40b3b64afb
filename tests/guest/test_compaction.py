"""Runs of compaction on a kernel with probes: the forecast, the outcome, and what began them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.comparison import pool_named
from lab.features import detect
from lab.watcher import Top
from lab.workload import Churn, ZramDevice

_DROP_CACHES = Path("/proc/sys/vm/drop_caches")
Json = dict[str, Any]


@pytest.fixture
def top(loader: str, attach_form: str, tmp_path: Path) -> Iterator[Top]:
    arguments = ["--loader", loader, "--attach", attach_form, "--json", "--compaction"]
    made = Top(tmp_path / "frames.jsonl", arguments, shown=False)
    made.await_first()
    yield made
    assert made.stop() == 0


@pytest.fixture
def device() -> Iterator[ZramDevice]:
    made = ZramDevice("256M")
    yield made
    made.remove()


def forecast_of(device: ZramDevice) -> Json:
    command = [sys.executable, "-m", "zpobs", "scan", "--compaction", "--json"]
    told = subprocess.run([*command, "--pool", device.name], check=True, capture_output=True)
    (scanned,) = json.loads(told.stdout)["pools"]
    made: Json = scanned["compaction"]
    return made


def now(top: Top, device: ZramDevice) -> Json:
    return pool_named(top.frame_after(time.time_ns()), device.name)


def by_class(classes: list[Json]) -> dict[int, tuple[int, int]]:
    return {each["index"]: (each["moves"], each["pages"]) for each in classes}


def test_the_outcome_is_as_forecast(top: Top, device: ZramDevice) -> None:
    """Class by class: as many objects move, and mm_stat tells as many pages."""
    Churn(device, operations=15_000, seed=62).finish()
    made = forecast_of(device)
    before = now(top, device)
    stat = device.mm_stat()
    asked_ns = time.time_ns()
    device.compact()
    done_ns = time.time_ns()
    freed = device.mm_stat()[6] - stat[6]
    after = now(top, device)
    assert freed > 0
    assert after["counters"]["pages_freed"] - before["counters"]["pages_freed"] == freed
    runs = after["compaction_runs"]
    assert (runs["status"], runs["reasons"]) == ("exact", [])
    run = runs["recent"][-1]
    assert asked_ns < run["begin_ns"] < run["begin_ns"] + run["duration_ns"] < done_ns
    assert (run["trigger"], run["pages"]) == ("sysfs", freed)
    moves_before = {each["index"]: each["counters"]["moves"] for each in before["classes"]}
    moved = {
        each["index"]: each["counters"]["moves"] - moves_before[each["index"]]
        for each in after["classes"]
    }
    assert run["moves"] == sum(moved.values())
    if not detect()["percent groups"]:
        # insert_zspage() tells which class is at work, but not of all pages.
        assert (made["status"], made["moves"]) == ("bounded", None)
        assert made["pages"] >= freed
        assert "at most" in run["forecast"]["differs"]
        return
    assert (run["status"], run["reasons"]) == ("exact", [])
    told = by_class(run["classes"])
    assert {index: moves for index, (moves, _) in told.items()} == {
        index: moves for index, moves in moved.items() if moves
    }
    sizes = {each["index"]: each["size"] for each in after["classes"]}
    assert run["moved_bytes"] == sum(moves * sizes[index] for index, moves in moved.items())
    assert made["status"] == "exact"
    assert by_class(made["classes"]) == told
    assert (made["pages"], made["moves"]) == (freed, run["moves"])
    # The one that was made with the frame before stands beside it, and is the same.
    expected = run["forecast"]
    assert (expected["operations"], expected["differs"]) == (0, "")
    assert expected["made_ns"] < run["begin_ns"]
    assert expected["classes"] == made["classes"]
    assert after["compaction"]["pages"] == 0
    took = [each["duration_ns"] for each in run["classes"]]
    if detect()["hook __zs_compact"]:
        assert 0 < sum(took) <= run["duration_ns"]
    else:
        assert set(took) == {None}


def test_what_the_shrinker_compacts_is_its_own(top: Top, device: ZramDevice) -> None:
    """Dropping slab caches runs all shrinkers; what they free is told as theirs."""
    Churn(device, operations=15_000, seed=63).finish()
    made = forecast_of(device)
    stat = device.mm_stat()
    _DROP_CACHES.write_text("2")
    freed = device.mm_stat()[6] - stat[6]
    assert freed > 0
    device.compact()
    assert device.mm_stat()[6] - stat[6] == freed
    runs = now(top, device)["compaction_runs"]
    assert (runs["status"], runs["reasons"]) == ("exact", [])
    assert runs["by_trigger"]["sysfs"]["runs"] == 1
    assert runs["by_trigger"]["sysfs"]["pages"] == 0
    by_shrinker = runs["by_trigger"]["shrinker"]
    assert by_shrinker["pages"] == freed
    first = next(each for each in runs["recent"] if each["pages"])
    assert first["trigger"] == "shrinker"
    assert runs["recent"][-1]["trigger"] == "sysfs"
    if made["status"] == "exact":
        assert by_class(made["classes"]) == by_class(first["classes"])


def test_without_its_hook_no_trigger_is_told(
    loader: str, attach_form: str, tmp_path: Path, device: ZramDevice
) -> None:
    """What began a run is unknown then, and said to be; the run is told all the same."""
    arguments = ["--loader", loader, "--attach", attach_form, "--json"]
    arguments += ["--skip-hook", "zs_shrinker_scan"]
    top = Top(tmp_path / "frames.jsonl", arguments, shown=False)
    top.await_first()
    device.compact()
    runs = now(top, device)["compaction_runs"]
    assert top.stop() == 0
    assert list(runs["by_trigger"]) == ["unknown"]
    assert runs["reasons"] == ["what starts compactions: zs_shrinker_scan is not attached"]
    assert runs["recent"][-1]["trigger"] == "unknown"
