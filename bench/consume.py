"""From a BPF ring to the model, beside a Python callback for every record.

    python -m bench.consume [--zspages N] [--records N] [--rounds N] [--json]

A BPF program under BPF_PROG_TEST_RUN fills a real ring with records like those
of a busy pool. All rounds are consumed twice from that ring: by the ring consumer
and the shadow model, then by libbpf's ring_buffer__consume with a ctypes
callback that casts each record to a structure and updates a dict. Both must end
with the same zspages. Needs root, clang and libbpf; attaches nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.ring_producer import Producer, compile_producer, why_not
from zpobs import wire
from zpobs.model import Coverage, ShadowModel
from zpobs.snapshot import Kernel
from zpobs.sources.ring import RingConsumer
from zpobs.wire import Words

GOAL_RATIO = 10.0
GOAL_RECORDS_PER_S = 10e6
CLASSES = 250
# Of 1000 operations: births (each followed by its page frames), deaths; the
# others change a zspage's state. The share a guest showed under 40,000 random
# operations on zram: a birth and a death for about eleven states.
BIRTHS_PER_MILLE = 80
DEATHS_PER_MILLE = 80


class Workload:
    """Records of a pool with about ``zspages`` live zspages, in order of time."""

    def __init__(self, zspages: int, seed: int) -> None:
        self._random = random.Random(seed)
        slabs = self._random.sample(range(1 << 18), -(-2 * zspages // 73))
        self._free = [
            0xFFFF_8881_0000_0000 + slab * 4096 + slot * 56 for slab in slabs for slot in range(73)
        ]
        self._live: list[int] = []
        self._now_ns = 10**9
        self._records: list[tuple[int, ...]] = []
        for _ in range(zspages):
            self._birth()

    def take(self, count: int) -> Words:
        """Return the next ``count`` records, shape (count, RECORD_WORDS)."""
        while len(self._records) < count:
            roll = self._random.randrange(1000)
            if roll < BIRTHS_PER_MILLE:
                self._birth()
            elif roll < BIRTHS_PER_MILLE + DEATHS_PER_MILLE:
                self._death()
            else:
                address = self._live[self._random.randrange(len(self._live))]
                self._state(address, self._random.randint(1, 60), flags=0, pages=0)
        out = np.array(self._records[:count], dtype=np.uint64)
        del self._records[:count]
        return out

    @property
    def pending(self) -> int:
        """Records made and not taken: at first, the births of all zspages."""
        return len(self._records)

    def _state(self, address: int, inuse: int, *, flags: int, pages: int) -> None:
        self._now_ns += 300
        head = wire.head(wire.KIND_STATE, flags=flags, a=1 + inuse // 6, b=pages, serial=1)
        self._records.append((head, self._now_ns, address, inuse, address // 56 % CLASSES, 0, 0))

    def _birth(self) -> None:
        address = self._free.pop()
        self._live.append(address)
        pages = 1 + address // 56 % 4
        self._state(address, 1, flags=wire.FLAG_NEWBORN, pages=pages)
        head = wire.head(wire.KIND_FRAMES, b=pages, serial=1)
        frames = [address // 4096 + at if at < pages else 0 for at in range(4)]
        self._records.append((head, self._now_ns, address, *frames))

    def _death(self) -> None:
        at = self._random.randrange(len(self._live))
        self._live[at], self._live[-1] = self._live[-1], self._live[at]
        address = self._live.pop()
        self._free.append(address)
        self._state(address, 0, flags=0, pages=0)
        self._now_ns += 100
        head = wire.head(wire.KIND_DEATH, serial=1)
        self._records.append((head, self._now_ns, address, 0, address // 56 % CLASSES, 0, 0))


class Observation(ctypes.Structure):
    """One record as a per-event consumer declares it."""

    _fields_ = (
        ("kind", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("a", ctypes.c_uint8),
        ("b", ctypes.c_uint8),
        ("serial", ctypes.c_uint32),
        ("time_ns", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("words", ctypes.c_uint64 * 4),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class CallbackConsumer:
    """Calls a Python function for each record and keeps dicts of states and frames."""

    def __init__(self, map_fd: int) -> None:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        library.ring_buffer__new.restype = ctypes.c_void_p
        library.ring_buffer__new.argtypes = (
            ctypes.c_int,
            _CALLBACK,
            ctypes.c_void_p,
            ctypes.c_void_p,
        )
        library.ring_buffer__consume.argtypes = (ctypes.c_void_p,)
        library.ring_buffer__free.argtypes = (ctypes.c_void_p,)
        library.ring_buffer__free.restype = None
        self._library = library
        self.zspages: dict[int, tuple[int, ...]] = {}
        self.frames: dict[int, tuple[int, ...]] = {}
        self._callback = _CALLBACK(self._take)
        self._ring = library.ring_buffer__new(map_fd, self._callback, None, None)
        if not self._ring:
            raise OSError(ctypes.get_errno(), "ring_buffer__new failed")

    def _take(self, _context: int, data: int, _size: int) -> int:
        event = ctypes.cast(data, ctypes.POINTER(Observation)).contents
        kind = event.kind
        if kind == wire.KIND_STATE:
            words = event.words
            self.zspages[event.address] = (event.serial, words[1], words[0], event.a, event.time_ns)
        elif kind == wire.KIND_FRAMES:
            self.frames[event.address] = tuple(event.words)
        elif kind == wire.KIND_DEATH:
            self.zspages.pop(event.address, None)
            self.frames.pop(event.address, None)
        return 0

    def consume(self) -> int:
        """Take everything that is in the ring; return the number of records."""
        return int(self._library.ring_buffer__consume(self._ring))

    def close(self) -> None:
        """Unmap the ring."""
        self._library.ring_buffer__free(self._ring)


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return how many seconds a call took, and its result."""
    begin_s = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - begin_s, result


