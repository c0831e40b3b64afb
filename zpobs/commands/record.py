"""``zpobs record``: everything that a session sees, into a file."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from zpobs.commands.common import (
    AttachChoice,
    AttachOption,
    LoaderChoice,
    LoaderOption,
    PoolOption,
    RescanOption,
    RingSizeOption,
    ScanOption,
    SkipHookOption,
    output_checked,
    parse_ring_size,
    progress,
    sampling_of,
    version,
)
from zpobs.errors import EnvironmentLacksError, UsageError

if TYPE_CHECKING:
    from zpobs.capture.recorder import Limits, Recorder
    from zpobs.capture.trigger import Trigger
    from zpobs.objects import Sampling
    from zpobs.session import Session
    from zpobs.views.top import StopSignal
    from zpobs.wishes import Wishes

# How often what stands beside the model is kept, and files are looked after.
_TICK_S = 0.5

_FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="Where to record; by custom *.zpcap. Mode 0600.")
]
_DurationOption = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="End by itself after so long.")
]
_IntervalOption = Annotated[
    float,
    typer.Option(
        min=0.1,
        max=3600,
        metavar="SECONDS",
        help="Time between looks at what owners say; without probes, between scans.",
    ),
]
_MaxSizeOption = Annotated[
    str | None, typer.Option(metavar="BYTES", help="End at so many bytes, with K, M or G.")
]
_RotateSizeOption = Annotated[
    str | None,
    typer.Option(metavar="BYTES", help="Begin another file, FILE-000002 and so on, at so many."),
]
_RotateTimeOption = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Begin another file after so long: 90s, 10m, 6h, 1d."),
]
_KeepOption = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of rotated files keep the last N.")
]
_LastOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Flight recorder: hold the last 60s, 10m in memory; write them at SIGUSR1, --when, "
        "and at the end.",
    ),
]
_WhenOption = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help="With --last: write when one pool comes to this, such as 'waste>30' or 'failures>0'.",
    ),
]
_MemoryOption = Annotated[
    str | None, typer.Option(metavar="BYTES", help="What --last may hold, by itself 256M.")
]
_ObjectsOption = Annotated[
    bool, typer.Option("--objects/--no-objects", help="Objects one by one: what simulators need.")
]
_ObjectsRateOption = Annotated[
    int, typer.Option(min=1, max=1 << 20, metavar="N", help="Of objects 1 in N, by handle.")
]
_ObjectsSeedOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="With --objects-rate: choose the same handles every time."),
]

EXAMPLES = """\
Examples:

\b
  zpobs record run.zpcap                        until Ctrl-C
  zpobs record run.zpcap --duration 60 --objects-rate 16
  zpobs record all.zpcap --rotate-size 1G --keep 10
  zpobs record spike.zpcap --last 60s --when 'failures>0'
  zpobs record ask.zpcap --anonymize            to be shown to others
