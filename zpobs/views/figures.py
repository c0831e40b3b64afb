"""Figures as short text: counts, bytes, ranges, ages, bars and sparklines of a given width."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from zpobs.snapshot import Status
from zpobs.views.lines import Span
from zpobs.waste import Range

UNKNOWN = "?"
NO_RATE = "-"

_LEVELS = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS = "_.:-=+*#"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_MARKS: dict[Status, str] = {"exact": " ", "bounded": "~", "unknown": "?"}
_ROLES: dict[Status, str] = {"exact": "good", "bounded": "warn", "unknown": "bad"}


def mark(status: Status) -> Span:
    """Return the one character that says how far to trust a row: blank, ~ or ?."""
    return _MARKS[status], _ROLES[status]


def status_span(status: Status) -> Span:
    """Return a status in words."""
    return status, _ROLES[status]


def count(value: float | None, width: int = 99) -> str:
    """Return a whole number in groups of thousands, shortened where it is too wide."""
    if value is None:
        return UNKNOWN
    text = f"{value:,.0f}"
    for power, unit in ((1e3, "k"), (1e6, "M"), (1e9, "G"), (1e12, "T"), (1e15, "P")):
        for digits in (1, 0):
            if len(text) <= width:
                return text
            text = f"{value / power:.{digits}f}{unit}"
    return text


def rate(value: float | None, width: int = 99) -> str:
    """Return events per second, "-" if they are not known."""
    if value is None:
        return NO_RATE
    return f"{value:.1f}" if 0 < value < 9.95 else count(value, width)


def position(ns: int) -> str:
    """Return a place in a recording, as 01:23.4, or 1:02:03.4 from an hour on."""
    tenths = ns // 100_000_000
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}:' if hours else ''}{minutes:02}:{tenths // 10:02}.{tenths % 10}"


def in_bytes(
    value: float | None, width: int = 99, *, toward: Callable[[float], float] = round
) -> str:
    """Return a byte count in binary units, without decimals where it is too wide.

    ``toward`` rounds: floor what is a lower bound, ceil what is an upper one.
    """
    if value is None:
        return UNKNOWN
    scaled, unit = float(value), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if toward(scaled * 10) < 10_240:
            break
        scaled, unit = scaled / 1024, larger
    texts = (f"{toward(scaled * 10) / 10:.1f} {unit}", f"{toward(scaled):.0f} {unit}")
    return texts[1] if unit == "B" or len(texts[0]) > width else texts[0]


def at_least(value: float | None, width: int = 99) -> str:
    """Return a byte count that is never rounded up."""
    return in_bytes(value, width, toward=math.floor)


def bounds(value: Range | None, width: int = 99) -> str:
    """Return a range of bytes, rounded outwards; its lower bound alone where it is too wide."""
    if value is None:
        return UNKNOWN
    if value.exact:
        return in_bytes(value.low, width)
    text = between(value)
    return text if len(text) <= width else f">={at_least(value.low, width - 2)}"


def between(value: Range, width: int = 99) -> str:
    """Return both ends of a range, each as wide as that at most; their unit once if it is one."""
    low = in_bytes(value.low, width, toward=math.floor)
    high = in_bytes(value.high, width, toward=math.ceil)
    number, unit = low.split()
    return f"{number}..{high}" if value.low == 0 or high.endswith(f" {unit}") else f"{low}..{high}"


def percent(part: float, whole: float) -> str:
    """Return a share as whole per cent, rounded down, so that 100% is all of it."""
    return f"{int(100 * part // whole)}%" if whole > 0 else NO_RATE


def age(seconds: float) -> str:
    """Return a time span in its largest unit."""
    seconds = max(seconds, 0.0)
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.1f} {unit}" if unit == "s" else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def interval(seconds: float) -> str:
    """Return an interval as briefly as it can be said."""
    return f"{seconds:.3g} s"


def clock(time_ns: int, form: str) -> str:
    """Return a wall-clock time in UTC."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime(form)


def bar(used: float, capacity: float, cells: int, *, ascii_only: bool) -> str:
    """Draw how full something is; full only when full, empty only when empty."""
    share = min(max(used / capacity, 0.0), 1.0) if capacity > 0 else 0.0
    eighths = int(share * cells * 8)
    if ascii_only:
        full = eighths // 8
        partly = ":" if 0 < share < 1 and full < cells and eighths % 8 else ""
        return ("#" * full + partly).ljust(cells, ".")
    eighths = max(eighths, 1) if share > 0 else 0
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(cells, "░")


def gauge(used: float, capacity: float, width: int, *, ascii_only: bool) -> str:
    """Draw a bar with its per cent behind it."""
    drawn = bar(used, capacity, width - 5, ascii_only=ascii_only)
    return f"{drawn} {percent(used, capacity):>4}"


def spark(values: Sequence[float | None], cells: int, *, ascii_only: bool) -> str:
    """Draw the last values as one character each, ? where unknown, the newest at the right."""
    levels = _ASCII_LEVELS if ascii_only else _LEVELS
    last = list(values[-cells:]) if cells > 0 else []
    most = max((value for value in last if value is not None), default=0.0)
    text = "".join(
        UNKNOWN
        if value is None
        else levels[0]
        if value <= 0
        # The lowest level is kept for nothing at all.
        else levels[min(1 + int(value / most * (len(levels) - 1)), len(levels) - 1)]
        for value in last
    )
    return text.rjust(cells)
