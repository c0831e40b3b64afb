"""The shadow model: every zspage of every pool, kept from observations.

Each record tells the absolute state of one thing at one time, and the newest
wins whatever the order of arrival. Per zspage address the model keeps three
newest things, each by its own time: the state (STATE or DEATH), the boundary of
the present life (a newborn STATE, or a DEATH), and the generation of page
frames. None depends on another, so a batch is taken column by column, never
record by record.
"""

from __future__ import annotations

import numpy as np

from zpobs import wire
from zpobs.model.arrays import I64, U64, Bools, rising
from zpobs.model.chains import check_frames, renew_chains, take_frames
from zpobs.model.columns import (
    cells_of,
    freeobj_of,
    pack_states,
    records_by_column,
    told_by_scan,
)
from zpobs.model.compaction import RunLedger
from zpobs.model.inputs import CountersReading, Coverage
from zpobs.model.life import LifeLedger, Told
from zpobs.model.losses import LossHistory
from zpobs.model.migration import MigrationLedger
from zpobs.model.objects import ObjectLedger
from zpobs.model.parts import EVENTS_KEPT, Parts, new_tombstones
from zpobs.model.pools import Pool, PoolDirectory
from zpobs.model.publish import EVENT_KINDS, Known, Publisher
from zpobs.model.rows import (
    LIVE,
    NEWBORN,
    STATE_CLASS_SHIFT,
    STATE_INUSE_SHIFT,
    ZspageRows,
)
from zpobs.model.scans import BIRTH_NS, ScanRounds
from zpobs.model.state import ModelState
from zpobs.snapshot import Kernel, Snapshot, ZspagesOf
from zpobs.wire import Words

_MARK_KINDS = np.zeros(256, dtype=bool)
_MARK_KINDS[[wire.KIND_SCAN_BEGIN, wire.KIND_SCAN_END, wire.KIND_SCANNED]] = True
_EVENT_KINDS = np.zeros(256, dtype=bool)
_EVENT_KINDS[list(EVENT_KINDS)] = True
_CONTROL_KINDS = np.zeros(256, dtype=bool)
_CONTROL_KINDS[[wire.KIND_POOL_CREATED, wire.KIND_POOL_DESTROYED, wire.KIND_DEFERRED_FREE]] = True

_SERIAL_SHIFT = np.uint64(32)
_U32 = np.uint64(0xFFFFFFFF)
_U16 = np.uint64(0xFFFF)
# STATE and DEATH tell nothing in their last two words.
_STATE_WORDS = 5


