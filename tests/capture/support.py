"""Captures for tests: made by the writer, of a true allocator's records and of everything else."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.delivery import as_words
from tests.factories import make_addon, make_latency
from tests.model.observer import Observer
from tests.model.support import FULL_COVERAGE, KERNEL
from tests.true_allocator import Allocator, Record
from zpobs import wire
from zpobs.capture.environment import CLASS_COLUMNS
from zpobs.capture.layout import KINDS, TRIGGERS, Kind, schema
from zpobs.capture.moments import Aside, ObjectsTold
from zpobs.capture.reader import CaptureReader
from zpobs.capture.steps import Counters, Gap, Key, Records, Step
from zpobs.capture.writer import CaptureWriter
from zpobs.footing import Footing, Owned, Program, ZramFigures, ZswapFigures
from zpobs.model import Coverage, ShadowModel
from zpobs.model.inputs import CountersReading
from zpobs.model.objects import ObjectLedger
from zpobs.model.state import ModelState
from zpobs.objects import Sampling
from zpobs.snapshot import OwnerFigures
from zpobs.wire import Words

OFFSET_NS = 1_700_000_000_000_000_000
COMMAND = b"postgres-writer"
CGROUP, CGROUP_PATH = 987_654_321, "/user.slice/secret.scope"
HOST = "very-own-host"
OBJECT_LOSSES = ("3 objects without a task",)
HANDLES_AT = 0xFFFF_8883_0000_0000
# PFN_SHIFT of objects' values with pages of 4 KiB.
VALUE_SHIFT = 24


def environment(**changed: Any) -> dict[str, Any]:
    """Return an environment as ``zpobs record`` tells it, of an invented machine."""
    return {
        "format": 1,
        "wire_version": wire.WIRE_VERSION,
        "zpobs": "test",
        "clock": {"time_ns": OFFSET_NS + 10**9, "mono_ns": 10**9},
        "host": {"name": HOST, "machine": "x86_64", "cpus": 2, "memory_bytes": 1 << 30},
        "kernel": {
            "release": KERNEL.release,
            "page_size": KERNEL.page_size,
            "chain_size": KERNEL.chain_size,
            "descriptor": KERNEL.descriptor,
            "fullness_groups": KERNEL.fullness_groups,
            "zspage_bytes": KERNEL.zspage_bytes,
        },
        "size_classes": 255,
        "class_columns": list(CLASS_COLUMNS),
        "class_table": [[30, 512, 8, 1], [254, 4096, 1, 1]],
        "attach": {"form": "fentry", "hooks": ["zs_malloc"], "missing_hooks": []},
        "scans": True,
        "pool": None,
        "objects": {"rate": 1, "multiplier": 1, "timed": True},
        "latency": True,
        "nodes": {"block_frames": 32768, "blocks": [0, 1], "nodes": [0, 1]},
        "anonymous": False,
        "records": schema(),
        "triggers": TRIGGERS,
        "units": {"time_ns": "monotonic ns"},
    } | changed


@dataclass
class Memory:
    """A sink that keeps blocks."""

    blocks: list[bytes] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)

    def write(self, block: bytes, last_ns: int, *, key: bool) -> None:  # noqa: ARG002
        if key:
            self.keys.append(len(self.blocks))
        self.blocks.append(block)

    @property
    def whole(self) -> bytes:
        return b"".join(self.blocks)


def make_writer(sink: Memory, told: Mapping[str, Any] | None = None, **more: Any) -> CaptureWriter:
    return CaptureWriter(
        sink,
        environment() if told is None else told,
        now_ns=10**9,
        wall_ns=lambda mono_ns: mono_ns + OFFSET_NS,
        **more,
    )


class ToldModel(ShadowModel):
    """A model that tells a writer all that it takes, at moments that the test says."""

    def __init__(
        self, writer: CaptureWriter, coverage: Coverage, now_ns: Callable[[], int]
    ) -> None:
        super().__init__(KERNEL, coverage)
        self._writer, self._now_ns = writer, now_ns
        self.hidden: Any = None
        writer.covered(coverage, now_ns())

    def apply(self, words: Words) -> None:
        if len(words):
            self._writer.records(self.hidden.words(words) if self.hidden else words, self._now_ns())
        super().apply(words)

    def apply_counters(self, reading: CountersReading) -> None:
        self._writer.counters(self.hidden.reading(reading) if self.hidden else reading)
        super().apply_counters(reading)

    def note_scan(self, begin_mono_ns: int, end_mono_ns: int, missing: tuple[str, ...]) -> None:
        told = self.hidden.sentences(missing) if self.hidden else missing
        self._writer.scan_noted(begin_mono_ns, end_mono_ns, told)
        super().note_scan(begin_mono_ns, end_mono_ns, missing)

    def sweep(self) -> None:
        if self.sweep_due:
            self._writer.swept(self._now_ns())
        super().sweep()

    def cover(self, coverage: Coverage) -> None:
        self._writer.covered(coverage, self._now_ns())
        super().cover(coverage)


def object_records(pool: Allocator, chance: random.Random, now_ns: int) -> list[Record]:
    """Return what probes would tell of an object in each zspage of a pool; some end."""
    out: list[Record] = []
    for zspage in pool.zspages:
        handle = HANDLES_AT + 8 * chance.randrange(1 << 20)
        index = zspage.size_class.index
        place = index | chance.randrange(4) << 32 | 1 << 48
        value = zspage.frames[0] << VALUE_SHIFT | 2 << 1

        def tell(kind: int, *words: int, flags: int = 0, at: int = handle) -> None:
            head = wire.head(kind, flags=flags, serial=pool.serial)
            out.append((head, now_ns + len(out), at, *(*words, 0, 0, 0, 0)[:4]))

        tell(wire.KIND_OBJECT_STORED, zspage.address, place, value)
        command = COMMAND.ljust(16, b"\0")
        words = (int.from_bytes(command[:8], "little"), int.from_bytes(command[8:], "little"))
        tell(wire.KIND_OBJECT_OWNER, 100 + index | 900 << 32, CGROUP, *words)
        tell(wire.KIND_OBJECT_SLOT, chance.randrange(1 << 20), flags=wire.FLAG_SWAP)
        if chance.random() < 0.3:
            tell(wire.KIND_OBJECT_FREED, 0, place)
    return out


def compact_class_record(pool: Allocator, now_ns: int) -> Record:
    """Return what a probe tells of one class of a compaction; the allocator tells of whole ones."""
    head = wire.head(wire.KIND_COMPACT_CLASS, a=wire.TRIGGER_CALL, serial=pool.serial)
    return (head, now_ns, pool.address, 30, 7 | 2 << 32, now_ns - 50, now_ns - 90)


def make_aside(names: Mapping[int, str]) -> Aside:
    """Return what stands beside pools of these names by id, with everything that there can be."""
    return Aside(
        addons=(make_addon(), replace(make_addon(), name="objects", reasons=("ring was full",))),
        footing=Footing(
            hooks={"zs_malloc": True, "zs_free": False},
            form="fentry",
            lost={"ring": 3, "unpaired": 0},
            untracked_pools=1,
            scan_ns=12345,
            last_scan_ns=345,
            programs=(Program("zs_malloc/entry", 2, None, 17), Program("zs_free/exit", 0, 1, 2)),
        ),
        owned=Owned(
            {name: ZramFigures({"orig_data_size": 4096}, 7) for name in names.values()},
            ZswapFigures(1, None, 3),
        ),
        owners={str(id_): OwnerFigures(1000, None, True) for id_ in names},
        latency={str(id_): make_latency() for id_ in names},
        cgroups={str(CGROUP): CGROUP_PATH},
        objects=ObjectsTold(5, "", (("zram", "no slots"),), OBJECT_LOSSES),
    )


@dataclass
class Made:
    """A capture in memory, and the model that it tells of."""

    memory: Memory
    model: ShadowModel
    observer: Observer

    @property
    def data(self) -> bytes:
        return self.memory.whole


def make_capture(
    seed: int = 1,
    *,
    operations: int = 120,
    told: Mapping[str, Any] | None = None,
    anonymizer: Any = None,
    rounds: int = 2,
    scanned: int = 20,
) -> Made:
    """Return a capture with everything in it that a capture can have."""
    memory = Memory()
    told = environment() if told is None else told
    observer = Observer(seed, loss=0.02, reach=2)
    machine = observer.machine
    writer = make_writer(memory, anonymizer.environment(told) if anonymizer else told)
    model = ToldModel(writer, FULL_COVERAGE, lambda: machine.now_ns)
    model.objects = ObjectLedger(Sampling(1, 1))
    model.objects.begin(5, "", (("zram", "no slots"),))
    model.objects.losses = OBJECT_LOSSES
    model.hidden = anonymizer
    observer.model = model
    for number in range(rounds):
        observer.warm_up(operations)
        observer.drain()
        for pool in machine.pools:
            extra = object_records(pool, observer.random, machine.now_ns)
            extra.append(compact_class_record(pool, machine.now_ns))
            model.apply(as_words(extra))
        observer.read()
        if number == 0:
            writer.flush()
            todo = [(observer.random.randrange(100), at * 17) for at in range(scanned)]
            observer.scan(todo)
        names = {pool.serial: pool.name for pool in machine.pools}
        aside = make_aside(names).to_json()
        aside = anonymizer.aside(aside) if anonymizer else aside
        writer.moment(machine.now_ns + OFFSET_NS, machine.now_ns, aside)
        if number == 0:
            state = model.state()
            writer.key(anonymizer.state(state) if anonymizer else state, machine.now_ns)
    writer.end("duration", machine.now_ns)
    return Made(memory, model, observer)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def told(step: Step) -> Any:
    """Return a step as something that can be compared and hashed."""
    match step:
        case Records(words=words, mono_ns=mono_ns):
            return "records", mono_ns, words.shape, np.ascontiguousarray(words).tobytes()
        case Counters(reading=reading):
            pools = tuple(
                replace(
                    pool,
                    class_counters=_bytes(pool.class_counters),
                    pool_counters=_bytes(pool.pool_counters),
                )
                for pool in reading.pools
            )
            return "counters", repr(replace(reading, pools=pools))
        case Key(state=state, time_ns=time_ns, mono_ns=mono_ns):
            return "key", time_ns, mono_ns, digest(state)
        case Gap():
            return ("gap",)
    return repr(step)


def _bytes(array: Any) -> Any:
    return None if array is None else array.tobytes()


def digest(state: ModelState) -> str:
    """Return a digest of a state's values and columns."""
    made = hashlib.sha256(repr(state.values).encode())
    for name, column in sorted(state.columns.items()):
        made.update(f"{name} {column.dtype} {len(column)}".encode() + column.tobytes())
    return made.hexdigest()


def steps_of(path: Path) -> list[Step]:
    with CaptureReader(path) as reader:
        return list(reader.steps())


def is_part(some: Iterable[Any], whole: Iterable[Any]) -> bool:
    """Tell whether some things are in a sequence in this order, with any others between them."""
    left = iter(whole)
    return all(each in left for each in some)


def random_batch(chance: random.Random, count: int, kinds: tuple[Kind, ...] = KINDS) -> Words:
    """Return records of known kinds, every other bit of which is anything."""
    words = np.frombuffer(chance.randbytes(count * wire.RECORD_BYTES), dtype=np.uint64)
    words = words.reshape(count, wire.RECORD_WORDS).copy()
    codes = np.array([chance.choice(kinds).code for _ in range(count)], dtype=np.uint64)
    words[:, wire.WORD_HEAD] = words[:, wire.WORD_HEAD] & ~np.uint64(0xFF) | codes
    return words
