"""Captures for Python programs: columns batch by batch, snapshots by time, facts.

docs/captures-in-python.md has examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.capture.environment import kernel_of
from zpobs.capture.layout import FLAGS, KINDS, Kind
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player
from zpobs.capture.steps import Gap, Loss, Records
from zpobs.capture.summary import Summary, summary_of
from zpobs.closing import Closing
from zpobs.errors import UsageError
from zpobs.snapshot import Kernel, Snapshot
from zpobs.wire import Words

U64 = npt.NDArray[np.uint64]
Columns = Mapping[str, U64]

_BY_NAME = {kind.name: kind for kind in KINDS}
_SUBJECTS = {"zspage": "zspage", "handle": "handle", "": "pool"}
_BYTE = np.uint64(0xFF)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order in which they were told, and what is known to lack before them.

    ``first`` is the number of the first one in the capture, ``mono_ns`` when the recorder took
    them; ``lost`` are losses that were noticed since the batch before, ``gaps`` places of the
    file that cannot be read.
    """

    words: Words
    first: int
    mono_ns: int
    lost: tuple[Loss, ...]
    gaps: tuple[Gap, ...]

    def __len__(self) -> int:
        return len(self.words)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of records that there are, of those in :meth:`Capture.fields`."""
        met = set(np.unique(wire.kinds(self.words)).tolist())
        return tuple(kind.name for kind in KINDS if kind.code in met)

    def __getitem__(self, kind: str) -> Columns:
        """Return the records of one kind as columns, shape (n,), uint64.

        Beside the fields of that kind: ``number`` in the capture, which is the order of all;
        ``time_ns``, monotonic; ``pool_serial``; the address or handle that it tells of; and each
        flag of the kind as 0 or 1. Raise UsageError at an unknown kind.
        """
        found = _BY_NAME.get(kind)
        if found is None:
            raise UsageError(
                f"captures hold no records of kind {kind}",
                found="",
                hint=", ".join(_BY_NAME),
            )
        at = np.flatnonzero(wire.kinds(self.words) == found.code)
        return _columns(found, self.words[at], at + self.first)


def _columns(kind: Kind, words: Words, number: npt.NDArray[np.int64]) -> Columns:
    head = words[:, wire.WORD_HEAD]
    out: dict[str, U64] = {
        "number": number.astype(np.uint64),
        "time_ns": words[:, wire.WORD_TIME],
        "pool_serial": head >> np.uint64(32),
        _SUBJECTS[kind.group]: words[:, wire.WORD_SUBJECT],
    }
    flags = head >> np.uint64(8) & _BYTE
    for name, bit in FLAGS.get(kind.name, {}).items():
        out[name] = (flags & np.uint64(bit)) // np.uint64(bit)
    for field in kind.fields:
        if field.name.startswith("unused"):
            continue
        values = words[:, field.word] >> np.uint64(field.shift)
        if field.bits < 64:
            values = values & np.uint64((1 << field.bits) - 1)
        out[field.name] = values
    return out


class Capture(Closing):
    """An open capture. Moments are monotonic ns of its host (:meth:`wall_ns`).

    Raise BadInputError if the file is none that can be read.
    """

    def __init__(self, path: str | Path) -> None:
        self._reader = CaptureReader(Path(path))

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    # -- facts ----------------------------------------------------------------------------

    @property
    def kernel(self) -> Kernel:
        """The kernel that it was made on."""
        return kernel_of(self.environment)

    @property
    def environment(self) -> Mapping[str, Any]:
        """All that its first block tells: host, hooks, sampling, size classes, fields."""
        return self._reader.environment

    @property
    def class_table(self) -> tuple[tuple[int, int, int, int], ...]:
        """Size classes in force: index, size, objs_per_zspage, pages_per_zspage.

        Empty if no pool was there at the beginning: then "scan_begin" records tell them.
        """
        return tuple(
            (int(row[0]), int(row[1]), int(row[2]), int(row[3]))
            for row in self.environment.get("class_table", ())
        )

    @property
    def sampling_rate(self) -> int | None:
        """Of objects 1 in so many handles is told, None if none is."""
        told = self.environment.get("objects")
        return None if told is None else int(told["rate"])

    @property
    def begin_ns(self) -> int:
        """When it begins."""
        return self._reader.index.first_ns

    @property
    def began_ns(self) -> int:
        """When the first scans had been made and the probes were attached."""
        return self._reader.began_ns

    @property
    def end_ns(self) -> int:
        """When it ends."""
        return self._reader.index.last_ns

    @property
    def seconds(self) -> float:
        """How long it is."""
        return (self.end_ns - self.begin_ns) / 1e9

    def wall_ns(self, mono_ns: int) -> int:
        """Return the wall-clock time, ns since 1970, of a moment."""
        return mono_ns + self._reader.offset_ns

    def fields(self, kind: str) -> tuple[str, ...]:
        """Return the names of the columns that records of a kind have."""
        empty = np.zeros((0, wire.RECORD_WORDS), dtype=np.uint64)
        return tuple(Batch(empty, 0, 0, (), ())[kind])

    def summary(self) -> Summary:
        """Return what it holds: counts by kind, loss, damage, operations."""
        return summary_of(self._reader)

    # -- what happened ----------------------------------------------------------------------

    def batches(self, begin_ns: int | None = None, end_ns: int | None = None) -> Iterator[Batch]:
        """Yield records in order: those told from a moment on, before another; both monotonic.

        Blocks before the beginning are not read. What is lost or damaged behind the last records
        comes with a batch of none.
        """
        low = np.uint64(max(begin_ns or 0, 0))
        high = np.uint64(end_ns if end_ns is not None else 2**64 - 1)
        lost: list[Loss] = []
        gaps: list[Gap] = []
        number = 0
        for step in self._reader.steps(since_ns=begin_ns):
            match step:
                case Loss():
                    lost.append(step)
                case Gap():
                    gaps.append(step)
                case Records(words=words, mono_ns=mono_ns, first=first):
                    number = first + len(words)
                    time_ns = words[:, wire.WORD_TIME]
                    inside = (time_ns >= low) & (time_ns < high)
                    # Of a run of records, so that numbers stay numbers.
                    for begin, end in _runs(inside):
                        yield Batch(
                            words[begin:end], first + begin, mono_ns, tuple(lost), tuple(gaps)
                        )
                        lost.clear()
                        gaps.clear()
                    if end_ns is not None and mono_ns > end_ns + _LAG_NS:
                        break
        if lost or gaps:
            nothing = np.zeros((0, wire.RECORD_WORDS), dtype=np.uint64)
            yield Batch(nothing, number, self.end_ns, tuple(lost), tuple(gaps))

    # -- how things were ----------------------------------------------------------------------

    def at(self, mono_ns: int, *, zspages: bool = False) -> Snapshot:
        """Return how all pools were at a moment; ``zspages`` lists every one.

        Raise UsageError at a moment before its beginning or after its end.
        """
        if not self.begin_ns <= mono_ns <= self.end_ns:
            raise UsageError(
                f"{mono_ns} is not in the capture",
                found=f"monotonic ns from {self.begin_ns} to {self.end_ns}",
                hint="began_ns, or a time_ns less wall_ns(0)",
            )
        player = Player(self._reader)
        player.seek_precisely(mono_ns)
        return player.snapshot(zspages=zspages)

    def snapshots(
        self, every_s: float = 1.0, *, zspages: bool = False, life: bool = False
    ) -> Iterator[Snapshot]:
        """Yield how all pools were, at this pace, from :attr:`began_ns` to the end."""
        player = Player(self._reader, life=life)
        step_ns = max(round(every_s * 1e9), 1)
        at_ns = self.began_ns
        while True:
            player.advance(at_ns)
            yield player.snapshot(zspages=zspages)
            if player.ended:
                return
            at_ns = min(at_ns + step_ns, self.end_ns)


# What was told before a moment was taken no later than so long after it.
_LAG_NS = 2_000_000_000


def _runs(inside: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Yield where runs of True begin and end."""
    if inside.all():
        if len(inside):
            yield 0, len(inside)
        return
    edges = np.flatnonzero(np.diff(np.concatenate([[False], inside, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
