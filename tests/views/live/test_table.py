"""Sorting, filtering and fitting tables, figures and lines."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.views.live.support import (
    BUSY_CLASS,
    KERNEL_56,
    bounded,
    busy,
    described,
    typed,
    zspages_of,
)
from zpobs.snapshot import Event
from zpobs.views import figures
from zpobs.views.lines import cut, filled, joined, merged, plain, width, wrapped
from zpobs.views.live.events import described as event_words
from zpobs.views.live.listing import listing
from zpobs.views.live.scene import Scene
from zpobs.views.live.state import ViewState
from zpobs.views.live.table import (
    Column,
    FilterError,
    Table,
    chosen_columns,
    fitting,
    row_line,
    sorted_rows,
    title_line,
)
from zpobs.views.split import split_lines
from zpobs.views.text import SORTS
from zpobs.waste import Range, Waste, pool_waste

BUSY = busy()
IN_31 = ("enter", "slash", *str(BUSY_CLASS), "enter", "enter")


def table_of(**columns: tuple[list[object], bool]) -> Table:
    """Return a table of named columns: values, and whether they naturally rise."""
    made = tuple(
        Column(
            name,
            name.upper(),
            6,
            lambda row, _, values=values: (str(values[row]), ""),  # type: ignore[misc]
            lambda values=values: np.array(values),  # type: ignore[misc]
            rank,
            rising=rising,
        )
        for rank, (name, (values, rising)) in enumerate(columns.items())
    )
    rows = len(next(iter(columns.values()))[0])
    ids = np.arange(rows)
    return Table(ids, made, "a", lambda _: ids >= 0, lambda _: [], "nothing", ())


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "rising", "reverse", "order"),
    [
        ([3, 1, 2], True, False, [1, 2, 0]),
        ([3, 1, 2], True, True, [0, 2, 1]),
        ([3, 1, 2], False, False, [0, 2, 1]),
        ([3, 1, 3, 1], False, False, [0, 2, 1, 3]),
        ([3, 1, 3, 1], False, True, [1, 3, 0, 2]),
        ([NAN, 1.0, NAN, 2.0], False, False, [3, 1, 0, 2]),
        ([NAN, 1.0, NAN, 2.0], False, True, [1, 3, 0, 2]),
        (["b", "a"], True, False, [1, 0]),
    ],
)
def test_rows_stand_in_order(
    values: list[object], rising: bool, reverse: bool, order: list[int]
) -> None:
    """The most first unless a column rises; equals as they were; what is not known last."""
    table = table_of(a=(values, rising))
    assert sorted_rows(table, "a", reverse=reverse).tolist() == order


def test_addresses_are_sorted_as_what_they_are() -> None:
    """Numbers of 64 bits without a sign keep their order."""
    values = np.array([0xFFFF888000000000, 1, 0xFFFF888000000001], dtype=np.uint64)
    table = table_of(a=([0, 0, 0], True))
    column = replace(table.columns[0], values=lambda: values)
    assert sorted_rows(replace(table, columns=(column,)), "a", reverse=False).tolist() == [1, 0, 2]


def test_a_column_that_is_not_there_sorts_as_if_none_was_chosen() -> None:
    """So a name from elsewhere does no harm."""
    table = table_of(a=([1, 2], False))
    assert sorted_rows(table, "colour", reverse=False).tolist() == [1, 0]


def test_classes_can_be_sorted_as_on_the_command_line() -> None:
    """Every order that --sort knows is a column of the live view's classes."""
    assert set(SORTS) <= set(listing(BUSY, typed(BUSY, ("enter",))).table.sorts)


