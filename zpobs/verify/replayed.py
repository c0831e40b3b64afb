"""Verification of a capture: its scans against a model that the capture's probes had fed till then.

The records of a scan go to a model of their own as well, as those of a live verification do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from zpobs.capture.environment import kernel_of
from zpobs.capture.replay import Player
from zpobs.kernel.pageflags import PageFlags
from zpobs.model.inputs import Coverage
from zpobs.model.shadow import ShadowModel
from zpobs.scans import ScanResult
from zpobs.snapshot import Snapshot
from zpobs.sources.witnesses import Absent, Witnesses
from zpobs.verify.rounds import Report, Verifier

_NOT_TOLD = Absent("a capture does not hold it")


class _RecordedScans:
    """Stands in for a session in front of a :class:`Verifier`."""

    zswap_lags = False

    def __init__(self, player: Player) -> None:
        self._player = player

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:  # noqa: ARG002
        """Wait for nothing: a scan that found a pool busy cannot be made again."""
        return True

    def snapshot(self, *, zspages: bool = False, pool: str | None = None) -> Snapshot:
        """Return the model as of now."""
        return self._player.snapshot(zspages=zspages, pool=pool)

    def scan_kernel(
        self,
        *,
        pool: str | None = None,
        zspages: bool = True,
        detail: bool = False,
    ) -> ScanResult:
        """Return what the next scan of the capture found, the model of none but it."""
        assert not detail, "invariants are of descriptors, which no capture holds"
        player = self._player
        model = ShadowModel(kernel_of(player.reader.environment), Coverage(hooks=0))
        if player.reading is not None:
            pools = tuple(
                replace(each, class_counters=None, pool_counters=None)
                for each in player.reading.pools
            )
            model.apply_counters(
                replace(player.reading, pools=pools, ring_full=0, unpaired=0, missed_runs=0)
            )
        begin_ns = player.position_ns
        missing = player.scanned(model.apply)
        model.note_scan(begin_ns, player.position_ns, missing)
        shot = model.snapshot(
            time_ns=player.position_ns, mono_ns=player.position_ns, zspages=zspages, pool=pool
        )
        return ScanResult(snapshot=shot, page_flags=PageFlags({}, {}, 0), missing=missing)


def recorded_rounds(player: Player, *, pool: str | None = None) -> Iterator[Report]:
    """Yield a report for each scan of a capture that probes had led up to."""
    verifier = Verifier(_RecordedScans(player), _witnesses, pool=pool)
    while player.to_scan():
        yield verifier.round(0)


def _witnesses() -> Witnesses:
    return Witnesses({}, _NOT_TOLD, _NOT_TOLD, _NOT_TOLD, _NOT_TOLD)
