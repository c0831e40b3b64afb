"""How far each figure can be trusted, and why not further."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zpobs.model.arrays import I64, U64, Bools
from zpobs.model.inputs import CountersReading, Coverage
from zpobs.model.losses import LossHistory
from zpobs.model.pools import Pool
from zpobs.model.scans import CLASSES_MAX, ScanLedger, ScanRounds
from zpobs.snapshot import Status

EXACT, BOUNDED, UNKNOWN = range(3)
STATUSES: tuple[Status, ...] = ("exact", "bounded", "unknown")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be thought of one pool.

    ``level`` of the pool, ``levels`` of each class slot, shape (CLASSES_MAX,);
    ``stale`` are the class slots of which the kernel's own totals at the last
    walk are better than what was made of its zspages. ``reasons`` are sentences;
    ``lossy`` tells that lost records are one more.
    """

    level: int
    levels: I64
    stale: Bools
    reasons: tuple[str, ...]
    lossy: bool


class Judge:
    """The rules, for one coverage at one instant.

    No scan that began before ``covered_ns`` was followed by the probes there are.
    """

    def __init__(
        self, coverage: Coverage, losses: LossHistory, scans: ScanLedger, covered_ns: int
    ) -> None:
        self._coverage = coverage
        self._covered_ns = np.uint64(covered_ns)
        self._losses = losses
        self._scans = scans

    def pool(self, pool: Pool, in_use: I64, changed: Bools) -> Verdict:
        """Judge a pool; ``in_use`` are the class slots that count.

        ``changed``, shape (CLASSES_MAX,), tells which classes are not as the
        last walk left them.
        """
        own = slice(pool.slot * CLASSES_MAX, (pool.slot + 1) * CLASSES_MAX)
        walked = self._scans.end_ns[own] > 0
        verified = self._scans.verified[own]
        followed = self._coverage.follows
        if followed:
            levels, rest = self._followed(pool, self._scans.known_ns[own])
        else:
            levels = np.where(walked, BOUNDED, UNKNOWN)
            levels[verified & ~changed] = EXACT
            rest = UNKNOWN
        if pool.scan_ns is not None:
            # A whole scan told of all classes: there is no other.
            rest = EXACT
        level = max(rest, int(levels[in_use].max(initial=EXACT)))
        torn = not followed and pool.scan_ns is not None and not self._at_one_moment(pool)
        if torn:
            level = max(level, BOUNDED)
        doubted = np.zeros(CLASSES_MAX, dtype=bool)
        doubted[in_use] = levels[in_use] > EXACT
        return Verdict(
            level=level,
            levels=levels,
            stale=doubted & walked & self._scans.alone,
            reasons=self._pool_reasons(pool, doubted, rest, followed, torn),
            lossy=followed and level > EXACT and self._losses.since(pool.since_ns) > 0,
        )

    def _followed(self, pool: Pool, known_ns: U64) -> tuple[I64, int]:
        """Return the levels of the class slots, and of those that nothing told of yet."""
        if self._losses.last is None:
            return np.full(CLASSES_MAX, UNKNOWN), UNKNOWN
        base_ns = np.where(known_ns >= self._covered_ns, known_ns, 0)
        if pool.created:
            base_ns = np.maximum(base_ns, np.uint64(pool.since_ns))
        intact = base_ns >= np.uint64(self._losses.grew_ns)
        levels = np.where(intact, EXACT, BOUNDED)
        levels[base_ns == 0] = np.where(known_ns[base_ns == 0] > 0, BOUNDED, UNKNOWN)
        if not pool.created:
            return levels, UNKNOWN
        return levels, BOUNDED if pool.since_ns < self._losses.grew_ns else EXACT

    def _at_one_moment(self, pool: Pool) -> bool:
        """Return whether what the classes told one by one was true of all when the scan ended."""
        return self._scans.totals(pool.slot) == (pool.kernel_pages, pool.kernel_objects)

    def _pool_reasons(
        self, pool: Pool, doubted: Bools, rest: int, followed: bool, torn: bool
    ) -> tuple[str, ...]:
        own = slice(pool.slot * CLASSES_MAX, (pool.slot + 1) * CLASSES_MAX)
        walked = self._scans.end_ns[own] > 0
        verified = self._scans.verified[own]
        early = self._scans.known_ns[own] < self._covered_ns
        counts = (
            (walked & ~verified, "busy during the last scan"),
            (verified & early & followed, "not scanned since the probes attached"),
            (verified & (not followed), "changed since the last scan"),
        )
        out = [
            f"{_classes(int(np.count_nonzero(doubted & which)))} {what}"
            for which, what in counts
            if (doubted & which).any()
        ]
        if torn:
            out.append("it changed while its size classes were scanned one by one")
        if rest == UNKNOWN and not followed:
            out.append("it was not scanned yet")
        elif rest == UNKNOWN and not pool.created:
            out.append("its creation was not seen")
        return tuple(f"pool {label_of(pool)}: {what}" for what in out)

    def wants_scan(self, pool: Pool) -> bool:
        """Return whether another scan may make a pool exact that the last one could not."""
        own = slice(pool.slot * CLASSES_MAX, (pool.slot + 1) * CLASSES_MAX)
        busy = (self._scans.end_ns[own] > 0) & ~self._scans.verified[own]
        if not self._coverage.follows:
            return bool(busy.any())
        levels, _ = self._followed(pool, self._scans.known_ns[own])
        return bool((levels[busy] > EXACT).any())

    def reasons(self, rounds: ScanRounds) -> list[str]:
        """Return what there is to say about all pools together, loss apart."""
        out = list(self._coverage.unseen)
        if not self._coverage.hooks:
            why = f" ({self._coverage.why_no_hooks})" if self._coverage.why_no_hooks else ""
            what = "figures are those of the last scan" if rounds.count else "nothing was scanned"
            out.append(f"no probe is attached{why}; {what}")
        elif self._coverage.unseen and rounds.count:
            out.append("what probes do not see is as the last scan found it")
        if self._coverage.hooks and self._losses.last is None:
            out.append("the loss counters were not read yet")
        return out + list(rounds.missing)

    def whole(self, rounds: ScanRounds) -> int:
        """Return the level of what is in no pool that is known."""
        if rounds.missing:
            return UNKNOWN
        if self._coverage.follows:
            return EXACT if self._losses.last is not None else UNKNOWN
        return EXACT if rounds.count else UNKNOWN


def label_of(pool: Pool) -> str:
    """Return how sentences name a pool."""
    return f"{pool.serial} ({pool.name})" if pool.name else str(pool.serial)


def loss_reasons(last: CountersReading | None) -> list[str]:
    """Return a sentence for each way in which observations were lost."""
    if last is None:
        return []
    told = (
        (last.ring_full, "records found the ring full"),
        (last.missed_runs, "probe runs were skipped by the kernel"),
        (last.unpaired, "probe runs came without their entry or return"),
    )
    return [f"{count} {what}" for count, what in told if count]


def _classes(count: int) -> str:
    return "1 size class was" if count == 1 else f"{count} size classes were"
