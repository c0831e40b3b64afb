"""The time that a capture spans, and the moments of it that people's words tell.

Times of day are UTC, as all those that zpobs shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
# Seconds since 1970 have fewer digits, in nanoseconds they have more.
_WALL_NS_MIN = 10**17
_SECOND_NS = 10**9
_TENTH_NS = _SECOND_NS // 10
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?(\s*(?:UTC|Z))?")


@dataclass(frozen=True, slots=True)
class Span:
    """First and last moment, monotonic ns, and wall-clock less monotonic time."""

    first_ns: int
    last_ns: int
    offset_ns: int

    @property
    def length_ns(self) -> int:
        """How long it is."""
        return self.last_ns - self.first_ns

    def within(self, moment_ns: int) -> int:
        """Return the moment of it that is the nearest to one."""
        return min(max(moment_ns, self.first_ns), self.last_ns)

    def moment(self, text: str) -> int | None:
        """Return the moment, monotonic ns, that a text tells; None if it tells none of it."""
        moment_ns = self._moment(text.strip())
        if moment_ns is None or not self.first_ns <= moment_ns <= self.last_ns:
            return None
        return moment_ns

    def why_not(self, text: str) -> tuple[str, str]:
        """Return why a text tells no moment of it, and what would tell one."""
        # Rounded down: what is told to be in it is.
        length_s = self.length_ns // _TENTH_NS / 10
        why = "no time" if self._moment(text.strip()) is None else f"a capture of {length_s:.1f} s"
        begin, end = (f"{self._wall(each):%H:%M:%S}" for each in (self.first_ns, self.last_ns))
        return why, f"a number from 0 to {length_s:.1f}, or a time from {begin} to {end} UTC"

    def _moment(self, text: str) -> int | None:
        if _NUMBER.fullmatch(text):
            if text.isdigit() and int(text) >= _WALL_NS_MIN:
                return int(text) - self.offset_ns
            from_ns = self.last_ns if text.startswith("-") else self.first_ns
            return from_ns + round(float(text) * _SECOND_NS)
        clock = _CLOCK.fullmatch(text)
        try:
            wall = self._of_day(clock) if clock is not None else datetime.fromisoformat(text)
            moment_ns = self._mono(wall)
            if clock is not None and moment_ns < self.first_ns:
                if moment_ns > self.first_ns - _SECOND_NS:
                    # The second in which it begins.
                    return self.first_ns
                # A time of day before the beginning is one of the next day.
                moment_ns = self._mono(wall + timedelta(days=1))
        except (ValueError, OverflowError):
            return None
        return moment_ns

    def _of_day(self, clock: re.Match[str]) -> datetime:
        """Return the day on which it begins with a time of day; raise ValueError if that is none.

        A second may have a fraction.
        """
        seconds = float(clock[3] or 0)
        return self._wall(self.first_ns).replace(
            hour=int(clock[1]), minute=int(clock[2]), second=int(seconds), microsecond=0
        ) + timedelta(seconds=seconds % 1)

    def _mono(self, wall: datetime) -> int:
        zoned = wall if wall.tzinfo is not None else wall.replace(tzinfo=UTC)
        return round(zoned.timestamp() * _SECOND_NS) - self.offset_ns

    def _wall(self, mono_ns: int) -> datetime:
        return datetime.fromtimestamp((mono_ns + self.offset_ns) / _SECOND_NS, UTC)
