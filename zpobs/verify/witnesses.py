"""What the kernel's own figures say of the model's, and how far each can be trusted.

Witnesses are read before the model is frozen and after the kernel was scanned.
A pool was at rest if all that changes with its use reads the same both times.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from zpobs.snapshot import PoolView, Snapshot
from zpobs.sources.witnesses import (
    SLAB_CACHES,
    Absent,
    ClassStat,
    SlabReading,
    VmstatReading,
    Witnesses,
    ZramReading,
    ZswapReading,
)

Standing = Literal["exact", "not at rest", "bounded", "absent"]
Verdict = Literal["equal", "differs", "within", "outside", "not judged", "absent"]

ALL_POOLS = "all pools"
_DEBUGFS_UNITS = ("objects", "capacity", "pages")
# What mm_stat and bd_stat count written back pages in.
_BD_UNIT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Witness:
    """One figure of the kernel's own and the model's.

    ``subject`` is a pool's name or :data:`ALL_POOLS`. The kernel's figure lies
    from ``lowest`` to ``highest``: one number if it is exact. ``why`` says what
    bounds it, or why it is absent.
    """

    subject: str
    name: str
    unit: str
    standing: Standing
    shadow: int
    lowest: int | None = None
    highest: int | None = None
    why: str = ""

    @property
    def verdict(self) -> Verdict:
        """What it says of the model."""
        if self.lowest is None and self.highest is None:
            return "absent"
        inside = (self.lowest is None or self.lowest <= self.shadow) and (
            self.highest is None or self.shadow <= self.highest
        )
        if self.standing == "exact":
            return "equal" if inside else "differs"
        if self.standing == "not at rest" and self.lowest == self.highest:
            # The figure of one moment, and the model was frozen at another.
            return "equal" if inside else "not judged"
        return "within" if inside else "outside"

    @property
    def contradicts(self) -> bool:
        """Whether it proves the model wrong."""
        return self.verdict == "differs"

    def to_json(self) -> dict[str, Any]:
        """Return one element of the ``witnesses`` array."""
        return {
            "subject": self.subject,
            "name": self.name,
            "unit": self.unit,
            "standing": self.standing,
            "verdict": self.verdict,
            "shadow": self.shadow,
            "lowest": self.lowest,
            "highest": self.highest,
            "why": self.why,
        }


def at_rest(pool: PoolView, before: Witnesses, after: Witnesses) -> bool | None:
    """Return whether nothing used the pool between two readings; None if no witness tells."""
    if pool.owner == "zswap":
        if isinstance(before.zswap, Absent) or isinstance(after.zswap, Absent):
            return None
        return before.zswap == after.zswap
    first, last = before.zram.get(pool.name), after.zram.get(pool.name)
    if not isinstance(first, ZramReading) or not isinstance(last, ZramReading):
        return None
    return first == last and first.in_flight == 0


def judge(
    shadow: Snapshot,
    kernel: Snapshot,
    readings: tuple[Witnesses, Witnesses],
    *,
    resting: Collection[int],
    whole: bool,
    zswap_lags: bool = False,
) -> tuple[Witness, ...]:
    """Hold every witness against the model, whose zspages must be listed.

    ``readings`` were taken before the model was frozen and after the scan;
    ``resting`` are the ids of the pools that were at rest between, ``whole``
    says that ``shadow`` holds all pools, not one. ``zswap_lags`` says that zswap
    does not notice what compaction frees until it is used again.
    """
    page_bytes = shadow.kernel.page_size
    scanned = {pool.id: pool for pool in kernel.pools}
    found: list[Witness] = []
    for pool in shadow.pools:
        rest = pool.id in resting
        if pool.owner == "zram":
            pair = tuple(each.zram.get(pool.name, Absent("no such device")) for each in readings)
            found += _zram(pool, pair[0], pair[1], rest=rest, page_bytes=page_bytes)
        if pool.id in scanned:
            found += _statistics(pool, scanned[pool.id], rest=rest)
        found += _debugfs(pool, readings, rest=rest)
    if not whole:
        return tuple(found)
    rest = all(pool.id in resting for pool in shadow.pools)
    found += _zswap(shadow, readings, resting, lags=zswap_lags)
    found += _vmstat(shadow, readings, rest=rest)
    found += _slabs(shadow, readings)
    return tuple(found)


def _told(
    subject: str, name: str, unit: str, shadow: int, kernel: Iterable[int], *, rest: bool
) -> Witness:
    """Return an exact witness, or a bounded one if the pool was not at rest between readings."""
    values = tuple(kernel)
    why = "" if rest or len(values) < 2 else "between two readings"
    standing: Standing = "exact" if rest else "not at rest"
    return Witness(subject, name, unit, standing, shadow, min(values), max(values), why)


def _zram(
    pool: PoolView,
    before: ZramReading | Absent,
    after: ZramReading | Absent,
    *,
    rest: bool,
    page_bytes: int,
) -> Iterable[Witness]:
    if isinstance(before, Absent) or isinstance(after, Absent):
        why = next(each.reason for each in (before, after) if isinstance(each, Absent))
        yield Witness(pool.name, "mm_stat", "pages", "absent", pool.pages, why=why)
        return
    both = (before, after)
    pages = (each.mm_stat["mem_used_total"] // page_bytes for each in both)
    yield _told(pool.name, "mm_stat mem_used_total", "pages", pool.pages, pages, rest=rest)
    objects = (
        each.mm_stat["orig_data_size"] // page_bytes
        - each.mm_stat["same_pages"]
        - each.written_back * _BD_UNIT_BYTES // page_bytes
        for each in both
    )
    yield _told(pool.name, "mm_stat pages stored", "objects", pool.objects, objects, rest=rest)
    listed = pool.zspage_list
    huge = int(listed.inuse[listed.huge].sum()) if listed is not None else 0
    name = "mm_stat huge_pages"
    if before.written_back or after.written_back:
        why = "pages were written back: huge ones are counted wherever they are"
        yield Witness(pool.name, name, "huge objects", "absent", huge, why=why)
        return
    counts = (each.mm_stat["huge_pages"] for each in both)
    yield _told(pool.name, name, "huge objects", huge, counts, rest=rest)


def _statistics(pool: PoolView, scanned: PoolView, *, rest: bool) -> Iterable[Witness]:
    if scanned.kernel_pages is not None:
        pages = (scanned.kernel_pages,)
        yield _told(pool.name, "pages_allocated", "pages", pool.pages, pages, rest=rest)
    # Of a class whose walk was verified the scan's sums are the class's own statistics.
    table = scanned.classes
    verified = [
        index
        for index, status in zip(table.index.tolist(), table.statuses, strict=True)
        if status == "exact"
    ]
    figures = {
        "objects": [sum(_column(each, each.classes.objects, verified)) for each in (pool, scanned)],
        "capacity": [
            sum(_column(each, each.classes.capacity, verified)) for each in (pool, scanned)
        ],
    }
    name = f"zs_size_stat of {len(verified)} classes"
    for unit, (mine, theirs) in figures.items():
        yield _told(pool.name, name, unit, mine, (theirs,), rest=rest)


def _column(pool: PoolView, column: Any, indices: Collection[int]) -> list[int]:
    """Return a class column's values for these class indices, 0 for those it does not have."""
    values = dict(zip(pool.classes.index.tolist(), column.tolist(), strict=True))
    return [values.get(index, 0) for index in indices]


