"""Writes captures: steps in, blocks out, each file readable by itself.

What was told goes into a block until that is full or old; a block is written at once and whole,
so whatever ends the process costs the last block and nothing before it.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from zpobs import wire
from zpobs.capture.blocks import BlockEncoder, BlockType
from zpobs.capture.keys import told_key
from zpobs.capture.layout import BY_CODE
from zpobs.capture.records import RECORDS_MAX, encoded
from zpobs.capture.steps import Changes, ReadingCoder, told_coverage
from zpobs.capture.tally import Tally
from zpobs.model.inputs import CountersReading, Coverage
from zpobs.model.state import ModelState
from zpobs.wire import Words

# How old what is told may get before it is written.
BLOCK_NS = 2_000_000_000
# How long a reading may wait that tells nothing but higher counts.
_READING_NS = 1_000_000_000
_LOSSES = ("ring_full", "unpaired", "missed_runs")
# JSON of steps that a block may have, besides its records.
_STEPS_BYTES_MAX = 4 << 20
# A key is worth its bytes when what it spares the reading of is so many times as long, ...
_KEY_SHARE = 8
_KEY_EVERY_BYTES = 1 << 20
# ... and some time has gone by. After a while a key may take as much as what it is of.
_KEY_EVERY_NS = 10_000_000_000
_KEY_AT_LAST_NS = 60_000_000_000


def _tells_more(before: CountersReading, reading: CountersReading) -> bool:
    """Tell whether a reading tells of losses or of other pools than the one before."""
    counts = ("untracked_pools", "missed_counting_runs", "missed_counts", *_LOSSES)
    return any(getattr(before, name) != getattr(reading, name) for name in counts) or [
        (pool.serial, pool.name, pool.created) for pool in before.pools
    ] != [(pool.serial, pool.name, pool.created) for pool in reading.pools]


class Sink(Protocol):
    """Where blocks go."""

    def write(self, block: bytes, last_ns: int, *, key: bool) -> None:
        """Take one block; ``key`` tells that a reader may begin with it."""


@dataclass(slots=True)
class Totals:
    """What was written of one file."""

    records: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    bytes: int = 0
    keys: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    tally: Tally = field(default_factory=Tally)

    def to_json(self) -> dict[str, Any]:
        """Return them as they stand in the last block."""
        return {
            "records": dict(self.records),
            "blocks": self.blocks,
            "bytes": self.bytes,
            "keys": self.keys,
            "lost": dict(self.lost),
            "operations": self.tally.operations,
            "pools": self.tally.pools,
        }


def _number(environment: Mapping[str, Any], now_ns: int) -> int:
    """Return a number for a capture, unlike that of any other."""
    told = json.dumps([environment, now_ns], sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little")


class CaptureWriter:
    """Writes one file: its environment first, then steps as they come.

    ``wall_ns`` turns monotonic into wall-clock time. ``key_every_ns`` has keys at that pace,
    whatever their size, and ``key_bytes`` whenever so much was written.
    """

    def __init__(
        self,
        sink: Sink,
        environment: Mapping[str, Any],
        *,
        now_ns: int,
        wall_ns: Callable[[int], int],
        key_every_ns: int | None = None,
        key_bytes: int | None = None,
    ) -> None:
        self._sink = sink
        self._environment = environment
        self._wall_ns = wall_ns
        self._encoder = BlockEncoder(_number(environment, now_ns))
        self._readings = ReadingCoder()
        self._asides = Changes()
        self._batches: list[Words] = []
        self._count = 0
        self._steps: list[list[Any]] = []
        self._steps_bytes = 0
        self._first_ns = now_ns
        self._last_ns = now_ns
        self._last_reading: CountersReading | None = None
        # The newest one, as long as it is not told.
        self._held: CountersReading | None = None
        self._told_reading_ns = now_ns
        self._lost: dict[str, int] = {}
        self._lost_ns = 0
        self._key_bytes = 0
        self._since_key_bytes = 0
        self._key_ns = now_ns
        self._key_every_ns = key_every_ns
        self._key_at_bytes = key_bytes
        self.totals = Totals(tally=Tally(environment.get("pool")))
        self._write(BlockType.ENVIRONMENT, environment, span_ns=(now_ns, now_ns))

    def follow(self, before: CaptureWriter) -> None:
        """Go on where another file of the same recording ends."""
        self._last_reading = before._last_reading
        self._lost, self._lost_ns = before._lost, before._lost_ns
        self.totals.tally.follow(before.totals.tally)
        if self._last_reading is not None:
            # What was counted until then is the other's.
            self.totals.tally.take(self._last_reading)

    # -- steps ------------------------------------------------------------------------

    def records(self, words: Words, mono_ns: int) -> None:
        """Take a batch that a model took, shape (N, RECORD_WORDS)."""
        room = RECORDS_MAX - self._count
        if len(words) > room and self._count:
            # Better whole in the next block: batches of a scan are taken whole.
            self.flush()
        for begin in range(0, len(words), RECORDS_MAX):
            part = words[begin : begin + RECORDS_MAX]
            self._batches.append(part)
            self._count += len(part)
            self._step(["records", mono_ns, len(part)], mono_ns)
            if self._count == RECORDS_MAX:
                self.flush()

    def counters(self, reading: CountersReading) -> None:
        """Take a reading that a model took.

        One that tells nothing but higher counts is told with what is told next that needs it, or
        after a while: sessions read several times a second.
        """
        before, self._last_reading = self._last_reading, reading
        more = before is None or _tells_more(before, reading)
        if more:
            # What was counted last of a pool that is gone now.
            self._tell_reading()
        self._held = reading
        if more or reading.mono_ns - self._told_reading_ns >= _READING_NS:
            self._tell_reading()

    def _tell_reading(self) -> None:
        """Tell the newest reading, if it was not told, and what was lost since the one before."""
        reading, self._held = self._held, None
        if reading is None:
            return
        self._told_reading_ns = reading.mono_ns
        self.totals.tally.take(reading)
        self._step(["counters", reading.mono_ns, self._readings.told(reading)], reading.mono_ns)
        lost = {name: getattr(reading, name) for name in _LOSSES}
        grown = {name: count - self._lost.get(name, 0) for name, count in lost.items()}
        if any(grown.values()):
            self.totals.lost.update(grown)
            since_ns = self._lost_ns or reading.mono_ns
            self._step(["loss", reading.mono_ns, {"since_ns": since_ns, **grown}], reading.mono_ns)
        self._lost, self._lost_ns = lost, reading.mono_ns

    def scan_noted(self, begin_ns: int, mono_ns: int, missing: tuple[str, ...]) -> None:
        """Take the end of a round of scans."""
        self._tell_reading()
        told = {"begin_ns": begin_ns, "missing": list(missing)}
        self._step(["scan", mono_ns, told], mono_ns)

    def swept(self, mono_ns: int) -> None:
        """Take that the model looked which zspages scans had not found."""
        self._step(["swept", mono_ns, None], mono_ns)

    def covered(self, coverage: Coverage, mono_ns: int) -> None:
        """Take that other hooks are attached."""
        self.totals.tally.cover(coverage)
        self._step(["coverage", mono_ns, told_coverage(coverage)], mono_ns)

    def moment(self, time_ns: int, mono_ns: int, aside: Mapping[str, Any]) -> None:
        """Take what stands beside the model."""
        self._tell_reading()
        whole = {} if self._asides.began else {"whole": True}
        changed = self._asides.told(aside)
        self._step(["moment", mono_ns, {"time_ns": time_ns, "aside": changed, **whole}], mono_ns)

    def _step(self, step: list[Any], mono_ns: int) -> None:
        if not self._steps:
            self._first_ns = mono_ns
        self._steps.append(step)
        self._last_ns = max(self._last_ns, mono_ns)
        if step[0] != "records":
            self._steps_bytes += len(repr(step))
            if self._steps_bytes > _STEPS_BYTES_MAX:
                self.flush()

    # -- blocks -----------------------------------------------------------------------

    def tick(self, now_ns: int, state: Callable[[], ModelState]) -> None:
        """Write what is old, and a key if one is due; between two batches of a scan never."""
        if self._steps and now_ns - self._first_ns >= BLOCK_NS:
            self.flush()
        if self._key_due(now_ns):
            self.key(state(), now_ns)

    def _key_due(self, now_ns: int) -> bool:
        since_ns, since_bytes = now_ns - self._key_ns, self._since_key_bytes
        if self._key_at_bytes is not None and since_bytes >= self._key_at_bytes:
            return True
        if self._key_every_ns is not None:
            return since_ns >= self._key_every_ns
        if since_ns >= _KEY_AT_LAST_NS and since_bytes >= self._key_bytes:
            return True
        enough = max(_KEY_SHARE * self._key_bytes, _KEY_EVERY_BYTES)
        return since_bytes >= enough and since_ns >= _KEY_EVERY_NS

    def key(self, state: ModelState, now_ns: int) -> None:
        """Write a key: all that is known as of now."""
        self._tell_reading()
        self.flush()
        before = self.totals.bytes
        clock = {"time_ns": self._wall_ns(now_ns), "mono_ns": now_ns}
        for at, (told, columns) in enumerate(told_key(state)):
            # With the environment, so that a file whose beginning is lost can be read from here.
            beside = {"clock": clock, "environment": self._environment} if at == 0 else {}
            self._write(
                BlockType.KEY, {**told, **beside}, columns, span_ns=(now_ns, now_ns), key=at == 0
            )
        self._key_bytes = self.totals.bytes - before
        self._since_key_bytes = 0
        self._key_ns = now_ns
        self.totals.keys += 1
        self._readings.restart()
        self._asides = Changes()

    def flush(self) -> None:
        """Write what was told so far."""
        if not self._steps:
            return
        columns = []
        if self._batches:
            words = np.concatenate([each.T for each in self._batches], axis=1).T
            columns = encoded(words)
            kinds = np.bincount(wire.kinds(words))
            for code in np.flatnonzero(kinds).tolist():
                self.totals.records[BY_CODE[code].name] += int(kinds[code])
        told = {"steps": self._steps}
        count = self._count
        self._batches, self._steps, self._count, self._steps_bytes = [], [], 0, 0
        self._write(
            BlockType.DATA, told, columns, records=count, span_ns=(self._first_ns, self._last_ns)
        )

    def end(self, why: str, now_ns: int) -> None:
        """Write what is left, and that this is all."""
        self._tell_reading()
        self.flush()
        told = {"why": why, "totals": self.totals.to_json(), "mono_ns": now_ns}
        self._write(BlockType.END, told, span_ns=(now_ns, now_ns))

    def _write(
        self,
        type_: BlockType,
        told: Mapping[str, Any],
        columns: Any = (),
        *,
        records: int = 0,
        span_ns: tuple[int, int],
        key: bool = False,
    ) -> None:
        block = self._encoder.block(type_, told, columns, records=records, span_ns=span_ns)
        self._sink.write(block, span_ns[1], key=key)
        self.totals.blocks += 1
        self.totals.bytes += len(block)
        self._since_key_bytes += len(block)
