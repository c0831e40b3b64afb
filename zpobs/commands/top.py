"""``zpobs top``: the live view."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from zpobs.commands.common import (
    AttachChoice,
    AttachOption,
    LoaderChoice,
    LoaderOption,
    ObjectsOption,
    ObjectsRateOption,
    ObjectsSeedOption,
    PoolOption,
    RescanOption,
    RingSizeOption,
    ScanOption,
    SkipHookOption,
    output_checked,
    parse_ring_size,
    progress,
    sampling_of,
)
from zpobs.commands.replaying import (
    AtOption,
    ReplayOption,
    SpeedOption,
    opened_replay,
    parse_speed,
    refuse_given,
)
from zpobs.errors import EnvironmentLacksError, UsageError

if TYPE_CHECKING:
    from zpobs.views.top import StopSignal, TopOptions
    from zpobs.wishes import Wishes


class _Sort(StrEnum):
    WASTE = "waste"
    CLASS = "class"
    SIZE = "size"
    ZSPAGES = "zspages"
    PAGES = "pages"
    OBJECTS = "objects"
    USED = "used"
    FREEABLE = "freeable"
    ALLOCS = "allocs"
    FREES = "frees"


_JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object per line (schema 1), no text.")
]
_IntervalOption = Annotated[
    float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Time between frames.")
]
_DurationOption = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="End by itself after so long.")
]
_ZspagesOption = Annotated[
    bool, typer.Option("--zspages", help="Every zspage in --json and --log: kernel addresses.")
]
_LifeOption = Annotated[
    bool,
    typer.Option(
        "--life",
        help="Births, ages and deaths of zspages, and their time in each fullness group.",
    ),
]
_LatencyOption = Annotated[
    bool,
    typer.Option(
        "--latency",
        help="How long allocations, frees and migrations take: histograms by size class.",
    ),
]
_CompactionOption = Annotated[
    bool,
    typer.Option(
        "--compaction",
        help="What a compaction would free and move now, and beside it what the last ones did.",
    ),
]
_LimitOption = Annotated[
    int | None,
    typer.Option(
        min=0, metavar="N", help="Size classes listed of each pool at most, in frames of text."
    ),
]
_AsciiOption = Annotated[
    bool | None,
    typer.Option(
        "--ascii/--no-ascii",
        help="Draw the live view in ASCII alone; by itself where the locale is not UTF-8.",
    ),
]
_BudgetOption = Annotated[
    float,
    typer.Option(
        min=0.1,
        max=100,
        metavar="PERCENT",
        help="Of a core, what the live view may take: dear frames come less often.",
    ),
]
_LogOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also append every frame to this file as JSON (mode 0600)."),
]

EXAMPLES = """\
Examples:

\b
  zpobs top                                   live view; q quits, ? tells the keys
  zpobs top --once                            one frame after one interval
  zpobs top --json --interval 5 --pool zram0  one JSON object every 5 s
  zpobs top --duration 60 --log run.jsonl     text for a minute, JSON kept beside it
  zpobs top --replay run.zpcap --speed 10     a capture, ten times as fast
  zpobs top --replay run.zpcap --at 90        the same from 90 s on
