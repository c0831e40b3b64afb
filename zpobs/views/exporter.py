"""``zpobs exporter``: the pump, which makes a page an interval, and those who take it away."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from zpobs.errors import warn
from zpobs.footing import MachineFigures
from zpobs.snapshot import Health, Snapshot
from zpobs.views.metrics.board import Board
from zpobs.views.metrics.families import make_families
from zpobs.views.metrics.ledger import Ledger
from zpobs.views.metrics.metric import Checks, Choice, Moment
from zpobs.views.metrics.pages import Page
from zpobs.views.metrics.textfile import write_textfile
from zpobs.views.source import SnapshotSource
from zpobs.views.top import StopSignal

# Figures that are older than so many intervals are served no more.
FRESH_INTERVALS = 3
FRESH_MIN_S = 3.0
# Pages wait for a verification. It takes at most so many times a scan, on pools that are in use,
# and of all time no more than this share.
ROUND_SCANS = 20
VERIFY_SHARE = 0.02
# How the model's sentence begins that says why there is no probe.
NO_PROBE = "no probe is attached"
# And that of a replay which says that figures are unknown from then on.
DAMAGED = "the capture is damaged"


@dataclass(frozen=True, slots=True)
class ExporterOptions:
    """What the command line asked for; times in seconds, ``verify_s`` 0 for never.

    ``at_once`` makes a page before the probes are attached: there is a scan. ``once`` makes one
    alone, for ``textfile`` or else for standard output.
    """

    interval_s: float
    choice: Choice = field(default_factory=Choice)
    pool: str | None = None
    once: bool = False
    textfile: Path | None = None
    at_once: bool = False
    verify_s: float = 0.0
    fine_latency: bool = False
    version: str = ""


def fresh_s(interval_s: float) -> float:
    """Return how long a page is served."""
    return max(FRESH_INTERVALS * interval_s, FRESH_MIN_S)


class _Pump:
    """Takes snapshots and makes pages of them."""

    def __init__(
        self,
        source: SnapshotSource,
        options: ExporterOptions,
        board: Board,
        machine: Callable[[], MachineFigures],
        verify: Callable[[], Checks] | None,
    ) -> None:
        self._source = source
        self._options = options
        self._board = board
        self._machine = machine
        self._verify = verify
        self._ledger = Ledger()
        self._attached = False
        self._checks = Checks({}, {}) if verify is not None else None
        self._scan_s = 0.0
        self._next_check_s = time.monotonic() + options.verify_s
        self._told: set[str] = set()

    def publish(self) -> Page:
        """Make a page of a new snapshot, and put it where it is taken from."""
        begin_s = time.monotonic()
        snapshot = self._source.snapshot(pool=self._options.pool)
        moment = Moment(
            snapshot=snapshot,
            version=self._options.version,
            interval_s=None if self._options.once else self._options.interval_s,
            snapshot_s=time.monotonic() - begin_s,
            machine=self._machine(),
            checks=self._checks,
            fine_latency=self._options.fine_latency,
        )
        page = Page(make_families(moment, self._ledger, self._options.choice), begin_s)
        self._scan_s = snapshot.footing.last_scan_ns / 1e9 if snapshot.footing else 0.0
        self._board.note = _lack_of_probes(snapshot.health) if self._attached else ""
        self._board.put(page)
        self._tell_of(snapshot)
        return page

    def _tell_of(self, snapshot: Snapshot) -> None:
        """Say on standard error, once, why a page has less than was asked for."""
        lacks = [each for each in snapshot.health.reasons if each.startswith(DAMAGED)]
        if self._attached and self._options.pool is not None and not snapshot.pools:
            lacks.append(f"no pool is called {self._options.pool} now")
        for each in lacks:
            if each not in self._told:
                self._told.add(each)
                warn(each)

    def attach(self, progress: Callable[[str], None]) -> None:
        """Attach probes."""
        self._source.attach(progress)
        self._attached = True

    def check(self) -> None:
        """Verify the model if its time has come, and if the page will not be stale by then."""
        begin_s = time.monotonic()
        if self._verify is None or self._checks is None or begin_s < self._next_check_s:
            return
        before = self._checks
        if ROUND_SCANS * self._scan_s > fresh_s(self._options.interval_s):
            self._checks = replace(before, left_out=before.left_out + 1)
            took_s = 0.0
        else:
            made = self._verify()
            took_s = time.monotonic() - begin_s
            self._checks = replace(made, seconds=before.seconds + took_s, left_out=before.left_out)
        pause_s = max(self._options.verify_s, took_s / VERIFY_SHARE)
        self._next_check_s = time.monotonic() + pause_s


def _lack_of_probes(health: Health) -> str:
    """Return what there is to say of probes that are wanted and not attached, in one line."""
    if not health.missed_hooks:
        return ""
    if health.hooks:
        return f"not attached: {', '.join(health.missed_hooks)}"
    # The model's own sentence, with the reason that the kernel gave.
    why = next((each for each in health.reasons if each.startswith(NO_PROBE)), NO_PROBE)
    return " ".join(why.split())


def run_exporter(
    source: SnapshotSource,
    options: ExporterOptions,
    board: Board,
    stop: StopSignal,
    *,
    machine: Callable[[], MachineFigures],
    verify: Callable[[], Checks] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Make pages until a signal comes, or one alone; OSError if that one cannot be written.

    What probes lack is told on standard error once.
    """
    pump = _Pump(source, options, board, machine, verify)
    if options.at_once and not options.once:
        pump.publish()
    pump.attach(progress)
    page = pump.publish()
    if board.note:
        warn(board.note)
    if not options.once:
        _run(source, options, pump, stop)
    elif options.textfile is not None:
        write_textfile(options.textfile, page.body("text"))
    else:
        sys.stdout.write(page.body("text").decode())
        sys.stdout.flush()


def _run(source: SnapshotSource, options: ExporterOptions, pump: _Pump, stop: StopSignal) -> None:
    start_s = time.monotonic()
    count = 1
    while True:
        due_s = start_s + count * options.interval_s
        if stop.raised or source.wait(due_s, (stop.descriptor,)):
            return
        pump.publish()
        if source.ended:
            warn("the capture is over")
            return
        pump.check()
        # A slow snapshot costs pages, never a growing lag.
        count = max(count + 1, int((time.monotonic() - start_s) / options.interval_s) + 1)


def landing_page(version: str) -> str:
    """Return what a person sees who looks at the address."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>zpobs exporter</title></head>
<body>
<h1>zpobs exporter</h1>
<p>zpobs {html.escape(version)}: the zsmalloc pools of this host.</p>
<ul>
<li><a href="/metrics">Metrics</a></li>
<li><a href="/healthz">Health</a></li>
</ul>
</body>
</html>
"""
