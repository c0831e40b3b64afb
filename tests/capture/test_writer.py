"""When blocks and keys are written, and what stands in them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.capture.support import (
    OFFSET_NS,
    Memory,
    environment,
    make_capture,
    make_writer,
    random_batch,
    steps_of,
    told,
    write,
)
from tests.capture.test_steps import CLASSES, reading
from zpobs import wire
from zpobs.capture import writer as writing
from zpobs.capture.blocks import HEADER, BlockType, Header, read_body
from zpobs.capture.reader import CaptureReader
from zpobs.capture.records import RECORDS_MAX
from zpobs.capture.steps import (
    Counters,
    Covered,
    Ended,
    Key,
    Loss,
    Moment,
    Records,
    ScanNoted,
    Swept,
)
from zpobs.model import CountersReading, Coverage
from zpobs.model.state import ModelState
from zpobs.wire import Words

STATE = ModelState({"a": 1}, {"t.a": np.arange(50, dtype=np.uint64)})


def headers(memory: Memory) -> list[Header]:
    found = [Header.of(block[: HEADER.size]) for block in memory.blocks]
    assert None not in found
    return [each for each in found if each is not None]


def batch(count: int, seed: int = 1) -> Words:
    return random_batch(random.Random(seed), count)


def test_steps_come_back_in_their_order(tmp_path: Path) -> None:
    """All kinds of them, with the moments that they were told with."""
    memory = Memory()
    writer = make_writer(memory)
    coverage = Coverage(hooks=2, missed_hooks=("zs_free",))
    writer.covered(coverage, 10**9 + 1)
    writer.records(batch(3), 10**9 + 2)
    writer.counters(reading(10**9 + 3, {1: None}))
    writer.records(batch(4, 2), 10**9 + 4)
    writer.scan_noted(10**9, 10**9 + 5, ("zram0: busy",))
    writer.moment(OFFSET_NS, 10**9 + 6, {"x": [1], "y": 2})
    writer.swept(10**9 + 6)
    writer.moment(OFFSET_NS, 10**9 + 6, {"x": [1], "y": 3})
    writer.key(STATE, 10**9 + 7)
    writer.counters(reading(10**9 + 8, {1: None}))
    writer.end("signal", 10**9 + 9)
    steps = steps_of(write(tmp_path / "c", memory.whole))
    kinds = [Covered, Records, Counters, Loss, Records, ScanNoted, Moment, Swept, Moment, Key]
    assert [type(step) for step in steps] == [*kinds, Counters, Ended]
    assert [step.mono_ns - 10**9 for step in steps] == [1, 2, 3, 3, 4, 5, 6, 6, 6, 7, 8, 9]
    assert steps[0] == Covered(coverage, 10**9 + 1)
    assert told(steps[1]) == told(Records(batch(3), 10**9 + 2))
    assert steps[3] == Loss(10**9 + 3, 10**9 + 3, 1, 2, 3)
    assert steps[5] == ScanNoted(10**9, 10**9 + 5, ("zram0: busy",))
    assert [step.aside for step in steps if isinstance(step, Moment)] == [
        {"x": [1], "y": 2},
        {"x": [1], "y": 3},
    ]
    key = steps[9]
    assert isinstance(key, Key) and key.time_ns == key.mono_ns + OFFSET_NS
    ended = steps[11]
    assert isinstance(ended, Ended) and ended.why == "signal"
    assert ended.totals["lost"] == {"ring_full": 1, "unpaired": 2, "missed_runs": 3}
    assert sum(ended.totals["records"].values()) == 7
    assert (ended.totals["keys"], ended.totals["blocks"]) == (1, len(memory.blocks) - 1)
    assert ended.totals["bytes"] == len(memory.whole) - len(memory.blocks[-1])


def test_loss_is_told_once_and_by_how_much() -> None:
    memory = Memory()
    writer = make_writer(memory)
    for mono_ns, lost in ((5, 1), (6, 1), (7, 4)):
        now = reading(mono_ns, {})
        writer.counters(type(now)(mono_ns, lost, 0, 0, 0, ()))
    assert writer.totals.lost == {"ring_full": 4, "unpaired": 0, "missed_runs": 0}


def test_readings_wait_but_for_what_is_new(tmp_path: Path) -> None:
    """Higher counts are told once a second; what a pool had when it went is told before that."""

    def counted(mono_ns: int, allocs: int, *serials: int) -> CountersReading:
        classes = [[0] * wire.CLASS_WORDS for _ in range(CLASSES)]
        classes[2][wire.CLASS_ALLOCS] = allocs
        return replace(
            reading(mono_ns, dict.fromkeys(serials, classes)),
            ring_full=0,
            unpaired=0,
            missed_runs=0,
        )

    memory, begin = Memory(), 10**9
    writer = make_writer(memory)
    for at, (allocs, serials) in enumerate([(1, (1,)), (2, (1,)), (3, (1,)), (4, ()), (5, (2,))]):
        writer.counters(counted(begin + at, allocs, *serials))
    writer.counters(counted(begin + 2 * 10**9, 6, 2))
    writer.counters(counted(begin + 2 * 10**9 + 1, 7, 2))
    writer.end("signal", begin + 3 * 10**9)
    steps = steps_of(write(tmp_path / "c", memory.whole))
    told = [step.reading for step in steps if isinstance(step, Counters)]
    at = [each.mono_ns - begin for each in told]
    assert at == [0, 2, 3, 4, 2 * 10**9, 2 * 10**9 + 1]
    assert told[1].pools[0].class_counters is not None
    assert told[1].pools[0].class_counters[2, wire.CLASS_ALLOCS] == 3
    ended = steps[-1]
    assert isinstance(ended, Ended)
    assert ended.totals["operations"]["allocs"] == (3 - 1) + 7


def test_a_batch_that_does_not_fit_begins_a_block() -> None:
    """Batches of scans are taken whole: it is not cut at the end of the block before."""
    memory = Memory()
    writer = make_writer(memory)
    writer.records(batch(RECORDS_MAX - 10), 5)
    writer.records(batch(11), 6)
    writer.flush()
    assert [each.records for each in headers(memory)[1:]] == [RECORDS_MAX - 10, 11]


def test_a_batch_that_fits_no_block_is_cut(tmp_path: Path) -> None:
    memory = Memory()
    writer = make_writer(memory)
    words = np.concatenate([batch(RECORDS_MAX), batch(RECORDS_MAX + 5, 2)])
    writer.records(batch(7, 3), 4)
    writer.records(words, 5)
    writer.end("duration", 6)
    assert [each.records for each in headers(memory)] == [0, 7, RECORDS_MAX, RECORDS_MAX, 5, 0]
    found = [
        s.words for s in steps_of(write(tmp_path / "c", memory.whole)) if isinstance(s, Records)
    ]
    assert (np.concatenate(found[1:]) == words).all()


def test_a_full_block_is_written_at_once() -> None:
    memory = Memory()
    make_writer(memory).records(batch(RECORDS_MAX), 5)
    assert [each.records for each in headers(memory)] == [0, RECORDS_MAX]


def test_what_is_old_is_written() -> None:
    memory = Memory()
    writer = make_writer(memory)
    begin = 3 * 10**9
    writer.records(batch(1), begin)
    writer.tick(begin + writing.BLOCK_NS - 1, lambda: STATE)
    assert len(memory.blocks) == 1
    writer.tick(begin + writing.BLOCK_NS, lambda: STATE)
    assert len(memory.blocks) == 2
    assert (headers(memory)[1].first_ns, headers(memory)[1].last_ns) == (begin, begin)
    writer.tick(begin + 9 * writing.BLOCK_NS, lambda: STATE)
    assert len(memory.blocks) == 2, "of nothing there is no block"


def test_steps_without_records_fill_a_block_too() -> None:
    memory = Memory()
    writer = make_writer(memory)
    for at in range(9):
        writer.moment(1, at, {"text": f"{at}" * (1 << 20)})
    blocks = headers(memory)[1:]
    assert len(blocks) == 2 and all(each.records == 0 for each in blocks)


def test_a_key_is_due_by_bytes_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both: a file that hardly grows needs none, and one that grows fast not one a second."""
    monkeypatch.setattr(writing, "_KEY_EVERY_BYTES", 5000)
    memory = Memory()
    writer = make_writer(memory)
    late = 10**9 + 10 * 10**9
    writer.tick(late, lambda: STATE)
    assert not memory.keys
    writer.records(batch(400), 10**9 + 5)
    writer.flush()
    writer.tick(late - 1, lambda: STATE)
    assert not memory.keys
    writer.tick(late, lambda: STATE)
    assert len(memory.keys) == 1
    # The next one has to be worth this one's bytes again.
    big = ModelState(
        {}, {"t.a": np.random.default_rng(1).integers(0, 2**63, 9000, dtype=np.uint64)}
    )
    writer.key(big, late)
    writer.records(batch(400), late)
    writer.flush()
    writer.tick(late + 10**11, lambda: STATE)
    assert len(memory.keys) == 2


