"""A forecast beside its outcome on a kernel with probes: pages freed and objects moved."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from lab.comparison import pool_named
from lab.features import detect
from lab.watcher import Top
from lab.workload import Churn, ZramDevice


def test_the_outcome_is_as_forecast(loader: str, attach_form: str, tmp_path: Path) -> None:
    """Class by class: as many objects move, and mm_stat tells as many pages."""
    arguments = ["--loader", loader, "--attach", attach_form, "--json"]
    top = Top(tmp_path / "frames.jsonl", arguments, shown=False)
    top.await_first()
    device = ZramDevice("256M")
    try:
        Churn(device, operations=15_000, seed=62).finish()
        command = [sys.executable, "-m", "zpobs", "scan", "--compaction", "--json"]
        told = subprocess.run([*command, "--pool", device.name], check=True, capture_output=True)
        (scanned,) = json.loads(told.stdout)["pools"]
        made = scanned["compaction"]
        before = pool_named(top.frame_after(time.time_ns()), device.name)
        stat = device.mm_stat()
        device.compact()
        freed = device.mm_stat()[6] - stat[6]
        after = pool_named(top.frame_after(time.time_ns()), device.name)
        assert freed > 0
        if not detect()["percent groups"]:
            assert (made["status"], made["moves"]) == ("bounded", None)
            assert made["pages"] >= freed
            return
        assert made["status"] == "exact"
        assert made["pages"] == freed
        assert after["counters"]["pages_freed"] - before["counters"]["pages_freed"] == freed
        moves_before = {each["index"]: each["counters"]["moves"] for each in before["classes"]}
        moved = {
            each["index"]: each["counters"]["moves"] - moves_before[each["index"]]
            for each in after["classes"]
        }
        assert {each["index"]: each["moves"] for each in made["classes"]} == {
            index: moves for index, moves in moved.items() if moves
        }
    finally:
        device.remove()
        assert top.stop() == 0
