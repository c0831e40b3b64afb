"""Rounds of verification: freeze the model, scan the kernel, compare; again while it is busy."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from zpobs.descriptors import descriptor_dump
from zpobs.invariants import Finding, Findings, check
from zpobs.scans import ScanResult
from zpobs.snapshot import SCHEMA, Health, Kernel, Snapshot
from zpobs.sources.witnesses import Witnesses
from zpobs.verify.compare import compare, excuse, followed, meanwhile, merge
from zpobs.verify.findings import Comparison, Meanwhile
from zpobs.verify.witnesses import Witness, at_rest, judge

# Between tries, the first time and at most: long pauses find no quiet moment more easily.
_PAUSE_S, _PAUSE_MAX_S = 0.05, 0.5


class Source(Protocol):
    """What verification needs of a session.

    ``zswap_lags``: see :func:`zpobs.kernel.layout.zswap_lags`.
    """

    @property
    def zswap_lags(self) -> bool:
        """Whether zswap notices only when it is used again what compaction freed."""
        ...

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        """Feed the model until a monotonic time or until a descriptor is readable."""
        ...

    def snapshot(self, *, zspages: bool = False, pool: str | None = None) -> Snapshot:
        """Return the model, frozen."""
        ...

    def scan_kernel(
        self, *, pool: str | None = None, zspages: bool = True, detail: bool = False
    ) -> ScanResult:
        """Scan the kernel without telling the model."""
        ...


@dataclass(frozen=True, slots=True)
class CheckedPool:
    """The invariants of one pool; ``violated`` are those broken places that two scans found."""

    name: str
    findings: Findings
    violated: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one element of the ``invariants`` array."""
        return {
            "pool": self.name,
            "checks": [each.to_json() for each in self.findings.checks],
            "violated": [each.to_json() for each in self.violated],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What one round found; ``tries`` counts its scans of the kernel.

    ``health`` and the times are the frozen model's. ``resting`` are the ids of
    pools that nothing used between the readings of the witnesses, ``missing``
    sentences about pools that the scan did not find. ``invariants`` is None if
    they were not asked for.
    """

    time_ns: int
    mono_ns: int
    kernel: Kernel
    health: Health
    tries: int
    comparison: Comparison
    resting: frozenset[int]
    witnesses: tuple[Witness, ...]
    missing: tuple[str, ...] = ()
    invariants: tuple[CheckedPool, ...] | None = None
    # The only pool that was asked for, None for all.
    pool: str | None = None

    @property
    def differs(self) -> bool:
        """Whether anything proves the model, or a descriptor, wrong."""
        return (
            any(pool.differs for pool in self.comparison.pools)
            or any(witness.contradicts for witness in self.witnesses)
            or any(pool.violated for pool in self.invariants or ())
        )

    @property
    def verified(self) -> bool:
        """Whether anything at all was compared; that there is no pool is, too, unless asked for."""
        pools = self.comparison.pools
        if not pools:
            return self.pool is None and not self.missing and not self.comparison.meanwhile
        return any(pool.compared for pool in pools)

    @property
    def verdict(self) -> Literal["equal", "differs", "nothing verified"]:
        """The round in a word."""
        if self.differs:
            return "differs"
        return "equal" if self.verified else "nothing verified"

    def to_json(self) -> dict[str, Any]:
        """Return the ``--json`` object."""
        return {
            "schema": SCHEMA,
            "time_ns": self.time_ns,
            "mono_ns": self.mono_ns,
            "verdict": self.verdict,
            "tries": self.tries,
            "kernel": {name: getattr(self.kernel, name) for name in self.kernel.__slots__},
            "health": self.health.to_json(),
            "pools": [
                {**pool.to_json(), "at_rest": pool.id in self.resting}
                for pool in self.comparison.pools
            ],
            "meanwhile": list(self.comparison.meanwhile),
            "missing": list(self.missing),
            "witnesses": [witness.to_json() for witness in self.witnesses],
            "invariants": None
            if self.invariants is None
            else [pool.to_json() for pool in self.invariants],
        }


@dataclass(frozen=True, slots=True)
class _Try:
    shadow: Snapshot
    after: Snapshot
    kernel: ScanResult
    comparison: Comparison
    resting: frozenset[int]
    readings: tuple[Witnesses, Witnesses]
    during: Meanwhile

    @property
    def settled(self) -> bool:
        """Whether trying again could tell no more.

        A bounded pool that differs is expected to be healed by the next scan.
        """
        pools = self.comparison.pools
        return not (
            self.comparison.meanwhile
            or any(pool.busy or pool.lonely for pool in pools)
            or any(pool.differs and pool.status == "bounded" for pool in pools)
            or any(pool.id not in self.resting for pool in self.shadow.pools)
        )


class Verifier:
    """Verifies a session's model, round by round.

    ``read_witnesses`` reads the kernel's own files, ``pool`` keeps the pools of
    that name or id.
    """

    def __init__(
        self,
        source: Source,
        read_witnesses: Callable[[], Witnesses],
        *,
        pool: str | None = None,
        invariants: bool = False,
    ) -> None:
        self._source = source
        self._read = read_witnesses
        self._pool = pool
        self._invariants = invariants

    def round(self, wait_s: float, watch: Sequence[int] = ()) -> Report:
        """Verify, and try again for so many seconds while pools are in use.

        Ends early, with what there is, once one of ``watch`` is readable.
        """
        end_s = time.monotonic() + wait_s
        pause_s = _PAUSE_S
        tries = 1
        last = self._try(None)
        found = last.comparison
        while not last.settled and time.monotonic() < end_s:
            if self._source.wait(min(time.monotonic() + pause_s, end_s), watch):
                break
            pause_s = min(2 * pause_s, _PAUSE_MAX_S)
            tries += 1
            last = self._try(last.after)
            found = merge(found, last.comparison)
        return Report(
            time_ns=last.shadow.time_ns,
            mono_ns=last.shadow.mono_ns,
            kernel=last.shadow.kernel,
            health=last.shadow.health,
            tries=tries,
            comparison=found,
            resting=last.resting,
            witnesses=judge(
                last.shadow,
                last.kernel.snapshot,
                last.readings,
                resting=last.resting,
                whole=self._pool is None,
                zswap_lags=self._source.zswap_lags,
            ),
            missing=last.kernel.missing,
            invariants=self._check() if self._invariants else None,
            pool=self._pool,
        )

    def _try(self, latest: Snapshot | None) -> _Try:
        if latest is not None and not latest.health.hooks:
            # Nothing is counted, and another snapshot would be another scan.
            first = latest
        else:
            first = self._source.snapshot(zspages=False, pool=self._pool)
        reading = self._read()
        shadow = self._source.snapshot(zspages=True, pool=self._pool)
        kernel = self._source.scan_kernel(pool=self._pool)
        after = self._source.snapshot(zspages=True, pool=self._pool)
        readings = (reading, self._read())
        during = meanwhile(first, shadow, kernel.snapshot, after)
        comparison = compare(shadow, kernel.snapshot, during)
        told = followed(first.health, after.health)
        quiet = {pool.id: at_rest(pool, *readings) for pool in shadow.pools}
        if not told:
            comparison = excuse(comparison, [id_ for id_, rest in quiet.items() if not rest])
        busy = {pool.id for pool in comparison.pools if pool.busy}
        resting = frozenset(
            id_
            for id_, rest in quiet.items()
            if (told if rest is None else rest) and id_ not in busy | during.pools
        )
        return _Try(shadow, after, kernel, comparison, resting, readings, during)

    def _check(self) -> tuple[CheckedPool, ...]:
        """Check the invariants; what one scan finds broken, a second one must find too."""
        first = self._findings()
        if not any(findings.findings for _, findings in first.values()):
            return tuple(CheckedPool(name, found, ()) for name, found in first.values())
        second = self._findings()
        return tuple(
            CheckedPool(name, found, found.lasting(first[id_][1]) if id_ in first else ())
            for id_, (name, found) in second.items()
        )

    def _findings(self) -> dict[int, tuple[str, Findings]]:
        scan = self._source.scan_kernel(pool=self._pool, zspages=False, detail=True)
        names = {pool.id: pool.name for pool in scan.snapshot.pools}
        out = {}
        for id_, words in scan.details.items():
            name = names.get(id_, str(id_))
            dump = descriptor_dump(words, scan.page_flags)
            out[id_] = (name, check(dump, scan.snapshot.kernel, scan.page_flags, pool=name))
        return out
