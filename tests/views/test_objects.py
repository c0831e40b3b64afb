"""Objects as text."""

from __future__ import annotations

from tests.factories import TIME_NS
from tests.object_values import make_objects, make_pins
from zpobs.views.objects import objects_lines, owner_words, pin_line, place_words

SINCE_NS = TIME_NS - 12 * 10**9


def test_a_block() -> None:
    lines = objects_lines("zram0", make_objects(since_ns=SINCE_NS), TIME_NS)
    assert lines[:7] == [
        "zram0: objects, exact, all, for 12 s",
        "  stored 16 = freed 5 + vanished 1 + live 10; moves 4",
        "  requested bytes of the live 2,520",
        "   LIVED BELOW     OBJECTS",
        "       1.05 ms           3",
        "        1.07 s           2",
        "  4 objects pin 3 near-empty zspages (7 pages); the oldest:",
    ]
    assert lines[7:9] == [
        "       AGE  CLASS   SIZE  IN ZSPAGE  NODE  COMMAND          PLACE             CGROUP",
        "     1 min      9    150       2/26     0  kswapd0          swap 1:77         "
        "/user.slice/app.scope",
    ]
    assert [" ".join(line.split()) for line in lines[9:]] == [
        "2 s 9 152 2/26 1 postgres swap 0:5 gone (id 99)",
        "30 ms 30 490 1/8 0 dd block 1234 /user.slice/app.scope (task)",
        "4 ms 30 - 1/8 - - - unknown",
    ]


def test_a_sample_tells_its_rate_and_bounds() -> None:
    lines = objects_lines("zram0", make_objects(8, since_ns=SINCE_NS), TIME_NS)
    assert lines[0] == "zram0: objects, exact, 1 in 8, for 12 s"
    assert [line.split("(")[0].split(":")[1].strip() for line in lines if "of all:" in line] == [
        "stored 128",
        "freed 40",
        "live 80",
    ]
    assert all(" to " in line for line in lines if "of all:" in line or "requested" in line)


def test_what_is_unknown_shows_no_figure() -> None:
    unknown = make_objects(status="unknown", reasons=("no probes",))
    assert objects_lines("zram0", unknown, 0) == ["zram0: objects unknown", "  no probes"]
    assert set(unknown.to_json(addresses=True)) == {"status", "reasons"}


def test_a_command_can_do_nothing_to_a_terminal() -> None:
    pins = make_pins(command=("\x1b[2J", "a", "b", "c"))
    assert "\x1b" not in pin_line(pins, 0, TIME_NS)


def test_places_and_owners_in_words() -> None:
    pins = make_pins()
    assert [place_words(pins, row) for row in range(4)] == [
        "swap 1:77", "swap 0:5", "block 1234", "-",
    ]  # fmt: skip
    assert owner_words(pins, 1) == "gone (id 99)"
    assert owner_words(pins, 3) == "unknown"
