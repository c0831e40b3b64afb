"""Columns of numbers as byte planes, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpobs.capture.columns import (
    COUNT_MAX,
    Column,
    Table,
    Transform,
    by_subject,
    packed,
    previous,
    starts_of,
    summed_by_subject,
    unzigzag,
    zigzag,
)
from zpobs.errors import BadInputError

WORD = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**63, 2**64 - 1, 2**32]))
WORDS = st.lists(WORD, max_size=80)


def array(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


@given(WORDS)
def test_small_differences_are_small_whatever_their_sign(values: list[int]) -> None:
    assert unzigzag(zigzag(array(values))).tolist() == values
    assert zigzag(array([0, 2**64 - 1, 1, 2**64 - 2, 2])).tolist() == [0, 1, 2, 3, 4]


@given(WORDS, st.sampled_from(["plain", "delta"]))
def test_a_column_comes_back(values: list[int], transform: Transform) -> None:
    told = packed("x", array(values), transform)
    if told is None:
        assert not any(values)
        return
    assert Column.of(told.column.to_json()) == told.column
    assert len(told.planes) == told.column.width * len(values)
    table = Table([told.column], memoryview(told.planes))
    assert table.values("x", len(values)).tolist() == values
    assert (table.count_of("x"), table.bytes_of("x")) == (len(values), len(told.planes))


@given(st.lists(st.tuples(st.integers(0, 5), WORD), max_size=80))
def test_values_by_subject_come_back(rows: list[tuple[int, int]]) -> None:
    subject, values = array([each for each, _ in rows]), array([each for _, each in rows])
    order = by_subject(subject)
    starts = starts_of(subject[order])
    coded = previous(values, order, starts)
    assert summed_by_subject(coded, order, starts).tolist() == values.tolist()
    before: dict[int, int] = {}
    for (who, value), code in zip(rows, unzigzag(coded).tolist(), strict=True):
        assert (before.get(who, 0) + code) % 2**64 == value
        before[who] = value


def test_planes_are_as_many_as_the_highest_byte_needs() -> None:
    for value, width in ((1, 1), (255, 1), (256, 2), (1 << 40, 6), (2**64 - 1, 8)):
        told = packed("x", array([0, value]))
        assert told is not None and told.column.width == width
    told = packed("x", array([0x0102, 0x0304]))
    assert told is not None and told.planes == b"\x02\x04\x01\x03"


def test_a_constant_needs_no_plane() -> None:
    told = packed("x", array([7, 7, 7]), "delta")
    assert told is not None and (told.planes, told.column.base) == (b"", 7)
    assert packed("x", array([0, 0])) is None


@pytest.mark.parametrize(
    "told",
    [
        None,
        "x",
        [],
        ["x", "plain", 1, 1],
        ["x", "sideways", 1, 1, 0],
        ["x", "plain", 9, 1, 0],
        ["x", "plain", -1, 1, 0],
        ["x", "plain", 1, -1, 0],
        ["x", "plain", 1, COUNT_MAX + 1, 0],
        ["x", "plain", 1, 1, -1],
        ["x", "plain", 1, 1, 1 << 64],
        [7, "plain", 1, 1, 0],
        ["x", "plain", 1.5, 1, 0],
    ],
)
def test_a_description_that_cannot_be_is_refused(told: object) -> None:
    with pytest.raises(BadInputError):
        Column.of(told)


def test_a_table_holds_what_it_tells() -> None:
    one = Column("x", "plain", 1, 3)
    with pytest.raises(BadInputError, match="holds not what it tells"):
        Table([one], memoryview(b"12"))
    with pytest.raises(BadInputError, match="twice"):
        Table([one, one], memoryview(b"123456"))
    table = Table([one, Column("y", "previous", 0, 3)], memoryview(b"123"))
    assert (table.has("x"), table.has("z"), list(table.names())) == (True, False, ["x", "y"])
    assert table.values("z", 2).tolist() == [0, 0]
    with pytest.raises(BadInputError, match="wrong length"):
        table.values("x", 2)
    with pytest.raises(BadInputError, match="needs a subject"):
        table.values("y", 3)