"""


def record(
    file: _FileArgument,
    duration: _DurationOption = None,
    max_size: _MaxSizeOption = None,
    rotate_size: _RotateSizeOption = None,
    rotate_time: _RotateTimeOption = None,
    keep: _KeepOption = None,
    last: _LastOption = None,
    when: _WhenOption = None,
    memory: _MemoryOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write over a file that is there.")
    ] = False,
    anonymize: Annotated[
        bool,
        typer.Option(
            "--anonymize", help="Ordinals for addresses and page frames, no names, no commands."
        ),
    ] = False,
    objects: _ObjectsOption = True,
    objects_rate: _ObjectsRateOption = 1,
    objects_seed: _ObjectsSeedOption = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Histograms of how long calls take, too.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="How it went, as one JSON object at the end.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress on standard error.")] = False,
    interval: _IntervalOption = 1.0,
    pool: PoolOption = None,
    loader: LoaderOption = LoaderChoice.AUTO,
    attach: AttachOption = AttachChoice.AUTO,
    skip_hook: SkipHookOption = None,
    ring_size: RingSizeOption = "16M",
    scan: ScanOption = True,
    rescan: RescanOption = 600.0,
) -> None:
    """Record every observation and event into a capture: for replay, reports and simulators.

    Whatever ends it (SIGINT, SIGTERM, a full disk, SIGKILL) costs the last
    seconds at most; what was written before reads back. SIGINT, SIGTERM and
    SIGHUP are the usual end, status 0.
    """
    from zpobs.capture.trigger import Trigger  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.wishes import Wishes  # noqa: PLC0415

    limits = _limits(max_size, rotate_size, rotate_time, keep, last, memory)
    trigger = Trigger.parse(when) if when is not None else None
    if trigger is not None and limits.flight_ns is None:
        raise UsageError("--when writes nothing", found="no --last", hint="--last 60s too")
    wishes = Wishes(
        loader=loader.value,
        attach=attach.value,
        skip=frozenset(skip_hook or ()),
        ring_bytes=parse_ring_size(ring_size),
        pool=pool,
        scan=scan,
        rescan_s=rescan,
        latency=latency,
        objects=_sampling(objects, objects_rate, objects_seed),
        timed_objects=objects,
    )
    recorder = _recorder(file, limits, overwrite=overwrite, anonymize=anonymize)
    _go(_Run(recorder, duration, interval, trigger, pool, quiet), wishes, as_json=as_json)


def _sampling(objects: bool, rate: int, seed: int | None) -> Sampling | None:
    if objects:
        return sampling_of(True, rate, seed)
    if rate != 1:
        raise UsageError(
            "--objects-rate chooses nothing", found="--no-objects", hint="only one of the two"
        )
    return None


def _recorder(file: Path, limits: Limits, *, overwrite: bool, anonymize: bool) -> Recorder:
    from zpobs.capture.anonymous import Anonymizer  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.capture.recorder import Recorder  # noqa: PLC0415

    hidden = Anonymizer() if anonymize else None
    return Recorder(file, limits, overwrite=overwrite, anonymizer=hidden)


def _go(run: _Run, wishes: Wishes, *, as_json: bool) -> None:
    """Open a session, record it, and say what was recorded."""
    from zpobs.capture.tap import TappedModel  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.session import open_session  # noqa: PLC0415
    from zpobs.views.top import StopSignal  # noqa: PLC0415

    try:
        with (
            output_checked(),
            StopSignal() as stop,
            _DumpSignal() as dump,
            open_session(
                wishes,
                attach=False,
                model=lambda kernel, coverage, life: TappedModel(
                    kernel, coverage, life=life, told=run.recorder
                ),
            ) as session,
        ):
            session.attach(progress)
            run.go(session, wishes, stop, dump)
            run.tell(as_json=as_json)
    finally:
        run.recorder.abandon()


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def _limits(
    max_size: str | None,
    rotate_size: str | None,
    rotate_time: str | None,
    keep: int | None,
    last: str | None,
    memory: str | None,
) -> Limits:
    from zpobs.capture.recorder import Limits  # noqa: PLC0415 - --help needs no NumPy

    rotates = rotate_size is not None or rotate_time is not None
    if keep is not None and not rotates:
        raise UsageError(
            "--keep keeps nothing", found="neither --rotate-size nor --rotate-time", hint="either"
        )
    if memory is not None and last is None:
        raise UsageError("--memory holds nothing", found="no --last", hint="--last 60s too")
    if last is not None and (rotates or max_size is not None):
        raise UsageError(
            "--last writes what it holds",
            found="--max-size or a rotation beside it",
            hint="--memory, which bounds what it holds",
        )
    return Limits(
        max_bytes=_bytes("--max-size", max_size),
        rotate_bytes=_bytes("--rotate-size", rotate_size),
        rotate_ns=_time_ns("--rotate-time", rotate_time),
        keep=keep,
        flight_ns=_time_ns("--last", last),
        flight_bytes=_bytes("--memory", memory or "256M") or 0,
    )


def _bytes(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+)([KMGT]?)", text)
    count = int(found[1]) << _SIZES[found[2]] if found else 0
    if not count:
        raise UsageError(
            f"{option} {text} is no size",
            found="not a number above 0 with K, M, G or T",
            hint="such as 500M",
        )
    return count


def _time_ns(option: str, text: str | None) -> int | None:
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smhd]?)", text)
    seconds = float(found[1]) * _UNITS[found[2] or "s"] if found else 0.0
    if not seconds:
        raise UsageError(
            f"{option} {text} is no time",
            found="not a number above 0 with s, m, h or d",
            hint="such as 60s",
        )
    return round(seconds * 1e9)


class _DumpSignal:
    """SIGUSR1: write what the flight recorder holds, and go on."""

    def __init__(self) -> None:
        self.raised = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.raised = True

    def __enter__(self) -> _DumpSignal:
        self._before = signal.signal(signal.SIGUSR1, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGUSR1, self._before)


# How often progress is told where nobody sits at a terminal.
_TOLD_EVERY_S = 10.0
_MEGA = 1e6


@dataclass(slots=True)
class _Run:
    """One recording, from the first block to the last."""

    recorder: Recorder
    duration_s: float | None
    interval_s: float
    trigger: Trigger | None
    pool: str | None
    quiet: bool
    why: str = ""
    _begin_s: float = 0.0
    _told_s: float = 0.0
    _told_records: int = 0
    _armed_s: float = 0.0
    _met: str = ""

    def go(self, session: Session, wishes: Wishes, stop: StopSignal, dump: _DumpSignal) -> None:
        """Record until something ends it."""
        from zpobs.capture.environment import environment_of  # noqa: PLC0415

        recorder = self.recorder
        self._check(session)
        recorder.begin(environment_of(session, wishes, version(), recorder.class_table))
        # What follows can be read though the beginning may be lost.
        recorder.key(session)
        self._begin_s = self._told_s = time.monotonic()
        end_s = self._begin_s + (float("inf") if self.duration_s is None else self.duration_s)
        due_s = self._begin_s
        while not self.why:
            now_s = time.monotonic()
            if now_s >= due_s or stop.raised or now_s >= end_s:
                self._look(session)
                due_s = max(due_s + self.interval_s, time.monotonic())
            recorder.tick(session)
            if dump.raised:
                dump.raised = False
                self._dump("signal")
            self._progress()
            if stop.raised or time.monotonic() >= end_s or recorder.full:
                self.why = "signal" if stop.raised else "size" if recorder.full else "duration"
                break
            wait_s = min(due_s, end_s, time.monotonic() + _TICK_S)
            session.wait(wait_s, (stop.descriptor,))
        if session.scans and not recorder.full:
            # So that a capture ends with what the kernel itself says.
            session.scan()
            self._look(session)
        recorder.end(self.why)

    def _look(self, session: Session) -> None:
        snapshot = session.snapshot(pool=self.pool)
        self.recorder.moment(snapshot, session.objects)
        if self.trigger is None:
            return
        was_met, self._met = self._met, self.trigger.met(snapshot)
        if self._met and not was_met and time.monotonic() >= self._armed_s:
            self._dump(self._met)
            # What follows at once is in the same file's past, mostly.
            self._armed_s = time.monotonic() + self.recorder.flight_s

    def _dump(self, why: str) -> None:
        if not self.recorder.flies:
            return
        try:
            told = f"wrote {self.recorder.dump(why)}: {why}"
        except (EnvironmentLacksError, UsageError) as error:
            # What is held is held on: the next one may be had.
            told = str(error)
        self._clear()
        typer.echo(f"zpobs: {told}", err=True)

    def _check(self, session: Session) -> None:
        """Say if no probe tells of anything; raise if what is waited for can never be told."""
        if session.attached is not None:
            return
        from zpobs.capture.trigger import COUNTED  # noqa: PLC0415 - --help needs no NumPy

        why = "; ".join(session.snapshot(pool=self.pool).health.reasons[:1])
        if self.trigger is not None and self.trigger.figure in COUNTED:
            raise EnvironmentLacksError(
                f"--when {self.trigger.figure} can never come true",
                found=why,
                hint="a figure that scans tell: pages, objects or waste",
            )
        typer.echo(f"zpobs: {why}; what is recorded are scans", err=True)

    # -- how it goes ----------------------------------------------------------------------

    def _progress(self) -> None:
        now_s = time.monotonic()
        terminal = sys.stderr.isatty()
        since_s = now_s - self._told_s
        if self.quiet or since_s < (1.0 if terminal else _TOLD_EVERY_S):
            return
        recorder = self.recorder
        rate = (recorder.record_count - self._told_records) / since_s
        self._told_s, self._told_records = now_s, recorder.record_count
        parts = [
            f"{now_s - self._begin_s:.0f} s",
            f"{recorder.record_count:,} records",
            f"{rate:,.0f}/s",
            f"{recorder.held_bytes / _MEGA:,.1f} MB in memory"
            if recorder.flies
            else f"{recorder.bytes / _MEGA:,.1f} MB",
            f"lost {sum(recorder.lost.values()):,}",
        ]
        if recorder.left_bytes is not None:
            parts.append(f"disk left {recorder.left_bytes / _MEGA:,.0f} MB")
        if recorder.short:
            parts.append("memory full: holds less time")
        line = "zpobs: recording, " + ", ".join(parts)
        sys.stderr.write(f"\r{line}\x1b[K" if terminal else f"{line}\n")
        sys.stderr.flush()

    def _clear(self) -> None:
        if sys.stderr.isatty() and not self.quiet:
            sys.stderr.write("\r\x1b[K")

    def tell(self, *, as_json: bool) -> None:
        """Say what was recorded."""
        self._clear()
        recorder = self.recorder
        took_s = time.monotonic() - self._begin_s
        lost = dict(recorder.lost)
        files = [str(path) for path in recorder.files]
        if as_json:
            out = {
                "schema": 1,
                "files": files,
                "ended": self.why,
                "seconds": round(took_s, 3),
                "records": recorder.record_count,
                "bytes": recorder.bytes,
                "lost": lost,
            }
            typer.echo(json.dumps(out, separators=(",", ":")))
            return
        count = recorder.record_count
        each = "" if recorder.flies or not count else f" ({recorder.bytes / count:.1f} a record)"
        what = files[0] if len(files) == 1 else f"{len(files)} files, the last {files[-1]}"
        typer.echo(
            f"{what}: {recorder.record_count:,} records in {took_s:.1f} s, "
            f"{recorder.bytes:,} bytes{each}, lost {sum(lost.values()):,}"
        )
