"""Moments: invented snapshots with all that an exporter adds to them."""

from __future__ import annotations

from typing import Any

from tests.factories import (
    TIME_NS,
    make_health,
    make_latency,
    make_life,
    make_pool,
    make_runs,
    make_snapshot,
)
from tests.object_values import make_objects
from zpobs.footing import Footing, MachineFigures, Owned, Program, ZramFigures, ZswapFigures
from zpobs.migration import PoolMigration
from zpobs.snapshot import OwnerFigures, PoolView
from zpobs.views.metrics.families import Family, make_families
from zpobs.views.metrics.ledger import Ledger
from zpobs.views.metrics.metric import Checks, Choice, Moment, Number

FOOTING = Footing(
    hooks={"obj_malloc": True, "zs_malloc": False},
    form="fentry",
    lost={"ring": 3, "unpaired": 0, "skipped": 4, "skipped_counting": 5},
    untracked_pools=0,
    scan_ns=1_500_000_000,
    last_scan_ns=2_000_000,
    programs=(Program("obj_malloc/exit", 4, 1000, 250_000), Program("zs_free/entry", 0, 0, 0)),
)
MACHINE = MachineFigures(
    cpus=2,
    boot_s=1_700_000_000.0,
    memory_bytes=8 << 30,
    memory_available_bytes=5 << 30,
    swap_bytes=2 << 30,
    swap_used_bytes=1 << 30,
    process_start_s=1_700_000_100.0,
    process_cpu_s=12.5,
    process_resident_bytes=60 << 20,
    process_descriptors=30,
    process_threads=3,
)
MM_STAT = {
    "orig_data_size": 40960,
    "compr_data_size": 10000,
    "mem_used_total": 12288,
    "mem_limit": 0,
    "mem_used_max": 20480,
    "same_pages": 7,
    "pages_compacted": 2,
    "huge_pages": 3,
}
CHECKS = Checks({"equal": 4}, {"model": 0, "witness": 0})
# What the owner of the pool that make_pool() invents may have asked for.
REQUESTED = 6_300_000


def full_pool(pool_id: int = 1, name: str = "zram0", **changed: Any) -> PoolView:
    """Return a pool of which everything is known."""
    made = make_pool(pool_id, name)
    values: dict[str, Any] = {
        "scan_ns": made.since_ns + 5_000_000_000,
        "pages_compacted": 2,
        "migration": PoolMigration("exact", {-11: 3, -22: 1, -5: 1}, (), 0),
        "life": make_life(),
        "latency": make_latency(),
        "runs": make_runs(),
        "objects_told": make_objects(),
        "owner_figures": OwnerFigures(REQUESTED, made.objects, steady=True),
    }
    return make_pool(pool_id, name, **(values | changed))


def make_moment(*pools: PoolView, **changed: Any) -> Moment:
    """Return a moment at which everything is known."""
    owned = Owned(
        zram={pool.name: ZramFigures(MM_STAT, 5) for pool in pools},
        zswap=ZswapFigures(1 << 20, 3 << 20, 4 << 30),
    )
    health = make_health(scans=3, last_scan_ns=TIME_NS)
    snapshot = make_snapshot(*pools, health=health, footing=FOOTING, owned=owned, events_seen=9)
    values: dict[str, Any] = {
        "snapshot": snapshot,
        "version": "0.1",
        "interval_s": 5.0,
        "snapshot_s": 0.01,
        "machine": MACHINE,
        "checks": CHECKS,
    }
    return Moment(**(values | changed))


def families_of(
    moment: Moment, ledger: Ledger | None = None, choice: Choice | None = None
) -> list[Family]:
    return make_families(moment, ledger or Ledger(), choice or Choice())


def values_of(families: list[Family], name: str) -> dict[tuple[str, ...], Number]:
    """Return the series of one metric, none if it is left out."""
    (found,) = [family.series for family in families if family.metric.name == name] or [{}]
    return found