def test_keys_come_at_a_pace_where_that_is_asked_for() -> None:
    memory = Memory()
    writer = make_writer(memory, key_every_ns=10**9)
    for at in range(1, 10):
        writer.tick(10**9 + at * 250_000_000, lambda: STATE)
    assert len(memory.keys) == 2


def test_a_key_in_parts_begins_once() -> None:
    """Who keeps blocks may drop those before its first, and none within."""
    memory = Memory()
    chance = np.random.default_rng(1)
    wide = ModelState(
        {}, {f"t.{at}": chance.integers(0, 2**63, 1 << 18, dtype=np.uint64) for at in range(6)}
    )
    make_writer(memory).key(wide, 5)
    kinds = [each.type for each in headers(memory)]
    assert kinds.count(BlockType.KEY) > 1 and memory.keys == [1]
    bodies = [read_body(Header.of(block), block[64:]) for block in memory.blocks[1:]]  # type: ignore[arg-type]
    assert [body is not None and "environment" in body.told for body in bodies] == [
        True,
        *[False] * (len(bodies) - 1),
    ]


def test_readings_are_whole_behind_a_key(tmp_path: Path) -> None:
    made = make_capture(1, operations=60)
    path = write(tmp_path / "c", made.data)
    with CaptureReader(path) as reader:
        (place,) = reader.index.keys
        from_key = [told(step) for step in reader.steps(place)]
        whole = [told(step) for step in reader.steps()]
    assert from_key == whole[-len(from_key) :]
    assert sum(isinstance(step, Counters) for step in steps_of(path)) == 3


def test_two_captures_have_two_numbers() -> None:
    """By where and when they were made; all blocks of one have the same."""
    numbers = set()
    for now_ns, name in ((1, "a"), (2, "a"), (1, "b")):
        memory = Memory()
        writer = writing.CaptureWriter(
            memory, environment(zpobs=name), now_ns=now_ns, wall_ns=lambda mono_ns: mono_ns
        )
        writer.end("duration", now_ns)
        (number,) = {each.capture for each in headers(memory)}
        numbers.add(number)
    assert len(numbers) == 3


def test_sequence_numbers_rise_by_one() -> None:
    made = make_capture(1, operations=60)
    assert [each.sequence for each in headers(made.memory)] == list(range(6))
    assert json.dumps(environment())
