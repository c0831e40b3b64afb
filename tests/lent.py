"""Programs of this machine for guests, which see the checkout and have none of these of their own.

They need no library but the C library, and Debian's guests are as new as any host.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.host import need

FOLDER = Path(__file__).resolve().parents[1] / "build" / "lent"
PROGRAMS = ("prometheus", "promtool")


def lend() -> None:
    """Put the programs where guests find them; HostError where one is not installed."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        own, lent = Path(need(name, name)), FOLDER / name
        if not lent.exists() or lent.stat().st_mtime != own.stat().st_mtime:
            shutil.copy2(own, lent)


def lent(name: str) -> str:
    """Return the path of a program inside a guest."""
    return str(FOLDER / name)
