"""The table of how long calls take: of all pools, or of the size classes of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zpobs.latency import KINDS, Histogram, Ints, below_ns
from zpobs.snapshot import PoolView
from zpobs.views.figures import count, spark
from zpobs.views.life import duration
from zpobs.views.lines import Span
from zpobs.views.live.cells import floats, number, why_nothing, words
from zpobs.views.live.classes import watched_pool
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Table, Values, records_of
from zpobs.views.live.view import ViewState

NOT_ASKED = "not measured: zpobs top --latency measures how long calls take"
# Of a copied row.
FIELDS = (
    "pool", "name", "kind", "class", "count", "sum_ns", "half_below_ns", "most_below_ns",
    "all_below_ns", "buckets",
)  # fmt: skip
_SHORT = {
    "alloc": "alloc",
    "alloc_lock": "alloc: lock",
    "alloc_grow": "alloc: grow",
    "alloc_failed": "alloc failed",
    "free": "free",
    "free_lock": "free: lock",
    "migration": "migration",
    "migration_failed": "migr. failed",
}
_CLASSES = 1 << 16
# As rows of a table are known: pool, kind, class.
_KIND_AT = {name: at for at, name in enumerate(KINDS)}


@dataclass(frozen=True, slots=True)
class _Row:
    pool: PoolView
    kind: str
    index: int | None
    count: int
    sum_ns: int
    buckets: Ints

    @property
    def id(self) -> int:
        below = _CLASSES - 1 if self.index is None else self.index
        return (self.pool.id * len(KINDS) + _KIND_AT[self.kind]) * _CLASSES + below


def latency_table(scene: Scene, state: ViewState) -> Table:
    """Return kinds of calls by pool, or, of one that is drilled into, by size class."""
    drilled = watched_pool(scene, state)
    pools = scene.snapshot.pools if drilled is None else (drilled,)
    rows = [row for pool in pools for row in _rows(pool, by_class=drilled is not None)]
    told = [pool.latency for pool in pools if pool.latency is not None]
    nothing = why_nothing(
        pools, told, not_asked=NOT_ASKED, waiting="nothing yet: no call was measured"
    )
    place = (
        words("pool", "POOL", 8, [row.pool.name for row in rows], rank=0)
        if drilled is None
        else number("class", "CLASS", 5, floats([row.index for row in rows]), count, rank=0)
    )
    columns = (
        place,
        words("call", "CALL", 12, [_SHORT[row.kind] for row in rows], rank=0),
        number("count", "COUNT", 9, floats([row.count for row in rows]), count, rank=1),
        _time("mean", "MEAN", [row.sum_ns / row.count for row in rows], rank=0),
        _time("half", "HALF<", [_below(row, 0.5) for row in rows], rank=2),
        _time("most", "99%<", [_below(row, 0.99) for row in rows], rank=0),
        _time("all", "ALL<", [_below(row, 1.0) for row in rows], rank=3),
        _time("sum", "SUM", [float(row.sum_ns) for row in rows], rank=5),
        Column(
            "spread",
            "64 ns .. 1 s",
            13,
            lambda row, _: _spread(rows[row], ascii_only=state.ascii),
            None,
            4,
            left=True,
        ),
    )

    def fits(word: str) -> Bools:
        return np.array([word in f"{row.pool.name} {row.kind}" for row in rows], dtype=bool)

    ids = np.array([row.id for row in rows], dtype=np.int64)
    return Table(
        ids, columns, "sum", fits, records_of(lambda at: _record(rows[at])), nothing, FIELDS
    )


def _rows(pool: PoolView, *, by_class: bool) -> list[_Row]:
    if pool.latency is None:
        return []
    rows = []
    for kind, made in pool.latency.kinds.items():
        for index, total_ns, buckets in _lines(made, by_class=by_class):
            total = int(buckets.sum())
            if total:
                rows.append(_Row(pool, kind, index, total, total_ns, buckets))
    return rows


def _lines(made: Histogram, *, by_class: bool) -> list[tuple[int | None, int, Ints]]:
    if not by_class:
        return [(None, int(made.sum_ns.sum()), made.buckets.sum(axis=0))]
    return [
        (None if index < 0 else index, int(made.sum_ns[at]), made.buckets[at])
        for at, index in enumerate(made.index.tolist())
    ]


def _below(row: _Row, share: float) -> float:
    end_ns = below_ns(row.buckets, share)
    return float("inf") if end_ns is None else float(end_ns)


def _time(name: str, title: str, values_ns: list[float], *, rank: int) -> Column:
    values: Values = floats(values_ns)

    def text(row: int, _: int) -> Span:
        return "longer" if values_ns[row] == float("inf") else duration(values_ns[row]), ""

    return Column(name, title, 8, text, lambda: values, rank)


def _spread(row: _Row, *, ascii_only: bool) -> Span:
    """Draw the histogram, four times as long a duration a cell, by the square root of counts."""
    # Buckets 6 (below 64 ns) to 31 (below 2 s), two a cell.
    pairs = row.buckets[6:32].reshape(-1, 2).sum(axis=1)
    pairs[0] += row.buckets[:6].sum()
    pairs[-1] += row.buckets[32:].sum()
    shown = [float(np.sqrt(each)) for each in pairs.tolist()]
    return spark(shown, len(shown), ascii_only=ascii_only), "bar"


def _record(row: _Row) -> dict[str, Any]:
    return {
        "pool": row.pool.id,
        "name": row.pool.name,
        "kind": row.kind,
        "class": row.index,
        "count": row.count,
        "sum_ns": row.sum_ns,
        "half_below_ns": below_ns(row.buckets, 0.5),
        "most_below_ns": below_ns(row.buckets, 0.99),
        "all_below_ns": below_ns(row.buckets, 1.0),
        "buckets": row.buckets.tolist(),
    }
