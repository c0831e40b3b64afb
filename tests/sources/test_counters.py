"""Counters, pool table and places, on maps of the running kernel; zram devices on made-up files."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from zpobs import wire
from zpobs.model.inputs import PoolReading
from zpobs.sources import bpfmap
from zpobs.sources.counters import POOL_ENTRY, CounterSource, PoolEntry
from zpobs.sources.pools import KnownPool
from zpobs.sources.scanner import FoundPool, FoundPools

SIZE_CLASSES = 5
_MAP_CREATE, _LOOKUP_AND_DELETE = 0, 21
_HASH, _PERCPU_ARRAY, _QUEUE = 1, 6, 22
# Name -> type, bytes of key and value, elements: as bpf/dialect_bcc.h makes them.
MAPS = {
    "zs_pools": (_HASH, 8, POOL_ENTRY.size, 2 * wire.POOLS_MAX),
    "zs_free_places": (_QUEUE, 0, 8, wire.POOLS_MAX),
    "zs_class_counters": (_PERCPU_ARRAY, 4, 8 * wire.CLASS_WORDS, wire.POOLS_MAX * SIZE_CLASSES),
    "zs_pool_counters": (_PERCPU_ARRAY, 4, 8 * wire.POOL_WORDS, wire.POOLS_MAX),
    "zs_loss": (_PERCPU_ARRAY, 4, 8 * wire.LOSS_WORDS, 1),
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
native = [pytest.mark.native, needs_root]


class _Create(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint32)
        for name in ("map_type", "key_size", "value_size", "max_entries", "map_flags", "unused")
    )


def number(value: int, length: int = 8) -> bytes:
    return value.to_bytes(length, sys.byteorder)


class Kernel:
    """What the probes do with the maps, done from here."""

    def __init__(self) -> None:
        self.cpus = bpfmap.possible_cpus()
        self.fds = {name: bpfmap._bpf(_MAP_CREATE, _Create(*form)) for name, form in MAPS.items()}

    def close(self) -> None:
        for descriptor in self.fds.values():
            os.close(descriptor)

    def take_place(self) -> tuple[int, int] | None:
        """Pop a place as pool_register() does: (serial, slot), None if there is none left."""
        value = ctypes.create_string_buffer(8)
        element = bpfmap._Element(self.fds["zs_free_places"], 0, ctypes.addressof(value), 0)
        try:
            bpfmap._bpf(_LOOKUP_AND_DELETE, element)
        except FileNotFoundError:
            return None
        place = int.from_bytes(value.raw, sys.byteorder)
        return place >> 8, place & 0xFF

    def enter(
        self, address: int, serial: int, slot: int, name: str = "zram0", late: int = 0
    ) -> None:
        entry = POOL_ENTRY.pack(serial, slot, 77, late, name.encode(), *[0] * 12)
        bpfmap.update(self.fds["zs_pools"], number(address), entry)

    def create(self, address: int) -> tuple[int, int]:
        place = self.take_place()
        assert place is not None
        self.enter(address, *place)
        return place

    def destroy(self, address: int) -> None:
        key = ctypes.create_string_buffer(number(address), 8)
        element = bpfmap._Element(self.fds["zs_pools"], ctypes.addressof(key), 0, 0)
        bpfmap._bpf(3, element)

    def count(self, name: str, at: int, words: np.ndarray) -> None:
        """Set one element's words, shape (cpus, words)."""
        bpfmap.update(self.fds[name], number(at, 4), words.astype(np.uint64).tobytes())

    def counted(self, name: str, at: int, words: int) -> np.ndarray:
        return bpfmap.lookup_batch(self.fds[name], at, 1, words, self.cpus)[0]


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    made = Kernel()
    yield made
    made.close()


@pytest.fixture
def source(kernel: Kernel) -> CounterSource:
    made = CounterSource(kernel.fds, SIZE_CLASSES)
    made.open_places()
    return made


def per_cpu(cpus: int, words: int, seed: int) -> np.ndarray:
    return np.arange(seed, seed + cpus * words).reshape(cpus, words)


