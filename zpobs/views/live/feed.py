"""The feed of the interactive view: the one thread that works with the session.

It takes scenes at the pace that was asked for, or slower where they cost more
than a small share of a core, and delivers each to a callback. Keys never wait
for it: what a key asks for is told by :meth:`Feed.ask`, and answered at once.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from zpobs.descriptors import Look
from zpobs.errors import EnvironmentLacksError
from zpobs.pageblocks import Pageblocks
from zpobs.rates import PoolRates, rates
from zpobs.snapshot import Snapshot, ZspagesOf
from zpobs.views.live.scene import HISTORY_FRAMES, Activity, Ask, Scene
from zpobs.views.live.steering import Steering
from zpobs.views.source import Recording, SnapshotSource

# What of the budget taking scenes may cost; drawing them is to fit into it as well.
SCENES_SHARE = 0.75
DEFAULT_BUDGET = 0.02
ATTACHING = "attaching probes"
SEEKING = "seeking"
# How often scenes of a capture that goes as fast as can be are shown.
LEAPS_SHOWN_S = 0.1
_POOL_ITSELF = -1


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """What stays the same while the view runs.

    ``at_once``: there is a scan, so a scene can be had before the probes are
    attached, and attaching them is the feed's task. ``log`` gets every frame,
    with all zspages if ``zspages``. ``pool`` is the only one that is wanted.
    ``budget`` is the share of a core that the view may cost. ``recording`` is the
    source if that is a capture.
    """

    duration_s: float | None = None
    pool: str | None = None
    zspages: bool = False
    at_once: bool = False
    log: Callable[[Snapshot], None] | None = None
    budget: float = DEFAULT_BUDGET
    recording: Recording | None = None


class Feed:
    """Takes scenes from a session until the duration is over or until it is stopped.

    ``deliver`` and ``ended`` are called in the thread. Pausing stops nothing but
    the delivery: history and log go on, and what a key asks for is answered. Of a
    capture it stops the clock: nothing comes then but what a key asks for, and so it is
    when the capture is over.
    """

    def __init__(
        self,
        source: SnapshotSource,
        ask: Ask,
        options: FeedOptions,
        *,
        deliver: Callable[[Scene], None],
        ended: Callable[[], None],
    ) -> None:
        self._source = source
        self._options = options
        self._deliver = deliver
        self._ended = ended
        # Written by the reader's thread, read by ours.
        self._asked = ask
        self._stopping = False
        recording = options.recording
        self._steering = None if recording is None else Steering(recording, options.pool)
        self._delivered_s = 0.0
        self._last_wanted = True
        self._wake, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        # Ours alone.
        self._ask = ask
        self._base: Snapshot | None = None
        self._rates: dict[int, PoolRates] = {}
        self._activity: dict[tuple[int, int], Activity] = {}
        self._taken_s = 0.0
        self._cost_s = 0.0
        self._look: Look | None = None
        self._look_due_s = 0.0
        self._blocks: dict[int, Pageblocks] = {}
        self._blocks_due_s = 0.0
        self._last: Scene | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self.run, name="zpobs-feed", daemon=True)

    # -- the reader's side ------------------------------------------------------------

    def start(self) -> None:
        """Begin to take scenes, in a thread."""
        self._thread.start()

    def ask(self, ask: Ask) -> None:
        """Say what the scenes from now on are to hold."""
        self._asked = ask
        self._rouse()

    def stop(self, *, last_frame: bool = True) -> None:
        """Ask for the end, with one more frame unless nobody can read it."""
        self._last_wanted = last_frame
        self._stopping = True
        self._rouse()

    def join(self) -> Scene | None:
        """Wait for the end and return the last scene, if any; raise what ended it if it failed."""
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._wake)
        os.close(self._waker)
        if self._error is not None:
            raise self._error
        return self._last

    def _rouse(self) -> None:
        # A pipe that is full has been telling it for long.
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b".")

    # -- the thread -------------------------------------------------------------------

    def run(self) -> None:
        """Take scenes until the end; what goes wrong is kept for :meth:`join`."""
        try:
            self._run()
        except BaseException as error:
            self._error = error
        finally:
            self._ended()

    def _run(self) -> None:
        if self._options.at_once:
            self._show(doing=ATTACHING)
            self._source.attach()
            # Rates count from here: nothing was counted before.
            self._base = None
        end_s = float("inf")
        if self._options.duration_s is not None:
            end_s = time.monotonic() + self._options.duration_s
        if not self._stopping:
            # Paused or not: what is shown says that probes are being attached.
            self._show(must=True)
        while not self._stopping and not self._leapt_to_end:
            due_s = end_s if self._still else min(self._taken_s + self._pace_s, end_s)
            if self._source.wait(due_s, (self._wake,)):
                self._answer()
                continue
            self._show()
            if due_s >= end_s and not self._leaping:
                return
        # Where time stands still the last one was shown already.
        if self._last_wanted and not self._still:
            self._last = self._scene(self._taken(zspages=False))

    @property
    def _still(self) -> bool:
        """Whether nothing comes by itself."""
        return self._steering is not None and self._steering.still

    @property
    def _leaping(self) -> bool:
        """Whether seconds of the capture count, not the reader's."""
        return self._steering is not None and self._steering.leaping

    @property
    def _leapt_to_end(self) -> bool:
        return self._options.duration_s is not None and self._leaping and self._source.ended

    @property
    def _share(self) -> float:
        """What of a core frames may cost; while descriptors are read these have as much."""
        share = self._options.budget * SCENES_SHARE
        return share / 2 if self._ask.descriptors or self._ask.pageblocks else share

    @property
    def _pace_s(self) -> float:
        if self._leaping:
            return self._ask.interval_s
        return max(self._ask.interval_s, self._cost_s / self._share)

    def _answer(self) -> None:
        """Take note of what is asked for, and show at once what no earlier scene holds."""
        os.read(self._wake, 4096)
        before, self._ask = self._ask, self._asked
        now = self._ask
        other = (before.pool, before.class_index) != (now.pool, now.class_index)
        deeper = now.pool is not None and (other or now.descriptors > before.descriptors)
        deeper |= now.compaction > before.compaction or now.pageblocks > before.pageblocks
        resumed, paused = before.paused > now.paused, before.paused < now.paused
        if self._steering is not None:
            self._steering.obey(now)
            if not self._stopping and self._moved(self._steering):
                return
            # Its clock stands elsewhere than when it was looked at last.
            resumed |= paused
        if not self._stopping and (deeper or resumed):
            self._show(in_turn=False)

    def _moved(self, steering: Steering) -> bool:
        """Go in the capture where keys asked to go, if anywhere, and show what is there."""
        if self._last is not None and steering.far(self._ask):
            self._deliver(replace(self._last, doing=SEEKING))
        arrival = steering.move(self._ask)
        if arrival is None:
            return False
        if arrival.before is not None:
            self._base = arrival.before
        if arrival.anew:
            self._activity = {}
        self._show(in_turn=arrival.before is not None, must=True)
        return True

    def _show(self, *, in_turn: bool = True, must: bool = False, doing: str = "") -> None:
        """Take a scene and deliver it, unless it is paused and nothing but its turn calls for it.

        One that is out of turn leaves the rates as they are: over so short a
        time they would mean little. One that comes though it is paused says so: a
        frame is of one instant, so all of it is newer.
        """
        self._taken_s = time.monotonic()
        begin_s = time.thread_time()
        snapshot = self._taken(zspages=self._zspages_asked())
        if in_turn:
            self._rates = rates(self._base, snapshot)
            self._base = snapshot
            self._remember()
        cost_s = time.thread_time() - begin_s
        # The first one warms up what is needed for all: it tells nothing of the next.
        if self._last is not None:
            self._cost_s = (self._cost_s + cost_s) / 2 if self._cost_s else cost_s
        # A capture whose clock stands is looked at only where that was asked for.
        paused = self._asked.paused and self._steering is None
        wanted = must or not in_turn or self._wanted(paused=paused)
        look, problem = self._looked() if wanted else (None, "")
        blocks_problem = self._find_blocks() if wanted else ""
        anew = wanted and paused and self._last is not None
        scene = self._scene(snapshot, look=look, look_problem=problem, doing=doing, anew=anew)
        scene = replace(scene, blocks=self._blocks, blocks_problem=blocks_problem)
        self._last = scene
        if wanted:
            self._delivered_s = self._taken_s
            self._deliver(scene)

    def _wanted(self, *, paused: bool) -> bool:
        """Tell whether a scene in its turn is to be shown.

        As fast as can be they come faster than anybody could see, or draw, but the last one.
        """
        if self._leaping and not self._source.ended:
            return self._taken_s - self._delivered_s >= LEAPS_SHOWN_S
        return not paused

    def _scene(
        self,
        snapshot: Snapshot,
        *,
        look: Look | None = None,
        look_problem: str = "",
        doing: str = "",
        anew: bool = False,
    ) -> Scene:
        return Scene(
            snapshot=self._narrowed(snapshot),
            rates=self._rates,
            activity=self._activity,
            look=look,
            look_problem=look_problem,
            pace_s=self._pace_s,
            doing=doing,
            wanted=self._options.pool,
            anew=anew,
            replay=None if self._steering is None else self._steering.where(),
        )

    def _zspages_asked(self) -> bool | ZspagesOf:
        ask = self._ask
        if ask.pool is None or ask.class_index is None:
            return False
        return ZspagesOf(ask.pool, ask.class_index)

    def _taken(self, *, zspages: bool | ZspagesOf) -> Snapshot:
        """Take a snapshot; the log gets it as the command line wants it there."""
        options = self._options
        wanted = self._ask.compaction
        if options.log is None:
            return self._source.snapshot(zspages=zspages, pool=options.pool, compaction=wanted)
        if options.zspages:
            zspages = True
        snapshot = self._source.snapshot(zspages=zspages, pool=options.pool, compaction=wanted)
        logged = snapshot
        if not options.zspages:
            pools = tuple(replace(pool, zspage_list=None) for pool in snapshot.pools)
            logged = replace(snapshot, pools=pools)
        options.log(logged)
        return snapshot

    def _narrowed(self, snapshot: Snapshot) -> Snapshot:
        """Leave zspages out that the log wanted and the reader did not."""
        if self._options.log is None or not self._options.zspages:
            return snapshot
        pools = []
        for pool in snapshot.pools:
            table = pool.zspage_list
            if table is not None and pool.id == self._ask.pool:
                table = table.take(np.flatnonzero(table.class_index == self._ask.class_index))
            else:
                table = None
            pools.append(replace(pool, zspage_list=table))
        return replace(snapshot, pools=tuple(pools))

    def _looked(self) -> tuple[Look | None, str]:
        """Return the descriptors that are asked for, and why there are none.

        Where reading them costs much they are read less often than frames are taken.
        """
        ask, look = self._ask, self._look
        self._look = None
        if not ask.descriptors or ask.pool is None or ask.class_index is None:
            return None, ""
        begin_s = time.monotonic()
        same = look is not None and (look.pool, look.class_index) == (ask.pool, ask.class_index)
        if not same or begin_s >= self._look_due_s:
            begin_cpu_s = time.thread_time()
            try:
                look = self._source.look(ask.pool, ask.class_index)
            except EnvironmentLacksError as error:
                return None, str(error)
            self._look_due_s = begin_s + (time.thread_time() - begin_cpu_s) / self._share
        self._look = look
        return look, "" if look else "the pool is gone"

    def _find_blocks(self) -> str:
        """Have the pageblocks there if they are asked for; return why there are none.

        The same as of descriptors: where it costs much it is done less often.
        """
        if not self._ask.pageblocks:
            self._blocks = {}
            return ""
        begin_s = time.monotonic()
        if self._blocks and begin_s < self._blocks_due_s:
            return ""
        begin_cpu_s = time.thread_time()
        try:
            shot = self._source.pageblocks(pool=self._options.pool)
        except EnvironmentLacksError as error:
            self._blocks = {}
            return str(error)
        self._blocks_due_s = begin_s + (time.thread_time() - begin_cpu_s) / self._share
        self._blocks = {each.id: each.pageblocks for each in shot.pools if each.pageblocks}
        return ""

    def _remember(self) -> None:
        """Append the rates to the history of pools that are still there."""
        history: dict[tuple[int, int], Activity] = {}
        for pool, per_second in self._rates.items():
            allocs = per_second.classes.get("allocs", {})
            frees = per_second.classes.get("frees", {})
            whole = _sum(per_second.allocs, per_second.frees)
            now = {_POOL_ITSELF: whole} | {
                index: _sum(count, frees.get(index)) for index, count in allocs.items()
            }
            for index, value in now.items():
                before = self._activity.get((pool, index))
                if before is not None:
                    history[pool, index] = (*before[1 - HISTORY_FRAMES :], value)
                elif value is not None:
                    history[pool, index] = (value,)
        self._activity = history


def _sum(allocs: float | None, frees: float | None) -> float | None:
    return None if allocs is None or frees is None else allocs + frees
