"""The interactive view's screens: whole ones are compared with those in ``tests/golden/live``.

``ZPOBS_UPDATE_GOLDEN=1 pytest tests/views/live`` writes them anew; read the
difference before you commit it.
"""

from __future__ import annotations

import os
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.factories import ints
from tests.views.live.support import (
    SCENES,
    USUAL,
    busy,
    changed_pool,
    described,
    many_classes,
    texts,
    typed,
    without,
)
from zpobs.views.lines import plain, width
from zpobs.views.live.feed import SEEKING
from zpobs.views.live.keys import KEYS
from zpobs.views.live.listing import listing
from zpobs.views.live.scene import Scene
from zpobs.views.live.screens import render
from zpobs.views.live.state import Size, ViewState, followed, pressed, started

SCREENS = Path(__file__).resolve().parents[2] / "golden" / "live"
SMALL, WIDE = Size(60, 20), Size(200, 50)
IN_CLASSES = ("enter",)
IN_ZSPAGES = ("enter", "slash", "3", "1", "enter", "enter")
TO_107 = ("enter", "slash", "1", "0", "7", "enter", "enter", "slash", *"cd8", "enter")
HUGE = ("enter", "slash", *"254", "enter", "enter", "slash", *"inuse=1", "enter", "enter")
# Screen -> its scene, the keys that lead there, and the size.
GOLDEN: dict[str, tuple[str, tuple[str, ...], Size]] = {
    "pools": ("busy", (), USUAL),
    "classes": ("busy", IN_CLASSES, USUAL),
    "zspages": ("busy", IN_ZSPAGES, USUAL),
    "migration": ("measured", ("v",), USUAL),
    "migration-of-a-pool": ("measured", ("down", "enter", "v"), USUAL),
    "migration-scans-alone": ("scans_alone", ("v",), USUAL),
    "latency": ("measured", ("l",), USUAL),
    "latency-wide": ("measured", ("l",), WIDE),
    "latency-of-classes": ("measured", ("enter", "l"), USUAL),
    "latency-not-asked": ("busy", ("l",), USUAL),
    "latency-unknown": ("unmeasured", ("enter", "l"), USUAL),
    "life": ("measured", ("z",), USUAL),
    "life-of-classes": ("measured", ("enter", "z"), WIDE),
    "objects": ("measured", ("o",), USUAL),
    "objects-of-classes": ("measured", ("enter", "o"), USUAL),
    "objects-unknown": ("unmeasured", ("enter", "o"), USUAL),
    "pins": ("measured", ("p",), USUAL),
    "pins-wide": ("measured", ("p",), WIDE),
    "pins-not-asked": ("busy", ("enter", "p"), SMALL),
    "life-not-asked": ("busy", ("enter", "z"), SMALL),
    "descriptors": ("described", (*TO_107, "enter", "down"), USUAL),
    "descriptors-wide": ("described", (*TO_107, "enter", "down"), WIDE),
    "descriptors-of-a-huge-zspage": ("described_huge", HUGE, USUAL),
    "events": ("busy", ("e",), USUAL),
    "compaction": ("compacted", ("m",), USUAL),
    "compaction-200x50": ("compacted", (*IN_CLASSES, "m"), WIDE),
    "compaction-60x20": ("compacted", ("m",), SMALL),
    "compaction-bounds-alone": ("compacted_before_612", ("m",), USUAL),
    "compaction-not-forecast-yet": ("quiet", ("m",), USUAL),
    "pageblocks": ("mapped", ("b",), USUAL),
    "pageblocks-60x20": ("mapped", ("b",), SMALL),
    "pageblocks-untyped": ("mapped_untyped", ("b",), USUAL),
    "pageblocks-not-read-yet": ("quiet", ("b",), USUAL),
    "help": ("busy", ("question_mark",), USUAL),
    "help-below": ("bounded", ("question_mark", "pagedown"), USUAL),
    "pools-60x20": ("busy", (), SMALL),
    "classes-60x20": ("busy", IN_CLASSES, SMALL),
    "zspages-60x20": ("busy", IN_ZSPAGES, SMALL),
    "pools-200x50": ("busy", (), WIDE),
    "classes-200x50": ("busy", IN_CLASSES, WIDE),
    "zspages-200x50": ("busy", IN_ZSPAGES, WIDE),
    "classes-40x10": ("busy", IN_CLASSES, Size(40, 10)),
    "too-small": ("busy", IN_CLASSES, Size(38, 8)),
    "paused": ("busy", (*IN_CLASSES, "space"), USUAL),
    "replay": ("replayed", IN_CLASSES, USUAL),
    "replay-paused": ("replayed", (*IN_CLASSES, "space", "}"), USUAL),
    "replay-at-its-end": ("replay_ended", ("space",), USUAL),
    "replay-time-typed": ("replayed", ("t", *"03:05:00"), USUAL),
    "replay-time-not-in-it": ("replayed", ("t", *"3:10", "enter"), SMALL),
    "replay-time-not-in-it-wide": ("replayed", ("t", *"soon", "enter"), WIDE),
    "replay-40x10": ("replayed", (*IN_CLASSES, "space"), Size(40, 10)),
    "replay-too-small": ("replay_ended", IN_CLASSES, Size(38, 8)),
    "replay-compaction": ("compacted_in_a_replay", ("m",), USUAL),
    "replay-help": ("replayed", ("space", "question_mark", *["down"] * 12), USUAL),
    "filter-typed": ("busy", (*IN_CLASSES, "slash", *"waste>9k"), USUAL),
    "filter-kept": ("busy", (*IN_CLASSES, "slash", *"waste>9k", "enter"), USUAL),
    "filter-not-understood": ("busy", (*IN_CLASSES, "slash", *"colour=3"), USUAL),
    "filter-fits-nothing": ("busy", (*IN_CLASSES, "slash", *"4711", "enter"), USUAL),
    "bounded-pools": ("bounded", (), USUAL),
    "bounded-classes": ("bounded", IN_CLASSES, USUAL),
    "scans-alone-pools": ("scans_alone", (), USUAL),
    "scans-alone-classes": ("scans_alone", IN_CLASSES, USUAL),
    "scans-alone-events": ("scans_alone", ("e",), USUAL),
    "no-events-yet": ("quiet", ("e",), USUAL),
    "no-pools": ("no_pools", (), USUAL),
    "no-such-pool": ("no_such_pool", (), USUAL),
    "empty-pool": ("empty_pool", IN_CLASSES, USUAL),
    "zspages-not-read-yet": ("quiet", ("enter", "enter"), USUAL),
    "descriptors-not-read-yet": ("unread", (*TO_107, "enter"), USUAL),
    "descriptors-not-readable": ("unreadable", (*TO_107, "enter"), USUAL),
}
# Screens in ASCII alone, screens after a second scene, and the roles of one.
IN_ASCII = ("classes", "events", "latency", "pageblocks")
ALSO = {"pool-vanished", "zspage-freed", "classes-roles"} | {f"{name}-ascii" for name in IN_ASCII}


