"""The kernel-side counters and pool table, read whole on every tick.

Unlike records these cannot be lost. The bytes are ``bpf/zs_wire.h``'s
``struct zs_*_counters`` and ``struct zs_pool_entry``.

Pools get their serial number and counter slot from a queue of *places* that
this module fills; a place comes back when its pool is gone, its counters
cleared, under a new serial.
"""

from __future__ import annotations

import contextlib
import errno
import struct
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from zpobs import wire
from zpobs.model.inputs import CountersReading, CounterWords, PoolReading
from zpobs.sources import bpfmap
from zpobs.sources.pools import KnownPool
from zpobs.sources.scanner import FoundPool, FoundPools

# struct zs_pool_entry: serial, slot, since_ns, late, name, and twelve words that stay there.
POOL_ENTRY = struct.Struct(f"<IIQQ{wire.NAME_BYTES}s12Q")
_SERIAL_SHIFT = 8


@dataclass(frozen=True, slots=True)
class PoolEntry:
    """One row of the kernel-side pool table."""

    address: int
    serial: int
    slot: int
    since_mono_ns: int
    late: bool
    name: str


class CounterSource:
    """Reads counters and owns the places of pools.

    ``map_fds`` are descriptors by map name, ``size_classes`` is the number of
    class slots of a pool on this kernel.
    """

    def __init__(self, map_fds: Mapping[str, int], size_classes: int) -> None:
        self._maps = map_fds
        self._programs: Mapping[str, int] = {}
        self._counted_by: Mapping[str, Mapping[str, int]] = {}
        self._size_classes = size_classes
        self._cpus = bpfmap.possible_cpus()
        self._slot_of: dict[int, int] = {}
        self._suspects: set[int] = set()
        self._next_serial = 1
        self._base: dict[int, PoolReading] = {}

    def open_places(self, known: Iterable[KnownPool] = ()) -> None:
        """Hand out a place for every pool that can be watched; before any probe attaches.

        Pools that are ``known`` are entered under the serial numbers they have.
        """
        slots = list(range(wire.POOLS_MAX))
        for pool in known:
            if slots:
                self._enter(pool.found, pool.serial, slots.pop(0), pool.since_mono_ns)
            self._next_serial = max(self._next_serial, pool.serial + 1)
        for slot in slots:
            self._push_place(slot)

    def begin(self, mono_ns: int) -> None:
        """Count from here on what pools do that were there before the probes."""
        for entry in self.pools():
            if entry.serial and entry.late:
                self._base[entry.serial] = replace(self._pool_reading(entry), since_mono_ns=mono_ns)

    def meet(self, found: FoundPools, mono_ns: int) -> dict[FoundPool, int]:
        """Take the pools there were at ``mono_ns``; return the serial number of each.

        Pools that no probe met are entered, unless there is no place; pools
        that are no more, and whose end no probe saw, are taken off the table.
        """
        addresses = {pool.address for pool in found.pools}
        serials = {}
        for entry in self.pools():
            young = entry.since_mono_ns >= mono_ns
            if entry.address in addresses or young or not found.complete:
                serials[entry.address] = entry.serial
            else:
                with contextlib.suppress(FileNotFoundError):
                    bpfmap.delete(self._maps["zs_pools"], _key(entry.address))
        met = {}
        for pool in found.pools:
            serial = serials.get(pool.address) or self._meet(pool, mono_ns)
            if serial:
                met[pool] = serial
        return met

    def _meet(self, pool: FoundPool, mono_ns: int) -> int:
        try:
            place = bpfmap.pop(self._maps["zs_free_places"], 8)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return 0
            raise
        serial, slot = divmod(int.from_bytes(place, sys.byteorder), 1 << _SERIAL_SHIFT)
        try:
            self._enter(pool, serial, slot, mono_ns)
        except FileExistsError:
            # A probe met it just now; the place comes back by itself.
            return next((e.serial for e in self.pools() if e.address == pool.address), 0)
        return serial

    def _enter(self, pool: FoundPool, serial: int, slot: int, since_ns: int) -> None:
        self._slot_of[serial] = slot
        name = pool.name.encode()[: wire.NAME_BYTES - 1]
        value = POOL_ENTRY.pack(serial, slot, since_ns, 1, name, *[0] * 12)
        bpfmap.insert(self._maps["zs_pools"], _key(pool.address), value)

    def watch_programs(
        self, program_fds: Mapping[str, int], counted_by: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Count the runs that the kernel skips of these programs (``function/moment``).

        ``counted_by`` names the functions whose programs only count, and what: counters, each
        with the number of runs that tell each count, of which the kernel must skip all to hide it.
        """
        self._programs = program_fds
        self._counted_by = counted_by

    def read(self, mono_ns: int) -> CountersReading:
        """Read everything; ``mono_ns`` is the time at which the reading begins."""
        free_from = self._front_serial()
        entries = self.pools()
        loss = bpfmap.lookup_batch(self._maps["zs_loss"], 0, 1, wire.LOSS_WORDS, self._cpus)[0].sum(
            axis=0
        )
        missed = self._missed_by_function()
        counting = {name: count for name, count in missed.items() if name in self._counted_by}
        reading = CountersReading(
            mono_ns=mono_ns,
            ring_full=int(loss[wire.LOSS_RING_FULL]),
            unpaired=int(loss[wire.LOSS_UNPAIRED]),
            missed_runs=sum(missed.values()) - sum(counting.values()),
            missed_counting_runs=sum(counting.values()),
            missed_counts={
                counter: count // tellings
                for function, count in counting.items()
                for counter, tellings in self._counted_by[function].items()
                if count >= tellings
            },
            untracked_pools=sum(not entry.serial for entry in entries),
            pools=tuple(
                self._since_base(self._pool_reading(entry)) for entry in entries if entry.serial
            ),
        )
        self._reclaim(free_from, {entry.serial for entry in entries})
        return reading

    def _missed_by_function(self) -> dict[str, int]:
        missed: dict[str, int] = {}
        for program, descriptor in self._programs.items():
            function = program.partition("/")[0]
            missed[function] = missed.get(function, 0) + bpfmap.recursion_misses(descriptor)
        return missed

    def pools(self) -> list[PoolEntry]:
        """Return the kernel-side pool table."""
        rows = bpfmap.items(self._maps["zs_pools"], 8, POOL_ENTRY.size)
        return [_pool_entry(address, value) for address, value in rows]

    def _pool_reading(self, entry: PoolEntry) -> PoolReading:
        classes = bpfmap.lookup_batch(
            self._maps["zs_class_counters"],
            entry.slot * self._size_classes,
            self._size_classes,
            wire.CLASS_WORDS,
            self._cpus,
        )
        summed = classes.sum(axis=1)
        # Geometry is the same on every CPU that has met the class, zero elsewhere.
        summed[:, wire.CLASS_GEOMETRY] = classes[:, :, wire.CLASS_GEOMETRY].max(axis=1)
        pool = bpfmap.lookup_batch(
            self._maps["zs_pool_counters"], entry.slot, 1, wire.POOL_WORDS, self._cpus
        )
        return PoolReading(
            serial=entry.serial,
            address=entry.address,
            name=entry.name,
            since_mono_ns=entry.since_mono_ns,
            created=not entry.late,
            class_counters=summed,
            pool_counters=pool[0].sum(axis=0),
        )

    def _since_base(self, reading: PoolReading) -> PoolReading:
        """Take off what a pool's counters said when its counting began."""
        base = self._base.get(reading.serial)
        if base is None:
            return reading
        classes, pool = _words(reading)
        base_classes, base_pool = _words(base)
        counted = classes - base_classes
        counted[:, wire.CLASS_GEOMETRY] = classes[:, wire.CLASS_GEOMETRY]
        return replace(
            reading,
            since_mono_ns=base.since_mono_ns,
            class_counters=counted,
            pool_counters=pool - base_pool,
        )

    # -- places ---------------------------------------------------------------

    def _push_place(self, slot: int) -> None:
        serial = self._next_serial
        self._next_serial += 1
        self._slot_of[serial] = slot
        place = serial << _SERIAL_SHIFT | slot
        bpfmap.push(self._maps["zs_free_places"], place.to_bytes(8, sys.byteorder))

    def _front_serial(self) -> int:
        """Return the serial that the next pool will get; beyond all if none is left."""
        try:
            front = bpfmap.peek(self._maps["zs_free_places"], 8)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return self._next_serial
            raise
        return int.from_bytes(front, sys.byteorder) >> _SERIAL_SHIFT

    def _reclaim(self, free_from: int, live: set[int]) -> None:
        """Take back the places of pools that are gone.

        Places are taken in the order of their serials, so one below the
        queue's front was taken; if its pool is not in the table it is gone, or
        is about to be entered: hence only what is missing twice is taken back.
        """
        missing = {serial for serial in self._slot_of if serial < free_from} - live
        for serial in sorted(missing & self._suspects):
            slot = self._slot_of.pop(serial)
            self._base.pop(serial, None)
            self._clear(slot)
            self._push_place(slot)
        self._suspects = missing - (missing & self._suspects)

    def _clear(self, slot: int) -> None:
        zeros = bytes(8 * wire.CLASS_WORDS * self._cpus)
        for index in range(self._size_classes):
            at = slot * self._size_classes + index
            bpfmap.update(self._maps["zs_class_counters"], at.to_bytes(4, sys.byteorder), zeros)
        zeros = bytes(8 * wire.POOL_WORDS * self._cpus)
        bpfmap.update(self._maps["zs_pool_counters"], slot.to_bytes(4, sys.byteorder), zeros)


def _words(reading: PoolReading) -> tuple[CounterWords, CounterWords]:
    """Return the counters of a reading of :class:`CounterSource`, which has them all."""
    assert reading.class_counters is not None
    assert reading.pool_counters is not None
    return reading.class_counters, reading.pool_counters


def _key(address: int) -> bytes:
    return address.to_bytes(8, sys.byteorder)


def _pool_entry(address: bytes, value: bytes) -> PoolEntry:
    serial, slot, since_ns, late, name, *_ = POOL_ENTRY.unpack(value)
    return PoolEntry(
        address=int.from_bytes(address, sys.byteorder),
        serial=serial,
        slot=slot,
        since_mono_ns=since_ns,
        late=bool(late),
        name=name.split(b"\0", 1)[0].decode(errors="replace"),
    )
