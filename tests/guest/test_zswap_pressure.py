"""zswap under memory pressure, watched by probes alone: its pool equals the kernel to the unit."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from lab.comparison import compare_health, compare_zswap, frames_that_changed, pool_named
from lab.watcher import Top
from lab.witness import Witness
from lab.workload import free_movable_memory, move_pages
from lab.zswap import Zswap, ZswapPressure, zswap_at_rest, zswap_figures


@pytest.fixture(scope="module")
def zswap(top: Top) -> Iterator[Zswap]:
    """Turn on zswap, with a new pool, while the watcher looks."""
    assert top.last_frame()
    free_movable_memory()
    turned_on = Zswap()
    yield turned_on
    turned_on.close()


def test_under_pressure(top: Top, witness: Witness, zswap: Zswap, features: frozenset[str]) -> None:
    """Stores, loads, invalidations, pages written back and moved: by probes alone all is exact."""
    before = zswap_figures()
    pressure = ZswapPressure(
        "pressed", pages=4_000, operations=10_000, seed=31, memory_high=6 << 20, zswap_max=2 << 20
    )
    made = pressure.rest()
    # Everything that is still stored was read back in the end, and was what had been written.
    assert made["verified"] == made["pages_stored"] > 0
    pool = witness.zswap_pools()[0]
    lay = witness.walk(pool)
    move_pages(lay)
    frame, figures = zswap_at_rest(lambda: top.frame_after(time.time_ns()))
    used = figures.since(before)
    assert min(used.stores, used.loads) > 0
    assert (used.writebacks > 0) == ("zswap writeback" in features)
    # Neither loaded nor written back, and yet no longer there: dropped.
    assert used.stores - used.loads - used.writebacks > used.stored
    lies = witness.walk(pool)
    ours = pool_named(frame, lies.name)
    checks = [*compare_health(frame), *compare_zswap([ours], used, [lies])]
    assert [check for check in checks if not check.passed] == []
    assert ours["counters"]["migrations"] >= frames_that_changed(lay, lies) > 0
    pressure.end()
    zswap.close()
    empty, figures = zswap_at_rest(lambda: top.frame_after(time.time_ns()))
    assert pool_named(empty, lies.name)["objects"] == figures.stored == 0