# ---- filters ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [0, 1, 2]),
        ("a>1", [1, 2]),
        ("a>=1", [0, 1, 2]),
        ("a<2k", [0]),
        ("a<=2K", [0, 1]),
        ("a=1", [0]),
        ("a!=1", [1, 2]),
        ("a>0x1", [1, 2]),
        ("a>=1.5m", [2]),
        ("a>=1.5MiB", [2]),
        ("b>0", [0]),
        ("b<9", [0]),
        ("a>1 a<1m", [1]),
        ("c=x", [0, 2]),
        ("c!=x", [1]),
    ],
)
def test_filters_compare_columns(text: str, rows: list[int]) -> None:
    """Numbers with units, words, and several of them; what is not known fits no comparison."""
    table = table_of(
        a=([1, 2048, 2 << 20], False), b=([3.0, NAN, NAN], False), c=(["x", "y", "x"], True)
    )
    assert np.flatnonzero(fitting(table, text)).tolist() == rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour=3", "no column is called colour: there are a, c"),
        ("a=many", "many is no number"),
        ("c>3", "c is no number: use c= or c!="),
    ],
)
def test_a_filter_that_makes_no_sense_says_why(text: str, words: str) -> None:
    """One sentence that names what would."""
    with pytest.raises(FilterError, match=words):
        fitting(table_of(a=([1], False), c=(["x"], True)), text)


def filtered(*keys: str) -> int:
    state = typed(BUSY, (*IN_31, "slash", *keys, "enter"))
    rows = listing(BUSY, state)
    assert rows.problem == ""
    return len(rows.order)


def test_zspages_are_found_by_state_and_by_parts_of_their_address() -> None:
    """Words for states; digits anywhere in an address, or from its start with 0x."""
    table = zspages_of(BUSY_CLASS, 7, 2, 29)
    hexadecimal = [f"{address:x}" for address in table.address.tolist()]
    assert filtered(*"locked") == int(table.locked.sum()) == 1
    assert filtered(*"locked", "space", *"isolated") == 1
    assert filtered(*"huge") == 0
    for digits in ("38", "1000", "ffff888001000038", "f8880010", "7"):
        assert filtered(*digits) == sum(digits in each for each in hexadecimal)
    assert filtered(*"0xffff888001000") == sum(
        each.startswith("ffff888001000") for each in hexadecimal
    )
    assert filtered(*"0x1000") == 0
    assert filtered(*"ffff8880010000380") == 0
    assert filtered(*"node=1") == int((table.nodes[table.frame_start[:-1]] == 1).sum())


def test_a_word_that_is_being_typed_is_no_mistake() -> None:
    """Of a state's name its beginning is not refused; what can be nothing is."""
    for word, problem in (("loc", False), ("huge", False), ("xyz", True)):
        state = typed(BUSY, (*IN_31, "slash", *word))
        assert bool(listing(BUSY, state).problem) == problem


def test_every_screen_looks_for_words() -> None:
    """Pools by name, owner and status; classes by number and size; events by what they say."""
    for keys, found in (
        (("slash", *"zsw"), 1),
        (("slash", *"exact"), 2),
        (("enter", "slash", *"528"), 1),
        (("e", "slash", *"eagain"), 1),
        (("e", "slash", *"zswap1"), 2),
    ):
        assert len(listing(BUSY, typed(BUSY, (*keys, "enter"))).order) == found


# ---- columns ---------------------------------------------------------------------


def test_columns_leave_by_rank_and_grow_into_what_is_left() -> None:
    """The highest rank goes first, rank 0 never; spare width goes to those that grow."""
    table = table_of(a=([1], False), b=([2], False), c=([3], False))
    names = {columns: [c.name for c, _ in chosen_columns(table, columns)] for columns in range(25)}
    assert names[20] == ["a", "b", "c"]
    assert names[19] == names[13] == ["a", "b"]
    assert names[12] == names[0] == ["a"]
    grows = replace(table.columns[0], widest=9)
    wide = replace(table, columns=(grows, *table.columns[1:]))
    assert [size for _, size in chosen_columns(wide, 21)] == [7, 6, 6]
    assert [size for _, size in chosen_columns(wide, 99)] == [9, 6, 6]


