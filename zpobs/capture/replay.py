"""Plays a capture into a model: to any moment, at any pace, as a source of snapshots for views.

A :class:`Player` has a position in the time of the capture: its model is what the session's was
then. What had happened by then and was still in the ring it knows if it went there precisely.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.capture.environment import kernel_of
from zpobs.capture.moments import Aside
from zpobs.capture.reader import CaptureReader, KeyPlace
from zpobs.capture.steps import (
    Counters,
    Covered,
    Ended,
    Gap,
    Key,
    Loss,
    Moment,
    Records,
    ScanNoted,
    Step,
    Swept,
)
from zpobs.descriptors import Look
from zpobs.errors import BadInputError, EnvironmentLacksError, RecordError, StateError
from zpobs.model.inputs import CountersReading, Coverage
from zpobs.model.objects import ObjectLedger
from zpobs.model.shadow import ShadowModel
from zpobs.objects import Sampling
from zpobs.snapshot import Snapshot, ZspagesOf
from zpobs.sources.nodes import NodeMap
from zpobs.spans import Span
from zpobs.surroundings import with_nodes
from zpobs.wire import Words

# A session empties its ring more often than this, so what was told before a moment was taken
# no later than so long after it.
_LAG_NS = 1_000_000_000
# How often a replay at some pace looks whether something is to be done.
_TICK_S = 0.05


class Player:
    """A model that follows a capture; ``life`` keeps books of the lives of zspages too."""

    def __init__(self, reader: CaptureReader, *, life: bool = False) -> None:
        self.reader = reader
        self._life = life
        self._kernel = kernel_of(reader.environment)
        self._nodes = NodeMap.told(reader.environment.get("nodes"))
        self._begin(None)

    def _begin(self, key: KeyPlace | None) -> None:
        self.model = ShadowModel(self._kernel, Coverage(hooks=0), life=self._life)
        self.model.objects = self._new_ledger()
        self._steps: Iterator[Step] = self.reader.steps(key)
        self._ahead: list[Step] = []
        self._aside: Aside | None = None
        self._beyond = False
        self._offset_ns = self.reader.offset_ns
        self._gap: Gap | None = None
        # Whether anything was told yet, and how many scans since probes were attached.
        self._fed = False
        self._scans_followed = self._hooks = 0
        # The newest one of the counters.
        self.reading: CountersReading | None = None
        self.position_ns = self.reader.index.first_ns
        self.ended = False
        if key is not None:
            # What is told up to the key is in it.
            self.advance(key.mono_ns)

    def _new_ledger(self) -> ObjectLedger | None:
        told = self.reader.environment.get("objects")
        if told is None:
            return None
        return ObjectLedger(Sampling(int(told["rate"]), int(told["multiplier"])))

    # -- moving -------------------------------------------------------------------------

    def advance(self, until_ns: int) -> None:
        """Go on to a moment, monotonic time of the capture.

        Where the session took a snapshot just then, all that was in it is taken, and no more.
        """
        while (step := self._next()) is not None:
            if step.mono_ns > until_ns:
                self._ahead.insert(0, step)
                break
            self._take(step)
        self._to_snapshot(until_ns)
        self.position_ns = max(self.position_ns, min(until_ns, self.reader.index.last_ns))
        self.ended = until_ns >= self.reader.index.last_ns

    def _to_snapshot(self, until_ns: int) -> None:
        """Take what a session did until it had a snapshot that was begun by then.

        It reads the clock first and everything else after that.
        """
        ahead: list[Step] = []
        count = 0
        while (step := self._next()) is not None:
            ahead.append(step)
            if step.mono_ns > until_ns + _LAG_NS:
                break
            if isinstance(step, Moment) and step.mono_ns <= until_ns:
                count = len(ahead)
        self._ahead = ahead + self._ahead
        for _ in range(count):
            self._take(self._ahead.pop(0))

    def seek(self, to_ns: int) -> None:
        """Go to a moment, back or on; from the newest key before it, where that is nearer."""
        key = self.reader.key_before(to_ns)
        nearer = key is not None and key.mono_ns > self.position_ns
        if to_ns < self.position_ns or nearer or self._beyond:
            self._begin(key)
        self.advance(to_ns)

    def seek_precisely(self, to_ns: int) -> None:
        """Go to a moment, and take what the session did not know of it before it was over.

        It empties its ring a few times a second. The next move begins anew: what is taken out of
        its turn can differ in what is said of lives, though not of what there is.
        """
        self.seek(to_ns)
        self._look_ahead(to_ns)
        self._beyond = True

    def to_scan(self) -> bool:
        """Go on to where a scan begins that probes follow which an earlier scan followed.

        Return False at the end of the capture.
        """
        while (step := self._next()) is not None:
            if _scans(step) and self._scans_followed and self._hooks:
                self._ahead.insert(0, step)
                return True
            self._take(step)
            self.position_ns = max(self.position_ns, step.mono_ns)
        self.ended = True
        return False

    def scanned(self, taker: Callable[[Words], None]) -> tuple[str, ...]:
        """Go on to the end of a round of scans, and hand its records on; return what it missed."""
        while (step := self._next()) is not None:
            if isinstance(step, Records) and _scans(step):
                taker(step.words)
            self._take(step)
            self.position_ns = max(self.position_ns, step.mono_ns)
            if isinstance(step, ScanNoted):
                return step.missing
        self.ended = True
        return ("the capture ends within the scan",)

    def _next(self) -> Step | None:
        if self._ahead:
            return self._ahead.pop(0)
        return next(self._steps, None)

    def _look_ahead(self, until_ns: int) -> None:
        """Take those records of batches to come that tell of something up to now.

        Not of scans: their batches are taken whole.
        """
        ahead: list[Step] = []
        while (step := self._next()) is not None:
            if isinstance(step, Records):
                step, whole = self._taken_early(step, until_ns)
                if step is None:
                    continue
                ahead.append(step)
                if whole:
                    break
            else:
                ahead.append(step)
            if step.mono_ns > until_ns + _LAG_NS or isinstance(step, Key | Gap | ScanNoted):
                break
        self._ahead = ahead + self._ahead

    def _taken_early(self, step: Records, until_ns: int) -> tuple[Records | None, bool]:
        """Take the older part of a batch; return the rest of it, and whether that is the whole."""
        words = step.words
        early = words[:, wire.WORD_TIME] <= np.uint64(until_ns)
        if not early.any() or _scans(step):
            return step, True
        self._apply(words[early])
        if early.all():
            return None, False
        return Records(words[~early], step.mono_ns), False

    def _apply(self, words: wire.Words) -> None:
        with self._doubted():
            self.model.apply(words)

    @contextmanager
    def _doubted(self) -> Iterator[None]:
        try:
            yield
        except RecordError as error:
            # Of a session it would be a bug; a file can hold anything.
            raise BadInputError(
                f"{self.reader.path}: its records are none that can be", found=str(error)
            ) from error

    def _take(self, step: Step) -> None:
        if isinstance(step, Key):
            self._take_key(step)
        self._fed = True
        match step:
            case Records(words=words):
                self._apply(words)
            case Counters(reading=reading):
                self.model.apply_counters(reading)
                self.reading = reading
            case ScanNoted(begin_ns=begin_ns, mono_ns=end_ns, missing=missing):
                self.model.note_scan(begin_ns, end_ns, missing)
                self._scans_followed += 1
            case Covered(coverage=coverage):
                self.model.cover(coverage)
                self._hooks = coverage.hooks
                self._scans_followed = 0
            case Moment():
                self._offset_ns = step.time_ns - step.mono_ns
                self._aside = None if step.aside is None else Aside.understood(step.aside)
                told = self._aside.objects if self._aside is not None else None
                if told is not None and self.model.objects is not None:
                    told.told_to(self.model.objects)
            case Swept():
                self.model.sweep()
            case Gap():
                self._gap = step
                self._aside = None
            case Key() | Loss() | Ended():
                pass

    def _take_key(self, key: Key) -> None:
        """Take a key where something is missing, at the beginning or behind a gap.

        Elsewhere the model is what the key tells, and knows of lives that no key tells of.
        """
        if self._fed and self._gap is None:
            return
        try:
            self.model = ShadowModel.restored(self._kernel, key.state)
        except StateError as error:
            raise BadInputError(
                f"{self.reader.path}: a key tells of no model", found=str(error)
            ) from error
        if self._life:
            # No key tells of lives: they are told from here on.
            self.model.keep_life(key.mono_ns)
        self._hooks = self.model.snapshot(time_ns=0, mono_ns=0).health.hooks
        self._gap = None
        self._offset_ns = key.time_ns - key.mono_ns

    # -- showing ------------------------------------------------------------------------

    def snapshot(self, *, zspages: bool | ZspagesOf = False, pool: str | None = None) -> Snapshot:
        """Return what a session would have shown at the position."""
        with self._doubted():
            snapshot = self.model.snapshot(
                time_ns=self.position_ns + self._offset_ns,
                mono_ns=self.position_ns,
                zspages=zspages,
                # Of the others nothing was recorded.
                pool=pool or self.reader.environment.get("pool"),
            )
        if self._aside is not None:
            snapshot = self._aside.added_to(snapshot)
        snapshot = with_nodes(snapshot, self._nodes, self._kernel.page_size)
        if self._gap is not None:
            snapshot = snapshot.doubted(f"the capture is damaged: {self._gap.what}", "unknown")
        return snapshot


def _scans(step: Step) -> bool:
    """Tell whether these are records of a scan: they come in batches of their own."""
    if not isinstance(step, Records) or not len(step.words):
        return False
    first = int(step.words[0, wire.WORD_HEAD])
    kind = first & 0xFF
    if kind == wire.KIND_FRAMES:
        kinds = wire.kinds(step.words)
        scanned = (kinds >= wire.KIND_SCAN_BEGIN) & (kinds <= wire.KIND_SCANNED)
        return bool(scanned.any()) or bool(_flagged(step.words, kinds).any())
    return wire.KIND_SCAN_BEGIN <= kind <= wire.KIND_SCANNED or (
        kind == wire.KIND_STATE and bool(first >> 8 & wire.FLAG_SCANNED)
    )


def _flagged(words: Words, kinds: npt.NDArray[np.uint8]) -> Words:
    states: Words = words[kinds == wire.KIND_STATE, wire.WORD_HEAD]
    return states & np.uint64(wire.FLAG_SCANNED << 8)


# -- as a source of snapshots ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pace:
    """How time goes by: ``speed`` seconds of the capture a second, None: as fast as can be.

    ``step_ns`` is what goes by at each look then.
    """

    speed: float | None
    step_ns: int


class ReplaySource:
    """A session's place in front of views, for a capture; nothing of the host is touched."""

    # A frame before anything else is worth as much as any.
    scans = True

    def __init__(
        self,
        player: Player,
        pace: Pace,
        *,
        begin_ns: int | None = None,
        duration_ns: int | None = None,
    ) -> None:
        """Begin at a moment; as fast as can be it ends after so much of the capture."""
        self.player = player
        self._pace = pace
        self._paused = False
        player.seek(player.position_ns if begin_ns is None else begin_ns)
        self._from_ns = player.position_ns
        self._from_s = time.monotonic()
        self._until_ns = None if duration_ns is None else player.position_ns + duration_ns

    @property
    def ended(self) -> bool:
        """Whether the capture is over, or as much of it as was wanted as fast as can be."""
        if self.player.ended or self._until_ns is None:
            return self.player.ended
        return self._pace.speed is None and self.position_ns >= self._until_ns

    def attach(self, progress: Callable[[str], None] = lambda _: None) -> None:
        """Attach nothing: what was attached is in the capture."""

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        """Let the capture go on until a monotonic time, or until a descriptor is readable."""
        poll = select.epoll()
        try:
            for descriptor in watch:
                poll.register(descriptor, select.EPOLLIN)
            while True:
                over = self._paused or self.ended
                at_once = self._pace.speed is None and not over
                left_s = max(deadline_s - time.monotonic(), 0)
                if poll.poll(0 if at_once else min(left_s, _TICK_S)):
                    return True
                if at_once:
                    self._leap()
                    return False
                self._go_on()
                if self.ended and not over:
                    return False
                if time.monotonic() >= deadline_s:
                    return False
        finally:
            poll.close()

    def _leap(self) -> None:
        to_ns = self.position_ns + self._pace.step_ns
        self.player.advance(to_ns if self._until_ns is None else min(to_ns, self._until_ns))

    def _go_on(self) -> None:
        if not self._paused and not self.ended and self._pace.speed is not None:
            gone_s = (time.monotonic() - self._from_s) * self._pace.speed
            self.player.advance(self._from_ns + round(gone_s * 1e9))

    def _count_from_here(self) -> None:
        self._from_ns = self.player.position_ns
        self._from_s = time.monotonic()

    # -- what a person can do with it ----------------------------------------------------

    @property
    def span(self) -> Span:
        """The time that the capture tells of."""
        return self.player.reader.span

    @property
    def position_ns(self) -> int:
        """Where it stands, monotonic time of the capture."""
        return self.player.position_ns

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._paused

    @property
    def speed(self) -> float | None:
        """Seconds of the capture a second, None: as fast as can be."""
        return self._pace.speed

    def pause(self, paused: bool) -> None:
        """Stop, or go on from where it stands."""
        self._go_on()
        self._paused = paused
        self._count_from_here()

    def hasten(self, speed: float | None, step_ns: int | None = None) -> None:
        """Go on at another speed; as fast as can be in other steps."""
        self._go_on()
        self._pace = Pace(speed, self._pace.step_ns if step_ns is None else step_ns)
        self._count_from_here()

    def seek(self, to_ns: int) -> None:
        """Go to a moment, within the capture."""
        self.player.seek(self.span.within(to_ns))
        self._count_from_here()

    # -- what views ask for --------------------------------------------------------------

    def snapshot(
        self,
        *,
        zspages: bool | ZspagesOf = False,
        pool: str | None = None,
        compaction: bool = False,  # noqa: ARG002 - the order of lists is in no capture
    ) -> Snapshot:
        """Return what the session would have shown."""
        return self.player.snapshot(zspages=zspages, pool=pool)

    def pageblocks(self, *, pool: str | None = None) -> Snapshot:  # noqa: ARG002
        """Raise EnvironmentLacksError: pageblocks are in no capture."""
        raise _not_there("pageblocks")

    def look(self, pool: int, class_index: int) -> Look | None:  # noqa: ARG002
        """Raise EnvironmentLacksError: descriptors are in no capture."""
        raise _not_there("descriptors")


def _not_there(what: str) -> EnvironmentLacksError:
    return EnvironmentLacksError(
        f"{what} cannot be shown", found="a capture, which does not hold them", hint="a live view"
    )