"""
# What decides what is seen of a kernel; of a capture that is decided.
_OF_SESSIONS = (
    "latency",
    "compaction",
    "objects",
    "objects_rate",
    "objects_seed",
    "loader",
    "attach",
    "skip_hook",
    "ring_size",
    "scan",
    "rescan",
)
_OF_REPLAYS = ("speed", "at")


def top(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="One frame, then end.")] = False,
    as_json: _JsonOption = False,
    interval: _IntervalOption = 2.0,
    duration: _DurationOption = None,
    pool: PoolOption = None,
    zspages: _ZspagesOption = False,
    life: _LifeOption = False,
    latency: _LatencyOption = False,
    compaction: _CompactionOption = False,
    objects: ObjectsOption = False,
    objects_rate: ObjectsRateOption = 1,
    objects_seed: ObjectsSeedOption = None,
    sort: Annotated[_Sort, typer.Option(help="Order of the size classes.")] = _Sort.WASTE,
    limit: _LimitOption = None,
    ascii_only: _AsciiOption = None,
    budget: _BudgetOption = 2.0,
    log: _LogOption = None,
    loader: LoaderOption = LoaderChoice.AUTO,
    attach: AttachOption = AttachChoice.AUTO,
    skip_hook: SkipHookOption = None,
    ring_size: RingSizeOption = "16M",
    scan: ScanOption = True,
    rescan: RescanOption = 60.0,
    replay: ReplayOption = None,
    speed: SpeedOption = "1",
    at: AtOption = None,
) -> None:
    """Show pools and size classes live: from a scan at once, then from probes as well.

    In a terminal this is an interactive view, elsewhere frames of text follow each other. Where
    the kernel refuses probes every frame is a scan of its own: all but the rates is exact then
    too. SIGINT, SIGTERM, SIGHUP end it with a last frame, status 0. --replay: a capture instead.
    """
    _refuse(ctx, replayed=replay is not None)
    from zpobs.views.top import StopSignal, TopOptions  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.wishes import Wishes  # noqa: PLC0415

    with output_checked(), StopSignal() as stop, _opened_log(log) as log_file:
        options = TopOptions(
            interval_s=interval,
            duration_s=duration,
            once=once,
            as_json=as_json,
            zspages=zspages,
            pool=pool,
            log=log_file,
            sort=sort.value,
            limit=limit,
            ascii_only=ascii_only,
            budget=budget / 100,
        )
        if replay is not None:
            _replayed(replay, options, stop, speed=parse_speed(speed), at=at, life=life)
            return
        wishes = Wishes(
            loader=loader.value,
            attach=attach.value,
            skip=frozenset(skip_hook or ()),
            ring_bytes=parse_ring_size(ring_size),
            pool=pool,
            scan=scan,
            rescan_s=rescan,
            life=life,
            latency=latency,
            compaction=compaction,
            objects=sampling_of(objects, objects_rate, objects_seed),
        )
        _live(wishes, options, stop)


def _refuse(ctx: typer.Context, *, replayed: bool) -> None:
    """Raise UsageError if an option was given that means nothing where it is."""
    if replayed:
        refuse_given(ctx, _OF_SESSIONS, "--replay, where the capture decides", "without it")
    else:
        refuse_given(ctx, _OF_REPLAYS, "no --replay", "--replay FILE too")


def _live(wishes: Wishes, options: TopOptions, stop: StopSignal) -> None:
    """Show this host."""
    from zpobs.session import open_session  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.views.top import run_top  # noqa: PLC0415

    with open_session(wishes, attach=False) as session:
        run_top(session, replace(options, at_once=session.scans), stop, progress)


def _replayed(
    path: Path,
    options: TopOptions,
    stop: StopSignal,
    *,
    speed: float | None,
    at: str | None,
    life: bool,
) -> None:
    """Show a capture."""
    from zpobs.views.top import run_top  # noqa: PLC0415 - --help needs no NumPy

    with opened_replay(
        path,
        speed=speed,
        at=at,
        step_s=options.interval_s,
        duration_s=options.duration_s,
        life=life,
    ) as source:
        recorded = source.player.reader.environment.get("pool")
        if recorded and options.pool not in (None, recorded):
            raise UsageError(
                f"no pool is called {options.pool}",
                found=f"a capture of {recorded} alone",
                hint=f"--pool {recorded}",
            )
        run_top(
            source,
            replace(
                options,
                at_once=source.scans,
                recording=source,
                at_ns=None if at is None else source.position_ns,
            ),
            stop,
        )


@contextlib.contextmanager
def _opened_log(path: Path | None) -> Iterator[TextIO | None]:
    """Open the log for appending, readable by its owner alone."""
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot write {path}", found=error.strerror or str(error), hint="another --log"
        ) from error
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        yield file
