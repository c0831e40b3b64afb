"""Who the pools are, from scans alone; zram devices on made-up files."""

from __future__ import annotations

from pathlib import Path

from zpobs.sources.pools import PoolRegistry, reading_of, zram_devices
from zpobs.sources.scanner import FoundPool, FoundPools

FIRST = FoundPool(0x1000, "zram0", 0x10)
SECOND = FoundPool(0x2000, "zswap1", 0x20)
# The same device set up again, where its last pool was.
AGAIN = FoundPool(0x1000, "zram0", 0x30)


def all_of(*pools: FoundPool) -> FoundPools:
    return FoundPools(pools, complete=True)


def test_serials_stay_and_are_never_used_again() -> None:
    """A pool keeps its number as long as it is found; another at its address gets another."""
    registry = PoolRegistry()
    assert registry.meet(all_of(FIRST, SECOND), 100) == {FIRST: 1, SECOND: 2}
    assert registry.meet(all_of(SECOND, AGAIN), 200) == {SECOND: 2, AGAIN: 3}
    assert registry.meet(all_of(FIRST), 300) == {FIRST: 4}


def test_a_reading_tells_who_is_there_and_since_when() -> None:
    """Since the first meeting, with nothing counted and nothing lost."""
    registry = PoolRegistry()
    registry.meet(all_of(FIRST), 100)
    registry.meet(all_of(FIRST, SECOND), 200)
    reading = registry.read(250)
    assert (reading.mono_ns, reading.loss, reading.untracked_pools) == (250, 0, 0)
    told = [(pool.serial, pool.address, pool.name, pool.since_mono_ns) for pool in reading.pools]
    assert told == [(1, 0x1000, "zram0", 100), (2, 0x2000, "zswap1", 200)]
    assert all(pool.class_counters is None and not pool.created for pool in reading.pools)


def test_pools_that_a_second_look_misses_are_forgotten() -> None:
    """But only by a look that saw the whole list."""
    registry = PoolRegistry()
    registry.meet(all_of(FIRST, SECOND), 100)
    registry.keep(FoundPools((SECOND,), complete=False))
    assert registry.meet(FoundPools((SECOND,), complete=False), 200) == {SECOND: 2}
    assert len(registry.known) == 2
    registry.keep(FoundPools((SECOND,), complete=True))
    assert [pool.found for pool in registry.known] == [SECOND]


def test_a_reading_of_pools_just_found_is_since_now() -> None:
    """Without a history a pool is known since the reading."""
    (pool,) = reading_of({FIRST: 7}, 42).pools
    assert (pool.serial, pool.since_mono_ns) == (7, 42)


def test_zram_devices_are_those_of_sysfs(tmp_path: Path) -> None:
    """Devices by name, with whether they are set up; others and half-removed ones are no device."""
    for name, state in (("zram0", "1"), ("zram12", "0"), ("sda", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "initstate").write_text(f"{state}\n")
    (tmp_path / "zram3").mkdir()
    assert zram_devices(tmp_path) == {"zram0": True, "zram12": False}
    assert zram_devices(tmp_path / "nowhere") == {}
