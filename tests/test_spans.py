"""What tells a moment of a capture, and what does not."""

from __future__ import annotations

import pytest

from zpobs.spans import Span

BEGIN_NS = 1_767_323_045_400_000_000  # 2026-01-02 03:04:05.4 UTC
FIRST_NS = 7_000_000_000
SPAN = Span(FIRST_NS, FIRST_NS + 90_060_000_000, BEGIN_NS - FIRST_NS)
# 23:59:50 of the same day, and a minute of the next.
LATE = Span(0, 70_000_000_000, 1_767_398_390_000_000_000)


@pytest.mark.parametrize(
    ("text", "after_s"),
    [
        ("0", 0),
        ("+0.5", 0.5),
        (" 90 ", 90),
        ("90.06", 90.06),
        ("-0", 90.06),
        ("-10", 80.06),
        ("-90.06", 0),
        ("03:05", 54.6),
        ("3:05:00", 54.6),
        ("03:05:00.25", 54.85),
        ("03:05:00 UTC", 54.6),
        ("03:05Z", 54.6),
        # The second in which it begins.
        ("03:04:05", 0),
        ("03:04:05.399", 0),
        ("2026-01-02 03:05:00", 54.6),
        ("2026-01-02T03:05:00Z", 54.6),
        ("2026-01-02T04:05:00+01:00", 54.6),
        (str(BEGIN_NS + 1_500_000_000), 1.5),
    ],
)
def test_what_tells_a_moment(text: str, after_s: float) -> None:
    """Seconds from either end, times of day in UTC, times with a date, and ns since 1970."""
    assert SPAN.moment(text) == pytest.approx(FIRST_NS + round(after_s * 1e9), abs=1000)


def test_a_time_of_day_may_be_of_the_next_day() -> None:
    """In a capture over midnight."""
    assert LATE.moment("23:59:55") == 5_000_000_000
    assert LATE.moment("00:00:30") == 40_000_000_000
    assert LATE.moment("00:01:01") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("90.07", "a capture of 90.0 s"),
        ("-91", "a capture of 90.0 s"),
        ("03:04:04", "a capture of 90.0 s"),
        ("2025-01-02 03:05", "a capture of 90.0 s"),
        ("1767323045400000000000000", "a capture of 90.0 s"),
        ("", "no time"),
        ("soon", "no time"),
        ("24:00", "no time"),
        ("03:60", "no time"),
        ("03:04:60", "no time"),
        ("1e3", "no time"),
        ("0x10", "no time"),
        ("\N{ARABIC-INDIC DIGIT ONE}", "no time"),
    ],
)
def test_what_tells_none(text: str, why: str) -> None:
    """It is told why, and what would; all that is told to be in it is."""
    assert SPAN.moment(text) is None
    found, hint = SPAN.why_not(text)
    assert found == why
    assert hint == "a number from 0 to 90.0, or a time from 03:04:05 to 03:05:35 UTC"
    for told in ("0", "90.0", "03:04:05", "03:05:35"):
        assert SPAN.moment(told) is not None


def test_moments_are_kept_within() -> None:
    """The nearest one."""
    assert SPAN.within(0) == SPAN.first_ns
    assert SPAN.within(SPAN.last_ns + 1) == SPAN.last_ns
    assert SPAN.within(SPAN.first_ns + 5) == SPAN.first_ns + 5
    assert SPAN.length_ns == 90_060_000_000
