"""Add-ons as text."""

from __future__ import annotations

from tests.factories import make_health, make_snapshot
from tests.object_values import OBJECTS_WATCHED
from zpobs.addons import AddOnView, MapFill
from zpobs.views.addons import addon_lines
from zpobs.views.text import render


def test_the_fill_of_each_map_is_told() -> None:
    """What found no place too; what the kernel does not tell is no figure."""
    full = AddOnView("latency", "exact", (), 5, (), (MapFill("zs_latencies", None, 4096, 7),))
    assert addon_lines([OBJECTS_WATCHED, full]) == [
        "objects bounded, 6 hooks, not hooked: slot_free",
        "  zs_object_tasks: 3 of 4,096",
        "  ledger: 7 of 262,144",
        "latency exact, 5 hooks",
        "  zs_latencies: ? of 4,096, no place for 7",
    ]


def test_a_frame_ends_with_them() -> None:
    health = make_health(addons=(OBJECTS_WATCHED,))
    assert render(make_snapshot(health=health), {})[-3:] == addon_lines([OBJECTS_WATCHED])
    assert "objects bounded" not in "\n".join(render(make_snapshot(), {}))
