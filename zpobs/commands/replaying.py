"""What commands with ``--replay`` share: its options, moments of a capture, and opening one."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zpobs.errors import UsageError

if TYPE_CHECKING:
    from zpobs.capture.reader import CaptureReader
    from zpobs.capture.replay import ReplaySource

ReplayOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="A capture in the kernel's place: needs no root, no BPF, nothing of this host.",
    ),
]
SpeedOption = Annotated[
    str,
    typer.Option(
        metavar="FACTOR", help="With --replay: 1 as recorded, 10 ten times as fast, max at once."
    ),
]
AtOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="With --replay: begin there; seconds from its beginning, -10 before its end, a time "
        "of day in UTC, or a time_ns of --json.",
    ),
]


def refuse_given(ctx: typer.Context, names: Iterable[str], why: str, hint: str) -> None:
    """Raise UsageError if one of some options, by their parameters, was given."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name != "DEFAULT":
            raise UsageError(f"{parameter.opts[0]} does nothing here", found=why, hint=hint)


def parse_speed(text: str) -> float | None:
    """Return seconds of the capture a second, None for as fast as can be."""
    if text == "max":
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)x?", text)
    speed = float(found[1]) if found else 0.0
    if not 0 < speed <= 1e6:
        raise UsageError(
            f"--speed {text} is no speed", found="not a number above 0", hint="1, 0.5, 10 or max"
        )
    return speed


def parse_moment(text: str, reader: CaptureReader) -> int:
    """Return the moment of a capture, monotonic ns, that a text tells; raise UsageError."""
    moment_ns = reader.span.moment(text)
    if moment_ns is None:
        found, hint = reader.span.why_not(text)
        raise UsageError(f"--at {text} is not in the capture", found=found, hint=hint)
    return moment_ns


@contextlib.contextmanager
def opened_replay(
    path: Path,
    *,
    speed: float | None = 1.0,
    at: str | None = None,
    step_s: float = 1.0,
    duration_s: float | None = None,
    life: bool = False,
) -> Iterator[ReplaySource]:
    """Open a capture as a source of snapshots.

    At ``speed`` None each look is ``step_s`` on, and all is over after ``duration_s`` of it.
    """
    from zpobs.capture.reader import CaptureReader  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.capture.replay import Pace, Player, ReplaySource  # noqa: PLC0415

    with CaptureReader(path) as reader:
        begin_ns = reader.began_ns if at is None else parse_moment(at, reader)
        player = Player(reader, life=life)
        yield ReplaySource(
            player,
            Pace(speed, round(step_s * 1e9)),
            begin_ns=begin_ns,
            duration_ns=None if duration_s in (None, math.inf) else round(duration_s * 1e9),
        )
