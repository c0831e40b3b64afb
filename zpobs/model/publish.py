"""From rows to frozen snapshots: sums by pool and class, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zpobs import wire
from zpobs.errors import RecordError
from zpobs.life import PoolLife
from zpobs.model.arrays import I64, U64, Bools
from zpobs.model.compaction import RunLedger
from zpobs.model.inputs import Coverage
from zpobs.model.life import LifeLedger
from zpobs.model.losses import LossHistory
from zpobs.model.migration import MigrationLedger
from zpobs.model.object_figures import objects_of
from zpobs.model.objects import ObjectLedger
from zpobs.model.pools import Pool, PoolDirectory
from zpobs.model.rows import (
    HUGE,
    ISOLATED,
    LOCKED,
    NO_FREEOBJ,
    SCANNED,
    STATE_CLASS_SHIFT,
    STATE_FULLNESS_SHIFT,
    STATE_INUSE_SHIFT,
    WHOLE_PARTS,
    ZspageRows,
)
from zpobs.model.scans import CLASSES_MAX, ScanLedger, ScanRounds
from zpobs.model.trust import STATUSES, UNKNOWN, Judge, Verdict, loss_reasons
from zpobs.runs import PoolRuns
from zpobs.snapshot import (
    ClassTable,
    Counters,
    Event,
    Health,
    Kernel,
    PoolView,
    Snapshot,
    ZspagesOf,
    ZspageTable,
)
from zpobs.wire import Words


@dataclass(frozen=True, slots=True)
class _Live:
    """The live zspages: their rows and unpacked states, shape (Z,)."""

    rows: I64
    slot: I64
    class_index: I64
    inuse: I64
    fullness: I64

    @classmethod
    def of(cls, rows: ZspageRows) -> _Live:
        at = rows.live()
        state = rows.state[at]

        def field(shift: int, bits: int) -> I64:
            mask = np.uint64((1 << bits) - 1)
            return ((state >> np.uint64(shift)) & mask).astype(np.int64)

        return cls(
            rows=at,
            slot=field(0, 16),
            class_index=field(STATE_CLASS_SHIFT, 16),
            inuse=field(STATE_INUSE_SHIFT, 16),
            fullness=field(STATE_FULLNESS_SHIFT, 8),
        )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums by pool place (its number in the list of live pools) and class.

    ``zspages`` and ``objects`` have shape (P, CLASSES_MAX), ``fullness`` one
    more axis of groups.
    """

    zspages: I64
    objects: I64
    fullness: I64

    def at(self, place: int) -> _Sums:
        """Return the sums of one pool, by class."""
        return _Sums(self.zspages[place], self.objects[place], self.fullness[place])

    @classmethod
    def of(cls, live: _Live, pools: list[Pool], slots_end: int, groups: int) -> _Sums:
        if len(live.rows) and int(live.fullness.max()) >= groups:
            raise RecordError(
                "a zspage is in a fullness group that the kernel does not have",
                found=f"group {int(live.fullness.max())} of {groups}",
            )
        if len(live.rows) and int(live.class_index.max()) >= CLASSES_MAX:
            raise RecordError(
                "a zspage is in a size class that no kernel has",
                found=f"class {int(live.class_index.max())}",
            )
        place = np.zeros(slots_end, dtype=np.int64)
        place[[pool.slot for pool in pools]] = np.arange(len(pools))
        key = place[live.slot] * CLASSES_MAX + live.class_index
        cells = len(pools) * CLASSES_MAX
        shape = (len(pools), CLASSES_MAX)
        fullness = np.bincount(key * groups + live.fullness, minlength=cells * groups)
        # Sums of at most 2^16 each stay exact in a double.
        objects = np.bincount(key, weights=live.inuse, minlength=cells)
        return cls(
            zspages=np.bincount(key, minlength=cells).astype(np.int64).reshape(shape),
            objects=objects.astype(np.int64).reshape(shape),
            fullness=fullness.astype(np.int64).reshape(*shape, groups),
        )