def test_the_arrow_of_the_order_cuts_no_title() -> None:
    """It stands behind the title, in the gap if that fills its column, at the end before it."""
    table = table_of(a=([1], False), b=([2], False))
    columns = (replace(table.columns[0], title="AAAAAA"), replace(table.columns[1], title="BBBBBB"))
    widths = chosen_columns(replace(table, columns=columns), 13)
    for sort, falls, line in (
        ("a", True, "AAAAAA↓BBBBBB"),
        ("b", False, "AAAAAA↑BBBBBB"),
        ("c", False, "AAAAAA BBBBBB"),
    ):
        titles = title_line(widths, 13, sort=sort, falls=falls, ascii_only=False)
        assert plain(titles) == line
    short = chosen_columns(table, 13)
    titles = title_line(short, 13, sort="b", falls=True, ascii_only=True)
    assert plain(titles) == "     A     Bv"


def test_a_cell_that_is_cut_is_marked() -> None:
    """Nobody takes a part for the whole."""
    table = table_of(a=(["abcdefgh"], False), b=(["abcdef"], False))
    line = row_line(chosen_columns(table, 13), 0, 13, at_cursor=False)
    assert plain(line) == "abcde> abcdef"


# ---- figures ---------------------------------------------------------------------


@given(st.integers(0, 1 << 50))
@example(1023)
@example((1 << 20) - 1)
def test_bounds_of_bytes_hold_what_they_bound(count: int) -> None:
    """What is at least is rounded down, the end of a range up."""
    low = figures.at_least(count)
    assert value_of(low) <= count
    assert value_of(figures.between(Range(count, count + 1)).split("..")[1]) >= count + 1


def value_of(text: str) -> float:
    number, unit = text.split()
    return float(number) * 1024 ** ["B", "KiB", "MiB", "GiB", "TiB"].index(unit)


@pytest.mark.parametrize(
    ("low", "high", "width", "wanted"),
    [
        (1024, 1024, 99, "1.0 KiB"),
        (1536, 2048, 99, "1.5..2.0 KiB"),
        (512, 2048, 99, "512 B..2.0 KiB"),
        (0, 2048, 99, "0..2.0 KiB"),
        # Rounded outwards, however near to each other they are.
        (1024 * 1024, 1024 * 1024 + 1, 99, "1.0..1.1 MiB"),
        (1_600_000, 1_600_001, 12, "1.5..1.6 MiB"),
        (700_000, 2_000_000, 12, ">=683.5 KiB"),
        (700_000, 2_000_000, 9, ">=683 KiB"),
    ],
)
def test_ranges(low: int, high: int, width: int, wanted: str) -> None:
    """A range is one figure if it is exact, never narrower than it is, and marked if cut."""
    assert figures.bounds(Range(low, high), width) == wanted


def test_what_is_not_known_is_not_zero() -> None:
    """Unknown figures and rates have signs of their own."""
    assert figures.bounds(None) == figures.count(None) == figures.in_bytes(None) == "?"
    assert figures.rate(None) == "-"
    assert figures.rate(0.0) == "0"
    assert figures.rate(0.26) == "0.3"


@pytest.mark.parametrize(
    ("value", "width", "wanted"),
    [
        (1_234_567, 9, "1,234,567"),
        (1_234_567, 8, "1234.6k"),
        (1_234_567, 6, "1235k"),
        (1_234_567, 4, "1.2M"),
        (0, 1, "0"),
    ],
)
def test_counts_are_shortened_where_there_is_no_room(value: int, width: int, wanted: str) -> None:
    """Thousands are set apart where they fit, else a letter stands for them."""
    assert figures.count(value, width) == wanted


@pytest.mark.parametrize(
    ("seconds", "wanted"),
    [(-1, "0.0 s"), (0.05, "0.1 s"), (119, "119.0 s"), (120, "2 min"), (7200, "2 h"), (2e5, "2 d")],
)
def test_ages(seconds: float, wanted: str) -> None:
    """The unit grows with the age."""
    assert figures.age(seconds) == wanted


