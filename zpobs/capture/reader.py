"""Reads captures: blocks in, steps out; what cannot be read is told as a gap.

Never more than one block, and one key, is held, so the size of a file does not matter.
"""

from __future__ import annotations

import os
import stat
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from zpobs.capture.blocks import (
    FORMAT_VERSION,
    MAGIC,
    BlockType,
    Body,
    Damage,
    Header,
    Place,
    next_header,
    places,
    read_body,
)
from zpobs.capture.keys import KeyReader
from zpobs.capture.records import decoded
from zpobs.capture.steps import (
    Changes,
    Counters,
    Covered,
    Ended,
    Gap,
    Key,
    Loss,
    Moment,
    ReadingCoder,
    Records,
    ScanNoted,
    Step,
    Swept,
    understood_coverage,
)
from zpobs.closing import Closing
from zpobs.errors import BadInputError
from zpobs.spans import Span
from zpobs.wire import WIRE_VERSION

# What wire versions can be read: the first that captures were made of, and since.
_WIRE_VERSIONS = range(2, WIRE_VERSION + 1)
# Rates are told over no shorter a span: a block may be full in less.
_SPAN_MIN_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """Where a key begins, and the moment of which it tells, monotonic."""

    at: int
    mono_ns: int


@dataclass(frozen=True, slots=True)
class Start:
    """Where a block begins, the newest moment up to its end, and how many records come before."""

    at: int
    last_ns: int
    first_record: int


@dataclass(slots=True)
class Index:
    """What the headers of a file tell: its span, records, blocks, keys, and what is damaged."""

    first_ns: int = 0
    last_ns: int = 0
    records: int = 0
    blocks: int = 0
    bytes: int = 0
    peak_per_s: float = 0.0
    end: Place | None = None
    starts: list[Start] = field(default_factory=list)
    keys: list[KeyPlace] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)


