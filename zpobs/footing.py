"""What stands beside the pools of a snapshot: zpobs's own doing, and what owners say of themselves.

Frozen values that hang on a :class:`zpobs.snapshot.Snapshot`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Program:
    """One BPF program of a probe, ``function/moment``, and what the kernel counts of it.

    ``skipped`` runs are those that the kernel left out because one was running already.
    ``runs`` and ``run_ns`` are None while the kernel keeps no statistics of programs.
    """

    name: str
    skipped: int
    runs: int | None
    run_ns: int | None


@dataclass(frozen=True, slots=True)
class Footing:
    """What zpobs does for its figures, and what it costs, since it started.

    ``hooks`` tells of each hook's function whether it is attached, ``form`` how. ``lost``
    counts by stage: records that found the ring full (``ring``), observations whose call had no
    return (``unpaired``), runs that the kernel skipped of probes that observe (``skipped``) and
    of those that only count (``skipped_counting``). ``untracked_pools`` found no place.
    ``scan_ns`` is the time of all scans, ``last_scan_ns`` that of the last one.
    """

    hooks: Mapping[str, bool]
    form: str | None
    lost: Mapping[str, int]
    untracked_pools: int
    scan_ns: int
    last_scan_ns: int
    programs: tuple[Program, ...] = ()


@dataclass(frozen=True, slots=True)
class ZramFigures:
    """``mm_stat`` of a zram device, its columns by the names in the kernel's documentation.

    Bytes, or pages where the name says so. ``written_back`` is in units of 4096 bytes.
    """

    mm_stat: Mapping[str, int]
    written_back: int


@dataclass(frozen=True, slots=True)
class ZswapFigures:
    """Bytes that zswap's pools hold together, those they stand for, and what they may hold.

    ``stored_bytes`` is None on kernels that do not tell it; ``limit_bytes``, of
    ``max_pool_percent``, is None where the module's parameters cannot be read.
    """

    pool_bytes: int
    stored_bytes: int | None
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Owned:
    """What the owners of pools say of themselves, read right behind the snapshot.

    ``zram`` is by device; one that is not there did not tell. ``zswap`` is None without zswap.
    """

    zram: Mapping[str, ZramFigures] = field(default_factory=dict)
    zswap: ZswapFigures | None = None


@dataclass(frozen=True, slots=True)
class MachineFigures:
    """The host's memory, in bytes, and this process, its times in seconds (start: since 1970)."""

    cpus: int
    boot_s: float
    memory_bytes: int
    memory_available_bytes: int
    swap_bytes: int
    swap_used_bytes: int
    process_start_s: float
    process_cpu_s: float
    process_resident_bytes: int
    process_descriptors: int
    process_threads: int
