"""Captures for tests: of the true allocator at work, written as a recorder writes them."""

from __future__ import annotations

import random
from pathlib import Path

from tests.delivery import as_words
from tests.true_allocator import Allocator, Machine
from zpobs.capture.blocks import FORMAT_VERSION
from zpobs.capture.files import CaptureFile
from zpobs.capture.writer import CaptureWriter
from zpobs.model.inputs import Coverage
from zpobs.wire import WIRE_VERSION

# Wall-clock less monotonic time: it begins at 03:04:06 UTC, a second of monotonic time later.
OFFSET_NS = 1_767_323_045_000_000_000
FIRST_NS = 1_000_000_000
_TICK_NS = 500_000_000
_SIZES = (2000, 2440, 3100, 3400, 4096, 500, 264)
_OPERATIONS = 40


def written_capture(path: Path, seconds: int = 20, *, pool: str | None = None) -> Path:
    """Write a capture of one pool, zram0, that grows, shrinks and is compacted; return its path.

    ``pool`` is the only one that it says to be of.
    """
    machine = Machine(seed=7)
    file = CaptureFile(path)
    writer = CaptureWriter(
        file,
        _environment(pool),
        now_ns=FIRST_NS,
        wall_ns=lambda mono_ns: mono_ns + OFFSET_NS,
    )
    writer.covered(Coverage(hooks=12), FIRST_NS)
    chance, held = random.Random(7), []
    allocator = Allocator(machine)
    end_ns = FIRST_NS + seconds * 1_000_000_000
    for tick_ns in range(FIRST_NS + _TICK_NS, end_ns + 1, _TICK_NS):
        for at in range(_OPERATIONS):
            # Spread over the time until now.
            machine.now_ns = max(
                machine.now_ns, tick_ns - _TICK_NS + at * _TICK_NS // (2 * _OPERATIONS)
            )
            if held and chance.random() < 0.4:
                allocator.free(held.pop(chance.randrange(len(held))))
            else:
                held.append(allocator.malloc(chance.choice(_SIZES)))
        if tick_ns % (8 * _TICK_NS) == 0:
            allocator.compact()
        machine.now_ns = tick_ns - 1000
        writer.records(as_words(machine.records), tick_ns - 500)
        machine.records.clear()
        writer.counters(machine.reading())
        writer.flush()
    writer.end("test", end_ns)
    return path


def _environment(pool: str | None) -> dict[str, object]:
    return {
        "format": FORMAT_VERSION,
        "wire_version": WIRE_VERSION,
        "clock": {"time_ns": FIRST_NS + OFFSET_NS, "mono_ns": FIRST_NS},
        "kernel": {
            "release": "7.3.0-test",
            "page_size": 4096,
            "chain_size": 8,
            "descriptor": "zpdesc",
            "fullness_groups": 12,
            "zspage_bytes": 56,
        },
        "pool": pool,
        "objects": None,
        "nodes": None,
    }