def compare(name: str, lines: list[str]) -> None:
    golden = SCREENS / f"{name}.txt"
    text = "\n".join(lines) + "\n"
    if os.environ.get("ZPOBS_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", GOLDEN)
def test_the_screen_is_as_it_was(name: str) -> None:
    """The screen equals the golden one, character by character."""
    scene, keys, size = GOLDEN[name]
    made = SCENES[scene]()
    compare(name, texts(render(made, typed(made, keys, size=size), size)))


@pytest.mark.parametrize("name", IN_ASCII)
def test_the_screen_in_ascii_is_as_it_was(name: str) -> None:
    """The same screens for a terminal that knows nothing else."""
    scene, keys, size = GOLDEN[name]
    made = SCENES[scene]()
    state = typed(made, keys, started(interval_s=2, ascii_only=True), size)
    compare(f"{name}-ascii", texts(render(made, state, size)))


def test_a_pool_that_vanished_is_told() -> None:
    """The screen of pools comes back, with one line that says why."""
    state = typed(busy(), IN_ZSPAGES)
    left = without(busy(), "zram0")
    compare("pool-vanished", texts(render(left, followed(state, left), USUAL)))


def test_a_zspage_that_was_freed_is_told() -> None:
    """The list of zspages comes back, with one line that says why."""
    scene = described()
    state = typed(scene, (*TO_107, "enter"))
    table = scene.snapshot.pools[0].zspage_list
    assert table is not None
    kept = table.take(np.flatnonzero(table.address != state.zspage))
    left = changed_pool(scene, zspage_list=kept)
    compare("zspage-freed", texts(render(left, followed(state, left), USUAL)))