def _class_words(pool: Pool, scans: ScanLedger) -> I64:
    """Return a pool's counters by class slot, geometry from wherever it was told."""
    words = np.zeros((CLASSES_MAX, wire.CLASS_WORDS), dtype=np.int64)
    if pool.class_counters is not None:
        words[: len(pool.class_counters)] = pool.class_counters.astype(np.int64)
    geometry = words[:, wire.CLASS_GEOMETRY]
    own = slice(pool.slot * CLASSES_MAX, (pool.slot + 1) * CLASSES_MAX)
    np.copyto(geometry, scans.geometry[own].astype(np.int64), where=geometry == 0)
    return words


@dataclass(frozen=True, slots=True)
class Known:
    """All that a model knows."""

    rows: ZspageRows
    pools: PoolDirectory
    losses: LossHistory
    rounds: ScanRounds
    events: Words
    events_seen: int
    migrations: MigrationLedger
    runs: RunLedger
    life: LifeLedger | None = None
    objects: ObjectLedger | None = None


class Publisher:
    """Makes snapshots for one kernel and coverage."""

    def __init__(self, kernel: Kernel, coverage: Coverage, covered_ns: int = 0) -> None:
        self._kernel = kernel
        self.coverage = coverage
        self.covered_ns = covered_ns

    def snapshot(
        self,
        known: Known,
        *,
        time_ns: int,
        mono_ns: int,
        zspages: bool | ZspagesOf,
        wanted: str | None,
    ) -> Snapshot:
        """Return everything as of now; see :meth:`ShadowModel.snapshot`."""
        shown = known.pools.live()
        live = _Live.of(known.rows)
        sums = _Sums.of(live, shown, known.pools.slots_end, self._kernel.fullness_groups)
        changed = self._changed(known, live, shown, sums)
        judge = self.judge(known.losses, known.pools.scans)
        ago_ns = time_ns - mono_ns
        views, verdicts = [], []
        for place, pool in enumerate(shown):
            if wanted is not None and wanted not in (pool.name, str(pool.serial)):
                continue
            own = sums.at(place)
            geometry = _class_words(pool, known.pools.scans)[:, wire.CLASS_GEOMETRY]
            index = np.flatnonzero((geometry != 0) | (own.zspages > 0))
            verdict = judge.pool(pool, index, changed[place])
            classes = self._classes(pool, known.pools, sums=own, index=index, verdict=verdict)
            view = PoolView(
                id=pool.serial,
                name=pool.name,
                owner=pool.owner,
                status=STATUSES[verdict.level],
                since_ns=ago_ns + pool.since_ns,
                pages=int(classes.pages.sum()),
                zspages=int(classes.zspages.sum()),
                objects=int(classes.objects.sum()),
                counters=self._counters(pool),
                classes=classes,
                zspage_list=_listed(known.rows, live, pool, classes, zspages),
                missed=dict(known.losses.last.missed_counts) if known.losses.last else {},
                address=pool.address,
                scan_ns=None if pool.scan_ns is None else ago_ns + pool.scan_ns,
                kernel_pages=pool.kernel_pages,
                pages_compacted=pool.pages_compacted,
                migration=known.migrations.of_pool(
                    known.rows,
                    pool.serial,
                    pool.slot,
                    counted=self._counters(pool).migration_failures,
                    ago_ns=ago_ns,
                ),
                life=self._life(known, live, pool, mono_ns, ago_ns),
                runs=self._runs(known, pool, geometry & 0xFFFFFFFF, ago_ns),
                objects_told=objects_of(
                    known.objects, known.rows, pool, classes, mono_ns=mono_ns, ago_ns=ago_ns
                ),
            )
            views.append(view)
            verdicts.append(verdict)
        return Snapshot(
            time_ns=time_ns,
            mono_ns=mono_ns,
            kernel=self._kernel_of(views),
            health=self._health(verdicts, judge, known, ago_ns),
            pools=tuple(views),
            events=tuple(event_of(record) for record in known.events),
            events_seen=known.events_seen,
        )

    def _life(
        self, known: Known, live: _Live, pool: Pool, mono_ns: int, ago_ns: int
    ) -> PoolLife | None:
        if known.life is None:
            return None
        rows = live.rows[live.slot == pool.slot]
        coverage = self.coverage
        why = "; ".join(coverage.unseen)
        if not coverage.hooks:
            why = f"no probe is attached: {coverage.why_no_hooks}"
        return known.life.of_pool(
            known.rows, rows, pool.slot, mono_ns=mono_ns, ago_ns=ago_ns, no_probes=why
        )

    def _runs(self, known: Known, pool: Pool, sizes: I64, ago_ns: int) -> PoolRuns:
        counters = self._counters(pool)
        return known.runs.of_pool(
            pool.serial,
            sizes,
            (counters.compactions, counters.moves, counters.pages_freed),
            of_zram=pool.owner == "zram",
            untold=self.coverage.untold,
            ago_ns=ago_ns,
        )

    def judge(self, losses: LossHistory, scans: ScanLedger) -> Judge:
        """Return the judge of what is known now."""
        return Judge(self.coverage, losses, scans, self.covered_ns)

    def _kernel_of(self, views: list[PoolView]) -> Kernel:
        """Return the kernel, its chain size told by a whole class table if nothing else tells it.

        Every chain size from 4 to 16 has a class that uses it to the full.
        """
        if self._kernel.chain_size:
            return self._kernel
        longest = [
            int(view.classes.pages_per_zspage.max())
            for view in views
            if view.status != "unknown" and len(view.classes.index)
        ]
        return replace(self._kernel, chain_size=max(longest, default=0))

    def _changed(self, known: Known, live: _Live, shown: list[Pool], sums: _Sums) -> Bools:
        """Return which classes are not as their last walk left them, shape (P, CLASSES_MAX)."""
        scans = known.pools.scans
        cells = np.array([pool.slot for pool in shown], dtype=np.int64)[:, None] * CLASSES_MAX
        cells = cells + np.arange(CLASSES_MAX)
        changed: Bools = sums.zspages != scans.zspages(cells, scans.capacity[cells])
        changed |= sums.objects != scans.objects[cells]
        if self.coverage.hooks:
            key = live.slot * CLASSES_MAX + live.class_index
            newer = known.rows.touched_ns(live.rows) > scans.end_ns.take(key)
            changed |= np.bincount(key[newer], minlength=len(scans.end_ns))[cells] > 0
        return changed

    def _health(self, verdicts: list[Verdict], judge: Judge, known: Known, ago_ns: int) -> Health:
        last, rounds = known.losses.last, known.rounds
        levels = [judge.whole(rounds), *(verdict.level for verdict in verdicts)]
        reasons = judge.reasons(rounds)
        for verdict in verdicts:
            reasons += verdict.reasons
        if any(verdict.lossy for verdict in verdicts):
            reasons += loss_reasons(last)
        if last is not None and last.untracked_pools:
            reasons.append(f"{last.untracked_pools} pools found no place in the probes' tables")
            levels.append(UNKNOWN)
        if last is not None:
            reasons += [
                f"{name} may be up to {count} higher: so many runs of its probe were skipped"
                for name, count in last.missed_counts.items()
            ]
        return Health(
            status=STATUSES[max(levels)],
            lost=last.ring_full if last else 0,
            missed_runs=last.missed if last else 0,
            missed_counting_runs=last.missed_counting_runs if last else 0,
            missed_hooks=self.coverage.missed_hooks,
            hooks=self.coverage.hooks,
            scans=rounds.count,
            last_scan_ns=ago_ns + rounds.end_ns if rounds.count else None,
            reasons=tuple(reasons),
        )

    def _classes(
        self, pool: Pool, pools: PoolDirectory, *, sums: _Sums, index: I64, verdict: Verdict
    ) -> ClassTable:
        """Return the table of the classes of ``index``; ``sums`` are the pool's own."""
        words = _class_words(pool, pools.scans)
        geometry = words[index, wire.CLASS_GEOMETRY]
        pages = (geometry >> 48) & 0xFFFF
        # A class of which no reading told yet: births told its pages.
        told = pools.chain_pages[pool.slot, index].astype(np.int64)
        scans = pools.scans
        cells = pool.slot * CLASSES_MAX + index
        walked = scans.zspages(cells, scans.capacity[cells])
        stale = verdict.stale[index] & (walked >= 0)

        def counted(name: str, word: int) -> I64 | None:
            if pool.class_counters is None or name in self.coverage.uncounted:
                return None
            return _frozen(words[index, word])

        return ClassTable(
            index=_frozen(index.astype(np.int64)),
            size=_frozen(geometry & 0xFFFFFFFF),
            objs_per_zspage=_frozen((geometry >> 32) & 0xFFFF),
            pages_per_zspage=_frozen(np.where(pages > 0, pages, told)),
            zspages=_frozen(np.where(stale, walked, sums.zspages[index])),
            objects=_frozen(np.where(stale, scans.objects[cells], sums.objects[index])),
            fullness=_frozen(sums.fullness[index]),
            allocs=counted("allocs", wire.CLASS_ALLOCS),
            frees=counted("frees", wire.CLASS_FREES),
            moves=counted("moves", wire.CLASS_MOVES),
            statuses=tuple(STATUSES[level] for level in verdict.levels[index].tolist()),
            size_below=_frozen(_sizes_below(pool, geometry)),
        )

    def _counters(self, pool: Pool) -> Counters:
        def by_class(name: str, word: int) -> int | None:
            if pool.class_counters is None or name in self.coverage.uncounted:
                return None
            return int(pool.class_counters[:, word].sum())

        def by_pool(name: str, word: int) -> int | None:
            if pool.pool_counters is None or name in self.coverage.uncounted:
                return None
            return int(pool.pool_counters[word])

        return Counters(
            allocs=by_class("allocs", wire.CLASS_ALLOCS),
            frees=by_class("frees", wire.CLASS_FREES),
            failures=by_pool("failures", wire.POOL_FAILURES),
            moves=by_class("moves", wire.CLASS_MOVES),
            migrations=by_pool("migrations", wire.POOL_MIGRATIONS),
            migration_failures=by_pool("migration_failures", wire.POOL_MIGRATION_FAILURES),
            compactions=by_pool("compactions", wire.POOL_COMPACTIONS),
            pages_freed=by_pool("pages_freed", wire.POOL_PAGES_FREED),
        )


