"""How well add-ons do, and how full their maps of bounded size are, as plain text."""

from __future__ import annotations

from collections.abc import Iterable

from zpobs.addons import AddOnView, MapFill


def addon_lines(addons: Iterable[AddOnView]) -> list[str]:
    """Return lines about each add-on that was asked for, none if none was."""
    lines = []
    for each in addons:
        missed = f", not hooked: {', '.join(each.missed_hooks)}" if each.missed_hooks else ""
        lines.append(f"{each.name} {each.status}, {each.hooks} hooks{missed}")
        lines += [f"  {_fill(one)}" for one in each.maps]
    return lines


def _fill(one: MapFill) -> str:
    used = "?" if one.used is None else f"{one.used:,}"
    refused = f", no place for {one.refused:,}" if one.refused else ""
    return f"{one.name}: {used} of {one.size:,}{refused}"
