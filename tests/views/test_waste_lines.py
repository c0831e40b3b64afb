"""The line that tells what bytes are there for, and bounds as text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zpobs.views.text import human_range, waste_lines
from zpobs.waste import Range, Waste

KIB, MIB = 1 << 10, 1 << 20
EXACT = Waste(
    requested=Range(41 * MIB, 41 * MIB),
    rounding=Range(464 * KIB, 464 * KIB),
    headers=135 * KIB,
    tail=84 * KIB,
    free_slots=820 * KIB,
    descriptors=411 * KIB,
    pages=41 * MIB + 1503 * KIB,
)


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        (None, "?"),
        (Range(0, 0), "0 B"),
        (Range(7, 9), "7..9 B"),
        (Range(6 * MIB, 6 * MIB), "6.0 MiB"),
        # Nearer to each other than is shown.
        (Range(6 * MIB, 6 * MIB + 9), "6.0 MiB"),
        (Range(59 * MIB // 10, 62 * MIB // 10), "5.9..6.2 MiB"),
        (Range(900 * KIB, 2 * MIB), "900.0 KiB..2.0 MiB"),
        (Range(0, 3 * KIB), "0 B..3.0 KiB"),
        (Range(3 * KIB, 3 * 1024 * MIB), "3.0 KiB..3.0 GiB"),
    ],
)
def test_bounds_are_told_once_where_they_look_alike(bounds: Range | None, told: str) -> None:
    """Their unit once if it is the same; ? where there are none."""
    assert human_range(bounds) == told


def test_the_parts_and_their_sum() -> None:
    """On as many lines as it takes, none of them too long."""
    assert waste_lines(EXACT, 78) == [
        "requested 41.0 MiB + rounding 464.0 KiB + headers 135.0 KiB + tail 84.0 KiB",
        "+ free slots 820.0 KiB + descriptors 411.0 KiB = 42.9 MiB",
    ]
    (line,) = waste_lines(EXACT, 200)
    for columns in range(30, 140):
        lines = waste_lines(EXACT, columns)
        assert " ".join(lines) == line
        assert max(map(len, lines)) <= columns


def test_what_is_not_known_is_not_told() -> None:
    """Without descriptors the sum is that of the pages; nothing is made up."""
    bare = replace(EXACT, descriptors=None, requested=None, rounding=None)
    text = " ".join(waste_lines(bare))
    assert text.startswith("requested ? + rounding ? + headers")
    assert text.endswith("+ free slots 820.0 KiB = 42.5 MiB")
