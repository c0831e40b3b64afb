"""What a compaction would do, as plain text."""

from __future__ import annotations

from zpobs.compaction import PoolForecast
from zpobs.views.figures import UNKNOWN, count, in_bytes

_HEAD = (
    f"{'CLASS':>7}{'SIZE':>6}{'PAGES':>9}{'MOVES':>10}{'COPIED':>12}"
    f"{'PAGES SO FAR':>14}{'COPIED SO FAR':>15}"
)


def compaction_lines(name: str, made: PoolForecast, page_size: int) -> list[str]:
    """Return the block of one pool: its classes, those that pay best first."""
    if not made.classes:
        return [f"{name}: a compaction would free nothing ({made.status})"]
    at_most = "at most " if made.moves is None else ""
    cost = "" if made.moves is None else f" and copy {in_bytes(made.moved_bytes or 0)}"
    lines = [
        f"{name}: a compaction would free {at_most}{made.pages:,} pages"
        f" ({in_bytes(made.pages * page_size)}){cost} ({made.status})",
        "  those that give most for what is copied first:",
        _HEAD,
    ]
    pages = copied = 0
    for each in made.classes:
        pages += each.pages
        copied += each.moved_bytes or 0
        so_far = UNKNOWN if each.moved_bytes is None else in_bytes(copied)
        bytes_moved = UNKNOWN if each.moved_bytes is None else in_bytes(each.moved_bytes)
        lines.append(
            f"{each.index:>7}{each.size:>6}{each.pages:>9,}{count(each.moves):>10}"
            f"{bytes_moved:>12}{pages:>14,}{so_far:>15}"
        )
    return lines
