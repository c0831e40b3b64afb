"""The tables of objects: how many and how long they lived, and who pins near-empty zspages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from zpobs.objects import Ints, Pins, PoolObjects
from zpobs.snapshot import PoolView
from zpobs.views.figures import count, spark
from zpobs.views.life import duration
from zpobs.views.lines import Span
from zpobs.views.live.cells import floats, number, why_nothing, words
from zpobs.views.live.classes import watched_pool
from zpobs.views.live.scene import Scene
from zpobs.views.live.table import Bools, Column, Table, Values, records_of
from zpobs.views.live.view import ViewState
from zpobs.views.objects import owner_words, place_words

NOT_ASKED = "not told: zpobs top --objects has objects told one by one"
# Of a copied row.
_SUMS = ("stored", "freed", "live", "moves", "live_bytes", "lifetime_ns")
FIELDS = ("pool", "name", "class", *_SUMS, "lifetimes")
PIN_FIELDS = (
    "pool", "name", "class", "inuse", "objs_per_zspage", "pages", "requested_bytes", "stored_ns",
    "cgroup_id", "cgroup", "cgroup_of", "command", "place", "node", "cpu",
)  # fmt: skip
_CLASSES = 1 << 16


@dataclass(frozen=True, slots=True)
class _Row:
    pool: PoolView
    index: int | None
    sums: dict[str, int]
    lifetimes: Ints


def objects_table(scene: Scene, state: ViewState) -> Table:
    """Return the objects of each pool, or, of one that is drilled into, of each size class."""
    drilled = watched_pool(scene, state)
    pools = scene.snapshot.pools if drilled is None else (drilled,)
    rows = [row for pool in pools for row in _rows(pool, by_class=drilled is not None)]
    place = (
        words("pool", "POOL", 8, [row.pool.name for row in rows], rank=0)
        if drilled is None
        else number("class", "CLASS", 5, floats([row.index for row in rows]), count, rank=0)
    )

    def counted(name: str, title: str, rank: int, width: int = 9) -> Column:
        values = floats([row.sums[name] for row in rows])
        return number(name, title, width, values, count, rank=rank)

    columns = (
        place,
        counted("stored", "STORED", 1),
        counted("freed", "FREED", 2),
        counted("live", "LIVE", 0),
        counted("live_bytes", "BYTES", 1, 11),
        counted("moves", "MOVES", 4),
        _time("mean", "MEAN LIFE", [_mean(row) for row in rows], 0),
        Column(
            "spread",
            "1 us .. 4 h",
            17,
            lambda row, _: _spread(rows[row], ascii_only=state.ascii),
            None,
            3,
            left=True,
        ),
    )

    def fits(word: str) -> Bools:
        return np.array([word in row.pool.name for row in rows], dtype=bool)

    ids = np.array([row.pool.id * _CLASSES + (row.index or 0) for row in rows], dtype=np.int64)
    nothing = _nothing(pools, "nothing yet: no object was told")
    made = records_of(lambda at: _record(rows[at]))
    return Table(ids, columns, "live_bytes", fits, made, nothing, FIELDS)


def _rows(pool: PoolView, *, by_class: bool) -> list[_Row]:
    told = pool.objects_told
    if told is None or told.status == "unknown":
        return []
    if not by_class:
        sums = {name: int(getattr(told, name).sum()) for name in _SUMS}
        return [_Row(pool, None, sums, told.lifetimes.sum(axis=0))]
    rows = []
    for at, index in enumerate(told.index.tolist()):
        sums = {name: int(getattr(told, name)[at]) for name in _SUMS}
        rows.append(_Row(pool, index, sums, told.lifetimes[at]))
    return rows


def _nothing(pools: tuple[PoolView, ...], quiet: str) -> str:
    told = [pool.objects_told for pool in pools if pool.objects_told is not None]
    return why_nothing(pools, told, not_asked=NOT_ASKED, waiting=quiet)


def _mean(row: _Row) -> float | None:
    freed = row.sums["freed"]
    return row.sums["lifetime_ns"] / freed if freed else None


def _time(name: str, title: str, values_ns: list[float | None], rank: int) -> Column:
    values: Values = floats(values_ns)

    def text(row: int, _: int) -> Span:
        value = values_ns[row]
        return "-" if value is None else duration(value), ""

    return Column(name, title, 9, text, lambda: values, rank)


def _spread(row: _Row, *, ascii_only: bool) -> Span:
    """Draw lifetimes, four times as long a cell, by the square root of counts."""
    # Buckets 10 (below 1 us) to 43 (below 2.4 h), two a cell.
    pairs = row.lifetimes[10:44].reshape(-1, 2).sum(axis=1)
    pairs[0] += row.lifetimes[:10].sum()
    pairs[-1] += row.lifetimes[44:].sum()
    shown = [float(np.sqrt(each)) for each in pairs.tolist()]
    return spark(shown, len(shown), ascii_only=ascii_only), "bar"


def _record(row: _Row) -> dict[str, Any]:
    return {
        "pool": row.pool.id,
        "name": row.pool.name,
        "class": row.index,
        **row.sums,
        "lifetimes": row.lifetimes.tolist(),
    }


# ---- pins ------------------------------------------------------------------------


def pins_table(scene: Scene, state: ViewState) -> Table:
    """Return the objects that pin near-empty zspages, of all pools or of one."""
    drilled = watched_pool(scene, state)
    pools = scene.snapshot.pools if drilled is None else (drilled,)
    rows = [
        (pool, told.pins, at)
        for pool in pools
        if (told := _told(pool)) is not None and told.pins is not None
        for at in range(len(told.pins.handle))
    ]
    now_ns = scene.snapshot.time_ns

    def of_rows(get: Callable[[Pins, int], float | None]) -> Values:
        return floats([get(pins, at) for _, pins, at in rows])

    def known(name: str) -> Values:
        return of_rows(
            lambda pins, at: None if (value := int(getattr(pins, name)[at])) < 0 else value
        )

    ages: list[float | None] = [
        float(max(now_ns - int(pins.stored_ns[at]), 0)) for _, pins, at in rows
    ]
    owners = [owner_words(pins, at) for _, pins, at in rows]
    commands = [pins.command[at] or "-" for _, pins, at in rows]
    columns = (
        words("pool", "POOL", 8, [pool.name for pool, _, _ in rows], rank=3),
        _time("age", "AGE", ages, 0),
        number("class", "CLASS", 5, known("class_index"), count, rank=4),
        number("size", "SIZE", 6, known("size"), count, rank=2),
        number("inuse", "INUSE", 5, known("inuse"), count, rank=1),
        number("pages", "PAGES", 5, known("zspage_pages"), count, rank=5),
        number("node", "NODE", 4, known("node"), count, rank=6),
        words("command", "COMMAND", 15, commands, rank=2),
        words("place", "PLACE", 18, [place_words(pins, at) for _, pins, at in rows], rank=4),
        words("cgroup", "CGROUP", 24, owners, rank=0),
    )

    def fits(word: str) -> Bools:
        return np.array(
            [
                word in f"{pool.name} {command} {owner}"
                for (pool, _, _), command, owner in zip(rows, commands, owners, strict=True)
            ],
            dtype=bool,
        )

    # Handles are even: without their highest bit they are identities that fit.
    ids = np.array([int(pins.handle[at]) & (2**63 - 1) for _, pins, at in rows], dtype=np.int64)
    nothing = _nothing(pools, "no told object is in a near-empty zspage")
    return Table(
        ids,
        columns,
        "age",
        fits,
        records_of(lambda at: _pin_record(*rows[at])),
        nothing,
        PIN_FIELDS,
    )


def _told(pool: PoolView) -> PoolObjects | None:
    told = pool.objects_told
    return None if told is None or told.status == "unknown" else told


def _pin_record(pool: PoolView, pins: Pins, at: int) -> dict[str, Any]:
    return {"pool": pool.id, "name": pool.name} | pins.row_json(at, addresses=False)
