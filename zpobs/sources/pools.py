"""Who the pools are while no probe is attached, and what the host's own files say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zpobs.model.inputs import CountersReading, PoolReading
from zpobs.sources.scanner import FoundPool, FoundPools

_SYS_BLOCK = Path("/sys/block")


@dataclass(frozen=True, slots=True)
class KnownPool:
    """A pool that scans found, its serial number, and since when it is known."""

    found: FoundPool
    serial: int
    since_mono_ns: int


class PoolRegistry:
    """Gives serial numbers to the pools that scans find."""

    def __init__(self) -> None:
        self._known: dict[FoundPool, KnownPool] = {}
        self._next_serial = 1

    @property
    def known(self) -> tuple[KnownPool, ...]:
        """The pools of the last meeting, by rising serial."""
        return tuple(sorted(self._known.values(), key=lambda pool: pool.serial))

    def meet(self, found: FoundPools, mono_ns: int) -> dict[FoundPool, int]:
        """Take the pools there are now; return the serial number of each that was found."""
        known = {} if found.complete else dict(self._known)
        for pool in found.pools:
            # Address, name and shrinker together: a pool that took another's place is another.
            if pool in self._known:
                known[pool] = self._known[pool]
            else:
                known[pool] = KnownPool(pool, self._next_serial, mono_ns)
                self._next_serial += 1
        self._known = known
        return {pool: known[pool].serial for pool in found.pools}

    def keep(self, found: FoundPools) -> None:
        """Forget the pools that are no more."""
        if found.complete:
            still = set(found.pools)
            self._known = {pool: known for pool, known in self._known.items() if pool in still}

    def read(self, mono_ns: int) -> CountersReading:
        """Return a reading that counts nothing; see :func:`reading_of`."""
        since = {known.found: known.since_mono_ns for known in self._known.values()}
        return reading_of({p: k.serial for p, k in self._known.items()}, mono_ns, since)


def reading_of(
    serials: Mapping[FoundPool, int], mono_ns: int, since: Mapping[FoundPool, int] | None = None
) -> CountersReading:
    """Return a reading where nothing is counted: who is there, and that nothing was lost."""
    return CountersReading(
        mono_ns=mono_ns,
        ring_full=0,
        unpaired=0,
        missed_runs=0,
        untracked_pools=0,
        pools=tuple(
            PoolReading(
                serial=serial,
                address=pool.address,
                name=pool.name,
                since_mono_ns=since[pool] if since else mono_ns,
                created=False,
            )
            for pool, serial in serials.items()
        ),
    )


def zram_devices(sysfs: Path = _SYS_BLOCK) -> dict[str, bool]:
    """Return the zram devices of this host: name -> whether it has a pool now."""
    found = {}
    for device in sorted(sysfs.glob("zram[0-9]*")):
        try:
            found[device.name] = (device / "initstate").read_text().strip() == "1"
        except OSError:
            continue  # removed while we looked
    return found