def test_the_roles_are_as_they_were() -> None:
    """Every span of one screen with its role."""
    made = SCENES["bounded"]()
    lines = render(made, typed(made, IN_CLASSES), USUAL)
    compare("classes-roles", ["".join(f"[{role}:{text}]" for text, role in line) for line in lines])


def test_no_golden_screen_is_left_over() -> None:
    """Every file of golden screens belongs to a test."""
    assert {path.stem for path in SCREENS.iterdir()} == {*GOLDEN, *ALSO}


# ---- what holds for every screen -------------------------------------------------

PRESSES = sorted({key for each in KEYS for key in each.keys} | set("az019<>=. ~") | {"f9"})
KEYS_GIVEN = st.lists(st.sampled_from(PRESSES), max_size=25)
SIZES = st.tuples(st.integers(20, 400), st.integers(6, 100)).map(lambda pair: Size(*pair))
MADE: dict[str, Scene] = {name: make() for name, make in SCENES.items()}


def walked(scene: Scene, keys: list[str], size: Size, *, ascii_only: bool) -> ViewState:
    return typed(scene, keys, started(interval_s=2, ascii_only=ascii_only), size)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(MADE)), st.sampled_from(sorted(MADE)), KEYS_GIVEN, SIZES, st.booleans()
)
@example("busy", "no_pools", ["enter", "enter", "enter"], Size(40, 10), True)
def test_every_screen_fits(
    name: str, then: str, keys: list[str], size: Size, ascii_only: bool
) -> None:
    """Whatever was pressed and comes next: as many lines as the terminal has, none too wide."""
    for scene in (MADE[name], MADE[then]):
        state = followed(walked(MADE[name], keys, size, ascii_only=ascii_only), scene)
        lines = render(scene, state, size)
        assert len(lines) == size.rows
        assert max(width(line) for line in lines) <= size.columns
        text = "\n".join(plain(line) for line in lines)
        assert not ascii_only or text.isascii()
        assert all(_narrow(each) for each in set(text) - {"\n"})
        # Of an equal scene, of which nothing was made yet.
        assert render(replace(scene), state, size) == lines


def _narrow(character: str) -> bool:
    return character.isprintable() and unicodedata.east_asian_width(character) not in "WF"


@pytest.mark.parametrize("rows", range(10, 30))
@pytest.mark.parametrize("name", ["busy", "bounded", "described"])
def test_a_table_keeps_five_rows(name: str, rows: int) -> None:
    """However low the terminal, the header leaves room for a table, and takes eight lines."""
    scene = MADE[name]
    deeper = {"busy": IN_ZSPAGES, "described": TO_107, "bounded": ()}[name]
    for keys in ((), ("enter",), deeper):
        lines = texts(render(scene, typed(scene, keys), Size(80, rows)))
        title = next(at for at, line in enumerate(lines) if line.split()[0].isupper())
        assert title <= 8
        assert rows - title - 2 >= 5


