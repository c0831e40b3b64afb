"""The feed on a scripted source and a clock that only waiting and working move."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.factories import (
    COUNTERS,
    UNCOUNTED,
    make_classes,
    make_pageblocks,
    make_pool,
    make_snapshot,
    make_zspages,
)
from zpobs.descriptors import Look, descriptor_dump
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.pageflags import PageFlags
from zpobs.snapshot import Snapshot, ZspagesOf
from zpobs.views.live import feed as feed_module
from zpobs.views.live.feed import ATTACHING, Feed, FeedOptions
from zpobs.views.live.scene import HISTORY_FRAMES, Ask, Scene
from zpobs.wire import RECORD_WORDS


@dataclass
class ScriptedSource:
    """A session with one pool that gets ten allocations and ten frees a second.

    ``script`` says by the number of a wait, from 1 on, what the reader does
    half-way through it. A snapshot costs ``cost_s`` of this thread's time.
    """

    script: dict[int, Callable[[], None]] = field(default_factory=dict)
    cost_s: float = 0.0
    counted: bool = True
    now_s: float = 1000.0
    used_s: float = 0.0
    waits: list[float] = field(default_factory=list)
    asked: list[bool | ZspagesOf] = field(default_factory=list)
    forecasts: list[bool] = field(default_factory=list)
    blocks_read: list[str | None] = field(default_factory=list)
    looked: list[tuple[int, int]] = field(default_factory=list)
    look_cost_s: float = 0.0
    pool_gone: bool = True
    attached: int = 0
    pools: set[str | None] = field(default_factory=set)
    ended: bool = False

    def monotonic(self) -> float:
        return self.now_s

    def thread_time(self) -> float:
        return self.used_s

    def attach(self, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("attaching")
        self.attached += 1

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        self.waits.append(deadline_s)
        assert len(self.waits) < 500, "the feed does not end"
        act = self.script.get(len(self.waits))
        if act:
            self.now_s += max(deadline_s - self.now_s, 0) / 2
            act()
            readable, _, _ = select.select(watch, [], [], 10)
            return bool(readable)
        self.now_s = max(self.now_s, deadline_s)
        return False

    def snapshot(
        self,
        *,
        zspages: bool | ZspagesOf = False,
        pool: str | None = None,
        compaction: bool = False,
    ) -> Snapshot:
        self.asked.append(zspages)
        self.forecasts.append(compaction)
        self.pools.add(pool)
        self.used_s += self.cost_s
        after_s = self.now_s - 1000
        count = round(10 * after_s)
        made = make_pool(
            counters=type(COUNTERS)(*[count] * 8) if self.counted else UNCOUNTED,
            classes=make_classes(
                allocs=np.full(4, count) if self.counted else None,
                frees=np.full(4, count) if self.counted else None,
            ),
            zspage_list=make_zspages() if zspages else None,
        )
        return make_snapshot(made, at_s=after_s)

    def pageblocks(self, *, pool: str | None = None) -> Snapshot:
        self.blocks_read.append(pool)
        self.used_s += self.look_cost_s
        if self.pool_gone:
            raise EnvironmentLacksError("no blocks", found="nothing", hint="none")
        blocks = make_pageblocks()
        return make_snapshot(make_pool(pageblocks=blocks), pageblocks=blocks)

    def look(self, pool: int, class_index: int) -> Look | None:
        self.looked.append((pool, class_index))
        self.used_s += self.look_cost_s
        if self.pool_gone:
            return None
        flags = PageFlags({}, {}, 0)
        dump = descriptor_dump(np.zeros((0, RECORD_WORDS), dtype=np.uint64), flags)
        return Look(pool, class_index, round(self.now_s * 1e9), dump, flags)


class Reader:
    """Who is shown the scenes."""

    def __init__(self, source: ScriptedSource, ask: Ask, options: FeedOptions) -> None:
        self.scenes: list[Scene] = []
        self.at_s: list[float] = []
        self.ended = 0
        self.source = source
        self.feed = Feed(source, ask, options, deliver=self.note, ended=self.end)

    def note(self, scene: Scene) -> None:
        self.scenes.append(scene)
        self.at_s.append(self.source.now_s - 1000)

    def end(self) -> None:
        self.ended += 1

    def run(self) -> Scene | None:
        """Run the feed in this very thread to its end."""
        self.feed.run()
        assert self.ended == 1
        return self.feed.join()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> ScriptedSource:
    made = ScriptedSource()
    monkeypatch.setattr(feed_module, "time", made)
    return made


def reader_of(source: ScriptedSource, ask: Ask = Ask(2.0), **options: object) -> Reader:  # noqa: B008
    return Reader(source, ask, FeedOptions(**options))  # type: ignore[arg-type]


def test_scenes_come_at_the_pace_and_the_duration_ends_it(source: ScriptedSource) -> None:
    """One scene at once, one an interval, one at the very end, with rates from the second on."""
    reader = reader_of(source, duration_s=5)
    last = reader.run()
    assert reader.at_s == [0, 2, 4, 5]
    assert [scene.rates.get(1) is not None for scene in reader.scenes] == [False, True, True, True]
    assert {scene.rates[1].allocs for scene in reader.scenes[1:]} == {10}
    assert last is reader.scenes[-1]
    assert source.attached == 0
    assert {scene.doing for scene in reader.scenes} == {""}
    assert {scene.pace_s for scene in reader.scenes} == {2.0}


def test_the_first_scene_does_not_wait_for_the_probes(source: ScriptedSource) -> None:
    """A scan is shown while probes attach; rates begin behind the attaching."""
    attached_at_scene = []
    reader = reader_of(source, duration_s=2, at_once=True)
    source.attach = lambda *_: attached_at_scene.append(len(reader.scenes))  # type: ignore[method-assign]
    reader.run()
    assert attached_at_scene == [1]
    assert [scene.doing for scene in reader.scenes] == [ATTACHING, "", ""]
    assert [bool(scene.rates) for scene in reader.scenes] == [False, False, True]


def test_history_is_of_the_last_frames_oldest_first(source: ScriptedSource) -> None:
    """Pool and classes have their operations per second, at most HISTORY_FRAMES of them."""
    reader = reader_of(source, Ask(1.0), duration_s=HISTORY_FRAMES + 20)
    reader.run()
    lengths = [len(scene.activity[1, -1]) for scene in reader.scenes[1:]]
    assert lengths == [min(count, HISTORY_FRAMES) for count in range(1, HISTORY_FRAMES + 21)]
    last = reader.scenes[-1].activity
    assert last[1, -1] == (20.0,) * HISTORY_FRAMES
    # What a class counted before it was first seen is not known to have been in that second.
    assert set(last[1, 107]) == {20.0}
    assert set(last) == {(1, -1), (1, 62), (1, 107), (1, 202), (1, 254)}


def test_what_is_not_counted_has_no_history(source: ScriptedSource) -> None:
    """Without probes there are no rates, and nothing that looks like idleness."""
    source.counted = False
    reader = reader_of(source, duration_s=6)
    reader.run()
    assert reader.scenes[-1].activity == {}


def test_drilling_in_is_answered_at_once(source: ScriptedSource) -> None:
    """A key that asks for zspages gets a scene out of turn; its rates are the last regular ones."""
    reader = reader_of(source, duration_s=8)
    asked = Ask(2.0, pool=1, class_index=107)
    source.script = {2: lambda: reader.feed.ask(asked)}
    reader.run()
    assert reader.at_s == [0, 2, 3, 5, 7, 8]
    assert source.asked[:3] == [False, False, ZspagesOf(1, 107)]
    assert reader.scenes[2].rates is reader.scenes[1].rates
    assert reader.scenes[2].activity == reader.scenes[1].activity
    assert reader.scenes[3].rates[1].allocs == 10
    assert source.looked == []


def test_a_forecast_is_made_only_while_asked_for(source: ScriptedSource) -> None:
    """The first comes at once."""
    reader = reader_of(source, duration_s=7)
    source.script = {
        1: lambda: reader.feed.ask(Ask(2.0, compaction=True)),
        3: lambda: reader.feed.ask(Ask(2.0)),
    }
    reader.run()
    assert reader.at_s == [0, 1, 3, 5, 7]
    assert source.forecasts == [False, True, True, False, False]


def test_pageblocks_are_read_only_while_asked_for(source: ScriptedSource) -> None:
    """At once, and with each frame while it costs little; where they cannot be it is told why."""
    source.pool_gone = False
    reader = reader_of(source, duration_s=7)

    def refuse() -> None:
        source.pool_gone = True
        reader.feed.ask(Ask(2.0, pageblocks=True))

    source.script = {1: lambda: reader.feed.ask(Ask(2.0, pageblocks=True)), 4: refuse}
    reader.run()
    assert source.blocks_read == [None] * 4
    shown = [scene.blocks for scene in reader.scenes]
    assert [bool(blocks) for blocks in shown] == [False, True, True, True, False]
    assert shown[1][1].pages == make_pageblocks().pages
    assert "no blocks" in reader.scenes[-1].blocks_problem


def test_costly_pageblocks_are_read_less_often_than_frames_are_taken(
    source: ScriptedSource,
) -> None:
    source.look_cost_s, source.pool_gone = 0.06, False
    reader = reader_of(source, Ask(2.0, pageblocks=True), duration_s=20)
    reader.run()
    assert 1 < len(source.blocks_read) < len(reader.scenes) // 2
    assert all(scene.blocks for scene in reader.scenes)


def test_descriptors_are_looked_at_only_while_asked_for(source: ScriptedSource) -> None:
    """A look is taken for every scene of the zspage that is drilled into, none before or after."""
    reader = reader_of(source, duration_s=7)
    deep = Ask(2.0, pool=1, class_index=107, descriptors=True)
    source.script = {
        1: lambda: reader.feed.ask(deep),
        3: lambda: reader.feed.ask(Ask(2.0, pool=1, class_index=107)),
    }
    reader.run()
    # At 1 s drilled in, at 3 s the next frame, at 4 s out again.
    assert reader.at_s == [0, 1, 3, 5, 7]
    assert source.looked == [(1, 107)] * 2
    assert [scene.look_problem for scene in reader.scenes] == [
        "",
        *["the pool is gone"] * 2,
        *[""] * 2,
    ]


def test_costly_descriptors_are_read_less_often_than_frames_are_taken(
    source: ScriptedSource,
) -> None:
    """Frames keep their pace and show the last reading; another class is read at once."""
    source.look_cost_s, source.pool_gone = 0.06, False
    reader = reader_of(source, Ask(2.0, pool=1, class_index=107, descriptors=True), duration_s=20)
    other = Ask(2.0, pool=1, class_index=62, descriptors=True)
    source.script = {9: lambda: reader.feed.ask(other)}
    reader.run()
    # 0.06 s of half the share of 1.5 %: every 8 s.
    seen = [scene.look.seen_ns / 1e9 - 1000 for scene in reader.scenes if scene.look]
    assert seen == [0, 0, 0, 0, 8, 8, 8, 8, 16, 17, 17, 17]
    assert source.looked == [(1, 107)] * 3 + [(1, 62)]


def test_why_descriptors_cannot_be_read_is_told(
    source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that cannot scan is no end of the view: the scene says why."""

    def refused(_pool: int, _class_index: int) -> None:
        raise EnvironmentLacksError("the kernel cannot be scanned", found="no BTF", hint="scan")

    monkeypatch.setattr(source, "look", refused)
    reader = reader_of(source, Ask(2.0, pool=1, class_index=107, descriptors=True), duration_s=2)
    reader.run()
    assert reader.scenes[-1].look_problem.startswith("the kernel cannot be scanned; found: no BTF")