@pytest.mark.parametrize(
    ("used", "cells", "drawn", "plain_drawn"),
    [
        (0, 4, "░░░░", "...."),
        (1, 4, "▏░░░", "...."),
        (50, 4, "██░░", "##.."),
        (99, 4, "███▉", "###:"),
        (100, 4, "████", "####"),
        (250, 4, "████", "####"),
    ],
)
def test_bars_are_full_only_when_full(used: int, cells: int, drawn: str, plain_drawn: str) -> None:
    """A bar rounds down, but something is never nothing where there are parts of cells."""
    assert figures.bar(used, 100, cells, ascii_only=False) == drawn
    assert figures.bar(used, 100, cells, ascii_only=True) == plain_drawn
    assert figures.bar(used, 0, cells, ascii_only=True) == "...."


def test_sparklines() -> None:
    """The newest at the right, nothing lowest, something always above it, ? where unknown."""
    values = (9.0, 0.0, 0.001, 50.0, None, 100.0)
    assert figures.spark(values, 5, ascii_only=True) == "_.=?#"
    assert figures.spark(values, 8, ascii_only=False) == "  ▂▁▂▅?█"
    assert figures.spark((0.0, 0.0), 2, ascii_only=True) == "__"
    assert figures.spark((), 3, ascii_only=True) == "   "


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("compact_end", (1, 1, 4_000_000), "compaction moved 1 object, freed 1 page in 1.0 ms"),
        ("compact_end", (1000, 0, 0), "compaction moved 1,000 objects, freed 0 pages"),
        ("migration", (1, 2, 0), "migration of frame 1 -> 2, ok"),
        ("migration", (1, 2, -16), "migration of frame 1 -> 2, failed: EBUSY"),
        ("migration", (1, 2, -4095), "migration of frame 1 -> 2, failed: -4095"),
        ("alloc_failure", (3000, -12), "allocation of 3,000 bytes failed: ENOMEM"),
        ("deferred_free", (4_999_000,), "deferred free, took 1 us"),
        ("something_new", (1, 2), "something new 1 2"),
    ],
)
def test_events_are_told_in_words(kind: str, values: tuple[int, ...], words: str) -> None:
    """Each kind has its sentence; an unknown one shows what it has."""
    assert event_words(Event(kind, 5_000_000, 1, None, values))[0] == words


# ---- the split of waste ------------------------------------------------------------


def test_the_parts_of_a_split_sum_to_what_is_behind_the_sign() -> None:
    """Six parts and their sum, nothing left out, in each of its forms."""
    waste = pool_waste(BUSY.snapshot.pools[0], KERNEL_56)
    for columns in (300, 80, 60):
        text = " ".join(plain(line) for line in split_lines("zram0", waste, columns))
        left, middle, right = text.removeprefix("zram0: ").split(" = ")
        parts = [spelt(term) for term in left.split(" + ")]
        pages, descriptors = [spelt(f"all {term}") for term in middle.split(" + ")]
        assert len(parts) == 5
        assert sum(parts) == pytest.approx(pages, rel=0.02)
        assert pages == pytest.approx(waste.pages, rel=0.02)
        assert pages + descriptors == pytest.approx(spelt(f"all {right}"), rel=0.02)


@pytest.mark.parametrize("scene", [busy(), bounded(), described()])
def test_a_split_takes_two_lines(scene: Scene) -> None:
    """With 80 columns it leaves the other lines of the header their room."""
    for pool in scene.snapshot.pools:
        waste = pool_waste(pool, scene.snapshot.kernel)
        assert len(split_lines(pool.name, waste, 80)) <= 2


def spelt(term: str) -> float:
    """Return the bytes of a term such as "free slots 1.5 KiB" or "tail 15K"."""
    words = term.split()
    if words[-1][-1] in "KMG":
        words[-1:] = [words[-1][:-1], words[-1][-1] + "iB"]
    return value_of(" ".join(words[-2:]))


