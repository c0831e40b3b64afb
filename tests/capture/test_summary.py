"""What ``zpobs info`` tells of a capture: by its headers and totals, and by reading all of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.captures import written_capture
from zpobs import wire
from zpobs.capture.reader import CaptureReader
from zpobs.capture.steps import Counters, Records
from zpobs.capture.summary import Summary, summary_of
from zpobs.capture.tally import Tally
from zpobs.model.inputs import CountersReading, Coverage, PoolReading
from zpobs.views.info import render


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_capture(tmp_path_factory.mktemp("summary") / "run.zpcap")


def summarised(path: Path, *, check: bool = False) -> Summary:
    with CaptureReader(path) as reader:
        return summary_of(reader, check=check)


def test_totals_and_reading_agree(path: Path) -> None:
    """The last block tells what a reading of everything finds."""
    told, read = summarised(path), summarised(path, check=True)
    assert (told.checked, read.checked) == (False, True)
    for name in ("records", "operations", "pools", "lost", "damage", "record_count", "ended"):
        assert getattr(told, name) == getattr(read, name), name
    assert told.whole
    assert told.records is not None
    assert sum(told.records.values()) == told.record_count


def test_it_tells_what_is_there(path: Path) -> None:
    """Counted from the steps themselves."""
    kinds = np.zeros(256, dtype=np.int64)
    last = None
    with CaptureReader(path) as reader:
        for step in reader.steps():
            if isinstance(step, Records):
                kinds += np.bincount(wire.kinds(step.words), minlength=256)
            elif isinstance(step, Counters):
                last = step.reading
    found = summarised(path)
    assert found.records is not None and last is not None
    assert found.records["state"] == kinds[wire.KIND_STATE] > 100
    assert found.records["compact_end"] == kinds[wire.KIND_COMPACT_END] > 0
    assert found.seconds == pytest.approx(20.0)
    assert found.pools == ["zram0"]
    assert found.operations is not None
    assert found.operations["allocs"] > found.operations["frees"] > 0


def test_a_truncated_file_is_read_whole_and_says_so(path: Path, tmp_path: Path) -> None:
    """No totals, so everything is read; what ends within a block is damage."""
    cut = tmp_path / "cut.zpcap"
    data = path.read_bytes()
    cut.write_bytes(data[: len(data) * 2 // 3])
    found = summarised(cut)
    assert found.checked
    assert found.ended == ""
    assert not found.whole
    assert [each.partition(":")[0] for each in found.damage] == ["the file ends inside of a block"]
    text = "\n".join(render(found))
    assert "not ended: the recorder was killed, or goes on" in text
    assert "the file ends inside of a block" in text


def test_text_and_json_tell_the_same(path: Path) -> None:
    """One object, whole as JSON; one line a figure."""
    found = summarised(path)
    told = json.loads(json.dumps(found.to_json()))
    text = render(found)
    assert told["schema"] == 1
    for name, count in told["records"].items():
        assert any(line.split() == [f"{count:,}", name] for line in text)
    for name, count in told["operations"].items():
        assert any(line.split() == [f"{count:,}", name] for line in text)
    assert told["bytes"] == path.stat().st_size


def reading(mono_ns: int, pools: dict[int, int]) -> CountersReading:
    made = []
    for serial, allocs in pools.items():
        classes = np.zeros((3, wire.CLASS_WORDS), dtype=np.uint64)
        classes[1, wire.CLASS_ALLOCS] = allocs
        counters = np.zeros(wire.POOL_WORDS, dtype=np.uint64)
        made.append(PoolReading(serial, 1, f"zram{serial}", 0, True, classes, counters))
    return CountersReading(mono_ns, 0, 0, 0, 0, tuple(made))


def test_pools_that_come_and_go_are_tallied() -> None:
    """From the first reading on; what came meanwhile did all it did meanwhile."""
    tally = Tally()
    for at, pools in enumerate(({1: 100}, {1: 130, 2: 7}, {2: 9}, {2: 9, 3: 1})):
        tally.take(reading(at, pools))
    assert tally.operations is not None
    assert tally.operations["allocs"] == 30 + 9 + 1
    assert tally.pools == ["zram1", "zram2", "zram3"]


def test_a_pool_of_which_the_beginning_was_seen_is_tallied_whole() -> None:
    """There was no pool at the first reading, so all was done since."""
    tally = Tally()
    tally.take(reading(0, {}))
    tally.take(reading(1, {1: 31}))
    tally.take(reading(2, {1: 40}))
    assert tally.operations is not None
    assert tally.operations["allocs"] == 40


def test_what_no_hook_counts_is_not_tallied() -> None:
    """Rather than told as nothing."""
    tally = Tally("zram1")
    tally.cover(Coverage(hooks=3, uncounted=frozenset({"moves"})))
    tally.take(reading(0, {1: 1, 2: 500}))
    tally.take(reading(1, {1: 2, 2: 900}))
    assert tally.operations is not None
    assert tally.operations["allocs"] == 1
    assert "moves" not in tally.operations