def _sizes_below(pool: Pool, geometry: I64) -> I64:
    """Return the size of the class before each, -1 for all if there may be others.

    All classes are known from a whole scan, and from counters that were there
    when the pool was made: the probe tells them in rising order, the last being
    of the last slot.
    """
    size = geometry & 0xFFFFFFFF
    whole = pool.scan_ns is not None
    if pool.created and pool.class_counters is not None:
        whole |= bool(pool.class_counters[-1, wire.CLASS_GEOMETRY])
    if not (whole and size.all()):
        return np.full(len(size), -1, dtype=np.int64)
    return np.concatenate([np.zeros(min(len(size), 1), dtype=np.int64), size[:-1]])


def _frozen(array: I64) -> I64:
    array = np.ascontiguousarray(array)
    array.setflags(write=False)
    return array


def _frozen_words(array: U64) -> U64:
    array.setflags(write=False)
    return array


def _flagged(state: U64, flag: np.uint64) -> Bools:
    out: Bools = (state & flag) != 0
    out.setflags(write=False)
    return out


def _listed(
    rows: ZspageRows, live: _Live, pool: Pool, classes: ClassTable, which: bool | ZspagesOf
) -> ZspageTable | None:
    """Return those of a pool's zspages that are to be listed, None if none of it are."""
    if not isinstance(which, ZspagesOf):
        at = np.flatnonzero(live.slot == pool.slot) if which else None
    elif which.pool != pool.serial:
        at = None
    elif which.class_index is None:
        at = np.flatnonzero(live.slot == pool.slot)
    else:
        # Classes tell rows apart better than pools do.
        at = np.flatnonzero(live.class_index == which.class_index)
        at = at[live.slot[at] == pool.slot]
    return None if at is None else _zspage_table(rows, live, at, classes)


