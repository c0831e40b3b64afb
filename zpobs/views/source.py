"""What ``top`` needs of a session: this and nothing else of it reaches the views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from zpobs.descriptors import Look
from zpobs.snapshot import Snapshot, ZspagesOf


class SnapshotSource(Protocol):
    """A session, or what a test puts in its place."""

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
