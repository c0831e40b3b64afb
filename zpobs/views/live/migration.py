"""The table of zspages that refuse migration: of all pools, or of the one that is drilled into."""

from __future__ import annotations

from typing import Any

import numpy as np

from zpobs.migration import Refusal, error_name
from zpobs.snapshot import PoolView
from zpobs.views.figures import clock, count
from zpobs.views.lines import Span
from zpobs.views.live.cells import floats, number, words
from zpobs.views.live.classes import watched_pool
from zpobs.views.live.events import NO_PROBES
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Table, records_of
from zpobs.views.live.view import ViewState

# Of a copied row.
FIELDS = ("pool", "name", "zspage", "class", "times", "error", "last_ns")
_ADDRESS_CELLS = 18
# Zspages are told apart by pool too; these bits of an address are the same for all.
_ADDRESS_BITS = 48


def migration_table(scene: Scene, state: ViewState) -> Table:
    """Return the live zspages of which a page could not be migrated, the worst first."""
    drilled = watched_pool(scene, state)
    pools = scene.snapshot.pools if drilled is None else (drilled,)
    rows = [(pool, each) for pool in pools if pool.migration for each in pool.migration.refusing]
    addresses = [f"{each.zspage:#x}" for _, each in rows]

    def when(row: int, _: int) -> Span:
        return clock(rows[row][1].last_ns, "%H:%M:%S"), "dim"

    columns = (
        words("pool", "POOL", 8, [pool.name for pool, _ in rows], rank=0),
        number("class", "CLASS", 5, floats([each.class_index for _, each in rows]), count, rank=2),
        words("zspage", "ZSPAGE", _ADDRESS_CELLS, addresses, rank=1),
        number("times", "REFUSED", 8, floats([each.times for _, each in rows]), count, rank=0),
        words("error", "LAST ERROR", 10, [error_name(each.error) for _, each in rows], rank=0),
        Column("last", "LAST (UTC)", 10, when, None, 3),
    )

    def fits(word: str) -> Bools:
        return np.array(
            [
                word in f"{pool.name} {each.zspage:#x} {error_name(each.error)}".lower()
                for pool, each in rows
            ],
            dtype=bool,
        )

    ids = np.array([_id(pool, each) for pool, each in rows], dtype=np.int64)
    records = records_of(lambda at: _record(*rows[at]))
    return Table(ids, columns, "times", fits, records, _nothing(scene, pools), FIELDS)


def _id(pool: PoolView, refusal: Refusal) -> int:
    return (pool.id & 0x7FFF) << _ADDRESS_BITS | refusal.zspage & ((1 << _ADDRESS_BITS) - 1)


def _nothing(scene: Scene, pools: tuple[PoolView, ...]) -> str:
    if not scene.snapshot.health.hooks:
        return NO_PROBES
    failed = sum(each.counters.migration_failures or 0 for each in pools)
    if failed:
        return f"none that lives: {count(failed)} migrations failed, of zspages that are gone"
    return "no zspage has refused a migration"


def _record(pool: PoolView, refusal: Refusal) -> dict[str, Any]:
    return {
        "pool": pool.id,
        "name": pool.name,
        "zspage": f"{refusal.zspage:#x}",
        "class": refusal.class_index,
        "times": refusal.times,
        "error": error_name(refusal.error),
        "last_ns": refusal.last_ns,
    }
