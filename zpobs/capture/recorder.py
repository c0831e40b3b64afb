"""Records a session: what its model takes, what stands beside it, keys; into one file or more."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zpobs import wire
from zpobs.capture.anonymous import Anonymizer
from zpobs.capture.blocks import BlockType
from zpobs.capture.files import CaptureFile, FlightMemory
from zpobs.capture.moments import Aside
from zpobs.capture.writer import CaptureWriter
from zpobs.model.inputs import CountersReading, Coverage
from zpobs.model.objects import ObjectLedger
from zpobs.model.state import ModelState
from zpobs.snapshot import Snapshot
from zpobs.wire import Words

# Keys in a flight recorder's memory: so many in the time that is kept.
_FLIGHT_KEYS = 4
_FLIGHT_KEY_MIN_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """When a file or the whole recording ends; None: never. ``keep`` files are left at most."""

    max_bytes: int | None = None
    rotate_bytes: int | None = None
    rotate_ns: int | None = None
    keep: int | None = None
    flight_ns: int | None = None
    flight_bytes: int = 256 << 20

    @property
    def rotates(self) -> bool:
        """Whether there is more than one file."""
        return self.rotate_bytes is not None or self.rotate_ns is not None


class Stateful(Protocol):
    """What a recorder asks of a session."""

    def state(self) -> ModelState:
        """Return all that its model knows."""


class Recorder:
    """Takes steps from a :class:`~.tap.TappedModel`; until :meth:`begin` it holds them back."""

    def __init__(
        self,
        path: Path,
        limits: Limits,
        *,
        overwrite: bool = False,
        anonymizer: Anonymizer | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._path = path
        self._clock = clock
        self._limits = limits
        self._overwrite = overwrite
        self._anonymizer = anonymizer
        self._held: list[Callable[[CaptureWriter], None]] = []
        self._classes: dict[int, list[int]] = {}
        self._writer: CaptureWriter | None = None
        self._environment: Mapping[str, Any] = {}
        self._offset_ns = 0
        self._file: CaptureFile | None = None
        self._memory: FlightMemory | None = None
        self._file_ns = 0
        self._closed_bytes = 0
        self._records = 0
        self._opened = 0
        self._lost: Counter[str] = Counter()
        self.files: list[Path] = []
        # Before anything else is done: whether it can be written at all.
        if limits.flight_ns is None:
            self._open_next()
        else:
            CaptureFile(path, overwrite=overwrite).discard()

    # -- steps --------------------------------------------------------------------------

    def records(self, words: Words, mono_ns: int) -> None:
        """Take a batch of records."""
        if self._writer is None:
            self._learn_classes(words)
        self._records += len(words)
        shown = self._anonymizer.words(words) if self._anonymizer else words
        self._told(lambda writer: writer.records(shown, mono_ns))

    def counters(self, reading: CountersReading) -> None:
        """Take a reading of counters."""
        shown = self._anonymizer.reading(reading) if self._anonymizer else reading
        self._told(lambda writer: writer.counters(shown))

    def scan_noted(self, begin_ns: int, mono_ns: int, missing: tuple[str, ...]) -> None:
        """Take the end of a round of scans."""
        shown = self._anonymizer.sentences(missing) if self._anonymizer else missing
        self._told(lambda writer: writer.scan_noted(begin_ns, mono_ns, shown))

    def swept(self, mono_ns: int) -> None:
        """Take that the model looked which zspages scans had not found."""
        self._told(lambda writer: writer.swept(mono_ns))

    def covered(self, coverage: Coverage, mono_ns: int) -> None:
        """Take that other hooks are attached."""
        self._told(lambda writer: writer.covered(coverage, mono_ns))

    def moment(self, snapshot: Snapshot, objects: ObjectLedger | None = None) -> None:
        """Take what stands beside the model in a snapshot that was just taken."""
        self._offset_ns = snapshot.time_ns - snapshot.mono_ns
        aside = Aside.of(snapshot, objects).to_json()
        if self._anonymizer:
            aside = self._anonymizer.aside(aside)
        self._told(lambda writer: writer.moment(snapshot.time_ns, snapshot.mono_ns, aside))

    def _told(self, tell: Callable[[CaptureWriter], None]) -> None:
        if self._writer is None:
            self._held.append(tell)
        else:
            tell(self._writer)

    def _learn_classes(self, words: Words) -> None:
        for record in words[wire.kinds(words) == wire.KIND_SCAN_BEGIN]:
            index, geometry = int(record[3]), int(record[4])
            self._classes[index] = [
                index,
                geometry & 0xFFFFFFFF,
                geometry >> 32 & 0xFFFF,
                geometry >> 48,
            ]

    # -- files --------------------------------------------------------------------------

    @property
    def class_table(self) -> list[list[int]]:
        """The size classes in force as far as a scan told them so far, by rising index."""
        # Classes that the kernel joined are one, whatever index led to it.
        return [self._classes[index] for index in sorted(self._classes) if self._classes[index][1]]

    def begin(self, environment: Mapping[str, Any]) -> None:
        """Write the environment, and then all that was held back."""
        if self._anonymizer:
            environment = self._anonymizer.environment(environment)
        self._environment = environment
        clock = environment["clock"]
        self._offset_ns = int(clock["time_ns"]) - int(clock["mono_ns"])
        self._writer = self._new_writer(self._clock())
        held, self._held = self._held, []
        for tell in held:
            tell(self._writer)
        self._writer.flush()

    def _new_writer(self, now_ns: int) -> CaptureWriter:
        limits = self._limits
        key_every_ns = None
        if limits.flight_ns is not None:
            self._memory = FlightMemory(limits.flight_ns, limits.flight_bytes)
            key_every_ns = max(limits.flight_ns // _FLIGHT_KEYS, _FLIGHT_KEY_MIN_NS)
        sink = self._memory or self._file
        assert sink is not None
        self._file_ns = now_ns
        return CaptureWriter(
            sink,
            self._environment,
            now_ns=now_ns,
            wall_ns=lambda mono_ns: mono_ns + self._offset_ns,
            key_every_ns=key_every_ns,
            key_bytes=self._memory.key_bytes if self._memory else None,
        )

    def _open_next(self) -> None:
        path = self._numbered(6) if self._limits.rotates else self._path
        self._file = CaptureFile(path, overwrite=self._overwrite)
        self.files.append(path)

    def _numbered(self, digits: int) -> Path:
        """Return the next name with a number that no file has."""
        while True:
            self._opened += 1
            # A path without a name is refused when it is opened.
            name = f"{self._path.stem}-{self._opened:0{digits}}{self._path.suffix}"
            path = self._path.parent / name if self._path.name else self._path
            if self._overwrite or not self._path.name or not path.exists():
                return path

    def tick(self, session: Stateful) -> None:
        """Write what is old, a key if one is due, and begin another file if it is time to."""
        writer = self._writer
        assert writer is not None
        now_ns = self._clock()
        writer.tick(now_ns, lambda: self._state(session))
        limits = self._limits
        full = limits.rotate_bytes is not None and writer.totals.bytes >= limits.rotate_bytes
        late = limits.rotate_ns is not None and now_ns - self._file_ns >= limits.rotate_ns
        if full or late:
            self._rotate(session, now_ns)

    def key(self, session: Stateful) -> None:
        """Write a key now, due or not."""
        assert self._writer is not None
        self._writer.key(self._state(session), self._clock())

    def _state(self, session: Stateful) -> ModelState:
        state = session.state()
        return self._anonymizer.state(state) if self._anonymizer else state

    def _rotate(self, session: Stateful, now_ns: int) -> None:
        before = self._writer
        self._end_file("rotated", now_ns)
        self._open_next()
        self._writer = self._new_writer(now_ns)
        if before is not None:
            self._lost.update(before.totals.lost)
            self._writer.follow(before)
        self._writer.key(self._state(session), now_ns)
        keep = self._limits.keep
        while keep is not None and len(self.files) > keep:
            self.files.pop(0).unlink(missing_ok=True)

    def _end_file(self, why: str, now_ns: int) -> None:
        assert self._writer is not None and self._file is not None
        self._writer.end(why, now_ns)
        self._closed_bytes += self._file.bytes
        file, self._file = self._file, None
        file.close()

    def dump(self, why: str) -> Path:
        """Write what the flight recorder holds into a file of its own."""
        assert self._memory is not None and self._writer is not None
        self._writer.flush()
        first = not self.files and (self._overwrite or not self._path.exists())
        if first:
            self._opened = 1
        path = self._path if first else self._numbered(1)
        file = CaptureFile(path, overwrite=self._overwrite)
        if self._anonymizer:
            (why,) = self._anonymizer.sentences((why,))
        try:
            for block in self._memory.numbered():
                file.write(block)
            now_ns = self._clock()
            end = self._memory.encoder().block(
                BlockType.END, {"why": why}, span_ns=(now_ns, now_ns)
            )
            file.write(end)
        finally:
            file.close()
        self.files.append(path)
        self._closed_bytes += file.bytes
        return path

    def end(self, why: str) -> None:
        """Write what is left, and that this is all; of a flight recorder, the last moments."""
        if self._memory is not None:
            self.dump(why)
        elif self._file is not None and self._writer is not None:
            self._end_file(why, self._clock())

    def abandon(self) -> None:
        """Close what is open after a failure; a file in which nothing stands is removed."""
        if self._file is not None:
            self._file.discard()
            self._file = None

    # -- how it goes ----------------------------------------------------------------------

    @property
    def bytes(self) -> int:
        """Bytes written."""
        return self._closed_bytes + (self._file.bytes if self._file else 0)

    @property
    def held_bytes(self) -> int:
        """Bytes that a flight recorder holds in memory."""
        return self._memory.bytes if self._memory else 0

    @property
    def record_count(self) -> int:
        """Records taken."""
        return self._records

    @property
    def lost(self) -> Mapping[str, int]:
        """What was lost since the beginning, by stage."""
        return self._lost + (self._writer.totals.lost if self._writer else Counter())

    @property
    def full(self) -> bool:
        """Whether as much was written as may be."""
        limit = self._limits.max_bytes
        return limit is not None and self._memory is None and self.bytes >= limit

    @property
    def left_bytes(self) -> int | None:
        """What the disk can take yet; None of a flight recorder."""
        return self._file.left_bytes if self._file else None

    @property
    def flies(self) -> bool:
        """Whether it holds the last moments in memory."""
        return self._limits.flight_ns is not None

    @property
    def flight_s(self) -> float:
        """How much time it holds then."""
        return (self._limits.flight_ns or 0) / 1e9

    @property
    def short(self) -> bool:
        """Whether a flight recorder holds less time than was asked for: its memory is full."""
        return self._memory is not None and self._memory.short