def _zspage_table(rows: ZspageRows, live: _Live, at: I64, classes: ClassTable) -> ZspageTable:
    """List these live zspages of a pool by rising address."""
    at = at[np.argsort(rows.address[live.rows[at]])]
    own = live.rows[at]
    pages = rows.pages[own]
    known = np.where(rows.parts[own] == WHOLE_PARTS[pages], pages, 0).astype(np.int64)
    state = rows.state[own]
    freeobj = rows.freeobj[own].astype(np.int64)
    slots = np.full(CLASSES_MAX, NO_FREEOBJ, dtype=np.int64)
    slots[classes.index[classes.objs_per_zspage > 0]] = classes.objs_per_zspage[
        classes.objs_per_zspage > 0
    ]
    # A full zspage has one of several numbers that are no slot's. A huge one in use keeps no
    # link of free slots: what stands there is its content.
    void = freeobj >= slots[live.class_index[at]]
    void |= ((state & HUGE) != 0) & (live.inuse[at] > 0)
    frames = rows.arena.gather(rows.span[own], known)
    born = rows.born[own]
    born.setflags(write=False)
    return ZspageTable(
        address=_frozen_words(rows.address[own]),
        class_index=_frozen(live.class_index[at]),
        inuse=_frozen(live.inuse[at]),
        fullness=_frozen(live.fullness[at]),
        huge=_flagged(state, HUGE),
        first_seen_ns=_frozen_words(rows.first_ns[own]),
        last_seen_ns=_frozen_words(rows.time_ns[own]),
        frame_start=_frozen(np.concatenate([[0], np.cumsum(known)])),
        frames=_frozen_words(frames),
        freeobj=_frozen(np.where(void, -1, freeobj)),
        scanned=_flagged(state, SCANNED),
        locked=_flagged(state, LOCKED),
        isolated=_flagged(state, ISOLATED),
        born=born,
        nodes=_frozen(np.full(len(frames), -1, dtype=np.int64)),
    )


