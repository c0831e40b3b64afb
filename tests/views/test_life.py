"""The lives of zspages as text."""

from __future__ import annotations

import pytest

from tests.factories import make_life
from zpobs.views.life import duration, life_lines

SECOND_NS = 10**9


def test_a_block() -> None:
    assert life_lines("zram0", make_life(), 17 * SECOND_NS) == [
        "zram0: lives of zspages, exact, for 12 s",
        "  there before 1 + born 8 + found 0 = dead 4 + vanished 0 + live 5",
        "  time in group   0  25.0%    1   0.0%    2   0.0%    3   0.0%    4   0.0%    5   0.0%",
        "                  6   0.0%    7   0.0%    8   0.0%    9   0.0%   10   0.0%   11  75.0%",
        "  lifetimes     shortest 700 us, mean 900 us, longest 1.04 ms",
        "     AGE BELOW        DIED        LIVE",
        "       1.05 ms           3           0",
        "        1.07 s           0           4",
        "  birth not seen: dead 1, live 1",
    ]


def test_what_is_unknown_shows_no_figure() -> None:
    unknown = make_life(status="unknown", reasons=("no probes",))
    assert life_lines("zram0", unknown, 0) == ["zram0: lives of zspages unknown", "  no probes"]
    assert set(unknown.to_json()) == {"status", "reasons"}


def test_what_is_bounded_says_why() -> None:
    bounded = make_life(status="bounded", reasons=("3 observations were lost since then",))
    assert life_lines("zram0", bounded, 0)[1] == "  3 observations were lost since then"


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1500, "1.5 us"),
        (61 * SECOND_NS, "1.02 min"),
        (7200 * SECOND_NS, "2 h"),
        (10**15, "11.6 d"),
    ],
)
def test_durations(time_ns: int, text: str) -> None:
    assert duration(time_ns) == text


def test_sums_by_class_are_those_of_the_pool() -> None:
    told = make_life().to_json()
    for name in ("started", "births", "found", "deaths", "vanished", "live"):
        assert told[name] == sum(each[name] for each in told["classes"])
    assert told["group_ns"] == [100] + [0] * 10 + [300]
    assert told["lifetimes"]["buckets"] == [{"below_ns": 1 << 20, "zspages": 3}]
