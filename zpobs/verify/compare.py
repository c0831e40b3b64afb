"""The frozen shadow model against an independent scan: every zspage, class and pool.

Pure functions on snapshots that list zspages. A size class that was busy while
the kernel was scanned is not compared zspage by zspage: :func:`meanwhile` finds
such classes, and what the counted operations allow their objects to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zpobs.snapshot import ClassTable, Health, PoolView, Snapshot, Status, ZspageTable
from zpobs.verify.findings import (
    BusyClass,
    ComparedClass,
    Comparison,
    Difference,
    Meanwhile,
    PoolComparison,
    Value,
)

_Rows = npt.NDArray[np.intp]
_Bools = npt.NDArray[np.bool_]

# No kernel has more size classes: their number is a 9-bit field of a zspage.
_CLASSES = 512
_ZSPAGE_COLUMNS = ("inuse", "fullness", "huge")
_CLASS_COLUMNS = ("size", "objs_per_zspage", "pages_per_zspage", "zspages", "objects")
_POOL_COLUMNS = ("pages", "zspages", "objects")
_BUSY_SCAN = "it changed while the kernel was scanned"
_BUSY_MODEL = "it changed in the model meanwhile"
_BUSY_UNSEEN = "it differs, but the pool was not at rest and no probe told what changed"


def meanwhile(before: Snapshot, shadow: Snapshot, kernel: Snapshot, after: Snapshot) -> Meanwhile:
    """Find what was busy: a scan of ``kernel`` lay between the models ``shadow`` and ``after``.

    ``before`` is a snapshot of the model from before ``shadow`` was frozen; the
    operations counted since bound a busy class. Without counters nothing bounds it.
    """
    models = [{pool.id: pool for pool in each.pools} for each in (before, shadow, after)]
    scanned = {pool.id: pool for pool in kernel.pools}
    watched = shadow.health.scans == after.health.scans
    busy = {}
    for pool_id, frozen in models[1].items():
        last, seen = models[2].get(pool_id), scanned.get(pool_id)
        if last is None or seen is None:
            continue
        reasons = dict.fromkeys(_changed_classes(frozen, last, watched=watched), _BUSY_MODEL)
        reasons |= dict.fromkeys(_unsteady_classes(seen), _BUSY_SCAN)
        first = models[0].get(pool_id, frozen)
        busy[pool_id] = {
            index: _busy_class(index, reasons[index], (first, frozen, seen, last))
            for index in sorted(reasons)
        }
    return Meanwhile(busy=busy, pools=frozenset(_passing(before, shadow, kernel, after)))


def followed(first: Health, last: Health) -> bool:
    """Whether probes would have told of every change between two healths."""
    lost = (last.lost, last.missed_runs) != (first.lost, first.missed_runs)
    return first.hooks > 0 and not first.missed_hooks and not lost


def compare(shadow: Snapshot, kernel: Snapshot, during: Meanwhile | None = None) -> Comparison:
    """Compare two snapshots that list zspages, pool by pool.

    Classes that ``during`` calls busy, and those that the scan could not verify,
    are left to their bounds. A zspage that is in a class that was at rest on one
    side only is a difference. Raise ValueError if zspages are not listed.
    """
    during = during or Meanwhile()
    ours, theirs = ({each.id: each for each in one.pools} for one in (shadow, kernel))
    pools, told = [], []
    for pool_id in sorted(ours.keys() | theirs.keys()):
        view = ours.get(pool_id) or theirs[pool_id]
        if pool_id in during.pools:
            told.append(_passed(view.name or pool_id))
        elif pool_id not in theirs:
            pools.append(_lonely(view, shadow=True))
        elif pool_id not in ours:
            pools.append(_lonely(view, shadow=False))
        else:
            busy = during.busy.get(pool_id)
            pools.append(_compare_pool(ours[pool_id], theirs[pool_id], busy))
    return Comparison(pools=tuple(pools), meanwhile=tuple(told))


def excuse(comparison: Comparison, pools: Iterable[int]) -> Comparison:
    """Take the differing classes of pools as busy: nothing says that they did not change.

    Nor does anything say of one that the scan lacks that it was the same pool
    before and after: another may have taken its name and address.
    """
    ids = set(pools)
    kept = [_excused(each) if each.id in ids else each for each in comparison.pools]
    gone = [each for each in kept if each.lonely and each.id in ids]
    return Comparison(
        pools=tuple(each for each in kept if each not in gone),
        meanwhile=(*comparison.meanwhile, *(_passed(each.name or each.id) for each in gone)),
    )


def merge(old: Comparison, new: Comparison) -> Comparison:
    """Return the newer comparison with what it lacks of the older one.

    These are the classes that are busy now and were not then, and those that
    the model called exact and that differed: that they are healed now does not
    undo it.
    """
    earlier = {pool.id: pool.classes for pool in old.pools}
    merged = []
    for pool in new.pools:
        known = earlier.get(pool.id, {})
        now = {each.index for each in pool.busy}
        kept = {i: each for i, each in known.items() if i in now or each.disproved}
        left = tuple(each for each in pool.busy if each.index not in kept)
        classes = dict(sorted({**pool.classes, **kept}.items()))
        merged.append(replace(pool, classes=classes, busy=left))
    return replace(new, pools=tuple(merged))


def _passed(name: str | int) -> str:
    return f"{name} was created or destroyed meanwhile: not compared"


def _excused(pool: PoolComparison) -> PoolComparison:
    if pool.lonely:
        return pool
    wrong = {index: each for index, each in pool.classes.items() if each.differences}
    busy = []
    for index, each in wrong.items():
        standing = each.differences[0].standing
        busy.append(BusyClass(index, _BUSY_UNSEEN, each.shadow_objects, each.objects, standing))
    return replace(
        pool,
        classes={index: each for index, each in pool.classes.items() if index not in wrong},
        busy=tuple(sorted((*pool.busy, *busy), key=lambda each: each.index)),
        sums=(),
    )


def _passing(before: Snapshot, shadow: Snapshot, kernel: Snapshot, after: Snapshot) -> set[int]:
    """Return the ids of pools that came or went between the two models.

    A pool that both models have was there all the time. One that the scan alone
    met lived between the two, for all that can be known without probes; with
    them the model is told of its end. And with them a pool that has been
    there since before ``before`` has not come: the model lacked it.
    """
    ours, scanned, last = (
        {pool.id: pool for pool in each.pools} for each in (shadow, kernel, after)
    )
    named = {event.pool for event in after.events if event.time_ns >= before.mono_ns}
    gone = {event.pool for event in after.events if event.kind == "pool_destroyed"} & named
    passing = (ours.keys() ^ last.keys()) | gone
    if not followed(before.health, after.health):
        return passing | (scanned.keys() - ours.keys() - last.keys())
    wall_ns = after.time_ns - after.mono_ns
    came = (last.keys() & scanned.keys()) - ours.keys()
    return passing - {id_ for id_ in came if last[id_].since_ns - wall_ns < before.mono_ns}


def _lonely(view: PoolView, *, shadow: bool) -> PoolComparison:
    """Return the comparison of a pool that only one side has: one difference."""
    count = view.zspages
    standing: Status = view.status if shadow else "unknown"
    mine, yours = (count, None) if shadow else (None, count)
    return PoolComparison(
        id=view.id,
        name=view.name,
        status=standing,
        classes={},
        sums=(Difference(None, None, "pool", mine, yours, standing),),
    )


# ---- busy classes --------------------------------------------------------------


def _listed(pool: PoolView) -> ZspageTable:
    if pool.zspage_list is None:
        raise ValueError(f"pool {pool.id} lists no zspages")
    return pool.zspage_list


def _unsteady_classes(seen: PoolView) -> set[int]:
    table = seen.classes
    pairs = zip(table.index.tolist(), table.statuses, strict=True)
    return {index for index, status in pairs if status != "exact"}


def _changed_classes(old: PoolView, new: PoolView, *, watched: bool) -> set[int]:
    """Return the classes that changed in the model between two snapshots.

    ``watched`` tells that no scan was applied between: then a zspage that was
    only seen again was told of by a probe.
    """
    found = set()
    for name in ("allocs", "frees", "moves", *_CLASS_COLUMNS):
        pair = [_by_class(pool.classes, getattr(pool.classes, name)) for pool in (old, new)]
        found |= {index for index, _ in pair[0].items() ^ pair[1].items()}
    one, two = _listed(old), _listed(new)
    here, there, mine, yours = _paired(one.address, two.address)
    changed = _frames_differ(one, here, two, there)
    seen = ("last_seen_ns", "first_seen_ns") if watched else ()
    for column in ("class_index", *_ZSPAGE_COLUMNS, *seen):
        changed |= getattr(one, column)[here] != getattr(two, column)[there]
    for table, rows in ((one, here[changed]), (two, there[changed]), (one, mine), (two, yours)):
        found.update(np.unique(table.class_index[rows]).tolist())
    return found


def _busy_class(
    index: int, reason: str, views: tuple[PoolView, PoolView, PoolView, PoolView]
) -> BusyClass:
    first, frozen, seen, last = (view.classes for view in views)
    standing = _standings(views[1])[index]
    shadow, kernel = (_of_class(table, table.objects, index) for table in (frozen, seen))
    counted = [
        (_of_class(first, begin, index), _of_class(last, end, index))
        for begin, end in ((first.allocs, last.allocs), (first.frees, last.frees))
        if begin is not None and end is not None
    ]
    if len(counted) < 2:
        return BusyClass(index, reason, shadow, kernel, standing)
    allocs, frees = (end - begin for begin, end in counted)
    ahead = _counted_ahead(frozen, last, index)
    lowest, highest = max(shadow - frees - max(-ahead, 0), 0), shadow + allocs + max(ahead, 0)
    return BusyClass(index, reason, shadow, kernel, standing, lowest, highest)


def _counted_ahead(frozen: ClassTable, last: ClassTable, index: int) -> int:
    """Return how many objects of a class were counted, net, but not told when it was frozen.

    An operation is counted before it is told. A CPU that stops between the two, as a virtual one
    may, lets the model be behind its counters; what came until ``last`` and was not counted since
    shows it.
    """

    def uncounted(table: ClassTable) -> int:
        if table.allocs is None or table.frees is None:
            return 0
        return _of_class(table, table.objects - table.allocs + table.frees, index)

    return uncounted(last) - uncounted(frozen)


def _by_class(table: ClassTable, column: Any) -> dict[int, int]:
    """Return what a column tells by class index, zeros left out."""
    if column is None:
        return {}
    pairs = zip(table.index.tolist(), column.tolist(), strict=True)
    return {index: value for index, value in pairs if value}


def _of_class(table: ClassTable, column: Any, index: int) -> int:
    return int(column[table.index == index].sum())


# ---- one pool ------------------------------------------------------------------


def _compare_pool(
    shadow: PoolView, kernel: PoolView, busy: Mapping[int, BusyClass] | None
) -> PoolComparison:
    if busy is None:
        views = (shadow, shadow, kernel, shadow)
        busy = {i: _busy_class(i, _BUSY_SCAN, views) for i in _unsteady_classes(kernel)}
    indices = {
        index
        for pool in (shadow, kernel)
        for index in _by_class(pool.classes, pool.classes.zspages)
        if index not in busy
    }
    ours, theirs = _listed(shadow), _listed(kernel)
    found = [
        *_class_sums(shadow.classes, kernel.classes, sorted(indices)),
        *_zspage_differences(ours, theirs, _standings(shadow), frozenset(busy)),
    ]
    by_class: dict[int, list[Difference]] = {index: [] for index in indices}
    for each in found:
        by_class.setdefault(each.class_index or 0, []).append(each)
    zspages = np.bincount(theirs.class_index, minlength=_CLASSES)
    lengths = np.diff(theirs.frame_start)
    frames = np.bincount(theirs.class_index, weights=lengths, minlength=_CLASSES).astype(np.int64)
    return PoolComparison(
        id=shadow.id,
        name=shadow.name,
        status=shadow.status,
        classes={
            index: ComparedClass(
                zspages=int(zspages[index]),
                frames=int(frames[index]),
                objects=_of_class(kernel.classes, kernel.classes.objects, index),
                shadow_objects=_of_class(shadow.classes, shadow.classes.objects, index),
                differences=tuple(some),
            )
            for index, some in sorted(by_class.items())
        },
        busy=tuple(busy[index] for index in sorted(busy)),
        sums=() if busy else tuple(_pool_sums(shadow, kernel)),
    )


def _pool_sums(shadow: PoolView, kernel: PoolView) -> Iterable[Difference]:
    for name in _POOL_COLUMNS:
        mine, yours = getattr(shadow, name), getattr(kernel, name)
        if mine != yours:
            yield Difference(None, None, name, mine, yours, shadow.status)


def _class_sums(shadow: ClassTable, kernel: ClassTable, indices: list[int]) -> Iterable[Difference]:
    standings = dict(zip(shadow.index.tolist(), shadow.statuses, strict=True))
    columns = {
        name: tuple(_by_class(table, getattr(table, name)) for table in (shadow, kernel))
        for name in _CLASS_COLUMNS
    }
    groups = tuple(
        dict(zip(table.index.tolist(), table.fullness.tolist(), strict=True))
        for table in (shadow, kernel)
    )
    for index in indices:
        standing = standings.get(index, "unknown")
        for name, (mine, yours) in columns.items():
            pair = (mine.get(index, 0), yours.get(index, 0))
            # Of a class without zspages the geometry may be known to one side only.
            geometry = name in ("size", "objs_per_zspage", "pages_per_zspage")
            if pair[0] != pair[1] and not (geometry and 0 in pair):
                yield Difference(index, None, name, *pair, standing)
        both = [tuple(each.get(index, ())) for each in groups]
        if both[0] != both[1] and any(any(each) for each in both):
            yield Difference(index, None, "fullness", both[0], both[1], standing)


def _standings(shadow: PoolView) -> dict[int, Status]:
    """Return each class's status, with the pool's for classes that the model does not have."""
    known = dict(zip(shadow.classes.index.tolist(), shadow.classes.statuses, strict=True))
    return {index: known.get(index, shadow.status) for index in range(_CLASSES)}


# ---- zspages -------------------------------------------------------------------


def _zspage_differences(
    ours: ZspageTable, theirs: ZspageTable, standings: Mapping[int, Status], busy: frozenset[int]
) -> list[Difference]:
    here, there, mine, yours = _paired(ours.address, theirs.address)
    at_rest = np.ones(_CLASSES, dtype=bool)
    at_rest[list(busy)] = False
    rest_here, rest_there = at_rest[ours.class_index], at_rest[theirs.class_index]
    found: list[tuple[int, int, Difference]] = []

    def note(index: int, address: int, name: str, pair: tuple[Value, Value]) -> None:
        standing = standings.get(index, "unknown")
        found.append((index, address, Difference(index, address, name, *pair, standing)))

    for row in mine[rest_here[mine]].tolist():
        pair = (int(ours.inuse[row]), None)
        note(int(ours.class_index[row]), int(ours.address[row]), "zspage", pair)
    for row in yours[rest_there[yours]].tolist():
        pair_of_kernel = (None, int(theirs.inuse[row]))
        note(int(theirs.class_index[row]), int(theirs.address[row]), "zspage", pair_of_kernel)
    moved = ours.class_index[here] != theirs.class_index[there]
    for at in np.flatnonzero(moved & (rest_here[here] | rest_there[there])).tolist():
        mine_in, yours_in = int(ours.class_index[here[at]]), int(theirs.class_index[there[at]])
        index = mine_in if yours_in in busy else yours_in
        note(index, int(ours.address[here[at]]), "class", (mine_in, yours_in))
    settled = rest_here[here] & ~moved
    for name in _ZSPAGE_COLUMNS:
        left, right = getattr(ours, name), getattr(theirs, name)
        for at in np.flatnonzero(settled & (left[here] != right[there])).tolist():
            row, other = here[at], there[at]
            address = int(ours.address[row])
            note(int(ours.class_index[row]), address, name, (left[row].item(), right[other].item()))
    known = np.diff(theirs.frame_start)[there] > 0
    unlike = settled & known & _frames_differ(ours, here, theirs, there)
    for at in np.flatnonzero(unlike).tolist():
        row, other = here[at], there[at]
        chains = (_chain(ours, row), _chain(theirs, other))
        note(int(ours.class_index[row]), int(ours.address[row]), "frames", chains)
    return [each for _, _, each in sorted(found, key=lambda one: one[:2])]


def _chain(table: ZspageTable, row: int) -> tuple[int, ...]:
    begin, end = table.frame_start[row], table.frame_start[row + 1]
    return tuple(table.frames[begin:end].tolist())


def _paired(
    ours: npt.NDArray[np.uint64], theirs: npt.NDArray[np.uint64]
) -> tuple[_Rows, _Rows, _Rows, _Rows]:
    """Pair rows of two rising columns: rows that are in both, here and there, and in one only."""
    at = np.searchsorted(theirs, ours)
    inside = at < len(theirs)
    both = np.zeros(len(ours), dtype=bool)
    both[inside] = theirs[at[inside]] == ours[inside]
    here, there = np.flatnonzero(both), at[both]
    lone = np.ones(len(theirs), dtype=bool)
    lone[there] = False
    return here, there, np.flatnonzero(~both), np.flatnonzero(lone)


def _frames_differ(ours: ZspageTable, here: _Rows, theirs: ZspageTable, there: _Rows) -> _Bools:
    """Return for pairs of rows whether their page frames differ, shape (pairs,)."""
    lengths = np.diff(ours.frame_start)[here]
    differ: _Bools = lengths != np.diff(theirs.frame_start)[there]
    like = np.flatnonzero(~differ & (lengths > 0))
    if not len(like):
        return differ
    lengths = lengths[like]
    first = np.cumsum(lengths) - lengths
    step = np.arange(int(lengths.sum())) - np.repeat(first, lengths)
    left = ours.frames[np.repeat(ours.frame_start[here[like]], lengths) + step]
    right = theirs.frames[np.repeat(theirs.frame_start[there[like]], lengths) + step]
    differ[like] = np.logical_or.reduceat(left != right, first)
    return differ
