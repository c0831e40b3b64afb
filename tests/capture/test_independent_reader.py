"""The page that describes the format is enough: a reader made from it alone reads the same."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture import independent_reader
from tests.capture.golden import FOLDER
from tests.capture.support import Memory, make_capture, make_writer, random_batch, steps_of, write
from zpobs import wire
from zpobs.capture.layout import BY_CODE
from zpobs.capture.steps import Records

Event = tuple[str, dict[str, int]]


def events(path: Path) -> Iterator[Event]:
    """Yield what zpobs's own reader finds, field by field out of the wire's words."""
    for step in steps_of(path):
        if not isinstance(step, Records):
            continue
        for row in np.ascontiguousarray(step.words).tolist():
            kind = BY_CODE[row[0] & 0xFF]
            fields = {
                each.name: row[each.word] >> each.shift & ((1 << each.bits) - 1)
                for each in kind.fields
            }
            head = {"serial": row[0] >> 32, "time_ns": row[1]}
            subject = {"subject": row[wire.WORD_SUBJECT]} if kind.group else {}
            yield kind.name, {**head, **subject, **fields}


def check(path: Path) -> int:
    ours = list(events(path))
    assert list(independent_reader.events(path)) == ours
    return len(ours)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.zpcap")), ids=lambda path: path.name)
def test_golden_captures_have_the_same_events(path: Path) -> None:
    assert check(path) > 500


@given(seed=st.integers(0, 2**32), operations=st.integers(1, 80))
def test_generated_captures_have_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, seed: int, operations: int
) -> None:
    path = tmp_path_factory.mktemp("generated") / "made.zpcap"
    check(write(path, make_capture(seed, operations=operations).data))


@given(seed=st.integers(0, 2**32), lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6))
def test_records_of_any_bits_are_the_same_events(
    tmp_path_factory: pytest.TempPathFactory, seed: int, lengths: list[int]
) -> None:
    chance, memory = random.Random(seed), Memory()
    writer = make_writer(memory)
    for at, length in enumerate(lengths):
        writer.records(random_batch(chance, length), 10**9 + at)
        if chance.random() < 0.3:
            writer.flush()
    writer.end("duration", 2 * 10**9)
    path = write(tmp_path_factory.mktemp("any") / "any.zpcap", memory.whole)
    assert check(path) == sum(lengths)


def test_damage_leaves_both_with_the_same_events(tmp_path: Path) -> None:
    made = make_capture(4, operations=60)
    at = 0
    for block in made.memory.blocks:
        data = bytearray(made.data)
        data[at + len(block) // 2] ^= 8
        check(write(tmp_path / "damaged.zpcap", bytes(data)))
        at += len(block)
    check(write(tmp_path / "twice.zpcap", made.data + made.data))


def test_it_is_short_and_knows_nothing_of_zpobs() -> None:
    text = Path(independent_reader.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) < 100
    tree = ast.parse(text)
    named = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert named & {"zpobs", "tests"} == set()
    assert {"numpy", "zstandard"} <= named
