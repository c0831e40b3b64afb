"""Runs of compaction, kept from their records: sums of all, and the last ones class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from zpobs import wire
from zpobs.model.arrays import I64
from zpobs.model.scans import CLASSES_MAX
from zpobs.model.state import StateReader, StateWriter, check, rows_of_any
from zpobs.runs import ClassOutcome, PoolRuns, Run, RunSums, Trigger
from zpobs.wire import Words

# Runs of a pool that are kept class by class.
RUNS_MAX = 16

# Trigger words of the wire: 0, TRIGGER_CALL, TRIGGER_SHRINKER.
_TRIGGERS = 3
_RUNS, _MOVES, _PAGES, _DURATION = range(4)
# Columns of a state.
_RUN_COLUMNS = {
    "pool": np.uint32,
    "begin_ns": np.uint64,
    "trigger": np.uint8,
    "end_ns": np.uint64,
    "moves": np.uint64,
    "pages": np.uint64,
    "classes": np.uint64,
}
_CLASS_COLUMNS = {
    "pool": np.uint32,
    "begin_ns": np.uint64,
    "class_index": np.uint16,
    "moves": np.uint64,
    "pages": np.uint64,
    "took_ns": np.int64,
}
_POOL_COLUMNS = {"pool": np.uint32, "unended": np.int64}
_SUM_COLUMNS = {
    "pool": np.uint32,
    "trigger": np.uint8,
    "runs": np.int64,
    "moves": np.int64,
    "pages": np.int64,
    "took_ns": np.int64,
}
_MOVE_COLUMNS = {
    "pool": np.uint32,
    "trigger": np.uint8,
    "class_index": np.uint16,
    "moves": np.int64,
}
_U32 = np.uint64(0xFFFFFFFF)
_BYTE = np.uint64(0xFF)


@dataclass(slots=True)
class _Run:
    """One run by its beginning, monotonic; ``end_ns`` 0 until its end was told."""

    trigger: int = 0
    end_ns: int = 0
    moves: int = 0
    pages: int = 0
    told: int = 0
    # Of each class: index, moves, pages, and how long it took, -1 where not known.
    classes: list[tuple[int, int, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class _Pool:
    """``by_trigger`` has shape (_TRIGGERS, 4), ``by_class`` (_TRIGGERS, CLASSES_MAX), moves."""

    runs: dict[int, _Run] = field(default_factory=dict)
    by_trigger: I64 = field(default_factory=lambda: np.zeros((_TRIGGERS, 4), dtype=np.int64))
    by_class: I64 = field(
        default_factory=lambda: np.zeros((_TRIGGERS, CLASSES_MAX), dtype=np.int64)
    )
    unended: int = 0
    made: tuple[object, tuple[Run, ...]] | None = None


class RunLedger:
    """By pool serial."""

    def __init__(self) -> None:
        self._pools: dict[int, _Pool] = {}

    def take(self, events: Words) -> None:
        """Take those of some events that are of compactions, shape (n, RECORD_WORDS)."""
        kind = wire.kinds(events)
        own = (kind == wire.KIND_COMPACT_BEGIN) | (kind == wire.KIND_COMPACT_END)
        own |= kind == wire.KIND_COMPACT_CLASS
        if not own.any():
            return
        serials = events[:, wire.WORD_HEAD] >> np.uint64(32)
        for serial in np.unique(serials[own]).tolist():
            some = own & (serials == serial)
            pool = self._pools.setdefault(serial, _Pool())
            pool.made = None
            _take_classes(pool, events[some & (kind == wire.KIND_COMPACT_CLASS)])
            _take_begins(pool, events[some & (kind == wire.KIND_COMPACT_BEGIN)])
            _take_ends(pool, events[some & (kind == wire.KIND_COMPACT_END)])
            _forget_old(pool)

    def forget(self, serial: int) -> None:
        """Drop a pool that is gone."""
        self._pools.pop(serial, None)

    def save(self, out: StateWriter) -> None:
        """Add all to a state."""
        pools = self._pools.items()
        runs = [(serial, *each) for serial, pool in pools for each in pool.runs.items()]
        out.rows(
            "runs",
            _RUN_COLUMNS,
            [
                (serial, begin_ns, run.trigger, run.end_ns, run.moves, run.pages, run.told)
                for serial, begin_ns, run in runs
            ],
        )
        classes = [(serial, at, *each) for serial, at, run in runs for each in run.classes]
        out.rows("runs.classes", _CLASS_COLUMNS, classes)
        rest = [(serial, pool.unended) for serial, pool in pools]
        out.rows("runs.pools", _POOL_COLUMNS, rest)
        sums = [
            (serial, trigger, *pool.by_trigger[trigger].tolist())
            for serial, pool in pools
            for trigger in rows_of_any(pool.by_trigger).tolist()
        ]
        out.rows("runs.triggers", _SUM_COLUMNS, sums)
        moves = [
            (serial, trigger, index, int(pool.by_class[trigger, index]))
            for serial, pool in pools
            for trigger, index in np.argwhere(pool.by_class).tolist()
        ]
        out.rows("runs.moves", _MOVE_COLUMNS, moves)

    def load(self, given: StateReader) -> None:
        """Take all from a state, with nothing here before."""
        for serial, unended in given.rows("runs.pools", _POOL_COLUMNS, keys=1):
            self._pools[serial] = _Pool(unended=unended)
        for serial, begin_ns, *rest in given.rows("runs", _RUN_COLUMNS, keys=2):
            self._loaded(serial).runs[begin_ns] = _Run(*rest)
        for serial, begin_ns, *each in given.rows("runs.classes", _CLASS_COLUMNS, keys=0):
            run = self._loaded(serial).runs.get(begin_ns)
            check(run is not None and each[0] < CLASSES_MAX, "runs.classes")
            assert run is not None
            run.classes.append((each[0], each[1], each[2], each[3]))
        for serial, trigger, *sums in given.rows("runs.triggers", _SUM_COLUMNS, keys=2):
            check(trigger < _TRIGGERS, "runs.triggers.trigger")
            self._loaded(serial).by_trigger[trigger] = sums
        for serial, trigger, index, moves in given.rows("runs.moves", _MOVE_COLUMNS, keys=3):
            check(trigger < _TRIGGERS and index < CLASSES_MAX, "runs.moves")
            self._loaded(serial).by_class[trigger, index] = moves

    def _loaded(self, serial: int) -> _Pool:
        check(serial in self._pools, "runs.pools.pool")
        return self._pools[serial]

    def of_pool(
        self,
        serial: int,
        sizes: I64,
        counted: tuple[int | None, int | None, int | None],
        *,
        of_zram: bool,
        untold: Sequence[str],
        ago_ns: int,
    ) -> PoolRuns:
        """Return what is known of a pool's runs.

        ``sizes`` are those of its classes by index, 0 where not known, shape (CLASSES_MAX,);
        ``counted`` the runs, moves and pages freed that the probes counted; ``untold`` says
        why triggers are not known; ``ago_ns`` is wall-clock less monotonic time.
        """
        pool = self._pools.get(serial, _Pool())
        names: tuple[Trigger, ...] = ("unknown", "sysfs" if of_zram else "other", "shrinker")
        if untold:
            names = ("unknown", "unknown", "unknown")
        key = (sizes.tobytes(), names, ago_ns)
        if pool.made is None or pool.made[0] != key:
            pool.made = key, _runs(pool, sizes, names, ago_ns)
        recent = pool.made[1]
        status, reasons = _trust(pool, counted)
        open_ns = [begin for begin, run in pool.runs.items() if _under_way(pool, begin, run)]
        listed = sum(1 for run in pool.runs.values() if run.end_ns)
        return PoolRuns(
            status=status,
            reasons=(*reasons, *untold),
            by_trigger=_sums(pool, sizes, names),
            recent=recent,
            forgotten=int(pool.by_trigger[:, _RUNS].sum()) - listed,
            under_way_ns=ago_ns + open_ns[0] if open_ns else None,
        )


def _run_of(pool: _Pool, begin_ns: int) -> _Run:
    return pool.runs.setdefault(begin_ns, _Run())


def _trigger(records: Words) -> I64:
    word = (records[:, wire.WORD_HEAD] >> np.uint64(16)) & _BYTE
    trigger: I64 = np.minimum(word, np.uint64(_TRIGGERS - 1)).astype(np.int64)
    return trigger


def _take_classes(pool: _Pool, records: Words) -> None:
    if not len(records):
        return
    index = np.minimum(records[:, 3], np.uint64(CLASSES_MAX - 1)).astype(np.int64)
    moves = (records[:, 4] & _U32).astype(np.int64)
    pages = (records[:, 4] >> np.uint64(32)).astype(np.int64)
    np.add.at(pool.by_class, (_trigger(records), index), moves)
    took = (records[:, wire.WORD_TIME] - records[:, 5]).astype(np.int64)
    took[records[:, 5] == 0] = -1
    # Only those of the last runs can be listed.
    newest = np.unique(records[:, 6])[-RUNS_MAX:]
    at = np.flatnonzero(records[:, 6] >= newest[0])
    columns = (records[at, 6], index[at], moves[at], pages[at], took[at])
    for begin_ns, *told in zip(*(column.tolist() for column in columns), strict=True):
        _run_of(pool, begin_ns).classes.append((told[0], told[1], told[2], told[3]))


def _take_begins(pool: _Pool, records: Words) -> None:
    # The same as of classes: one run more, as the last may be under way.
    order = np.argsort(records[:, 5], kind="stable")[-RUNS_MAX - 1 :]
    pool.unended += len(records)
    for record in records[order]:
        run = _run_of(pool, int(record[5]))
        run.trigger = int(record[wire.WORD_HEAD] >> np.uint64(16) & _BYTE)


def _take_ends(pool: _Pool, records: Words) -> None:
    if not len(records):
        return
    trigger = _trigger(records)
    took = (records[:, wire.WORD_TIME] - records[:, 5]).astype(np.int64)
    ones = np.ones(len(records), dtype=np.int64)
    told = [ones, records[:, 3].astype(np.int64), records[:, 4].astype(np.int64), took]
    np.add.at(pool.by_trigger, trigger, np.stack(told, axis=1))
    pool.unended -= len(records)
    for record in records[np.argsort(records[:, 5], kind="stable")[-RUNS_MAX:]]:
        head, end_ns, _, moves, pages, begin_ns, classes = record.tolist()
        run = _run_of(pool, begin_ns)
        run.trigger = head >> 16 & 0xFF
        run.end_ns, run.moves, run.pages, run.told = end_ns, moves, pages, classes


def _under_way(pool: _Pool, begin_ns: int, run: _Run) -> bool:
    """Tell whether a run is the newest, and its end not told: a pool has one at a time."""
    return not run.end_ns and begin_ns == max(pool.runs)


def _forget_old(pool: _Pool) -> None:
    newest = sorted(pool.runs)
    keep = RUNS_MAX + 1 if newest and not pool.runs[newest[-1]].end_ns else RUNS_MAX
    for begin_ns in newest[:-keep]:
        del pool.runs[begin_ns]


def _runs(pool: _Pool, sizes: I64, names: Sequence[Trigger], ago_ns: int) -> tuple[Run, ...]:
    made = []
    for begin_ns in sorted(pool.runs):
        run = pool.runs[begin_ns]
        if _under_way(pool, begin_ns, run):
            continue
        classes = tuple(
            ClassOutcome(index, int(sizes[index]), moves, pages, None if took < 0 else took)
            for index, moves, pages, took in run.classes
        )
        moves, pages = sum(each.moves for each in classes), sum(each.pages for each in classes)
        reasons = []
        if not run.end_ns:
            reasons.append("its end was not told: these are its classes as far as they were")
        elif len(classes) < run.told:
            reasons.append(f"{run.told - len(classes)} of {run.told} size classes were not told")
        elif (moves, pages) != (run.moves, run.pages):
            extra = f"{run.moves - moves} moves and {run.pages - pages} pages"
            reasons.append(f"of {extra} the size class is not known")
        made.append(
            Run(
                trigger=names[min(run.trigger, _TRIGGERS - 1)],
                begin_ns=ago_ns + begin_ns,
                duration_ns=run.end_ns - begin_ns if run.end_ns else None,
                moves=run.moves if run.end_ns else moves,
                pages=run.pages if run.end_ns else pages,
                classes=classes,
                status="bounded" if reasons else "exact",
                reasons=tuple(reasons),
            )
        )
    return tuple(made[-RUNS_MAX:])


def _sums(pool: _Pool, sizes: I64, names: Sequence[Trigger]) -> dict[Trigger, RunSums]:
    """Return the sums by trigger; of those of one name together."""
    found: dict[Trigger, RunSums] = {}
    for name in dict.fromkeys(names):
        own = [at for at, each in enumerate(names) if each == name]
        runs, moves, pages, duration = pool.by_trigger[own].sum(axis=0).tolist()
        if not runs:
            continue
        by_class = pool.by_class[own].sum(axis=0)
        known = moves == int(by_class.sum()) and not by_class[sizes == 0].any()
        moved_bytes = int((by_class * sizes).sum()) if known else None
        found[name] = RunSums(runs, moves, moved_bytes, pages, duration)
    return found


def _trust(
    pool: _Pool, counted: tuple[int | None, int | None, int | None]
) -> tuple[Literal["exact", "bounded", "unknown"], list[str]]:
    """Compare what was told with what was counted: runs, moves, pages freed."""
    if counted[0] is None:
        return "unknown", ["no attached probe tells of runs"]
    runs, moves, pages, _ = pool.by_trigger.sum(axis=0).tolist()
    begun = runs + max(pool.unended, 0)
    told = ((begun, "runs"), (moves, "moves"), (pages, "pages freed"))
    reasons = [
        f"{have:,} of {want:,} {what} were told"
        for (have, what), want in zip(told, counted, strict=True)
        if want is not None and want != have
    ]
    return ("bounded" if reasons else "exact"), reasons
