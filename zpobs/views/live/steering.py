"""What the feed does with a capture: what keys ask for, and where it stands then."""

from __future__ import annotations

from dataclasses import dataclass

from zpobs.snapshot import Snapshot
from zpobs.views.live.scene import Ask, Replayed
from zpobs.views.live.view import Move
from zpobs.views.source import Recording, arrived


@dataclass(frozen=True, slots=True)
class Arrival:
    """A capture has gone somewhere: what was there an interval earlier, None if it is there still.

    ``anew``: history of before means nothing there.
    """

    before: Snapshot | None
    anew: bool


class Steering:
    """A capture's clock in the feed's hands; ``pool`` is the only one that is wanted."""

    def __init__(self, recording: Recording, pool: str | None) -> None:
        self._recording = recording
        self._pool = pool
        self._moved = 0
        self._speed = recording.speed
        self._interval_s: float | None = None
        self._paused = False

    @property
    def still(self) -> bool:
        """Whether nothing comes by itself."""
        return self._paused or self._recording.ended

    @property
    def leaping(self) -> bool:
        """Whether it goes as fast as can be."""
        return self._speed is None

    def obey(self, ask: Ask) -> None:
        """Pause and hasten as was asked for."""
        if (ask.speed, ask.interval_s) != (self._speed, self._interval_s):
            self._speed, self._interval_s = ask.speed, ask.interval_s
            self._recording.hasten(ask.speed, round(ask.interval_s * 1e9))
        if ask.paused != self._paused:
            self._paused = ask.paused
            self._recording.pause(ask.paused)

    def far(self, ask: Ask) -> bool:
        """Tell whether moves are to be done that may take their time."""
        return not all(each.step for each in self._due(ask))

    def move(self, ask: Ask) -> Arrival | None:
        """Do all moves that were not done yet, as one; None if there are none."""
        due = self._due(ask)
        if not due:
            return None
        recording = self._recording
        span, from_ns = recording.span, recording.position_ns
        to_ns = from_ns
        for each in due:
            to_ns = span.within(to_ns + each.ns if each.by else each.ns)
        self._moved = due[-1].number
        if not all(each.step for each in due):
            return Arrival(arrived(recording, to_ns, ask.interval_s, self._pool), anew=True)
        if to_ns == from_ns:
            return Arrival(None, anew=False)
        before = recording.snapshot(pool=self._pool)
        recording.seek(to_ns)
        return Arrival(before, anew=False)

    def _due(self, ask: Ask) -> list[Move]:
        return [each for each in ask.moves if each.number > self._moved]

    def where(self) -> Replayed:
        """Return where it stands."""
        recording = self._recording
        return Replayed(recording.span, recording.position_ns, recording.ended, self._moved)