def emit(producer: Producer, begin: int, count: int) -> None:
    """Play records into the empty ring; every one must find room."""
    emitted, refused = producer.emit(begin, count)
    if (emitted, refused) != (count, 0):
        raise RuntimeError(f"the ring took {emitted} of {count} records")


def measure_model(
    producer: Producer, batches: list[int], model: ShadowModel
) -> dict[str, list[float]]:
    """Consume every batch by ring consumer and model; return ns per record by stage and round."""
    ns: dict[str, list[float]] = {name: [] for name in ("emit", "read", "apply")}
    begin = 0
    with RingConsumer(producer.ring_fd, producer.ring_bytes) as consumer:
        for count in batches:
            emit_s = timed(emit, producer, begin, count)[0]
            read_s = apply_s = 0.0
            left = count
            # A read ends where the ring does.
            while left:
                taken_s, words = timed(consumer.read, left)
                if words is None:
                    raise RuntimeError(f"{left} of {count} records are missing")
                left -= len(words)
                read_s += taken_s
                apply_s += timed(model.apply, words)[0]
            for name, taken_s in zip(ns, (emit_s, read_s, apply_s), strict=True):
                ns[name].append(taken_s / count * 1e9)
            begin += count
    return ns


def measure_callback(
    producer: Producer, batches: list[int], callback: CallbackConsumer
) -> list[float]:
    """Consume every batch by callbacks; return ns per record by round."""
    ns = []
    begin = 0
    for count in batches:
        emit(producer, begin, count)
        taken_s, consumed = timed(callback.consume)
        if consumed != count:
            raise RuntimeError(f"called back for {consumed} of {count} records")
        ns.append(taken_s / count * 1e9)
        begin += count
    return ns


def measure(producer: Producer, batches: list[int], model: ShadowModel) -> dict[str, list[float]]:
    """Consume every batch in both ways; return ns per record, by stage and round."""
    ns = measure_model(producer, batches, model)
    callback = CallbackConsumer(producer.ring_fd)
    ns["callback"] = measure_callback(producer, batches, callback)
    check_equal(model, callback)
    callback.close()
    return ns


def check_equal(model: ShadowModel, callback: CallbackConsumer) -> None:
    """Raise RuntimeError unless both kept the same zspages."""
    (pool,) = model.snapshot(time_ns=0, mono_ns=0, zspages=True).pools
    table = pool.zspage_list
    if table is None:
        raise RuntimeError("the snapshot lists no zspages")
    kept = dict(zip(table.address.tolist(), table.inuse.tolist(), strict=True))
    if kept != {address: state[2] for address, state in callback.zspages.items()}:
        raise RuntimeError("the two consumers do not agree")


def report(ns: dict[str, list[float]], records: int, model: ShadowModel) -> dict[str, Any]:
    """Return the figures: medians over the rounds after the first."""
    median = {name: statistics.median(values[1:]) for name, values in ns.items()}
    fast = median["read"] + median["apply"]
    (pool,) = model.snapshot(time_ns=0, mono_ns=0).pools
    return {
        "records_per_round": records,
        "rounds": len(ns["read"]) - 1,
        "zspages": pool.zspages,
        "producer_records_per_s": 1e9 / median["emit"],
        "read_ns_per_record": median["read"],
        "apply_ns_per_record": median["apply"],
        "ring_to_model_records_per_s": 1e9 / fast,
        "callback_records_per_s": 1e9 / median["callback"],
        "ratio": median["callback"] / fast,
        "goal_ratio": GOAL_RATIO,
        "goal_records_per_s": GOAL_RECORDS_PER_S,
        "births_ns_per_record": ns["read"][0] + ns["apply"][0],
        "model_bytes_per_zspage": model.nbytes / pool.zspages,
    }


def print_report(figures: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(
        f"{figures['rounds']} rounds of {figures['records_per_round']:,} records, "
        f"{figures['zspages']:,} zspages"
    )
    print(f"  producer         {figures['producer_records_per_s'] / 1e6:8.2f} M records/s")
    print(
        f"  ring to model    {figures['ring_to_model_records_per_s'] / 1e6:8.2f} M records/s"
        f"   read {figures['read_ns_per_record']:.0f} ns + "
        f"apply {figures['apply_ns_per_record']:.0f} ns a record"
    )
    print(f"  callback, dict   {figures['callback_records_per_s'] / 1e6:8.2f} M records/s")
    print(f"  ratio            {figures['ratio']:8.1f}   (budget: at least {GOAL_RATIO:.0f})")
    print(f"  first round, births only: {figures['births_ns_per_record']:.0f} ns a record")
    print(f"  model memory: {figures['model_bytes_per_zspage']:.0f} bytes a zspage with frames")


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.consume", description=__doc__)
    parser.add_argument("--zspages", type=int, default=100_000)
    parser.add_argument("--records", type=int, default=200_000, help="records of one round")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lacking = why_not()
    if lacking:
        print(f"bench.consume: {lacking}", file=sys.stderr)
        return 3
    workload = Workload(options.zspages, seed=1)
    batches = [workload.pending] + [options.records] * options.rounds
    ring_bytes = 1 << (64 * max(batches)).bit_length()
    kernel = Kernel("bench", 4096, 8, "zpdesc", 12)
    model = ShadowModel(kernel, Coverage(hooks=0))
    with tempfile.TemporaryDirectory() as folder:
        program = compile_producer(Path(folder))
        lines = sum(batches)
        with Producer(program, ring_bytes=ring_bytes, script_lines=lines) as producer:
            producer.write(workload.take(lines))
            figures = report(measure(producer, batches, model), options.records, model)
    if options.json:
        print(json.dumps(figures))
    else:
        print_report(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
