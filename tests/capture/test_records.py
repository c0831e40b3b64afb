"""Batches of records as columns, and back: every bit of every kind."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.support import Memory, make_capture, make_writer, random_batch, steps_of, write
from zpobs import wire
from zpobs.capture.blocks import BlockEncoder, BlockType, Header, read_body
from zpobs.capture.layout import BY_CODE, FLAGS, KINDS, schema
from zpobs.capture.records import RECORDS_MAX, decoded, encoded
from zpobs.capture.steps import Records
from zpobs.errors import BadInputError, RecordError
from zpobs.wire import Words

EDGES = (0, 1, 2**63, 2**64 - 1, 0xFFFF_8881_0000_0000, 0xFFFF_8881_0000_0038)
WORD = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from(EDGES))
RECORD = st.tuples(
    st.sampled_from([kind.code for kind in KINDS]),
    st.integers(0, 2**56 - 1),
    st.lists(WORD, min_size=wire.RECORD_WORDS - 1, max_size=wire.RECORD_WORDS - 1),
)


def through_a_block(words: Words) -> Words:
    """Return a batch out of the bytes of a block that holds it."""
    block = BlockEncoder(1).block(BlockType.DATA, {}, encoded(words), records=len(words))
    header = Header.of(block)
    assert header is not None and header.records == len(words)
    body = read_body(header, block[64:])
    assert body is not None
    return decoded(body.table, header.records)


@given(st.lists(RECORD, min_size=1, max_size=60))
def test_all_bits_of_all_kinds_come_back(records: list[tuple[int, int, list[int]]]) -> None:
    """Equal times and addresses, none, the highest, in any order: hypothesis loves them."""
    rows = [[rest << 8 | code, *payload] for code, rest, payload in records]
    words = np.array(rows, dtype=np.uint64)
    found = through_a_block(words)
    assert (found == words).all() and found.shape == words.shape
    # The model takes columns: they are contiguous.
    assert found.T.flags.c_contiguous
    assert (through_a_block(np.asfortranarray(words)) == words).all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_alone_comes_back(kind: object) -> None:
    words = random_batch(random.Random(3), 500, (kind,))  # type: ignore[arg-type]
    assert (through_a_block(words) == words).all()


@pytest.mark.parametrize("close", [True, False])
def test_a_block_is_full_at_65536(close: bool) -> None:
    words = random_batch(random.Random(1), RECORDS_MAX)
    if close:
        # Subjects as near to each other as those of one machine, and each its own.
        words[:, wire.WORD_SUBJECT] = np.uint64(0xFFFF_8881_0000_0000) + np.arange(
            0, 56 * RECORDS_MAX, 56, dtype=np.uint64
        )
        words[:, wire.WORD_SUBJECT] = np.random.default_rng(1).permutation(words[:, 2])
    assert (through_a_block(words) == words).all()


def test_no_record_is_a_batch_too() -> None:
    assert through_a_block(np.zeros((0, wire.RECORD_WORDS), dtype=np.uint64)).shape == (0, 7)


def test_a_single_record_of_nothing_comes_back() -> None:
    words = np.zeros((1, wire.RECORD_WORDS), dtype=np.uint64)
    words[0, 0] = wire.KIND_STATE
    assert (through_a_block(words) == words).all()


def test_what_stands_in_columns() -> None:
    """Places of all that name a zspage, classes of them together, and times by kind."""
    low, high, handle = 4096, 8192, 7 << 40
    stored = wire.head(wire.KIND_OBJECT_STORED, flags=wire.FLAG_MOVED, serial=1)
    rows = [
        # An owner whose object was told in another block.
        [wire.head(wire.KIND_OBJECT_OWNER, serial=1), 90, handle, 0, 0, 0, 0],
        [wire.head(wire.KIND_STATE, serial=1), 100, high, 0, 30, 0, 0],
        [stored, 110, handle, high, 30 | 2 << 32, 5 << 24 | 9, 0],
        [wire.head(wire.KIND_DEATH, serial=1), 115, low, 0, 20, 0, 0],
        [wire.head(wire.KIND_OBJECT_SLOT, serial=1), 112, handle, 0, 0, 0, 0],
        [stored, 105, handle, high, 31, 5 << 24 | 11, 0],
    ]
    found = {}
    for each in encoded(np.array(rows, dtype=np.uint64)):
        planes = np.zeros((8, each.column.count), dtype=np.uint8)
        planes[: each.column.width] = np.frombuffer(each.planes, np.uint8).reshape(
            each.column.width, each.column.count
        )
        coded = np.ascontiguousarray(planes.T).view("<u8").reshape(-1)
        found[each.column.name] = each.column.transform, each.column.base, coded.tolist()
    assert found == {
        "kind": ("plain", 0, [25, 1, 24, 3, 26, 24]),
        "serial": ("delta", 1, [0] * 6),
        "first_ns": ("plain", 0, [100]),
        "object_owner.since_ns": ("plain", 0, [19]),
        "object_slot.since_ns": ("plain", 0, [4]),
        "object_stored.since_ns": ("plain", 0, [20, 19]),
        "death.since_ns": ("plain", 0, [10]),
        "zspage.known": ("delta", low, [0, 2 * (high - low)]),
        "zspage.at": ("delta", 1, [0, 0, 1, 2]),
        "handle.known": ("delta", handle, [0]),
        "class_index": ("previous", 0, [60, 0, 40, 2]),
        "object_stored.flags": ("plain", 0, [1, 1]),
        "object_stored.cpu": ("plain", 0, [2, 0]),
        "object_stored.object_place": ("previous", 0, [18, 4]),
        "object_stored.object_frame": ("previous", 0, [10, 0]),
    }


@pytest.mark.parametrize("code", sorted(set(range(256)) - BY_CODE.keys()))
def test_what_is_of_no_kind_is_not_written(code: int) -> None:
    words = random_batch(random.Random(1), 3)
    words[1, 0] = code
    with pytest.raises((BadInputError, RecordError)):
        encoded(words)


def test_every_bit_of_a_record_has_one_field() -> None:
    """So nothing of a word is lost, and no field is told twice."""
    for kind in KINDS:
        used = [0] * wire.RECORD_WORDS
        names = [field.name for field in kind.fields]
        assert len(set(names)) == len(names)
        own = [(field.word, field.shift, field.bits) for field in kind.fields]
        common = [(0, 0, 8), (0, 32, 32), (1, 0, 64)]
        for word, shift, bits in own + common + ([(2, 0, 64)] if kind.group else []):
            mask = ((1 << bits) - 1) << shift
            assert used[word] & mask == 0
            used[word] |= mask
        assert used == [2**64 - 1] * wire.RECORD_WORDS


def test_the_table_tells_all_kinds_and_flags() -> None:
    """Those of wire.py that reach a model, each by its own name and number."""
    kinds = {
        name.removeprefix("KIND_").lower(): value
        for name, value in vars(wire).items()
        if name.startswith("KIND_")
    }
    assert {kind.name: kind.code for kind in KINDS} == kinds
    assert FLAGS.keys() <= kinds.keys()
    assert json.loads(json.dumps(schema())).keys() == kinds.keys()


def test_pools_records_are_small() -> None:
    """What allocators tell takes some bytes a record, not 56."""
    made = make_capture(3, operations=1500, rounds=1)
    records = sum(
        header.records for block in made.memory.blocks if (header := Header.of(block)) is not None
    )
    assert records > 5000
    assert len(made.data) < 12 * records


def test_several_pools_and_times_stay_apart(tmp_path: Path) -> None:
    """What was written through blocks of any length is what steps give."""
    made = make_capture(11, operations=200)
    memory = Memory()
    writer = make_writer(memory)
    path = write(tmp_path / "one", made.data)
    batches = [step.words for step in steps_of(path) if isinstance(step, Records)]
    words = np.concatenate(batches)
    assert len(set((words[:, 0] >> np.uint64(32)).tolist())) > 3
    writer.records(words, 5)
    writer.end("duration", 6)
    (again,) = (
        step
        for step in steps_of(write(tmp_path / "two", memory.whole))
        if isinstance(step, Records)
    )
    assert (again.words == words).all()
