"""A capture that is larger than memory may be: read, replayed and told of block by block."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.capture.test_replay import WALL_NS, environment
from zpobs import open_capture, wire
from zpobs.capture.files import CaptureFile
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player
from zpobs.capture.steps import Records
from zpobs.capture.summary import summary_of
from zpobs.capture.writer import CaptureWriter
from zpobs.wire import RECORD_BYTES, Words

ZSPAGES = 2000
BATCH, BATCHES = 60_000, 60
# A quarter of what all records take; a model begins with some MiB.
MEMORY_BYTES = 48 << 20
BEGIN_NS = 10**9


def states(number: int) -> Words:
    """Return records of zspages that go on living."""
    made = np.random.default_rng(number)
    out = np.zeros((BATCH, wire.RECORD_WORDS), dtype=np.uint64)
    out[:, 0] = wire.head(wire.KIND_STATE, a=3, serial=1)
    out[:, 1] = BEGIN_NS + (number * BATCH + np.arange(BATCH)) * 1000
    out[:, 2] = 0xFFFF888100000000 + made.integers(0, ZSPAGES, BATCH).astype(np.uint64) * 64
    out[:, 3] = made.integers(1, 50, BATCH)
    out[:, 4] = out[:, 2] // 64 % 200
    return np.asfortranarray(out)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.zpcap"
    file = CaptureFile(path)
    writer = CaptureWriter(
        file, environment(BEGIN_NS), now_ns=BEGIN_NS, wall_ns=lambda at: at + WALL_NS
    )
    for number in range(BATCHES):
        writer.records(states(number), BEGIN_NS + (number + 1) * BATCH * 1000)
    writer.end("test", BEGIN_NS + BATCHES * BATCH * 1000)
    file.close()
    return path


@pytest.mark.parametrize("way", ["steps", "replay", "batches", "summary"])
def test_memory_stays_within_a_bound(path: Path, way: str) -> None:
    """Whatever is done with it; all of its records take four times as much."""
    assert BATCH * BATCHES * RECORD_BYTES > 4 * MEMORY_BYTES
    ways = {"steps": steps, "replay": replay, "batches": batches, "summary": summary}
    tracemalloc.start()
    count = ways[way](path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == BATCH * BATCHES
    assert peak_bytes < MEMORY_BYTES


def steps(path: Path) -> int:
    with CaptureReader(path) as reader:
        return sum(len(step.words) for step in reader.steps() if isinstance(step, Records))


def replay(path: Path) -> int:
    with CaptureReader(path) as reader:
        player = Player(reader)
        player.advance(reader.index.last_ns)
        (pool,) = player.snapshot().pools
        assert pool.zspages == ZSPAGES
        return reader.index.records


def batches(path: Path) -> int:
    with open_capture(path) as capture:
        return sum(len(batch["state"]["inuse"]) for batch in capture.batches())


def summary(path: Path) -> int:
    with CaptureReader(path) as reader:
        records = summary_of(reader, check=True).records
        assert records is not None
        return records["state"]
