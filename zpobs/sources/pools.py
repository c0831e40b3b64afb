"""Who the pools are while no probe is attached, and what the host's own files say of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zpobs.model.inputs import CountersReading, PoolReading
from zpobs.sources.scanner import FoundPool

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

    def meet(self, found: Iterable[FoundPool], mono_ns: int) -> dict[FoundPool, int]:
        """Take all pools there are now; return the serial number of each."""
        known = {}
        for pool in found:
            # Address, name and shrinker together: a pool that took another's place is another.
            if pool in self._known:
                known[pool] = self._known[pool]
            else:
                known[pool] = KnownPool(pool, self._next_serial, mono_ns)
                self._next_serial += 1
        self._known = known
        return {pool: each.serial for pool, each in known.items()}

    def read(self, mono_ns: int) -> CountersReading:
        """Return a reading that counts nothing: who is there, and that nothing can be lost."""
        return CountersReading(
            mono_ns=mono_ns,
            ring_full=0,
            unpaired=0,
            missed_runs=0,
            untracked_pools=0,
            pools=tuple(
                PoolReading(
                    serial=pool.serial,
                    address=pool.found.address,
                    name=pool.found.name,
                    since_mono_ns=pool.since_mono_ns,
                    created=False,
                )
                for pool in self.known
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