class TestOnRealMaps:
    """Everything that needs maps of the running kernel."""

    pytestmark = native

    def test_places_are_handed_out_once_each(self, kernel: Kernel, source: CounterSource) -> None:
        """Serials 1 to 32 come in order, each slot once; then there is none."""
        places = [kernel.take_place() for _ in range(wire.POOLS_MAX)]
        assert places == [(slot + 1, slot) for slot in range(wire.POOLS_MAX)]
        assert kernel.take_place() is None
        # An empty queue is read as well: nothing is there to take back.
        assert source.read(1).pools == ()

    def test_counters_are_summed_over_cpus(self, kernel: Kernel, source: CounterSource) -> None:
        """Each counter is the sum of its words on all CPUs, taken from the pool's own slot."""
        kernel.create(0x1000)
        serial, slot = kernel.create(0x2000)
        classes = [per_cpu(kernel.cpus, wire.CLASS_WORDS, 100 * at) for at in range(SIZE_CLASSES)]
        for at, words in enumerate(classes):
            kernel.count("zs_class_counters", slot * SIZE_CLASSES + at, words)
        pool = per_cpu(kernel.cpus, wire.POOL_WORDS, 7)
        kernel.count("zs_pool_counters", slot, pool)
        first, second = sorted(source.read(123).pools, key=lambda each: each.serial)
        assert isinstance(second, PoolReading)
        assert (second.serial, second.address) == (serial, 0x2000)
        assert second.class_counters is not None
        assert second.pool_counters is not None
        counted = slice(0, wire.CLASS_GEOMETRY)
        wanted = np.stack([words[:, counted].sum(axis=0) for words in classes])
        assert np.array_equal(second.class_counters[:, counted], wanted)
        assert np.array_equal(second.pool_counters, pool.sum(axis=0))
        assert first.class_counters is not None
        assert not first.class_counters.any()

    def test_geometry_is_not_summed(self, kernel: Kernel, source: CounterSource) -> None:
        """A class's geometry is the same whatever number of CPUs met the class."""
        _, slot = kernel.create(0x1000)
        geometry = 1744 | 7 << 32 | 3 << 48
        words = np.zeros((kernel.cpus, wire.CLASS_WORDS), dtype=np.uint64)
        words[:, wire.CLASS_GEOMETRY] = geometry
        kernel.count("zs_class_counters", slot * SIZE_CLASSES, words)
        words[:-1, wire.CLASS_GEOMETRY] = 0
        kernel.count("zs_class_counters", slot * SIZE_CLASSES + 1, words)
        (pool,) = source.read(1).pools
        assert pool.class_counters is not None
        told = pool.class_counters[:, wire.CLASS_GEOMETRY].tolist()
        assert told == [geometry, geometry, 0, 0, 0]

    def test_losses_are_summed_over_cpus(self, kernel: Kernel, source: CounterSource) -> None:
        """Each loss counter has its own field of the reading."""
        words = per_cpu(kernel.cpus, wire.LOSS_WORDS, 5)
        kernel.count("zs_loss", 0, words)
        reading = source.read(99)
        wanted = tuple(words.sum(axis=0).tolist())
        assert (reading.ring_full, reading.unpaired) == wanted
        assert (reading.mono_ns, reading.missed_runs, reading.missed_counts) == (99, 0, {})

    def test_the_pool_table_is_read_field_by_field(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """A row tells address, serial, slot, time, name, and whether the pool was met late."""
        kernel.enter(0xFFFF8880, 9, 4, name="z" * 31, late=1)
        assert source.pools() == [PoolEntry(0xFFFF8880, 9, 4, 77, True, "z" * 31)]
        (pool,) = source.read(1).pools
        assert (pool.name, pool.since_mono_ns, pool.created) == ("z" * 31, 77, False)

    def test_a_pool_without_a_place_is_left_out(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """A row with serial 0 found no place, so it has no counters to read."""
        kernel.enter(0x1000, 0, 0)
        assert source.read(1).pools == ()

    def test_a_place_comes_back_when_its_pool_is_missing_twice(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """Gone at two readings, a pool gives its slot back, cleared, under a new serial."""
        _, slot = kernel.create(0x1000)
        ones = np.ones((kernel.cpus, wire.CLASS_WORDS))
        for at in range(SIZE_CLASSES):
            kernel.count("zs_class_counters", slot * SIZE_CLASSES + at, ones)
        kernel.count("zs_pool_counters", slot, np.ones((kernel.cpus, wire.POOL_WORDS)))
        kernel.destroy(0x1000)
        source.read(1)
        assert kernel.counted("zs_pool_counters", slot, wire.POOL_WORDS).all()
        source.read(2)
        assert not kernel.counted("zs_pool_counters", slot, wire.POOL_WORDS).any()
        for at in range(SIZE_CLASSES):
            index = slot * SIZE_CLASSES + at
            assert not kernel.counted("zs_class_counters", index, wire.CLASS_WORDS).any()
        places = [kernel.take_place() for _ in range(wire.POOLS_MAX)]
        assert places[-1] == (wire.POOLS_MAX + 1, slot)
        assert len(set(places)) == wire.POOLS_MAX

    def test_a_pool_missing_once_keeps_its_place(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """A place taken just before a reading, and entered just after it, is not taken away."""
        serial, slot = kernel.take_place() or (0, 0)
        source.read(1)
        kernel.enter(0x1000, serial, slot)
        source.read(2)
        kernel.destroy(0x1000)
        source.read(3)
        left = [kernel.take_place() for _ in range(wire.POOLS_MAX)]
        assert left[-1] is None
        assert slot not in [place[1] for place in left if place]

    def test_places_last_for_any_number_of_pools(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """Far more pools than places can come and go, if not all at one time, each a new serial."""
        seen = []
        for at in range(3 * wire.POOLS_MAX):
            serial, _ = kernel.create(0x1000 + at)
            seen.append(serial)
            kernel.destroy(0x1000 + at)
            source.read(at)
        assert seen == sorted(set(seen))
        assert len(seen) == 3 * wire.POOLS_MAX


def all_of(*pools: FoundPool) -> FoundPools:
    return FoundPools(pools, complete=True)


class TestPoolsThatScansFound:
    """Pools that are there before any probe meets them."""

    pytestmark = native

    def test_known_pools_keep_their_serials(self, kernel: Kernel) -> None:
        """They are in the table before the probes are; new pools get later serials."""
        source = CounterSource(kernel.fds, SIZE_CLASSES)
        source.open_places([KnownPool(FoundPool(0x1000, "zram0", 1), 4, 77)])
        assert source.pools() == [PoolEntry(0x1000, 4, 0, 77, True, "zram0")]
        assert kernel.take_place() == (5, 1)

    def test_counting_begins_when_the_probes_are_there(self, kernel: Kernel) -> None:
        """What was counted before is taken off, geometry is not, and since is then."""
        source = CounterSource(kernel.fds, SIZE_CLASSES)
        source.open_places([KnownPool(FoundPool(0x1000, "zram0", 1), 1, 77)])
        ones = np.ones((kernel.cpus, wire.CLASS_WORDS))
        kernel.count("zs_class_counters", 0, 5 * ones)
        kernel.count("zs_pool_counters", 0, np.ones((kernel.cpus, wire.POOL_WORDS)))
        source.begin(1000)
        kernel.count("zs_class_counters", 0, 7 * ones)
        (pool,) = source.read(2000).pools
        assert pool.since_mono_ns == 1000
        assert pool.class_counters is not None
        assert pool.pool_counters is not None
        assert pool.class_counters[0].tolist() == [2 * kernel.cpus] * 3 + [7]
        assert not pool.pool_counters.any()

    def test_a_pool_that_no_probe_met_is_entered(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """A meeting gives it a place; one that a probe met keeps what it has."""
        serial, _ = kernel.create(0x2000)
        met, unmet = FoundPool(0x2000, "zram0", 1), FoundPool(0x3000, "zswap1", 2)
        assert source.meet(all_of(met, unmet), 50) == {met: serial, unmet: serial + 1}
        assert {each.address: each.name for each in source.pools()}[0x3000] == "zswap1"
        assert source.meet(all_of(met, unmet), 60) == {met: serial, unmet: serial + 1}

    def test_a_pool_that_is_no_more_leaves_the_table(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """Unless it came after the meeting began."""
        kernel.create(0x2000)
        source.meet(all_of(), 77)
        source.meet(FoundPools((), complete=False), 78)
        assert len(source.pools()) == 1
        source.meet(all_of(), 78)
        assert source.pools() == []

    def test_without_a_place_a_pool_is_left_out(
        self, kernel: Kernel, source: CounterSource
    ) -> None:
        """The caller is told by its absence."""
        for _ in range(wire.POOLS_MAX):
            kernel.take_place()
        assert source.meet(all_of(FoundPool(0x9000, "zram9", 1)), 1) == {}


def test_skipped_runs_are_told_by_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of programs that only count are told apart, each with the counters they feed."""
    reading = {"zs_pools": 0, "zs_free_places": 0}
    misses = {31: 2, 32: 3, 33: 4, 34: 0, 35: 5, 36: 1}
    monkeypatch.setattr(bpfmap, "recursion_misses", misses.__getitem__)
    monkeypatch.setattr(bpfmap, "items", lambda *_: [])
    monkeypatch.setattr(bpfmap, "peek", lambda *_: number(1 << 8))
    monkeypatch.setattr(bpfmap, "lookup_batch", lambda *_: np.zeros((1, 1, 3), dtype=np.uint64))
    source = CounterSource(reading | {"zs_loss": 0}, SIZE_CLASSES)
    source.watch_programs(
        {
            "obj_malloc/return": 31,
            "zs_malloc/call": 32,
            "zs_malloc/return": 33,
            "other/entry": 34,
            "__zs_compact/entry": 35,
            "zs_shrinker_scan/return": 36,
        },
        {
            "zs_malloc": {"failures": 1},
            "other": {"moves": 1},
            "__zs_compact": {"compactions": 2},
            "zs_shrinker_scan": {"shrinker_compactions": 2},
        },
    )
    told = source.read(1)
    assert (told.missed_runs, told.missed_counting_runs) == (2, 13)
    # Of what two runs tell each, five skipped ones hide two at most, and one none.
    assert told.missed_counts == {"failures": 7, "compactions": 2}
