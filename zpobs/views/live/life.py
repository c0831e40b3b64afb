"""The table of zspages' lives: of all pools, or of the size classes of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zpobs.life import PoolLife
from zpobs.snapshot import PoolView
from zpobs.views.figures import count
from zpobs.views.life import duration
from zpobs.views.lines import Span
from zpobs.views.live.cells import floats, number, why_nothing, words
from zpobs.views.live.classes import watched_pool
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Ints, Table, Values, records_of
from zpobs.views.live.view import ViewState
from zpobs.views.scan import shares

NOT_ASKED = "no books are kept: zpobs top --life keeps those of zspages' lives"
_COUNTS = ("started", "births", "found", "deaths", "vanished", "live")
# Of a copied row.
FIELDS = (
    "pool", "name", "class", *_COUNTS, "lifetimes_known", "lifetime_sum_ns", "group_ns",
)  # fmt: skip
_CLASSES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Row:
    """Sums over all classes of a pool, or those of one class."""

    pool: PoolView
    index: int | None
    counts: dict[str, int]
    known: int
    lifetime_ns: int
    group_ns: Ints

    @property
    def id(self) -> int:
        return self.pool.id * _CLASSES + (_CLASSES - 1 if self.index is None else self.index)

    @property
    def mean_ns(self) -> float | None:
        return self.lifetime_ns / self.known if self.known else None


def life_table(scene: Scene, state: ViewState) -> Table:
    """Return births, deaths and time in groups by pool, or, of one, by size class."""
    drilled = watched_pool(scene, state)
    pools = scene.snapshot.pools if drilled is None else (drilled,)
    rows = [row for pool in pools for row in _rows(pool, by_class=drilled is not None)]
    told = [pool.life for pool in pools if pool.life is not None]
    nothing = why_nothing(
        pools, told, not_asked=NOT_ASKED, waiting="nothing yet: no zspage lives or died"
    )
    place = (
        words("pool", "POOL", 8, [row.pool.name for row in rows], rank=0)
        if drilled is None
        else number(
            "class", "CLASS", 5, floats([row.index for row in rows]), count, rank=0, rising=True
        )
    )
    groups = max((len(row.group_ns) for row in rows), default=0)
    means = floats([row.mean_ns for row in rows])

    def mean(row: int, _: int) -> Span:
        mean_ns = rows[row].mean_ns
        return "-" if mean_ns is None else duration(mean_ns), ""

    columns = (
        place,
        *(_count(name, rank, rows) for name, rank in zip(_COUNTS, (6, 0, 7, 0, 8, 0), strict=True)),
        Column("lifetime", "LIFETIME", 9, mean, lambda: means, 1),
        Column(
            "groups",
            "TIME IN GROUPS",
            max(groups, len("TIME IN GROUPS")),
            lambda row, _: (shares(rows[row].group_ns.tolist()), ""),
            None,
            3,
            left=True,
        ),
    )

    def fits(word: str) -> Bools:
        return np.array([word in (row.pool.name, str(row.index)) for row in rows], dtype=bool)

    ids = np.array([row.id for row in rows], dtype=np.int64)
    records = records_of(lambda at: _record(rows[at]))
    return Table(ids, columns, "births", fits, records, nothing, FIELDS)


def _count(name: str, rank: int, rows: list[_Row]) -> Column:
    values: Values = floats([row.counts[name] for row in rows])
    return number(name, name.upper(), 8, values, count, rank=rank)


def _rows(pool: PoolView, *, by_class: bool) -> list[_Row]:
    life = pool.life
    if life is None or not len(life.index):
        return []
    everything = np.arange(len(life.index))
    if not by_class:
        return [_row(pool, life, None, everything)]
    return [_row(pool, life, int(life.index[at]), everything[at : at + 1]) for at in everything]


def _row(pool: PoolView, life: PoolLife, index: int | None, at: Ints) -> _Row:
    counts = {name: int(getattr(life, name)[at].sum()) for name in _COUNTS}
    return _Row(
        pool,
        index,
        counts,
        int(life.lifetimes_known[at].sum()),
        int(life.lifetime_ns[at].sum()),
        life.group_ns[at].sum(axis=0),
    )


def _record(row: _Row) -> dict[str, Any]:
    return {
        "pool": row.pool.id,
        "name": row.pool.name,
        "class": row.index,
        **row.counts,
        "lifetimes_known": row.known,
        "lifetime_sum_ns": row.lifetime_ns,
        "group_ns": row.group_ns.tolist(),
    }
