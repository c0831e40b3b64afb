"""zswap's pools: watched under pressure, several at once, equal to what the kernel says of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lab.comparison import compare_health, compare_zswap, frames_that_changed, pool_named
from lab.watcher import Top
from lab.witness import Witness
from lab.workload import free_movable_memory, move_pages
from lab.zswap import Zswap, ZswapFigures, ZswapPressure, zswap_at_rest, zswap_figures

SCAN = [sys.executable, "-m", "zpobs", "scan", "--json"]


@pytest.fixture(scope="module")
def zswap() -> Iterator[Zswap]:
    """Turn on zswap in front of a swap device in memory."""
    turned_on = Zswap()
    yield turned_on
    turned_on.close()


def hog(name: str, mebibytes: int) -> ZswapPressure:
    """Start a process whose half-random pages do not fit into its memory cgroup, and fill it."""
    pages = mebibytes << 8
    pressure = ZswapPressure(
        name,
        pages=pages,
        operations=pages,
        seed=mebibytes,
        memory_max=20 << 20,
        mix="1:0:0",
        kinds="r37",
        verify=False,
    )
    pressure.rest()
    return pressure


def scan_at_rest() -> tuple[list[dict[str, Any]], ZswapFigures]:
    """Return zswap's pools by a scan, and zswap's figures at that time."""

    def scan() -> dict[str, Any]:
        done = subprocess.run(SCAN, check=True, capture_output=True, text=True)
        frame: dict[str, Any] = json.loads(done.stdout)
        return frame

    frame, figures = zswap_at_rest(scan)
    assert frame["health"]["status"] == "exact", frame["health"]
    return [pool for pool in frame["pools"] if pool["owner"] == "zswap"], figures


def assert_equal(pools: list[dict[str, Any]], figures: ZswapFigures) -> None:
    assert sum(pool["pages"] for pool in pools) * 4096 == figures.pool_bytes
    assert sum(pool["objects"] for pool in pools) == figures.stored


def test_under_pressure(top: Top, zswap: Zswap, witness: Witness) -> None:
    """Stores, loads, invalidations, pages written back and moved: by probes alone all is exact."""
    before = zswap_figures()
    free_movable_memory()
    zswap.new_pool()
    pressure = ZswapPressure(
        "pressed", pages=4_000, operations=10_000, seed=31, memory_max=6 << 20, zswap_max=3 << 20
    )
    made = pressure.rest()
    # Everything that is still stored was read back in the end, and was what had been written.
    assert made["verified"] == made["pages_stored"] > 0
    pool = witness.zswap_pools()[0]
    lay = witness.walk(pool)
    move_pages(lay)
    frame, figures = zswap_at_rest(lambda: top.frame_after(time.time_ns()))
    used = figures.since(before)
    assert min(used.stores, used.loads, used.writebacks) > 0
    # Neither loaded nor written back, and yet no longer there: dropped.
    assert used.stores - used.loads - used.writebacks > used.stored
    lies = witness.walk(pool)
    ours = pool_named(frame, lies.name)
    checks = [*compare_health(frame), *compare_zswap(ours, used, lies)]
    assert [check for check in checks if not check.passed] == []
    assert ours["counters"]["migrations"] >= frames_that_changed(lay, lies) > 0
    pressure.end()
    empty, figures = zswap_at_rest(lambda: top.frame_after(time.time_ns()))
    assert pool_named(empty, lies.name)["objects"] == figures.stored == 0


def test_two_pools_at_once(zswap: Zswap) -> None:
    """Entries stay in the pool of the compressor that made them; a new one has its own."""
    first_hog = hog("first", 44)
    first, figures = scan_at_rest()
    assert_equal(first, figures)
    assert sum(pool["objects"] for pool in first) > 4000
    zswap.new_pool()
    second_hog = hog("second", 36)
    both, figures = scan_at_rest()
    assert_equal(both, figures)
    in_use = [pool for pool in both if pool["objects"]]
    assert len(in_use) == 2
    assert len({pool["id"] for pool in in_use}) == 2
    assert all(re.fullmatch(r"zswap[0-9a-f]+", pool["name"]) for pool in in_use)
    verified = subprocess.run(
        [sys.executable, "-m", "zpobs", "verify", "--invariants"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout
    first_hog.end()
    second_hog.end()
    rest, figures = scan_at_rest()
    assert_equal(rest, figures)
    assert sum(pool["objects"] for pool in rest) < sum(pool["objects"] for pool in first) // 2
