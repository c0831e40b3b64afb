"""``zpobs verify``: the shadow model against the kernel."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zpobs.commands.common import (
    AttachChoice,
    AttachOption,
    LoaderChoice,
    LoaderOption,
    PoolOption,
    RingSizeOption,
    SkipHookOption,
    output_checked,
    parse_ring_size,
    progress,
)
from zpobs.commands.replaying import ReplayOption, refuse_given
from zpobs.errors import EXIT_FINDING

if TYPE_CHECKING:
    from zpobs.session import Session
    from zpobs.verify.rounds import Report, Verifier
    from zpobs.views.top import StopSignal
    from zpobs.wishes import Wishes

_INTERVAL_S = 5.0

_NoScanOption = Annotated[
    bool,
    typer.Option("--no-scan", help="Feed the model by probes alone: older pools are unknown."),
]

EXAMPLES = """\
Examples:

\b
  zpobs verify                                once, all pools
  zpobs verify --invariants --pool zram0      the descriptors' consistency as well
  zpobs verify --interval 10 --duration 3600  live, a report every 10 s
  zpobs verify --no-scan --interval 5         the model is fed by probes alone
  zpobs verify --replay run.zpcap             each scan of a capture, against its probes
"""
# What decides what is compared with what, and when; of a capture that is decided.
_OF_SESSIONS = (
    "invariants",
    "interval",
    "duration",
    "wait",
    "no_scan",
    "loader",
    "attach",
    "skip_hook",
    "ring_size",
)


def verify(
    ctx: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per round (schema 1), no text.")
    ] = False,
    invariants: Annotated[
        bool, typer.Option("--invariants", help="Check every descriptor's consistency too.")
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Live: time between rounds."),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Live: end by itself after so long."),
    ] = None,
    wait: Annotated[
        float,
        typer.Option(
            min=0, max=3600, metavar="SECONDS", help="Try again for so long while a pool is in use."
        ),
    ] = 5.0,
    limit: Annotated[
        int, typer.Option(min=0, metavar="N", help="Differences of a pool that the text lists.")
    ] = 20,
    pool: PoolOption = None,
    no_scan: _NoScanOption = False,
    loader: LoaderOption = LoaderChoice.AUTO,
    attach: AttachOption = AttachChoice.AUTO,
    skip_hook: SkipHookOption = None,
    ring_size: RingSizeOption = "16M",
    replay: ReplayOption = None,
) -> None:
    """Freeze the model, scan the kernel independently, and compare zspage by zspage.

    Also holds the kernel's own figures (mm_stat and others) against the model. Once, or live with
    --interval or --duration until then or a signal. Exit status 1: a difference, a violated
    invariant, an exact witness that contradicts, or nothing could be verified. With --replay the
    model is played up to each scan in a capture, and compared with what that scan found.
    """
    if replay is not None:
        refuse_given(ctx, _OF_SESSIONS, f"--replay {replay}, which decides it", "without it")
        _verify_capture(replay, pool, as_json=as_json, limit=limit)
        return
    from zpobs.wishes import Wishes  # noqa: PLC0415 - --help needs no NumPy

    wishes = Wishes(
        loader=loader.value,
        attach=attach.value,
        skip=frozenset(skip_hook or ()),
        ring_bytes=parse_ring_size(ring_size),
        pool=pool,
        scan=not no_scan,
        # Only loss makes a scan necessary: the fewer, the more is verified of the probes.
        rescan_s=0,
    )
    live = interval is not None or duration is not None
    rounds = _Rounds(
        every_s=(interval or _INTERVAL_S) if live else None,
        duration_s=float("inf") if duration is None else duration,
        wait_s=wait,
        as_json=as_json,
        limit=limit,
    )
    _verify_kernel(wishes, rounds, invariants=invariants)


def _verify_kernel(wishes: Wishes, rounds: _Rounds, *, invariants: bool) -> None:
    """Report round by round; exit with EXIT_FINDING unless all are equal."""
    from zpobs.session import open_session  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.sources.witnesses import read_witnesses  # noqa: PLC0415
    from zpobs.verify.rounds import Verifier  # noqa: PLC0415
    from zpobs.views.top import StopSignal  # noqa: PLC0415

    with output_checked(), StopSignal() as stop, open_session(wishes, progress=progress) as session:
        verifier = Verifier(session, read_witnesses, pool=wishes.pool, invariants=invariants)
        well = _run(session, verifier, rounds, stop)
    if not well:
        raise typer.Exit(EXIT_FINDING)


def _verify_capture(file: Path, pool: str | None, *, as_json: bool, limit: int) -> None:
    """Report of each scan in a capture; exit with EXIT_FINDING unless all are equal."""
    from zpobs.capture.reader import CaptureReader  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.capture.replay import Player  # noqa: PLC0415
    from zpobs.verify.replayed import recorded_rounds  # noqa: PLC0415

    differed = verified = False
    with output_checked(), CaptureReader(file) as reader:
        for report in recorded_rounds(Player(reader), pool=pool):
            differed |= report.differs
            verified |= report.verified
            _write(report, as_json=as_json, limit=limit)
        if not verified and not differed:
            typer.echo(
                f"zpobs: nothing of {file} can be verified: it holds no scan that probes led up to",
                err=True,
            )
    if differed or not verified:
        raise typer.Exit(EXIT_FINDING)


@dataclass(frozen=True, slots=True)
class _Rounds:
    """What the command line asked of the rounds; ``every_s`` None for a single one."""

    every_s: float | None
    duration_s: float
    wait_s: float
    as_json: bool
    limit: int


def _run(session: Session, verifier: Verifier, rounds: _Rounds, stop: StopSignal) -> bool:
    """Report round after round; return whether none differed and any verified something."""
    every_s = rounds.every_s
    due_s = time.monotonic()
    end_s = due_s + rounds.duration_s
    differed = verified = False
    while True:
        wait_s = rounds.wait_s if every_s is None else min(rounds.wait_s, every_s)
        report = verifier.round(wait_s, (stop.descriptor,))
        differed |= report.differs
        verified |= report.verified
        _write(report, as_json=rounds.as_json, limit=rounds.limit)
        if every_s is None or stop.raised or time.monotonic() >= end_s:
            return verified and not differed
        # A slow round costs rounds, never a growing lag.
        due_s = max(due_s + every_s, time.monotonic())
        session.wait(min(due_s, end_s), (stop.descriptor,))


def _write(report: Report, *, as_json: bool, limit: int) -> None:
    from zpobs.views.verify import render  # noqa: PLC0415 - --help needs no NumPy

    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), separators=(",", ":")) + "\n")
    else:
        sys.stdout.write("\n".join(render(report, limit=limit)) + "\n\n")
    sys.stdout.flush()
