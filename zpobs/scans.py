"""Scans of all pools: which there are, walk each, walk again what was busy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from zpobs import wire
from zpobs.compaction import forecast
from zpobs.errors import EnvironmentLacksError
from zpobs.host import hidden_addresses, pools_in_use
from zpobs.kernel.facts import KernelFacts
from zpobs.kernel.pageflags import PageFlags, page_flags
from zpobs.loaders.scan import load_scan
from zpobs.model.shadow import ShadowModel
from zpobs.shortage import check_files
from zpobs.snapshot import Snapshot, owner_of
from zpobs.sources.scanner import FoundPool, FoundPools, Scanner, ScanPlace
from zpobs.wire import Words

# A class that changed while it was walked is walked again so many times at most.
_RETRIES = 6


@dataclass(frozen=True, slots=True)
class Found:
    """The pools there are: each with its serial number, and sentences on those not found."""

    serials: Mapping[FoundPool, int]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What a scan saw that no model was fed with.

    ``details`` holds, by pool id, the records of the scan, if they were asked for,
    ``missing`` sentences about pools that were not found.
    """

    snapshot: Snapshot
    page_flags: PageFlags
    details: Mapping[int, Words] = field(default_factory=dict)
    missing: tuple[str, ...] = ()

    def forecast(self) -> Snapshot:
        """Return the snapshot with what a compaction would do with each pool; records were kept."""
        groups = self.snapshot.kernel.fullness_groups
        pools = [
            replace(
                pool, compaction=forecast(self.details[pool.id], pool.classes, groups, pool.status)
            )
            for pool in self.snapshot.pools
        ]
        return replace(self.snapshot, pools=tuple(pools))


@contextlib.contextmanager
def open_scanner(facts: KernelFacts, size_classes: int) -> Iterator[Scanner]:
    """Load the scanner; raise EnvironmentLacksError if this host cannot run it."""
    if not facts.shrinker_at:
        found, hint = hidden_addresses()
        raise EnvironmentLacksError("pools cannot be found", found=found, hint=hint)
    check_files()
    flags = page_flags(facts.btf)
    place = ScanPlace(
        size_classes=size_classes,
        shrinker_at=facts.shrinker_at,
        locked_mask=flags.mask("locked"),
        isolated_mask=flags.mask("isolated"),
        page_bytes=facts.page_size,
        descriptor_bytes=facts.btf.size("page") or 0,
    )
    loaded = load_scan()
    try:
        with Scanner(loaded.program_fds, loaded.map_fds, place) as scanner:
            yield scanner
    finally:
        loaded.close()


def find_pools(scanner: Scanner, number: Callable[[FoundPools], Mapping[FoundPool, int]]) -> Found:
    """Find all pools and have them numbered; say which ones the host has and no one found."""
    in_use = pools_in_use()
    found = scanner.find_pools()
    serials = number(found)
    missing = []
    if not found.complete:
        missing.append("there may be more pools: the kernel's list of shrinkers kept changing")
    unplaced = sorted(pool.name for pool in found.pools if pool not in serials)
    if unplaced:
        missing.append(f"no place for more pools: {', '.join(unplaced)}")
    names = {"zswap" if owner_of(pool.name) == "zswap" else pool.name for pool in found.pools}
    # Asked before and after: what came or went meanwhile is not missing.
    missing += [
        f"{name} is in use, but no pool of it was found"
        for name in sorted((in_use & pools_in_use()) - names)
    ]
    return Found(serials=serials, missing=tuple(missing))


def walk_pools(
    scanner: Scanner,
    serials: Mapping[FoundPool, int],
    model: ShadowModel,
    *,
    drain: Callable[[], None] = lambda: None,
    detail: bool = False,
    keep: bool = False,
) -> dict[int, Words]:
    """Scan pools into a model; return the records of each by serial if they are to be kept.

    ``keep`` keeps what the model takes, in the order of the walk, ``detail`` all that is told
    of descriptors besides.

    ``drain`` feeds the model what the probes told meanwhile, so that a class
    that was busy can be told from one that was at rest.
    """
    details: dict[int, Words] = {}
    for pool, serial in serials.items():
        batches: list[Words] = []

        def apply(words: Words, kept: list[Words] = batches) -> None:
            if detail or keep:
                kept.append(words)
            if detail:
                words = words[wire.kinds(words) < wire.DETAIL_LINKS]
            model.apply(words)

        drain()
        scanner.scan(pool.address, serial, apply, detail=detail)
        for _ in range(_RETRIES):
            busy = model.busy_classes(serial)
            if not busy:
                break
            for index in busy:
                drain()
                scanner.scan(
                    pool.address, serial, apply, classes=range(index, index + 1), detail=detail
                )
        if detail or keep:
            details[serial] = _last_walks(np.concatenate(batches))
    drain()
    return details


def _last_walks(words: Words) -> Words:
    """Return the records of each size class's last walk alone."""
    begins = wire.kinds(words) == wire.KIND_SCAN_BEGIN
    # What stands before any class is a pool that was gone before it was walked.
    words = words[np.cumsum(begins) > 0]
    begins = wire.kinds(words) == wire.KIND_SCAN_BEGIN
    walk = np.cumsum(begins) - 1
    of_class = words[begins][:, 3]
    _, from_end = np.unique(of_class[::-1], return_index=True)
    last = np.zeros(len(of_class), dtype=bool)
    last[len(of_class) - 1 - from_end] = True
    kept: Words = words[last[walk]]
    return kept
