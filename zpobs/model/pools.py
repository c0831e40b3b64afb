"""The pools: who they are, since when, what their counters said.

A pool's identity is its serial number; its address can be used again. Records
carry the serial, rows the model's own small slot number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zpobs import wire
from zpobs.errors import RecordError
from zpobs.model.arrays import I64, U8, U16, U64, Bools, grown, unique_sorted
from zpobs.model.inputs import CountersReading, CounterWords, PoolReading
from zpobs.model.scans import (
    CLASSES_MAX,
    GEOMETRY_KINDS,
    STATE_KINDS,
    ScanLedger,
    geometry_columns,
    packed_geometry,
)
from zpobs.model.state import NO_POOL, StateReader, StateWriter, check, distinct, texts
from zpobs.snapshot import Owner, owner_of
from zpobs.wire import Words

_SLOTS_MAX = 1 << 16
_LOW_SERIAL = np.uint64(0xFFFF)
# Destroyed pools that are remembered, so that a late record does not revive them.
_GONE_KEPT = 256


@dataclass(slots=True)
class Pool:
    """One pool; ``since_ns`` is its creation or, if that was not seen, its first sign.

    ``scan_ns`` is the end of its last whole scan, None before the first, which
    told ``kernel_pages``, ``kernel_objects`` and ``pages_compacted``.
    """

    serial: int
    slot: int
    since_ns: int
    address: int = 0
    name: str = ""
    created: bool = False
    gone: bool = False
    scan_ns: int | None = None
    kernel_pages: int | None = None
    kernel_objects: int | None = None
    pages_compacted: int | None = None
    class_counters: CounterWords | None = None
    pool_counters: CounterWords | None = None

    @property
    def owner(self) -> Owner:
        """Who made the pool."""
        return owner_of(self.name)


class PoolDirectory:
    """Pools by serial and by slot; slot 0 is nobody's.

    ``gone`` and ``deferred_ns`` (beginning of the newest deferred free) are by
    slot; ``chain_pages`` by slot and class: pages of a zspage, 0 while untold.
    ``scans`` is what scans told, by slot and class too; ``alone``: without probes.
    """

    def __init__(self, *, alone: bool = False) -> None:
        self._by_serial: dict[int, Pool] = {}
        self._by_low_serial: U16 = np.zeros(1 << 16, dtype=np.uint16)
        self._serial: U64 = np.full(64, NO_SERIAL, dtype=np.uint64)
        self._free_slots = list(range(63, 0, -1))
        self.gone: Bools = np.zeros(64, dtype=bool)
        self.deferred_ns: U64 = np.zeros(64, dtype=np.uint64)
        self.chain_pages: U8 = np.zeros((64, CLASSES_MAX), dtype=np.uint8)
        self.scans = ScanLedger(64, alone=alone)
        # Whether any pool was destroyed, or deferred a free: most batches need not ask by row.
        self.any_gone = False
        self.any_deferred = False

    @property
    def slots_end(self) -> int:
        """One more than the highest slot there can be."""
        return len(self._serial)

    def live(self) -> list[Pool]:
        """Return the pools that exist, by rising serial."""
        pools = self._by_serial.values()
        return sorted((pool for pool in pools if not pool.gone), key=lambda pool: pool.serial)

    def slots(self, serials: U64, time_ns: U64) -> U64:
        """Return the slot of each serial, shape (N,); unknown pools are entered."""
        slots = self._by_low_serial.take((serials & _LOW_SERIAL).view(np.int64))
        wrong = self._serial.take(slots) != serials
        if not wrong.any():
            return slots.astype(np.uint64)
        wrong_serials = serials[wrong]
        for serial in unique_sorted(wrong_serials).tolist():
            self.get(serial, int(time_ns[wrong][wrong_serials == serial].min()))
        # Serials with equal low bits live side by side: a search finds each.
        order = np.argsort(self._serial, kind="stable")
        found = order[np.searchsorted(self._serial, serials, sorter=order)]
        return found.astype(np.uint64)

    def get(self, serial: int, time_ns: int) -> Pool:
        """Return the pool, entered as first met at ``time_ns`` if it was unknown."""
        pool = self._by_serial.get(serial)
        if pool is None:
            pool = Pool(serial, self._new_slot(serial), time_ns)
            self._by_serial[serial] = pool
        elif not pool.created:
            pool.since_ns = min(pool.since_ns, time_ns)
        return pool

    def find(self, serial: int) -> Pool | None:
        """Return the pool, None if it is unknown."""
        return self._by_serial.get(serial)

    def create(self, serial: int, address: int, name: str, since_ns: int, created: bool) -> None:
        """Note what a creation record or a reading tells of a pool."""
        pool = self.get(serial, since_ns)
        pool.address = address
        pool.name = name
        if created or not pool.created:
            pool.since_ns = since_ns if created else min(pool.since_ns, since_ns)
        pool.created |= created

    def destroy(self, pool: Pool) -> None:
        """Mark a pool as destroyed; its serial never comes back."""
        pool.gone = True
        self.gone[pool.slot] = True
        self.any_gone = True

    def absent(self, reading: CountersReading) -> list[Pool]:
        """Return the live pools that a complete reading shows to be gone."""
        present = {pool.serial for pool in reading.pools}
        return [
            pool
            for pool in self.live()
            if pool.serial not in present and pool.since_ns < reading.mono_ns
        ]

    def read(self, reading: PoolReading) -> None:
        """Take a reading's identity and counters of one pool."""
        self.create(
            reading.serial,
            reading.address,
            reading.name,
            reading.since_mono_ns,
            reading.created,
        )
        pool = self._by_serial[reading.serial]
        if reading.class_counters is not None and not reading.created:
            # Known longer, maybe, but counted since then.
            pool.since_ns = reading.since_mono_ns
        pool.class_counters = reading.class_counters
        pool.pool_counters = reading.pool_counters

    def defer(self, pool: Pool, begin_ns: int) -> None:
        """Note that zspages seen empty before ``begin_ns`` were freed."""
        slot = pool.slot
        self.deferred_ns[slot] = max(int(self.deferred_ns[slot]), begin_ns)
        self.any_deferred = True

    def scanned(self, record: Words) -> None:
        """Take a SCANNED record."""
        head, time_ns, _, pages, compacted, _, objects = record.tolist()
        pool = self.get(head >> 32, time_ns)
        pool.scan_ns = time_ns
        pool.kernel_pages = pages
        pool.kernel_objects = objects
        pool.pages_compacted = compacted

    def forgettable(self) -> list[Pool]:
        """Return the destroyed pools beyond those that are remembered, oldest first."""
        gone = [pool for pool in self._by_serial.values() if pool.gone]
        return gone[: max(len(gone) - _GONE_KEPT, 0)]

    def forget(self, pool: Pool) -> None:
        """Drop a destroyed pool that no row names any more; its slot is free again."""
        del self._by_serial[pool.serial]
        self._serial[pool.slot] = NO_SERIAL
        self.gone[pool.slot] = False
        self.deferred_ns[pool.slot] = 0
        self.chain_pages[pool.slot] = 0
        self.scans.forget(pool.slot)
        self._free_slots.append(pool.slot)

    def named(self, cells: I64) -> dict[str, I64]:
        """Return the columns by which a state names cells, shape (n,)."""
        return {"pool": self.serials(cells // CLASSES_MAX), "class_index": cells % CLASSES_MAX}

    def cells(self, columns: Mapping[str, I64], table: str) -> I64:
        """Return the cells that a state names; raise StateError if there is none such."""
        check((columns["class_index"] < CLASSES_MAX).all(), f"{table}.class_index")
        slots = self.slots_of(columns["pool"], f"{table}.pool")
        return slots * CLASSES_MAX + columns["class_index"]

    def serials(self, slots: I64) -> I64:
        """Return the serial of the pool in each slot, NO_POOL where there is none."""
        serials = self._serial.take(slots)
        out: I64 = np.where(serials == NO_SERIAL, NO_POOL, serials.view(np.int64))
        return out

    def slots_of(self, serials: I64, what: str, *, none: bool = False) -> I64:
        """Return the slot of each serial that a state names, 0 for NO_POOL if there may be none."""
        order = np.argsort(self._serial, kind="stable")
        at = np.searchsorted(self._serial, serials.view(np.uint64), sorter=order)
        slots = order[np.minimum(at, len(order) - 1)]
        nobody = serials == NO_POOL if none else np.zeros(len(serials), dtype=bool)
        known = self._serial[slots] == serials.view(np.uint64)
        check(((known & (serials < int(NO_SERIAL))) | nobody).all(), what)
        return np.where(nobody, 0, slots)

    def save(self, out: StateWriter) -> None:
        """Add all to a state, the pools in the order in which they were met."""
        pools = list(self._by_serial.values())
        slots = np.array([pool.slot for pool in pools], dtype=np.int64)
        columns: dict[str, Any] = {
            name: np.array([getattr(pool, name) or 0 for pool in pools], dtype=kind)
            for name, kind in _POOL_KINDS.items()
        }
        columns["scanned"] = np.array([pool.scan_ns is not None for pool in pools], dtype=bool)
        columns["deferred_ns"] = self.deferred_ns[slots]
        counted = [pool.class_counters for pool in pools]
        columns["counted_classes"] = np.array(
            [-1 if each is None else len(each) for each in counted], dtype=np.int64
        )
        words = [pool.pool_counters for pool in pools]
        columns["counted"] = np.array([each is not None for each in words], dtype=bool)
        filled = [np.zeros(wire.POOL_WORDS, np.uint64) if each is None else each for each in words]
        table = np.array(filled, dtype=np.uint64).reshape(-1, wire.POOL_WORDS)
        columns |= {name: table[:, word] for name, word in _POOL_WORDS.items()}
        out.table("pools", columns)
        out.value("pool_names", [pool.name for pool in pools])
        self._save_counters(out, pools)
        cells = np.flatnonzero(self.scans.told() | (self.chain_pages.reshape(-1) > 0))
        newborn = {"newborn_pages": self.chain_pages.reshape(-1)[cells]}
        out.table("classes", self.named(cells) | self.scans.columns(cells) | newborn)

    def _save_counters(self, out: StateWriter, pools: list[Pool]) -> None:
        counted = [(each.serial, each.class_counters) for each in pools]
        kept = [(serial, words) for serial, words in counted if words is not None]
        words = [words for _, words in kept]
        lengths = [len(words) for _, words in kept]
        table = np.concatenate([np.zeros((0, wire.CLASS_WORDS), np.uint64), *words])
        index = [np.arange(length) for length in lengths]
        out.table(
            "counters",
            {
                "pool": np.repeat([serial for serial, _ in kept], lengths).astype(np.int64),
                "class_index": np.concatenate([np.zeros(0, dtype=np.int64), *index]),
                **geometry_columns(table[:, wire.CLASS_GEOMETRY]),
                **{name: table[:, word] for name, word in _CLASS_WORDS.items()},
            },
        )

    def load(self, given: StateReader) -> None:
        """Take all from a state, with nothing here before."""
        kinds = _POOL_KINDS | dict.fromkeys(_POOL_WORDS, np.uint64) | _REST_KINDS
        columns = given.table("pools", kinds)
        names = texts(given.value("pool_names", list), "pool_names")
        count = len(columns["serial"])
        check(len(names) == count < _SLOTS_MAX, "pool_names")
        check(distinct(columns["serial"]), "pools.serial")
        counted = columns["counted_classes"]
        check(((counted >= -1) & (counted <= CLASSES_MAX)).all(), "pools.counted_classes")
        values = {name: column.tolist() for name, column in columns.items()}
        table = np.stack([columns[name] for name in _POOL_WORDS], axis=1)
        for at in range(count):
            each = {name: values[name][at] for name in _POOL_KINDS}
            if not values["scanned"][at]:
                each |= dict.fromkeys(_SCANNED)
            serial = each["serial"]
            pool = Pool(slot=self._new_slot(serial), name=names[at], **each)
            self._by_serial[serial] = pool
            if counted[at] >= 0:
                pool.class_counters = np.zeros((counted[at], wire.CLASS_WORDS), dtype=np.uint64)
            pool.pool_counters = table[at] if values["counted"][at] else None
            self.deferred_ns[pool.slot] = columns["deferred_ns"][at]
            self.gone[pool.slot] = pool.gone
        self.any_gone = bool(self.gone.any())
        self.any_deferred = bool(self.deferred_ns.any())
        self._load_classes(given)

    def _load_classes(self, given: StateReader) -> None:
        kinds = CELL_KINDS | GEOMETRY_KINDS
        columns = given.table("counters", kinds | dict.fromkeys(_CLASS_WORDS, np.uint64))
        self.cells(columns, "counters")
        words = np.zeros((len(columns["pool"]), wire.CLASS_WORDS), dtype=np.uint64)
        words[:, wire.CLASS_GEOMETRY] = packed_geometry(columns)
        for name, word in _CLASS_WORDS.items():
            words[:, word] = columns[name]
        for serial in unique_sorted(columns["pool"]).tolist():
            own = columns["pool"] == serial
            index, held = columns["class_index"][own], self._by_serial[serial].class_counters
            check(held is not None and int(index.max()) < len(held), "counters.class_index")
            assert held is not None
            held[index] = words[own]
        kinds = kinds | STATE_KINDS | {"newborn_pages": np.uint8}
        columns = given.table("classes", kinds)
        cells = self.cells(columns, "classes")
        check(distinct(cells), "classes")
        self.scans.load(cells, columns)
        self.chain_pages.reshape(-1)[cells] = columns["newborn_pages"]

    def _new_slot(self, serial: int) -> int:
        if not self._free_slots:
            old, new = len(self._serial), min(2 * len(self._serial), _SLOTS_MAX)
            if new == old:
                raise RecordError(f"more than {_SLOTS_MAX - 1} pools at one time")
            self._serial = grown(self._serial, new)
            self._serial[old:] = NO_SERIAL
            self.gone = grown(self.gone, new)
            self.deferred_ns = grown(self.deferred_ns, new)
            self.chain_pages = grown(self.chain_pages, new)
            self.scans.grow(new)
            self._free_slots = list(range(new - 1, old - 1, -1))
        slot = self._free_slots.pop()
        self._serial[slot] = serial
        self._by_low_serial[serial & 0xFFFF] = slot
        return slot


# Serials have 32 bits.
NO_SERIAL = np.uint64(1 << 32)

# Columns of a state: members of a pool, those of them that a whole scan tells, and the others.
_SCANNED = ("scan_ns", "kernel_pages", "kernel_objects", "pages_compacted")
_POOL_KINDS: dict[str, Any] = {
    "serial": np.uint32,
    "address": np.uint64,
    "since_ns": np.uint64,
    "created": np.bool_,
    "gone": np.bool_,
    **dict.fromkeys(_SCANNED, np.uint64),
}
_REST_KINDS: dict[str, Any] = {
    "scanned": np.bool_,
    "deferred_ns": np.uint64,
    "counted_classes": np.int64,
    "counted": np.bool_,
}
CELL_KINDS: dict[str, Any] = {"pool": np.int64, "class_index": np.int64}
_POOL_WORDS = {
    "failures": wire.POOL_FAILURES,
    "migrations": wire.POOL_MIGRATIONS,
    "migration_failures": wire.POOL_MIGRATION_FAILURES,
    "compactions": wire.POOL_COMPACTIONS,
    "pages_freed": wire.POOL_PAGES_FREED,
}
_CLASS_WORDS = {
    "allocs": wire.CLASS_ALLOCS,
    "frees": wire.CLASS_FREES,
    "moves": wire.CLASS_MOVES,
}