@pytest.mark.parametrize("name", ["busy", "replayed"])
@pytest.mark.parametrize("rows", [10, 24, 50])
@pytest.mark.parametrize("columns", [40, 80, 200])
def test_paused_is_always_said(columns: int, rows: int, name: str) -> None:
    """The word is on every screen of a paused view."""
    scene = MADE[name]
    for keys in ((), ("enter",), ("enter", "enter"), ("e",), ("h",)):
        lines = texts(render(scene, typed(scene, ("space", *keys)), Size(columns, rows)))
        assert "PAUSED" in lines[0]


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_a_replay_always_says_where_it_stands(columns: int) -> None:
    """And that it is over, on every screen; while it is sought as well."""
    scene = replace(MADE["replay_ended"], doing=SEEKING)
    for keys in ((), ("enter",), ("enter", "enter"), ("e",), ("h",)):
        line = texts(render(scene, typed(scene, keys), Size(columns, 20)))[0]
        assert "REPLAY 01:40.0" in line
        assert "END" in line
        assert ("of 01:40.0, 1x" in line) == (columns >= 60)
        assert keys == ("h",) or SEEKING in line


@pytest.mark.parametrize("size", [Size(20, 6), Size(38, 8), Size(39, 40)])
def test_too_small_a_screen_tells_what_keys_did(size: Size) -> None:
    """PAUSED comes first, then the message, in which a file's name is whole."""
    name = "zpobs-zram0-classes-20260102-030405.json"
    state = typed(MADE["busy"], ("enter", "space")).telling(f"wrote {name} (9 bytes)", name)
    lines = texts(render(MADE["busy"], state, size))
    assert lines[0] == "PAUSED"
    assert name in "".join(lines[1:])
    assert lines[1].startswith("wrote")


@pytest.mark.parametrize(("columns", "words"), [(40, ""), (46, "wrote "), (60, "wrote ")])
def test_a_file_s_name_is_told_whole(columns: int, words: str) -> None:
    """Other words leave a narrow screen first."""
    name = "zpobs-zram0-classes-20260102-030405.json"
    state = typed(MADE["busy"], ()).telling(
        f"wrote {name} (9,999,999 bytes), offered", f"wrote {name}", name
    )
    assert texts(render(MADE["busy"], state, Size(columns, 10)))[-1] == words + name


def test_the_cursor_is_seen_wherever_it_goes() -> None:
    """Moving by any key, exactly one row is marked, and it is the cursor's."""
    scene, size = MADE["busy"], Size(80, 16)
    state = typed(scene, IN_ZSPAGES, size=size)
    for key in ["down"] * 30 + ["pagedown", "pageup", "end", "up", "home", "pagedown"]:
        state, _ = pressed(state, key, scene, size)
        marked = [line for line in render(scene, state, size) if line and line[0][1] == "cursor"]
        assert len(marked) == 1
        cursor = state.place.cursor
        assert cursor is None or f"{cursor:#x}" in plain(marked[0])


@pytest.mark.parametrize("name", ["busy", "scans_alone"])
def test_health_and_the_last_scan_are_on_every_screen(name: str) -> None:
    """Coverage stands above every table."""
    scene = MADE[name]
    for keys in ((), ("enter",), ("enter", "enter"), ("e",)):
        second = texts(render(scene, typed(scene, keys), USUAL))[1]
        assert second.startswith("health exact")
        assert "hooks" in second
        assert "ago" in second


def test_many_pools_are_counted_and_some_named() -> None:
    """The header of many pools names those for which there is room."""
    scene = MADE["busy"]
    pool = scene.snapshot.pools[0]
    pools = tuple(replace(pool, id=number, name=f"zram{number}") for number in range(30))
    many = replace(scene, snapshot=replace(scene.snapshot, pools=pools))
    line = texts(render(many, typed(many, ()), USUAL))[2]
    assert line.startswith("30 pools: zram0, zram1, ..")


def test_a_class_that_does_something_without_zspages_is_shown() -> None:
    """An empty class is left out, unless something just happened in it."""
    classes = many_classes(3, zspages=ints([0, 0, 5]), objects=ints([0, 0, 1]))
    scene = changed_pool(MADE["busy"], classes=classes)
    by_class = {"allocs": {1: 0.0, 7: 3.0, 13: 0.0}, "frees": {}, "moves": {}}
    calm = {1: replace(scene.rates[1], classes=by_class)}
    state = typed(MADE["busy"], IN_CLASSES)
    rows = listing(replace(scene, rates=calm), state)
    assert rows.table.ids.tolist() == [7, 13]
