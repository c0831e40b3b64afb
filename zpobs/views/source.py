"""What ``top`` needs of a session: this and nothing else of it reaches the views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from zpobs.descriptors import Look
from zpobs.snapshot import Snapshot, ZspagesOf
from zpobs.spans import Span


class SnapshotSource(Protocol):
    """A session, a capture that is replayed, or what a test puts in its place."""

    @property
    def ended(self) -> bool:
        """Whether nothing more will come: a session never ends by itself."""
        ...

    def attach(self, progress: Callable[[str], None] = ...) -> None:
        """Attach what probes there can be; called once."""
        ...

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        """Feed the model until a monotonic time or until a descriptor is readable."""
        ...

    def snapshot(
        self,
        *,
        zspages: bool | ZspagesOf = False,
        pool: str | None = None,
        compaction: bool = False,
    ) -> Snapshot:
        """Return the present state, frozen; ``compaction`` with what one would do now."""
        ...

    def pageblocks(self, *, pool: str | None = None) -> Snapshot:
        """Scan, and return in which pageblocks the pages lie; raise EnvironmentLacksError."""
        ...

    def look(self, pool: int, class_index: int) -> Look | None:
        """Read the descriptors of one class, None if its pool is gone."""
        ...


class Recording(SnapshotSource, Protocol):
    """A capture in a session's place: its clock can be stopped, turned and hastened.

    Times are monotonic ns of the capture.
    """

    @property
    def span(self) -> Span:
        """All that there is of it."""
        ...

    @property
    def position_ns(self) -> int:
        """Where it stands."""
        ...

    @property
    def speed(self) -> float | None:
        """Seconds of the capture a second, None: as fast as can be, an interval a frame."""
        ...

    def pause(self, paused: bool) -> None:
        """Stop its clock, or let it go on."""
        ...

    def hasten(self, speed: float | None, step_ns: int | None = None) -> None:
        """Go on at another speed; at None in such steps."""
        ...

    def seek(self, to_ns: int) -> None:
        """Go to a moment; to the first or the last one if it is not within."""
        ...


def arrived(recording: Recording, to_ns: int, interval_s: float, pool: str | None) -> Snapshot:
    """Go to a moment; return what was there an interval earlier, so that rates can be told."""
    recording.seek(to_ns - round(interval_s * 1e9))
    before = recording.snapshot(pool=pool)
    recording.seek(to_ns)
    return before
