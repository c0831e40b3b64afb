"""Captures: how fast they are written and replayed, and how small they are.

    python -m bench.capture [--zspages N] [--records N] [--sustain SECONDS] [--json]

Records like those of a busy pool go from a real BPF ring through the recorder into a file, and
from there through the player into a model. Beside it, in the same run: the same records written
as they are, and compressed with zstd as they are; and a model fed from the ring without a recorder.
Then a thread fills the ring at a million records a second for ``--sustain`` seconds while the
recorder empties it. Needs root, clang and libbpf; attaches nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from bench.consume import Workload, emit, timed
from tests.ring_producer import Producer, compile_producer, why_not
from zpobs.capture.blocks import FORMAT_VERSION
from zpobs.capture.reader import CaptureReader
from zpobs.capture.recorder import Limits, Recorder
from zpobs.capture.replay import Player
from zpobs.capture.steps import Records
from zpobs.capture.tap import TappedModel
from zpobs.model import Coverage, ShadowModel
from zpobs.snapshot import Kernel
from zpobs.sources.ring import RingConsumer
from zpobs.wire import RECORD_BYTES, WIRE_VERSION, Words

RECORD_PER_S = 2e6
REPLAY_PER_S = 5e6
BYTES_PER_EVENT = 8.0
SUSTAINED_PER_S = 1_000_000
_KERNEL = Kernel("bench", 4096, 8, "zpdesc", 12)
# Records that a kernel makes of one operation, on average: births and deaths tell more than one.
_PORTION = 10_000


def environment() -> dict[str, Any]:
    """Return the least that a capture must tell."""
    kernel = {name: getattr(_KERNEL, name) for name in _KERNEL.__slots__}
    clock = {"time_ns": time.time_ns(), "mono_ns": time.monotonic_ns()}
    return {
        "format": FORMAT_VERSION,
        "wire_version": WIRE_VERSION,
        "clock": clock,
        "kernel": kernel,
        "objects": None,
        "pool": None,
        "nodes": None,
    }


@dataclass(slots=True)
class Recording:
    """A recorder on a file of its own, and the model that it taps."""

    recorder: Recorder
    model: TappedModel

    @classmethod
    def begun(cls, file: Path) -> Recording:
        """Return one of which the first block is written."""
        recorder = Recorder(file, Limits())
        model = TappedModel(_KERNEL, Coverage(hooks=1), told=recorder)
        recorder.begin(environment())
        return cls(recorder, model)

    def state(self) -> Any:
        """Return all that the model knows."""
        return self.model.state()


def drained(consumer: RingConsumer, model: ShadowModel) -> int:
    """Feed a model what is in the ring; return how many records."""
    count = 0
    for words in consumer.batches():
        model.apply(words)
        count += len(words)
    return count


def measure(producer: Producer, folder: Path, batches: list[int]) -> dict[str, Any]:
    """Record and replay all batches; return figures."""
    file = folder / "bench.zpcap"
    plain = ShadowModel(_KERNEL, Coverage(hooks=1))
    recording = Recording.begun(file)
    model_s = record_s = 0.0
    with RingConsumer(producer.ring_fd, producer.ring_bytes) as consumer:
        begin = 0
        for number, count in enumerate(batches):
            emit(producer, begin, count)
            taken_s = timed(drained, consumer, plain)[0]
            emit(producer, begin, count)

            def recorded() -> None:
                drained(consumer, recording.model)
                recording.recorder.tick(recording)

            told_s = timed(recorded)[0]
            if number:
                model_s += taken_s
                record_s += told_s
            begin += count
    record_s += timed(recording.recorder.end, "bench")[0]
    records = sum(batches)
    with CaptureReader(file) as reader:
        read_s, _ = timed(lambda: [step for step in reader.steps() if isinstance(step, Records)])
        player = Player(reader)
        play_s, _ = timed(player.advance, reader.index.last_ns)
        stored = reader.index.bytes
    check_equal(plain, player.model)
    counted = sum(batches[1:])
    return {
        "records": records,
        "model_records_per_s": counted / model_s,
        "record_records_per_s": counted / record_s,
        "read_records_per_s": records / read_s,
        "replay_records_per_s": records / play_s,
        "bytes_per_record": stored / records,
    }


def check_equal(one: ShadowModel, other: ShadowModel) -> None:
    """Raise RuntimeError unless both know the same zspages."""
    tables = [
        model.snapshot(time_ns=0, mono_ns=0, zspages=True).pools[0].zspage_list
        for model in (one, other)
    ]
    if tables[0] is None or tables[1] is None:
        raise RuntimeError("a snapshot lists no zspages")
    for name in ("address", "inuse", "fullness", "class_index", "frames"):
        if not np.array_equal(getattr(tables[0], name), getattr(tables[1], name)):
            raise RuntimeError(f"the replayed model differs: {name}")


def beside(words: Words, folder: Path) -> dict[str, Any]:
    """Write the same records as they are, and compressed as they are."""
    raw = np.ascontiguousarray(words)
    write_s, _ = timed((folder / "raw").write_bytes, raw.tobytes())
    zstd_s, packed = timed(zstandard.ZstdCompressor(level=3).compress, raw.tobytes())
    return {
        "raw_bytes_per_record": float(RECORD_BYTES),
        "raw_records_per_s": len(words) / write_s,
        "zstd_bytes_per_record": len(packed) / len(words),
        "zstd_records_per_s": len(words) / zstd_s,
    }


def sustain(producer: Producer, folder: Path, lines: int, seconds: float) -> dict[str, Any]:
    """Have a thread fill the ring at a steady rate while a recorder empties it."""
    counts = {"emitted": 0, "refused": 0}
    over = threading.Event()

    def produce() -> None:
        begin_s = time.monotonic()
        at = 0
        while (gone_s := time.monotonic() - begin_s) < seconds:
            due = int(gone_s * SUSTAINED_PER_S) - counts["emitted"] - counts["refused"]
            if due < _PORTION:
                time.sleep(_PORTION / SUSTAINED_PER_S / 4)
                continue
            count = min(due, lines - at, 4 * _PORTION)
            taken, refused = producer.emit(at, count)
            counts["emitted"] += taken
            counts["refused"] += refused
            at = (at + count) % lines
        over.set()

    recording = Recording.begun(folder / "sustained.zpcap")
    worker = threading.Thread(target=produce)
    begin_cpu_s = time.process_time()
    with RingConsumer(producer.ring_fd, producer.ring_bytes) as consumer:
        worker.start()
        while not over.is_set():
            if not drained(consumer, recording.model):
                time.sleep(0.01)
            recording.recorder.tick(recording)
        worker.join()
        drained(consumer, recording.model)
    recording.recorder.end("bench")
    return {
        "sustained_s": seconds,
        "sustained_emitted": counts["emitted"],
        "sustained_lost": counts["refused"],
        "sustained_recorded": recording.recorder.record_count,
        "sustained_bytes": recording.recorder.bytes,
        "sustained_cpu_s": time.process_time() - begin_cpu_s,
    }


def print_report(found: dict[str, Any]) -> None:
    """Print the figures for people."""
    mega = 1e6
    print(f"{found['records']:,} records, {found['zspages']:,} zspages")
    for name, what, budget in (
        ("model", "ring to model, no recorder", None),
        ("record", "ring to model and file", RECORD_PER_S),
        ("raw", "the same records, as they are", None),
        ("zstd", "the same records, zstd alone", None),
        ("read", "file to records", None),
        ("replay", "file to model", REPLAY_PER_S),
    ):
        rate = found[f"{name}_records_per_s"] / mega
        goal = "" if budget is None else f"   (budget: at least {budget / mega:.0f})"
        print(f"  {what:<32}{rate:8.2f} M records/s{goal}")
    print(
        f"  bytes a record: {found['bytes_per_record']:.2f}, with zstd alone "
        f"{found['zstd_bytes_per_record']:.2f}, as they are {found['raw_bytes_per_record']:.0f}"
    )
    if "sustained_s" in found:
        print(
            f"  {found['sustained_s']:.0f} s at {SUSTAINED_PER_S / mega:.0f} M records/s: "
            f"{found['sustained_emitted']:,} told, {found['sustained_lost']:,} lost, "
            f"{found['sustained_recorded']:,} recorded, {found['sustained_cpu_s']:.1f} s of CPU"
        )


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.capture", description=__doc__)
    parser.add_argument("--zspages", type=int, default=20_000)
    parser.add_argument("--records", type=int, default=200_000, help="records of one round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sustain", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lacking = why_not()
    if lacking:
        print(f"bench.capture: {lacking}", file=sys.stderr)
        return 3
    workload = Workload(options.zspages, seed=1)
    batches = [workload.pending] + [options.records] * options.rounds
    lines = sum(batches)
    words = workload.take(lines)
    ring_bytes = 1 << (64 * max(batches)).bit_length()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = compile_producer(folder)
        with Producer(program, ring_bytes=ring_bytes, script_lines=lines) as producer:
            producer.write(words)
            found = measure(producer, folder, batches)
            found |= beside(words, folder) | {"zspages": options.zspages}
            if options.sustain:
                found |= sustain(producer, folder, lines, options.sustain)
    if options.json:
        print(json.dumps(found))
    else:
        print_report(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