_EVENT_NAMES = {
    wire.KIND_POOL_CREATED: "pool_created",
    wire.KIND_POOL_DESTROYED: "pool_destroyed",
    wire.KIND_COMPACT_BEGIN: "compact_begin",
    wire.KIND_COMPACT_END: "compact_end",
    wire.KIND_MIGRATION: "migration",
    wire.KIND_ALLOC_FAILURE: "alloc_failure",
    wire.KIND_DEFERRED_FREE: "deferred_free",
}
EVENT_KINDS = frozenset(_EVENT_NAMES)
# How many of words 3..6 mean something; names are told by the pools themselves.
_EVENT_VALUES = {
    wire.KIND_COMPACT_END: 3,
    wire.KIND_MIGRATION: 3,
    wire.KIND_ALLOC_FAILURE: 2,
    wire.KIND_DEFERRED_FREE: 1,
}


def event_of(record: Words) -> Event:
    """Return the event that a record tells, shape (RECORD_WORDS,)."""
    head, time_ns, subject, *values = record.tolist()
    kind = head & 0xFF
    signed = [value - (1 << 64) if value >> 63 else value for value in values]
    return Event(
        kind=_EVENT_NAMES[kind],
        time_ns=time_ns,
        pool=head >> 32,
        zspage=subject if kind == wire.KIND_MIGRATION else None,
        values=tuple(signed[: _EVENT_VALUES.get(kind, 0)]),
    )