class CaptureReader(Closing):
    """One capture file, open for reading.

    Raise BadInputError if the file is none, or of a format or wire version that is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _opened(path)
        try:
            self.environment = self._environment()
        except BaseException:
            self._file.close()
            raise
        self._index: Index | None = None
        self._key_clock = (0, 0)
        self._whole_keys: dict[int, bool] = {}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _environment(self) -> Mapping[str, Any]:
        """Return the first environment that can be read: a key has one too."""
        for place in places(self._file):
            if isinstance(place, Damage):
                continue
            self._capture = place.header.capture
            kind = place.header.type
            if kind not in (BlockType.ENVIRONMENT, BlockType.KEY):
                continue
            body = self._body(place)
            if body is None:
                continue
            told = body.told if kind is BlockType.ENVIRONMENT else body.told.get("environment")
            if isinstance(told, dict):
                return _checked(self.path, told)
        raise BadInputError(
            f"{self.path} is no capture that can be read",
            found=self._what_it_is(),
            hint="a file that zpobs record made",
        )

    def _what_it_is(self) -> str:
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        if not size:
            return "an empty file"
        if self._file.read(len(MAGIC)) == MAGIC:
            return f"{size:,} bytes, of which neither its first block nor a key is intact"
        return f"{size:,} bytes that do not begin as a capture does"

    def _body(self, place: Place) -> Body | None:
        self._file.seek(place.body_at)
        return read_body(place.header, self._file.read(place.header.stored_bytes))

    # -- what there is ------------------------------------------------------------------

    @property
    def index(self) -> Index:
        """What the headers tell; found once, without reading a body."""
        if self._index is None:
            self._index = self._indexed()
        return self._index

    def _indexed(self) -> Index:
        out = Index()
        order = _Order(self._capture, 0)
        for place in places(self._file):
            if isinstance(place, Damage):
                out.damage.append(place)
                continue
            header = place.header
            stranger = order.stranger(header)
            if stranger:
                out.damage.append(Damage(place.begin, place.end, stranger))
                continue
            order.take(header)
            before_ns = out.starts[-1].last_ns if out.starts else 0
            out.starts.append(Start(place.begin, max(before_ns, header.last_ns), out.records))
            out.blocks += 1
            out.records += header.records
            if header.last_ns:
                out.first_ns = min(out.first_ns or header.first_ns, header.first_ns)
                out.last_ns = max(out.last_ns, header.last_ns)
            if header.records:
                span_ns = max(header.last_ns - header.first_ns, _SPAN_MIN_NS)
                out.peak_per_s = max(out.peak_per_s, header.records * 1e9 / span_ns)
            out.end = place if header.type is BlockType.END else None
            known_ns = out.keys[-1].mono_ns if out.keys else None
            if header.type is BlockType.KEY and header.first_ns != known_ns:
                out.keys.append(KeyPlace(place.begin, header.first_ns))
        out.bytes = self._file.seek(0, os.SEEK_END)
        return out

    def ended(self) -> Ended | None:
        """Return what the last block tells, None if the file does not end as captures do."""
        place = self.index.end
        body = self._body(place) if place is not None else None
        return None if place is None or body is None else _ended(place, body)

    @property
    def offset_ns(self) -> int:
        """Wall-clock less monotonic time when the recording began."""
        clock = self.environment["clock"]
        return int(clock["time_ns"]) - int(clock["mono_ns"])

    @property
    def span(self) -> Span:
        """The time that it tells of."""
        return Span(self.index.first_ns, self.index.last_ns, self.offset_ns)

    @property
    def began_ns(self) -> int:
        """When the recorder had begun: before it are the first scans, whatever else there is.

        The beginning of a file that is not the first of several.
        """
        clock_ns = int(self.environment["clock"]["mono_ns"])
        index = self.index
        return clock_ns if index.first_ns <= clock_ns <= index.last_ns else index.first_ns

    def key_before(self, mono_ns: int) -> KeyPlace | None:
        """Return the newest key that is not after a moment and can be read."""
        keys = self.index.keys
        at = bisect_right([key.mono_ns for key in keys], mono_ns)
        return next((key for key in reversed(keys[:at]) if self._is_whole(key)), None)

    def _is_whole(self, key: KeyPlace) -> bool:
        if key.at not in self._whole_keys:
            self._whole_keys[key.at] = isinstance(next(self.steps(key), None), Key)
        return self._whole_keys[key.at]

    # -- steps --------------------------------------------------------------------------

    def steps(
        self,
        begin: KeyPlace | None = None,
        *,
        since_ns: int | None = None,
        told: Callable[[int], None] = lambda _: None,
    ) -> Iterator[Step]:
        """Yield everything in order, from the beginning, from a key on, or from a moment on.

        Of what was told before a moment some may come too. Bytes that are no block are passed by
        where no block is missing. ``told`` is told, block by block, how much of the file was read.
        """
        start = self._start(begin, since_ns)
        changing = _Changing()
        keys = KeyReader()
        order = _Order(self._capture, None if start.at else 0)
        last_ns = start.last_ns
        lost_bytes = 0
        why = ""
        for found in self._blocks(order, start.at):
            if isinstance(found, Damage):
                lost_bytes += found.end - found.begin
                why = why or found.what
                continue
            place, body = found
            told(place.begin)
            missed = order.take(place.header)
            if missed or (missed is None and lost_bytes):
                changing.restart()
                keys.restart()
                yield Gap(why or "blocks are not there", missed, lost_bytes, last_ns)
            lost_bytes, why = 0, ""
            last_ns = max(last_ns, place.header.last_ns)
            number = self._first_record(place)
            for step in self._told(place, body, changing, keys):
                if isinstance(step, Records):
                    yield replace(step, first=number)
                    number += len(step.words)
                else:
                    yield step
        if lost_bytes:
            yield Gap(why, None, lost_bytes, last_ns)

    def _start(self, begin: KeyPlace | None, since_ns: int | None) -> Start:
        """Return where to begin to read."""
        if begin is not None:
            return Start(begin.at, begin.mono_ns, 0)
        starts = self.index.starts if since_ns is not None else []
        if since_ns is None or not starts:
            return Start(0, 0, 0)
        at = bisect_left([start.last_ns for start in starts], since_ns)
        return replace(starts[min(at, len(starts) - 1)], last_ns=since_ns)

    def _first_record(self, place: Place) -> int:
        """Return how many records come before a block, by the headers that can be read."""
        starts = self.index.starts
        at = bisect_right(starts, place.begin, key=lambda start: start.at) - 1
        return starts[at].first_record if at >= 0 else 0

    def _blocks(self, order: _Order, begin: int) -> Iterator[tuple[Place, Body] | Damage]:
        """Yield the blocks of this capture with their bodies, and what is none, up to its end."""
        at: int | None = begin
        while at is not None:
            begin, at = at, None
            for place in places(self._file, begin):
                if order.ended:
                    return
                if isinstance(place, Damage):
                    yield place
                elif order.stranger(place.header):
                    continue
                elif (body := self._body(place)) is not None:
                    yield place, body
                else:
                    # Bytes within may be missing: the next block is not where it says, then.
                    at = next_header(self._file, place.begin + 1)
                    yield Damage(place.begin, at, "a block is damaged")
                    break

    def _told(
        self, place: Place, body: Body, changing: _Changing, keys: KeyReader
    ) -> Iterator[Step]:
        header = place.header
        try:
            if header.type is BlockType.DATA:
                yield from _data(place, body, changing)
            elif header.type is BlockType.KEY:
                if body.told["key"][0] == 0:
                    clock = body.told["clock"]
                    self._key_clock = _ns(clock["time_ns"]), _ns(clock["mono_ns"])
                state = keys.take(body)
                if state is not None:
                    changing.restart()
                    yield Key(state, *self._key_clock)
            elif header.type is BlockType.END:
                yield _ended(place, body)
        except (BadInputError, *_NONSENSE) as error:
            # Its checksums hold: whoever wrote it meant something else than this reads.
            found = error.found if isinstance(error, BadInputError) else str(error)
            what = error.problem if isinstance(error, BadInputError) else "a block makes no sense"
            raise BadInputError(
                f"{self.path}: {what}",
                found=f"{found} (block {header.sequence})",
                hint="the zpobs that made it, or a newer one",
            ) from error


# What comes of values that are not what they should be.
_NONSENSE = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)


class _Changing:
    """What is told by what changed: to be begun anew behind a gap and behind a key."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Understand nothing until it is told whole."""
        self.readings = ReadingCoder()
        self.asides = Changes()


