"""How add-ons are, as text: a pure function of what a snapshot holds."""

from __future__ import annotations

from collections.abc import Iterable

from zpobs.addons import AddOnView, MapFill
from zpobs.views.figures import UNKNOWN


def addon_lines(addons: Iterable[AddOnView]) -> list[str]:
    """Return a line for each: its status, its hooks, and how full its tables are."""
    return [
        ", ".join(
            [
                f"{each.name} {each.status}",
                f"hooks {each.hooks} of {each.hooks + len(each.missed_hooks)}",
                *map(fill_text, each.maps),
            ]
        )
        for each in addons
    ]


def fill_text(fill: MapFill) -> str:
    """Return how full a table of the kernel is, and what found no place in it."""
    used = UNKNOWN if fill.used is None else f"{fill.used:,}"
    refused = f" (refused {fill.refused:,})" if fill.refused else ""
    return f"{fill.name} {used} of {fill.size:,}{refused}"