def _debugfs(
    pool: PoolView, readings: tuple[Witnesses, Witnesses], *, rest: bool
) -> Iterable[Witness]:
    name = "debugfs classes"
    tables: list[Mapping[int, ClassStat]] = []
    for reading in readings:
        if isinstance(reading.classes, Absent):
            yield Witness(
                pool.name, name, "pages", "absent", pool.pages, why=reading.classes.reason
            )
            return
        tables.append(reading.classes.get(pool.name, {}))
    if not all(tables):
        why = "debugfs does not list the pool"
        yield Witness(pool.name, name, "pages", "absent", pool.pages, why=why)
        return
    groups = pool.classes.fullness.shape[1]
    mine = _figures(pool)
    none = (0,) * (len(_DEBUGFS_UNITS) + groups - 1)
    theirs = [{index: _line(line, groups) for index, line in table.items()} for table in tables]
    for at, unit in enumerate(_DEBUGFS_UNITS):
        sums = [sum(line[at] for line in table.values()) for table in theirs]
        figure = sum(mine.get(index, none)[at] for index in theirs[1])
        yield _told(pool.name, name, unit, figure, sums, rest=rest)
    if not rest:
        return
    # Sums can hide what single classes and groups show.
    units = (*_DEBUGFS_UNITS, *(f"zspages of group {group}" for group in range(1, groups)))
    for index, line in theirs[1].items():
        for unit, figure, kernels in zip(units, mine.get(index, none), line, strict=False):
            if figure != kernels:
                yield _told(pool.name, f"{name}, {index}", unit, figure, (kernels,), rest=rest)


