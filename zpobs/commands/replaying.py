"""What commands with ``--replay`` share: its options, moments of a capture, and opening one."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
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
        "of day, or a time_ns of --json.",
    ),
]

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
# Seconds since 1970 have fewer digits, in nanoseconds they have more.
_WALL_NS_MIN = 10**17
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?")


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
    index = reader.index
    moment_ns = _moment(text.strip(), reader)
    begin_s = (index.last_ns - index.first_ns) / 1e9
    if moment_ns is None or not index.first_ns <= moment_ns <= index.last_ns:
        raise UsageError(
            f"--at {text} is not in the capture",
            found="no time" if moment_ns is None else f"a capture of {begin_s:.1f} s",
            hint=f"a number from 0 to {begin_s:.1f}, or a time from {_clock(reader, True)} "
            f"to {_clock(reader, False)}",
        )
    return moment_ns


def _moment(text: str, reader: CaptureReader) -> int | None:
    index = reader.index
    if _NUMBER.fullmatch(text):
        if text.isdigit() and int(text) >= _WALL_NS_MIN:
            return int(text) - reader.offset_ns
        from_ns = index.last_ns if text.startswith("-") else index.first_ns
        return from_ns + round(float(text) * 1e9)
    wall = _wall(text, _local(reader, index.first_ns))
    if wall is None:
        return None
    # A time of day before the beginning is one of the next day.
    moment_ns = round(wall.timestamp() * 1e9) - reader.offset_ns
    if moment_ns < index.first_ns and _CLOCK.fullmatch(text):
        moment_ns = round((wall + timedelta(days=1)).timestamp() * 1e9) - reader.offset_ns
    return moment_ns


def _wall(text: str, begin: datetime) -> datetime | None:
    found = _CLOCK.fullmatch(text)
    try:
        if found is None:
            return datetime.fromisoformat(text).astimezone()
        seconds = float(found[3] or 0)
        midnight = begin.replace(hour=0, minute=0, second=0, microsecond=0)
        if int(found[1]) > 23 or int(found[2]) > 59 or seconds >= 60:
            return None
        return midnight + timedelta(hours=int(found[1]), minutes=int(found[2]), seconds=seconds)
    except ValueError:
        return None


def _local(reader: CaptureReader, mono_ns: int) -> datetime:
    return datetime.fromtimestamp((mono_ns + reader.offset_ns) / 1e9).astimezone()


def _clock(reader: CaptureReader, first: bool) -> str:
    index = reader.index
    return f"{_local(reader, index.first_ns if first else index.last_ns):%H:%M:%S}"


@contextlib.contextmanager
def opened_replay(
    path: Path,
    *,
    speed: float | None = 1.0,
    at: str | None = None,
    step_s: float = 1.0,
    life: bool = False,
) -> Iterator[ReplaySource]:
    """Open a capture as a source of snapshots; at ``speed`` None each look is ``step_s`` on."""
    from zpobs.capture.reader import CaptureReader  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.capture.replay import Pace, Player, ReplaySource  # noqa: PLC0415

    with CaptureReader(path) as reader:
        begin_ns = None if at is None else parse_moment(at, reader)
        player = Player(reader, life=life)
        yield ReplaySource(player, Pace(speed, round(step_s * 1e9)), begin_ns=begin_ns)