def test_a_split_says_what_is_not_known() -> None:
    """Without the class spacing two parts are one; without a structure's size one is missing."""
    split = Waste(None, None, 8, 16, 24, None, 4096)
    text = plain(split_lines("zram0", split, 300)[0])
    assert "requested and rounding 4.0 KiB (not told apart" in text
    assert text.endswith("= pages 4.0 KiB + descriptors ?")
    bounded = Waste(Range(1024, 2048), Range(0, 1024), 8, 16, 24, 56, 4096)
    text = plain(split_lines("zram0", bounded, 300)[0])
    assert "requested 1.0..2.0 KiB + rounding 0..1.0 KiB (bounded by class spacing)" in text


# ---- lines -----------------------------------------------------------------------

LINES = st.lists(st.tuples(st.text("abc ", max_size=9), st.sampled_from(["", "dim"])), max_size=6)


@given(LINES.map(tuple), st.integers(0, 40))
def test_lines_keep_to_their_width(line: tuple[tuple[str, str], ...], columns: int) -> None:
    """Cut, filled and joined lines are as wide as they may be; merging changes no text."""
    assert width(cut(line, columns)) == min(width(line), columns)
    assert width(filled(line, columns)) == columns
    assert plain(merged(line)) == plain(line)
    parts = [(rank, (span,)) for rank, span in enumerate(line)]
    assert width(joined(parts, columns)) <= columns


def test_the_least_important_part_leaves_first() -> None:
    """Parts leave by rank, the rightmost of equals first; rank 0 is cut, not left out."""
    parts = [(0, (("aaaa", ""),)), (2, (("bb", ""),)), (1, (("cc", ""),)), (2, (("dd", ""),))]
    shown = {columns: plain(joined(parts, columns)) for columns in range(20)}
    assert shown[16] == "aaaa  bb  cc  dd"
    assert shown[15] == shown[12] == "aaaa  bb  cc"
    assert shown[11] == shown[8] == "aaaa  cc"
    assert shown[7] == shown[4] == "aaaa"
    assert shown[3] == "aa>"


@given(st.lists(st.text("abc", min_size=1, max_size=12), max_size=9), st.integers(1, 30))
def test_wrapped_words_keep_their_order(words: list[str], columns: int) -> None:
    """No line is too wide, and no word is lost where each of them fits."""
    lines = wrapped(words, columns)
    assert all(width(line) <= columns for line in lines)
    if all(len(word) <= columns for word in words):
        assert " ".join(plain(line) for line in lines).split() == words


def test_a_scene_is_listed_once() -> None:
    """Drawing, keys and export share one sorting of a scene."""
    scene = described()
    state = typed(scene, ("enter",))
    assert listing(scene, state) is listing(scene, state)
    kept = listing(scene, state)
    assert listing(replace(scene), state) is not kept
    # Another scene takes nothing away from this one.
    assert listing(scene, state) is kept
    for column in ("class", "size", "zspages", "objects", "used"):
        listing(scene, after_sort(state, column))
    again = listing(scene, state)
    assert again is not kept
    assert again.order.tolist() == kept.order.tolist()


def test_threads_may_list_one_scene_at_a_time() -> None:
    """A copy is made in a thread of its own while the view goes on."""
    scene, state = described(), typed(described(), ("enter",))
    orders = [state, *(after_sort(state, name) for name in ("class", "size", "zspages", "used"))]
    wanted = [listing(replace(scene), each).order.tolist() for each in orders]
    failed: list[str] = []

    def walk(first: int) -> None:
        for number in range(first, first + 1500):
            at = number % len(orders)
            if listing(scene, orders[at]).order.tolist() != wanted[at]:
                failed.append(f"another order by {orders[at].place.sort}")

    def note(what: threading.ExceptHookArgs) -> None:
        failed.append(repr(what.exc_value))

    before, hook = sys.getswitchinterval(), threading.excepthook
    sys.setswitchinterval(1e-6)
    threading.excepthook = note
    try:
        threads = [threading.Thread(target=walk, args=(first,)) for first in range(3)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        sys.setswitchinterval(before)
        threading.excepthook = hook
    assert failed == []


def after_sort(state: ViewState, column: str) -> ViewState:
    return state.at(state.screen, replace(state.place, sort=column))