def test_pause_keeps_feeding_and_shows_nothing(source: ScriptedSource) -> None:
    """Paused, frames are taken and remembered but not delivered; resuming shows one at once."""
    reader = reader_of(source, duration_s=9)
    source.script = {
        2: lambda: reader.feed.ask(Ask(2.0, paused=True)),
        5: lambda: reader.feed.ask(Ask(2.0)),
    }
    reader.run()
    assert reader.at_s == [0, 2, 7, 9]
    assert {scene.anew for scene in reader.scenes} == {False}
    assert len(source.asked) == 6
    # The history has no hole: at 2, 4, 6 and 9 s.
    assert len(reader.scenes[-1].activity[1, -1]) == 4


def test_drilling_in_while_paused_is_answered(source: ScriptedSource) -> None:
    """What a key asks for is shown, paused or not; then nothing comes again."""
    reader = reader_of(source, Ask(2.0), duration_s=9)
    source.script = {
        1: lambda: reader.feed.ask(Ask(2.0, paused=True)),
        2: lambda: reader.feed.ask(Ask(2.0, paused=True, pool=1, class_index=107)),
    }
    reader.run()
    assert len(reader.scenes) == 2
    assert reader.scenes[1].snapshot.pools[0].zspage_list is not None
    assert [scene.anew for scene in reader.scenes] == [False, True]