@dataclass(slots=True)
class _Order:
    """Which blocks are those of a capture, each once and by rising number, up to its end."""

    capture: int
    expected: int | None
    ended: bool = False

    def stranger(self, header: Header) -> str:
        """Return why a block is not to be read, nothing if it is."""
        if header.capture != self.capture:
            return "a block of another capture"
        if self.ended:
            return "a block behind the end"
        if self.expected is not None and header.sequence < self.expected:
            return "a block that was there before"
        return ""

    def take(self, header: Header) -> int | None:
        """Return how many blocks are missing before one, None if that is not known."""
        missed = None if self.expected is None else header.sequence - self.expected
        self.expected = header.sequence + 1
        self.ended = header.type is BlockType.END
        return missed


def _ns(value: Any) -> int:
    """Return a moment or a time; raise ValueError if it cannot be one."""
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no time")
    return value


def _opened(path: Path) -> BinaryIO:
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInputError(
            f"cannot read {path}", found=error.strerror or str(error), hint="another file"
        ) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BadInputError(
            f"cannot read {path}", found="it is no regular file", hint="a file on a disk"
        )
    return file


def _checked(path: Path, told: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        format_, wire = int(told["format"]), int(told["wire_version"])
        _ns(told["clock"]["time_ns"]), _ns(told["clock"]["mono_ns"])
        kernel = told["kernel"]
        for name in ("page_size", "chain_size", "fullness_groups", "zspage_bytes"):
            int(kernel[name])
        str(kernel["release"]), str(kernel["descriptor"])
        objects = told.get("objects")
        if objects is not None and (int(objects["rate"]) < 1 or int(objects["multiplier"]) < 1):
            raise ValueError(f"objects are told as {objects}")
    except _NONSENSE as error:
        raise BadInputError(
            f"{path} does not tell where it was made", found=str(error), hint="another capture"
        ) from error
    if format_ != FORMAT_VERSION or wire not in _WIRE_VERSIONS:
        raise BadInputError(
            f"{path} is of another version",
            found=f"format {format_}, wire {wire}",
            hint="the zpobs that made it, or a newer one",
        )
    return told


def _ended(place: Place, body: Body) -> Ended:
    totals = body.told.get("totals")
    return Ended(
        str(body.told.get("why", "")),
        place.header.last_ns,
        totals if isinstance(totals, dict) else {},
    )


def _data(place: Place, body: Body, changing: _Changing) -> Iterator[Step]:
    words = decoded(body.table, place.header.records) if place.header.records else None
    at = 0
    for name, when, told in body.told["steps"]:
        mono_ns = _ns(when)
        match name:
            case "records":
                end = at + int(told)
                if words is None or not at <= end <= len(words):
                    raise BadInputError("a block tells of more records than it has", found="")
                yield Records(words[at:end], mono_ns)
                at = end
            case "counters":
                reading = changing.readings.understood(told, _ns(mono_ns))
                if reading is not None:
                    yield Counters(reading)
            case "loss":
                yield Loss(
                    mono_ns,
                    _ns(told["since_ns"]),
                    int(told["ring_full"]),
                    int(told["unpaired"]),
                    int(told["missed_runs"]),
                )
            case "scan":
                missing = tuple(str(each) for each in told["missing"])
                yield ScanNoted(_ns(told["begin_ns"]), mono_ns, missing)
            case "coverage":
                yield Covered(understood_coverage(told), mono_ns)
            case "moment":
                whole = bool(told.get("whole"))
                aside = changing.asides.understood(dict(told["aside"]), whole=whole)
                yield Moment(_ns(told["time_ns"]), mono_ns, aside)
            case "swept":
                yield Swept(mono_ns)
            case _:
                raise BadInputError("a block tells of an unknown step", found=str(name))
