"""Metrics of size classes, for those who ask for them: --per-class and --per-class-fullness."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from zpobs.snapshot import ClassTable, PoolView
from zpobs.views.metrics.metric import Metric, Moment, Tier, Value, fullness_names

# The most size classes that a pool can have (ZS_SIZE_CLASSES of mm/zsmalloc.c, at most).
CLASSES_MAX = 256

_Columns = Callable[[ClassTable, Moment], list[int] | None]


def _columns(get: _Columns, *, counter: bool = False) -> Callable[..., Iterator[Value]]:
    """Return values of a column, of the classes whose state is known; counters always are."""

    def values(pool: PoolView, moment: Moment) -> Iterator[Value]:
        table = pool.classes
        column = get(table, moment)
        if column is None:
            return
        for index, status, value in zip(table.index.tolist(), table.statuses, column, strict=True):
            if counter or (status != "unknown" and pool.status != "unknown"):
                yield (str(index),), value

    return values


def _fullness(pool: PoolView, moment: Moment) -> Iterator[Value]:
    names = fullness_names(moment.snapshot.kernel.fullness_groups)
    table = pool.classes
    for index, status, counts in zip(
        table.index.tolist(), table.statuses, table.fullness.tolist(), strict=True
    ):
        if status != "unknown" and pool.status != "unknown":
            for name, count in zip(names, counts, strict=True):
                yield (str(index), name), count


def _page_bytes(moment: Moment) -> int:
    return moment.snapshot.kernel.page_size


def _of_class(
    name: str, text: str, source: str, get: _Columns, merge: Literal["sum", "min"] = "sum"
) -> Metric:
    return Metric(
        f"zpobs_class_{name}",
        "gauge",
        text,
        f"pool.classes.{source}",
        ("class",),
        of_pool=_columns(get),
        tier="class",
        merge=merge,
        series=CLASSES_MAX,
    )


def _counted(name: str, text: str, source: str, get: _Columns) -> Metric:
    tier: Tier = "class"
    return Metric(
        f"zpobs_class_{name}_total",
        "counter",
        text,
        f"pool.classes.{source}",
        ("class",),
        of_pool=_columns(get, counter=True),
        tier=tier,
        needs="probes",
        series=CLASSES_MAX,
    )


CLASSES: tuple[Metric, ...] = (
    _of_class(
        "object_size_bytes",
        "Size of the slots of a size class",
        "size",
        lambda table, _: table.size.tolist(),
    ),
    _of_class(
        "exact",
        "1 where the figures of the size class are exact, 0 where they are bounded",
        "statuses",
        lambda table, _: [int(status == "exact") for status in table.statuses],
        "min",
    ),
    _of_class(
        "bytes",
        "Memory of the pages of a size class",
        "pages",
        lambda table, moment: (table.pages * _page_bytes(moment)).tolist(),
    ),
    _of_class(
        "objects",
        "Objects that are allocated in a size class",
        "objects",
        lambda table, _: table.objects.tolist(),
    ),
    _of_class(
        "object_capacity",
        "Objects that the zspages of a size class have slots for",
        "capacity",
        lambda table, _: table.capacity.tolist(),
    ),
    _of_class(
        "freeable_bytes",
        "Memory that a compaction of a size class could free now",
        "freeable_pages",
        lambda table, moment: (table.freeable_pages * _page_bytes(moment)).tolist(),
    ),
    _counted(
        "allocations",
        "Objects allocated in a size class",
        "allocs",
        lambda table, _: None if table.allocs is None else table.allocs.tolist(),
    ),
    _counted(
        "frees",
        "Objects freed in a size class",
        "frees",
        lambda table, _: None if table.frees is None else table.frees.tolist(),
    ),
    Metric(
        "zpobs_class_fullness_zspages",
        "gauge",
        "Zspages of a size class by fullness group",
        "pool.classes.fullness",
        ("class", "fullness"),
        of_pool=_fullness,
        tier="fullness",
        series=CLASSES_MAX * 12,
    ),
)