def test_the_interval_can_be_changed(source: ScriptedSource) -> None:
    """A shorter interval counts from the last frame on."""
    reader = reader_of(source, Ask(30.0), duration_s=40)
    source.script = {1: lambda: reader.feed.ask(Ask(10.0))}
    reader.run()
    assert source.waits[:2] == [1030, 1010]
    assert reader.scenes[-1].pace_s == 10.0


def test_costly_scenes_come_less_often(source: ScriptedSource) -> None:
    """Taking scenes costs no more than its share of a core, and the scene tells the pace."""
    source.cost_s = 0.15
    reader = reader_of(source, Ask(1.0), duration_s=100)
    reader.run()
    # The first scene's cost is not held against the second; then 0.15 s are 1.5 % of 10 s.
    assert reader.at_s == pytest.approx([0, *range(1, 100, 10), 100])
    assert reader.scenes[0].pace_s == 1.0
    assert reader.scenes[1].pace_s == pytest.approx(10)


def test_the_budget_can_be_larger(source: ScriptedSource) -> None:
    """Who allows a fifth of a core gets ten times as many frames as with 2 %."""
    source.cost_s = 0.15
    reader = reader_of(source, Ask(0.5), duration_s=10, budget=0.2)
    reader.run()
    assert reader.at_s == pytest.approx([0, *(0.5 + number for number in range(10)), 10])


