"""Whole states as blocks, and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.capture.support import digest, make_capture
from zpobs.capture.blocks import PLAIN_BYTES_MAX, BlockEncoder, BlockType, Body, Header, read_body
from zpobs.capture.columns import COUNT_MAX, Column, Table
from zpobs.capture.keys import KeyReader, told_key
from zpobs.errors import BadInputError
from zpobs.model.state import ModelState

TYPES = st.sampled_from(["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "?"])


def test_a_key_takes_no_more_memory_than_what_it_brings() -> None:
    """Columns of which nothing stands in planes are as large as others once they are filled."""
    names = {f"t.c{at}": [COUNT_MAX, "uint64"] for at in range(500)}
    told = {"key": [0, 1 << 16], "values": {}, "lengths": names}
    columns = [Column(f"{name}@0", "delta", 0, COUNT_MAX, 1) for name in names]
    with pytest.raises(BadInputError, match="too large a state") as refused:
        KeyReader().take(Body(told, Table(columns, memoryview(b""))))
    # What was filled until then, not the gigabyte that it tells of.
    filled, _, _ = refused.value.found.partition(" ")
    assert int(filled.replace(",", "")) < 32 << 20


def bodies(state: ModelState) -> list[Body]:
    """Return the bodies of a key's blocks, out of their bytes."""
    encoder = BlockEncoder(1)
    out = []
    for told, columns in told_key(state):
        block = encoder.block(BlockType.KEY, told, columns)
        header = Header.of(block)
        assert header is not None
        body = read_body(header, block[64:])
        assert body is not None
        out.append(body)
    return out


def taken(parts: list[Body]) -> ModelState | None:
    reader = KeyReader()
    found = None
    for part in parts:
        assert found is None
        found = reader.take(part)
    return found


@given(st.data())
def test_columns_of_all_types_come_back(data: st.DataObject) -> None:
    columns = {
        f"table.{at}": data.draw(hnp.arrays(data.draw(TYPES), data.draw(st.integers(0, 40))))
        for at in range(data.draw(st.integers(0, 4)))
    }
    state = ModelState({"a": [1, None, {"b": "ü"}]}, columns)
    found = taken(bodies(state))
    assert found is not None and digest(found) == digest(state)


def test_a_models_state_comes_back() -> None:
    state = make_capture(5, operations=300).model.state()
    found = taken(bodies(state))
    assert found is not None and digest(found) == digest(state)


@pytest.fixture(scope="module")
def large() -> ModelState:
    """Return a state that takes several blocks, with zeros where a part is none."""
    chance = np.random.default_rng(1)
    rows = 5 * COUNT_MAX + 7
    holes = chance.integers(0, 2**64 - 1, rows, dtype=np.uint64)
    holes[COUNT_MAX : 2 * COUNT_MAX] = 0
    return ModelState(
        {"rows": rows},
        {
            "a.random": chance.integers(0, 2**64 - 1, rows, dtype=np.uint64),
            "a.rising": np.arange(rows, dtype=np.uint64) * 64 + 0xFFFF_8880_0000_0000,
            "a.signed": chance.integers(-5, 5, rows).astype(np.int16),
            "a.holes": holes,
            "a.zero": np.zeros(rows, dtype=np.uint32),
        },
    )


def test_a_large_state_comes_in_parts(large: ModelState) -> None:
    parts = bodies(large)
    assert len(parts) > 1
    assert [part.told["key"] for part in parts] == [[at, len(parts)] for at in range(len(parts))]
    found = taken(parts)
    assert found is not None and digest(found) == digest(large)
    assert all(len(part.table.names()) for part in parts)  # type: ignore[arg-type]
    assert (
        max(sum(map(part.table.bytes_of, part.table.names())) for part in parts) < PLAIN_BYTES_MAX
    )


def test_a_key_without_one_of_its_blocks_is_none(large: ModelState) -> None:
    parts = bodies(large)
    for missing in range(len(parts)):
        reader = KeyReader()
        left = parts[:missing] + parts[missing + 1 :]
        assert [reader.take(part) for part in left] == [None] * len(left)
        # And the next one is whole again.
        assert [reader.take(part) is not None for part in parts][-1]


def test_blocks_of_two_keys_are_not_mixed(large: ModelState) -> None:
    parts = bodies(large)
    reader = KeyReader()
    assert reader.take(parts[0]) is None
    reader.restart()
    assert [reader.take(part) for part in parts[1:]] == [None] * (len(parts) - 1)


def test_what_is_no_column_is_a_mistake() -> None:
    for column in (np.zeros(3), np.zeros((2, 2), dtype=np.uint8), np.array(["x"])):
        with pytest.raises(TypeError, match="no column"):
            told_key(ModelState({}, {"a.b": column}))