class ShadowModel:
    """All pools as far as they were observed. Opens no file and reads no clock."""

    def __init__(self, kernel: Kernel, coverage: Coverage, *, life: bool = False) -> None:
        # What takes the records of objects, if they are wanted.
        self.objects: ObjectLedger | None = None
        self._life = LifeLedger(kernel.fullness_groups) if life else None
        self._rows = ZspageRows()
        self._pools = PoolDirectory(alone=coverage.hooks == 0)
        self.sweep_due = False
        self._tombstones = new_tombstones()
        self._losses = LossHistory()
        self._rounds = ScanRounds()
        self._migrations = MigrationLedger()
        self._runs = RunLedger()
        self._events: Words = np.zeros((0, wire.RECORD_WORDS), dtype=np.uint64)
        self._events_seen = 0
        self._newest_ns = 0
        self._kernel = kernel
        self._publisher = Publisher(kernel, coverage)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held for zspages, their frames and the index."""
        return self._rows.nbytes

    @property
    def rows_held(self) -> int:
        """Rows in use: live zspages and tombstones."""
        return self._rows.held

    def apply(self, words: Words) -> None:
        """Take a batch of records, shape (N, RECORD_WORDS), in ring order.

        The records of a scan come in batches of their own: what a probe told is
        applied before its SCAN_BEGIN or after its SCAN_END.

        Raise :class:`RecordError`, before anything changes, if a record is none of ours.
        """
        words = self.objects.taken_out_of(words, self._pools) if self.objects else words
        if len(words) == 0:
            return
        kind = words[:, wire.WORD_HEAD].astype(np.uint8)
        is_state = (kind == wire.KIND_STATE) | (kind == wire.KIND_DEATH)
        is_frames = kind == wire.KIND_FRAMES
        states, chains = int(np.count_nonzero(is_state)), int(np.count_nonzero(is_frames))
        others = states + chains < len(words)
        if others:
            met = np.flatnonzero(np.bincount(kind)).tolist()
            if not wire.KINDS.issuperset(met):
                wire.check(words)
        parts = records_by_column(words, is_frames) if chains else None
        if parts is not None:
            check_frames(parts[wire.WORD_HEAD])
        self._newest_ns = max(self._newest_ns, int(words[:, wire.WORD_TIME].max()))
        marks = None
        if others:
            marks = records_by_column(words, _MARK_KINDS[kind])
            self._begin_scans(marks)
        if states == len(words):
            self._take_states(np.ascontiguousarray(words.T[:_STATE_WORDS]))
        elif states:
            columns = records_by_column(words, is_state, _STATE_WORDS)
            if parts is not None and self._take_walk(columns, parts, is_state, is_frames):
                parts = None
            else:
                self._take_states(columns)
        if parts is not None:
            self._bury(take_frames(self._rows, parts))
        if marks is not None:
            self._end_scans(marks)
            if states + chains + marks.shape[1] < len(words):
                events = ~(is_state | is_frames | _MARK_KINDS[kind])
                self._take_events(records_by_column(words, events).T)
        self._tombstones.expire(self._rows, self._newest_ns)

    def apply_counters(self, reading: CountersReading) -> None:
        """Take a reading of all counters; one older than the last is ignored."""
        if not self._losses.take(reading):
            return
        if self._life:
            self._life.note_loss(reading.loss)
        for pool in reading.pools:
            self._pools.read(pool)
        for gone in self._pools.absent(reading):
            self._destroy(gone, reading.mono_ns)
        self._forget_pools()

    def note_scan(self, begin_mono_ns: int, end_mono_ns: int, missing: tuple[str, ...]) -> None:
        """Note a round of scans over all pools; ``missing`` holds a sentence for each not scanned.

        Whatever the sentences of the last round tell makes the whole unknown.
        """
        self._rounds = ScanRounds(self._rounds.count + 1, begin_mono_ns, end_mono_ns, missing)
        self.sweep()
        if self._life:
            self._life.scanned(self._rows, end_mono_ns)

    def keep_life(self, now_ns: int) -> None:
        """Keep books of lives from now on, if none are kept."""
        if self._life is None:
            self._life = LifeLedger(self._kernel.fullness_groups)
            self._life.scanned(self._rows, now_ns)

    def cover(self, coverage: Coverage) -> None:
        """Note that other hooks are attached than before.

        What scans told so far they need not have followed.
        """
        self._pools.scans.alone = coverage.hooks == 0
        self._publisher = Publisher(self._kernel, coverage, self._newest_ns + 1)
        if self._life:
            self._life.cover(self._rows, self._newest_ns + 1)

    def busy_classes(self, serial: int) -> list[int]:
        """Return the indices of a pool's classes whose last walk was not verified."""
        self.sweep()
        pool = self._pools.find(serial)
        return [] if pool is None else self._pools.scans.busy(pool.slot)

    @property
    def unverified(self) -> bool:
        """Whether another scan may make something exact that the last one could not."""
        judge = self._publisher.judge(self._losses, self._pools.scans)
        return any(judge.wants_scan(pool) for pool in self._pools.live())

    def snapshot(
        self,
        *,
        time_ns: int,
        mono_ns: int,
        zspages: bool | ZspagesOf = False,
        pool: str | None = None,
    ) -> Snapshot:
        """Return everything as of now; ``time_ns`` is wall-clock, ``mono_ns`` monotonic time.

        ``zspages`` adds each pool's list of zspages, or only some zspages of one
        pool; ``pool`` keeps only the pools of that name or id.
        """
        self.sweep()
        return self._publisher.snapshot(
            self._known(), time_ns=time_ns, mono_ns=mono_ns, zspages=zspages, wanted=pool
        )

    def _known(self) -> Known:
        return Known(
            self._rows,
            self._pools,
            self._losses,
            self._rounds,
            self._events,
            self._events_seen,
            self._migrations,
            self._runs,
            self._life,
            self.objects,
        )

    def state(self) -> ModelState:
        """Return all that decides what this model will say and how it will judge."""
        return Parts(
            self._known(),
            self._publisher.coverage,
            self._publisher.covered_ns,
            self._newest_ns,
            self.sweep_due,
            self._tombstones,
        ).state()

    @classmethod
    def restored(cls, kernel: Kernel, state: ModelState) -> ShadowModel:
        """Return a model that says, and judges, what the one of a state did.

        Raise StateError if it is the state of no model of this kernel.
        """
        parts = Parts.of(state, kernel.fullness_groups)
        model, known = cls(kernel, parts.coverage), parts.known
        model.objects, model._life = known.objects, known.life
        model._rows, model._tombstones = known.rows, parts.tombstones
        model._pools, model.sweep_due = known.pools, parts.sweep_due
        model._losses, model._rounds = known.losses, known.rounds
        model._migrations, model._runs = known.migrations, known.runs
        model._events, model._events_seen = known.events, known.events_seen
        model._newest_ns = parts.newest_ns
        model._publisher = Publisher(kernel, parts.coverage, parts.covered_ns)
        return model

    def _take_states(self, columns: Words) -> None:
        """Take STATE and DEATH records, by column: shape (_STATE_WORDS, n)."""
        scanned = told_by_scan(columns[0])
        if scanned is not None and not self._pools.scans.alone:
            # A dying zspage stands on its list for a moment yet, its death told already. If it
            # is not dying a probe told that it is empty.
            empty = scanned & ((columns[3] & _U32) == 0)
            if empty.any():
                columns, scanned = columns[:, ~empty], scanned[~empty]
                if not len(scanned):
                    return
        head, time_ns, address, word3, word4 = columns
        # Bytes are compared many at a time, words are not.
        death = np.flatnonzero(head.astype(np.uint8) == wire.KIND_DEATH)
        flags = (head >> np.uint64(8)).astype(np.uint8)
        newborn = (flags & np.uint8(wire.FLAG_NEWBORN)) != 0
        born = np.flatnonzero(newborn)
        table = self._rows
        rows = table.find_or_add(address)
        slots = self._pools.slots(head >> _SERIAL_SHIFT, time_ns)
        state = pack_states(head, slots, word3, word4)
        state[death] = slots[death]
        freeobj = freeobj_of(word3)
        revoked = self._revoked(slots, word3, word4, time_ns, newborn)
        if revoked is not None:
            state[revoked] &= ~LIVE
        old_ns = table.time_ns.take(rows)
        late = table.late(rows, time_ns, old_ns, newborn)
        some_late = bool(late.any())
        if self._life:
            cells = cells_of(slots, word4)
            self._life.take(table, Told(rows, time_ns, address, state, newborn, cells))
        boundary = np.zeros(len(rows), dtype=bool)
        for some in (born, death, table.readdress(rows, time_ns, address, late)):
            boundary[some] = True
        table.see_unborn(rows, time_ns, boundary, old_ns)
        at = np.flatnonzero(boundary)
        if not rising(time_ns[at]):
            at = at[np.argsort(time_ns[at], kind="stable")]
        table.start_lives(rows[at], time_ns[at])
        self._learn_chains(head[born], slots[born], word4[born])
        if some_late:
            kept = ~late
            table.store_newest(rows[kept], time_ns[kept], state[kept], freeobj[kept])
        else:
            table.store_newest(rows, time_ns, state, freeobj)
        if scanned is not None:
            scanned &= table.time_ns.take(rows) == time_ns
            at = np.flatnonzero(scanned)
            cells = cells_of(slots[at], word4[at])
            inuse = (word3[at] & _U32).view(np.int64)
            self._pools.scans.see(cells, inuse, time_ns[at], old_ns[at])
        self._bury(rows if revoked is not None else rows[death])

    def _take_walk(self, columns: Words, parts: Words, is_state: Bools, is_frames: Bools) -> bool:
        """Take a scan's STATE records, and their FRAMES, if they are newer than all that is known.

        Return False, and change nothing that counts, if they may not be. It does
        what the general way does, each address looked up once and with fewer
        questions: scans are long.
        """
        head, time_ns, address, word3, word4 = columns
        scanned = told_by_scan(head)
        if scanned is None or self._life or not scanned.all() or not rising(time_ns):
            return False
        inuse = (word3 & _U32).view(np.int64)
        number = np.cumsum(is_state.view(np.int8), dtype=np.int64)
        of_state = number.take(np.flatnonzero(is_frames)) - 1
        serials = head >> _SERIAL_SHIFT
        if (
            of_state[0] < 0
            or (serials != serials[0]).any()
            or (address[of_state] != parts[wire.WORD_SUBJECT]).any()
            or (time_ns[of_state] != parts[wire.WORD_TIME]).any()
            or not (self._pools.scans.alone or inuse.all())
            or int(time_ns[0]) < self._pools.scans.newest_swept_ns
        ):
            return False
        pool = self._pools.get(int(serials[0]), int(time_ns[0]))
        table = self._rows
        rows = table.find_or_add(address)
        old_ns = table.time_ns.take(rows)
        if (
            pool.gone
            or int(self._pools.deferred_ns[pool.slot]) > int(time_ns[0])
            or (time_ns <= old_ns).any()
            or (time_ns <= table.generation_ns.take(rows)).any()
            or (table.address.take(rows) != address).any()
        ):
            return False
        unknown = old_ns == 0
        if unknown.any():
            table.first_seen(rows[unknown], time_ns[unknown])
        slot = np.uint64(pool.slot)
        state = pack_states(head, slot, word3, word4)
        table.store_newest(rows, time_ns, state, freeobj_of(word3))
        chained = rows[of_state]
        table.generation_ns[chained] = time_ns[of_state]
        newest = time_ns == table.time_ns.take(rows)
        everything = np.ones(len(chained), dtype=bool)
        if not newest.all():
            # Met twice, since its list was walked again.
            some = newest[of_state]
            parts, chained, everything = parts[:, some], chained[some], everything[some]
        renew_chains(table, parts, chained, everything)
        cells = cells_of(slot, word4[newest])
        self._pools.scans.see(cells, inuse[newest], time_ns[newest], old_ns[newest])
        return True

    def _learn_chains(self, head: U64, slots: U64, class_index: U64) -> None:
        """Learn the pages of classes' zspages from births, which may tell them."""
        pages = (head >> np.uint64(24)).astype(np.uint8)
        told = pages > 0
        where = cells_of(slots[told], class_index[told])
        self._pools.chain_pages.reshape(-1)[where] = pages[told]

    def _revoked(
        self, slots: U64, word3: U64, class_index: U64, time_ns: U64, newborn: Bools
    ) -> Bools | None:
        """Return which states belong to zspages already known to be gone; None if no one asks.

        Those are the zspages of destroyed pools, those seen empty before the
        beginning of a deferred free, and those seen before a scan that would
        have found them.
        """
        pools = self._pools
        swept = bool(pools.scans.newest_swept_ns) and (
            int(time_ns.min()) < pools.scans.newest_swept_ns
        )
        if not (pools.any_gone or pools.any_deferred or swept):
            return None
        index = slots.view(np.int64)
        revoked = pools.gone.take(index)
        revoked |= ((word3 & _U32) == 0) & (time_ns < pools.deferred_ns.take(index))
        if swept:
            swept_ns = pools.scans.swept_ns.take(cells_of(slots, class_index))
            gone = time_ns < swept_ns
            # Judged when all that came late has come.
            young = gone & newborn & (time_ns + BIRTH_NS >= swept_ns)
            self.sweep_due |= bool(young.any())
            revoked |= gone & ~young
        return revoked if revoked.any() else None

    def _begin_scans(self, marks: Words) -> None:
        """Take the SCAN_BEGIN among marks by column, shape (RECORD_WORDS, n)."""
        begins = marks[:, marks[0].astype(np.uint8) == wire.KIND_SCAN_BEGIN]
        if begins.shape[1]:
            self._pools.scans.begin(self._cells_of(begins), begins)

    def _end_scans(self, marks: Words) -> None:
        """Take the SCAN_END and SCANNED among marks by column."""
        kind = marks[0].astype(np.uint8)
        ends = marks[:, kind == wire.KIND_SCAN_END]
        if ends.shape[1]:
            steady = ((ends[0] >> np.uint64(8)) & np.uint64(wire.FLAG_STEADY)) != 0
            self.sweep_due |= self._pools.scans.end(self._cells_of(ends), steady, ends)
        for record in marks[:, kind == wire.KIND_SCANNED].T:
            self._pools.scanned(record)

    def _cells_of(self, marks: Words) -> I64:
        slots = self._pools.slots(marks[0] >> _SERIAL_SHIFT, marks[wire.WORD_TIME])
        return cells_of(slots, marks[3])

    def sweep(self) -> None:
        """Bury the zspages that scans would have found and did not.

        Records that come before this is done are judged by ``swept_ns`` alike, so
        one pass over the rows serves many scans.
        """
        if not self.sweep_due:
            return
        self.sweep_due = False
        table = self._rows
        rows = table.live()
        state = table.state[rows]
        cells = cells_of(state & _U16, (state >> np.uint64(STATE_CLASS_SHIFT)) & _U16)
        swept_ns = self._pools.scans.swept_ns.take(cells)
        gone = table.time_ns[rows] < swept_ns
        young = gone & ((state & NEWBORN) != 0) & (table.time_ns[rows] + BIRTH_NS >= swept_ns)
        if young.any():
            self._pools.scans.doubt(cells[young], table.time_ns[rows[young]])
            gone &= ~young
        rows, swept_ns = rows[gone], swept_ns[gone]
        if self._life:
            self._life.lose(table, rows)
        table.end_lives(rows, swept_ns)
        self._tombstones.add(rows, np.maximum(table.touched_ns(rows), swept_ns))

    def _take_events(self, words: Words) -> None:
        """Keep the most recent events, and act on those that change pools (they are rare)."""
        self._migrations.take(words)
        self._runs.take(words)
        # What a run did class by class is told with the run, and of objects by their ledger.
        words = words[_EVENT_KINDS[wire.kinds(words)]]
        self._events = np.concatenate([self._events, words])[-EVENTS_KEPT:]
        self._events_seen += len(words)
        control = words[_CONTROL_KINDS[wire.kinds(words)]]
        for record in control[np.argsort(control[:, wire.WORD_TIME], kind="stable")]:
            self._take_control(record)
        self._forget_pools()

    def _take_control(self, record: Words) -> None:
        head, time_ns, address, word3 = (int(word) for word in record[:4])
        kind, flags, serial = head & 0xFF, head >> 8 & 0xFF, head >> 32
        if kind == wire.KIND_POOL_CREATED:
            name = record[3:7].tobytes().split(b"\0", 1)[0].decode("utf-8", "replace")
            created = not flags & wire.FLAG_LATE
            self._pools.create(serial, address, name, time_ns, created)
            return
        pool = self._pools.get(serial, time_ns)
        if kind == wire.KIND_POOL_DESTROYED:
            self._destroy(pool, time_ns)
        else:
            self._pools.defer(pool, word3)
            table = self._rows
            rows = self._rows_of(pool)
            inuse = table.state[rows] >> np.uint64(STATE_INUSE_SHIFT) & np.uint64(0xFFFF)
            rows = rows[(inuse == 0) & (table.time_ns[rows] < np.uint64(word3))]
            if self._life:
                self._life.end(table, rows, time_ns)
            self._kill(rows, time_ns)

    def _destroy(self, pool: Pool, time_ns: int) -> None:
        self._pools.destroy(pool)
        if self.objects:
            self.objects.empty(pool.slot)
        self._kill(self._rows_of(pool), time_ns)

    def _rows_of(self, pool: Pool, *, tombstones: bool = False) -> I64:
        table = self._rows
        rows: I64 = np.arange(1, table.end, dtype=np.int64) if tombstones else table.live()
        own: Bools = (table.state[rows] & np.uint64(0xFFFF)) == np.uint64(pool.slot)
        return rows[own]

    def _kill(self, rows: I64, time_ns: int) -> None:
        self._rows.state[rows] &= ~LIVE
        self._tombstones.add(rows, np.maximum(self._rows.touched_ns(rows), np.uint64(time_ns)))

    def _bury(self, rows: I64) -> None:
        """Enter those of the rows that are dead with the tombstones."""
        dead = rows[(self._rows.state[rows] & LIVE) == 0]
        self._tombstones.add(dead, self._rows.touched_ns(dead))

    def _forget_pools(self) -> None:
        for pool in self._pools.forgettable():
            self._rows.release(self._rows_of(pool, tombstones=True))
            self._pools.forget(pool)
            self._migrations.forget(pool.serial)
            self._runs.forget(pool.serial)
            if self._life:
                self._life.forget(pool.slot)
            if self.objects:
                self.objects.forget(pool.slot)