def test_stopping_ends_with_one_more_frame(source: ScriptedSource) -> None:
    """The last frame is later than all that was shown, unless nobody can read it."""
    reader = reader_of(source)
    source.script = {2: reader.feed.stop}
    last = reader.run()
    assert last is not None
    assert last.snapshot.mono_ns > reader.scenes[-1].snapshot.mono_ns
    assert len(reader.scenes) == 2
    reader = reader_of(source)
    taken = len(source.asked)
    source.script = {len(source.waits) + 1: lambda: reader.feed.stop(last_frame=False)}
    reader.run()
    assert len(source.asked) == taken + 1


def test_the_log_gets_every_frame_as_the_command_line_asks(source: ScriptedSource) -> None:
    """Zspages that the reader looks at are not in the log, unless --zspages asks for them."""
    deep = Ask(2.0, pool=1, class_index=107)
    logged: list[Snapshot] = []
    reader_of(source, deep, duration_s=4, log=logged.append).run()
    assert len(logged) == 3
    assert {pool.zspage_list for frame in logged for pool in frame.pools} == {None}
    whole: list[Snapshot] = []
    reader = reader_of(source, deep, duration_s=4, log=whole.append, zspages=True)
    reader.run()
    assert source.asked[-1] is True
    tables = [pool.zspage_list for frame in whole for pool in frame.pools]
    assert [len(table.address) for table in tables if table] == [2, 2, 2]
    shown = reader.scenes[-1].snapshot.pools[0].zspage_list
    assert shown is not None
    assert shown.class_index.tolist() == [107]
    plain = reader_of(source, duration_s=4, log=whole.append, zspages=True)
    plain.run()
    assert plain.scenes[-1].snapshot.pools[0].zspage_list is None


def test_only_the_wanted_pool_is_asked_for(source: ScriptedSource) -> None:
    """--pool reaches every snapshot, and the scene tells it."""
    reader = reader_of(source, duration_s=4, pool="zram0")
    reader.run()
    assert source.pools == {"zram0"}
    assert {scene.wanted for scene in reader.scenes} == {"zram0"}


@pytest.mark.parametrize(
    "error",
    [EnvironmentLacksError("no probe attaches"), OSError(errno.ENOSPC, "full"), ValueError()],
)
def test_what_goes_wrong_in_the_thread_is_raised_by_join(
    source: ScriptedSource, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very exception comes out, and the view is told of the end."""

    def fail(**_: object) -> Snapshot:
        raise error

    monkeypatch.setattr(source, "snapshot", fail)
    reader = reader_of(source)
    reader.feed.start()
    with pytest.raises(type(error)) as raised:
        reader.feed.join()
    assert raised.value is error
    assert reader.ended == 1
