"""The table of pools."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from zpobs.rates import PoolRates
from zpobs.snapshot import Counters, PoolView
from zpobs.views.figures import bounds, count, in_bytes, percent, rate, spark, status_span
from zpobs.views.lines import Span
from zpobs.views.live.cells import floats, number, words
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Table, records_of
from zpobs.views.live.view import ViewState
from zpobs.waste import Waste, pool_waste

# Of a copied row.
FIELDS = (
    "id", "name", "owner", "status", "bytes", "pages", "zspages", "objects",
    "wasted_bytes_low", "wasted_bytes_high",
    "allocs_per_s", "frees_per_s", "moves_per_s", "migrations_per_s", *Counters.__slots__,
)  # fmt: skip


def pools_table(scene: Scene, state: ViewState) -> Table:
    """Return the pools of a scene as a table, known by their ids."""
    pools, kernel = scene.snapshot.pools, scene.snapshot.kernel
    wastes = [pool_waste(each, kernel) for each in pools]
    wasted = floats([each.wasted.low if each.wasted else None for each in wastes])
    whole = floats([_whole(each) for each in wastes])
    shares = np.divide(100 * wasted, whole, out=np.full(len(pools), np.nan), where=whole > 0)
    rates = [scene.rates.get(each.id) for each in pools]
    # Not the scene itself, which keeps what is made of it.
    activity = scene.activity

    def waste_cell(row: int, width: int) -> Span:
        return bounds(wastes[row].wasted, width), ""

    def share_cell(row: int, _: int) -> Span:
        return _share(wastes[row]), ""

    def history(row: int, width: int) -> Span:
        return spark(activity.get((pools[row].id, -1), ()), width, ascii_only=state.ascii), "bar"

    counters = [each.counters for each in pools]
    columns = (
        replace(words("name", "POOL", 8, [each.name for each in pools], rank=0), widest=16),
        words("owner", "OWNER", 7, [each.owner for each in pools], rank=4),
        replace(
            words("status", "STATUS", 7, [each.status for each in pools], rank=0),
            text=lambda row, _: status_span(pools[row].status),
        ),
        number("bytes", "BYTES", 9, _bytes(pools, kernel.page_size), in_bytes, rank=0),
        number("objects", "OBJECTS", 9, floats([each.objects for each in pools]), count, rank=3),
        Column("waste", "WASTE", 12, waste_cell, lambda: wasted, 1),
        Column("waste%", "WASTE%", 6, share_cell, lambda: shares, 2),
        number("allocs", "ALLOC/s", 7, _rates(rates, "allocs"), rate, rank=5),
        number("frees", "FREE/s", 7, _rates(rates, "frees"), rate, rank=6),
        number("failed", "FAILED", 7, floats([each.failures for each in counters]), count, rank=7),
        number(
            "compactions", "COMPACT", 8, floats([e.compactions for e in counters]), count, rank=8
        ),
        number("migrations", "MIGRATE", 8, floats([e.migrations for e in counters]), count, rank=9),
        number("zspages", "ZSPAGES", 9, floats([each.zspages for each in pools]), count, rank=11),
        Column("activity", "ACTIVITY", 10, history, None, 10, widest=60),
    )
    named = [f"{each.name} {each.owner} {each.status}".lower() for each in pools]

    def fits(word: str) -> Bools:
        return np.array([word in each for each in named], dtype=bool)

    def record(row: int) -> dict[str, Any]:
        return _record(pools[row], wastes[row], rates[row], kernel.page_size)

    ids = np.array([each.id for each in pools], dtype=np.int64)
    return Table(ids, columns, "waste", fits, records_of(record), no_pools(scene), FIELDS)


def no_pools(scene: Scene) -> str:
    """Return what it means that there is no pool."""
    health = scene.snapshot.health
    if not health.scans:
        what = f"pool called {scene.wanted}" if scene.wanted else "zsmalloc pool"
        return f"no {what} has been used or created since the probes attached"
    if scene.wanted:
        return f"no pool is called {scene.wanted} now: it is shown here as soon as there is one"
    if health.status != "exact":
        return "no pools were found, but not everything could be looked at: ? tells why"
    return "no zsmalloc pool exists: zram or zswap make one when they are switched on"


def _whole(waste: Waste) -> int:
    return waste.pages if waste.total is None else waste.total


def _share(waste: Waste) -> str:
    wasted, whole = waste.wasted, _whole(waste)
    if wasted is None:
        return "?"
    low, high = percent(wasted.low, whole), percent(wasted.high, whole)
    return low if low == high else f">={low}"


def _bytes(pools: tuple[PoolView, ...], page_size: int) -> Any:
    return floats([each.pages * page_size for each in pools])


def _rates(rates: list[PoolRates | None], name: str) -> Any:
    return floats([getattr(each, name, None) for each in rates])


def _record(
    pool: PoolView, waste: Waste, rates: PoolRates | None, page_size: int
) -> dict[str, Any]:
    wasted = waste.wasted
    return {
        "id": pool.id,
        "name": pool.name,
        "owner": pool.owner,
        "status": pool.status,
        "bytes": pool.pages * page_size,
        "pages": pool.pages,
        "zspages": pool.zspages,
        "objects": pool.objects,
        "wasted_bytes_low": wasted.low if wasted else None,
        "wasted_bytes_high": wasted.high if wasted else None,
        "allocs_per_s": rates.allocs if rates else None,
        "frees_per_s": rates.frees if rates else None,
        "moves_per_s": rates.moves if rates else None,
        "migrations_per_s": rates.migrations if rates else None,
        **pool.counters.to_json(),
    }
