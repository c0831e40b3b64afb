"""What a capture holds: spans, counts, rates, loss; of its headers alone where that is enough."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zpobs import wire
from zpobs.capture.layout import BY_CODE
from zpobs.capture.reader import CaptureReader
from zpobs.capture.steps import Counters, Covered, Gap, Loss, Records
from zpobs.capture.tally import Tally


@dataclass(slots=True)
class Summary:
    """One capture. Times are monotonic, ``offset_ns`` makes wall-clock times of them.

    ``records`` are by kind, None where nothing was read that tells them; ``peak_per_s`` is the
    rate of the busiest block. ``lost`` is what the recorder could not get, by stage;
    ``damage`` what of the file cannot be read. ``operations`` are the kernel's own counts within
    the span, None where no probe counted. ``ended`` says why it ended, "" if nothing says so.
    """

    path: str
    environment: Mapping[str, Any]
    bytes: int
    blocks: int
    first_ns: int
    last_ns: int
    offset_ns: int
    record_count: int
    keys: int
    peak_per_s: float
    ended: str = ""
    records: dict[str, int] | None = None
    lost: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    operations: dict[str, int] | None = None
    pools: list[str] = field(default_factory=list)
    checked: bool = False

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.last_ns - self.first_ns) / 1e9

    @property
    def whole(self) -> bool:
        """Whether nothing of it is damaged, and it ends as a capture does."""
        return bool(self.ended) and not self.damage

    def to_json(self) -> dict[str, Any]:
        """Return the ``--json`` object."""
        environment = {
            name: value
            for name, value in self.environment.items()
            if name not in ("records", "columns", "nodes", "triggers", "units")
        }
        return {
            "schema": 1,
            "file": self.path,
            "bytes": self.bytes,
            "blocks": self.blocks,
            "begin_ns": self.first_ns + self.offset_ns,
            "end_ns": self.last_ns + self.offset_ns,
            "begin_mono_ns": self.first_ns,
            "end_mono_ns": self.last_ns,
            "seconds": self.seconds,
            "record_count": self.record_count,
            "records": self.records,
            "records_per_s": self.record_count / self.seconds if self.seconds else None,
            "peak_records_per_s": self.peak_per_s,
            "bytes_per_record": self.bytes / self.record_count if self.record_count else None,
            "operations": self.operations,
            "keys": self.keys,
            "ended": self.ended or None,
            "lost": self.lost,
            "damage": self.damage,
            "checked": self.checked,
            "pools": self.pools,
            "environment": environment,
        }


def summary_of(
    reader: CaptureReader,
    *,
    check: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Summary:
    """Return what a capture holds.

    Every block is read if ``check`` asks for it or if the file does not end with its totals;
    ``progress`` is told bytes that were read and bytes that there are.
    """
    index = reader.index
    out = Summary(
        path=str(reader.path),
        environment=reader.environment,
        bytes=index.bytes,
        blocks=index.blocks,
        first_ns=index.first_ns,
        last_ns=index.last_ns,
        offset_ns=reader.offset_ns,
        record_count=index.records,
        keys=len(index.keys),
        peak_per_s=max(index.peak_per_s, _rate(index.records, index.last_ns - index.first_ns)),
        damage=[f"{each.what}: {each.end - each.begin:,} bytes" for each in index.damage],
    )
    ended = reader.ended()
    if ended is not None:
        out.ended = ended.why
        if ended.totals:
            out.records = dict(ended.totals.get("records", {}))
            out.lost = dict(ended.totals.get("lost", {}))
            out.pools = [str(each) for each in ended.totals.get("pools", [])]
            out.operations = ended.totals.get("operations")
    if check or out.records is None:
        _read(reader, out, progress)
    return out


def _rate(records: int, span_ns: int) -> float:
    return records * 1e9 / span_ns if span_ns else 0.0


def _read(reader: CaptureReader, out: Summary, progress: Callable[[int, int], None]) -> None:
    counts = np.zeros(256, dtype=np.int64)
    lost: Counter[str] = Counter()
    damage: list[str] = []
    tally = Tally(reader.environment.get("pool"))
    for step in reader.steps(told=lambda at: progress(at, out.bytes)):
        match step:
            case Records(words=words):
                counts += np.bincount(wire.kinds(words), minlength=256)
            case Loss():
                lost.update(
                    ring_full=step.ring_full, unpaired=step.unpaired, missed_runs=step.missed_runs
                )
            case Gap():
                blocks = "" if step.blocks is None else f", {step.blocks} blocks"
                damage.append(f"{step.what}: {step.bytes:,} bytes{blocks}")
            case Counters(reading=reading):
                tally.take(reading)
            case Covered(coverage=coverage):
                tally.cover(coverage)
            case _:
                pass
    out.records = {
        BY_CODE[code].name: int(counts[code]) for code in np.flatnonzero(counts).tolist()
    }
    out.lost = dict(lost)
    out.damage = damage
    out.pools = tally.pools
    out.operations = tally.operations
    out.checked = True
