"""zpobs: live, exact observability of the Linux zsmalloc allocator through eBPF."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from zpobs.capture.opened import Capture


def open_capture(path: str | Path) -> Capture:
    """Open a file that ``zpobs record`` made (:class:`zpobs.capture.opened.Capture`)."""
    from zpobs.capture.opened import Capture  # noqa: PLC0415 - nothing else here needs NumPy

    return Capture(path)