def _figures(pool: PoolView) -> dict[int, tuple[int, ...]]:
    """Return by class index what a line of the file tells, in its order."""
    table = pool.classes
    columns = np.column_stack([table.objects, table.capacity, table.pages, table.fullness[:, 1:]])
    rows = zip(table.index.tolist(), columns.tolist(), strict=True)
    return {index: tuple(row) for index, row in rows}


def _line(line: ClassStat, groups: int) -> tuple[int, ...]:
    """Return a line's figures, without its groups where they are not the kernel's own."""
    told = line.fullness if len(line.fullness) == groups - 1 else ()
    return (line.obj_used, line.obj_allocated, line.pages_used, *told)


def _zswap(
    shadow: Snapshot,
    readings: tuple[Witnesses, Witnesses],
    resting: Collection[int],
    *,
    lags: bool,
) -> Iterable[Witness]:
    pools = [pool for pool in shadow.pools if pool.owner == "zswap"]
    pages = sum(pool.pages for pool in pools)
    rest = all(pool.id in resting for pool in pools) and readings[0].zswap == readings[1].zswap
    both = [each.zswap for each in readings]
    told = [
        each.pool_bytes // shadow.kernel.page_size
        for each in both
        if isinstance(each, ZswapReading)
    ]
    if len(told) < len(both):
        why = next(each.reason for each in both if isinstance(each, Absent))
        yield Witness("zswap", "meminfo Zswap", "pages", "absent", pages, why=why)
        return
    # What was freed before the probes came is not counted.
    freed = [p.counters.pages_freed if p.scan_ns is None else None for p in pools] if lags else [0]
    if not rest or not any(count != 0 for count in freed):
        yield _told("zswap", "meminfo Zswap", "pages", pages, told, rest=rest)
        return
    known = [count for count in freed if count is not None]
    yield Witness(
        "zswap",
        "meminfo Zswap",
        "pages",
        "bounded",
        pages,
        max(min(told) - sum(known), 0) if len(known) == len(freed) else None,
        max(told),
        "at most: zswap does not notice what compaction frees until it is used again",
    )


def _vmstat(
    shadow: Snapshot, readings: tuple[Witnesses, Witnesses], *, rest: bool
) -> Iterable[Witness]:
    pages = sum(pool.pages for pool in shadow.pools)
    both = [each.vmstat for each in readings]
    told = [each for each in both if isinstance(each, VmstatReading)]
    name = "vmstat nr_zspages"
    if len(told) < len(both):
        why = next(each.reason for each in both if isinstance(each, Absent))
        yield Witness(ALL_POOLS, name, "pages", "absent", pages, why=why)
        return
    drift = max(each.drift for each in told)
    yield Witness(
        ALL_POOLS,
        name,
        "pages",
        "bounded" if rest else "not at rest",
        pages,
        max(min(each.pages for each in told) - drift, 0),
        max(each.pages for each in told) + drift,
        f"CPUs hold back up to {drift} pages",
    )


def _slabs(shadow: Snapshot, readings: tuple[Witnesses, Witnesses]) -> Iterable[Witness]:
    for cache in SLAB_CACHES:
        unit = "zspages" if cache == "zspage" else "objects"
        figures = {pool.name: int(getattr(pool, unit)) for pool in shadow.pools}
        for reading in readings:
            if isinstance(reading.slabs, Absent):
                why = reading.slabs.reason
                yield Witness(
                    ALL_POOLS, f"slabinfo {cache}", unit, "absent", sum(figures.values()), why=why
                )
                break
        else:
            shared = any(
                not isinstance(reading.slabs, Absent) and cache in reading.slabs
                for reading in readings
            )
            # One cache for all pools, or one for each.
            chosen = {ALL_POOLS: sum(figures.values())} if shared else figures
            for subject, figure in chosen.items():
                row = cache if shared else f"{cache}-{subject}"
                yield _slab(row, subject, unit, figure, readings)


def _slab(
    row: str, subject: str, unit: str, figure: int, readings: tuple[Witnesses, Witnesses]
) -> Witness:
    none = Absent("no such cache in /proc/slabinfo")
    rows = [
        none if isinstance(each.slabs, Absent) else each.slabs.get(row, none) for each in readings
    ]
    told = [each for each in rows if isinstance(each, SlabReading)]
    name = f"slabinfo {row}"
    if len(told) < len(rows):
        why = next(each.reason for each in rows if isinstance(each, Absent))
        return Witness(subject, name, unit, "absent", figure, why=why)
    others = max(each.shared_with for each in told)
    why = "at most: free objects that CPUs hold are counted too"
    if others:
        why += f", and those of {others} other caches"
    highest = max(each.active for each in told)
    return Witness(subject, name, unit, "bounded", figure, None, highest, why)
