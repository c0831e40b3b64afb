"""How add-ons are, as text."""

from __future__ import annotations

from dataclasses import replace

from tests.factories import make_addon
from zpobs.addons import MapFill
from zpobs.views.addons import addon_lines


def test_a_line_for_each() -> None:
    """Hooks, and how full tables are; what found no place stands beside."""
    refused = MapFill("objects", None, 9, refused=1)
    other = replace(make_addon(), name="objects", status="bounded", maps=(refused,))
    assert addon_lines((make_addon(), other)) == [
        "latency exact, hooks 4 of 5, zs_latencies 203 of 4,096",
        "objects bounded, hooks 4 of 5, objects ? of 9 (refused 1)",
    ]
