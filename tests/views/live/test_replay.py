"""What keys do to a capture's clock, and what the feed does with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.captures import FIRST_NS, written_capture
from tests.views.live.support import USUAL, replay_ended, replayed, texts, typed
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Pace, Player, ReplaySource
from zpobs.snapshot import Snapshot
from zpobs.views.live.feed import SEEKING, Feed, FeedOptions
from zpobs.views.live.keys import KEYS
from zpobs.views.live.replay import FASTEST, SLOWEST
from zpobs.views.live.scene import Ask, Scene
from zpobs.views.live.screens import render
from zpobs.views.live.state import ViewState, ask_of, followed, started
from zpobs.views.live.view import Move

SECOND_NS = 1_000_000_000
HERE = replayed()


def after(*keys: str, scene: Scene = HERE, state: ViewState | None = None) -> ViewState:
    return typed(scene, keys, state)


# ---- keys ------------------------------------------------------------------------


def test_space_stops_the_clock_and_lets_it_go_on() -> None:
    """What is asked of the feed is that the capture stands."""
    assert ask_of(after("space")).paused
    assert not ask_of(after("space", "space")).paused


def test_at_the_end_there_is_nothing_to_go_on_to() -> None:
    """It is told how to go elsewhere; who went back already is not stopped from pausing."""
    ended = replay_ended()
    state = after("space", scene=ended)
    assert not state.paused
    assert state.message.startswith("the capture is over: [ goes back")
    assert after("left_square_bracket", "space", scene=ended).paused


@pytest.mark.parametrize(
    ("key", "move", "paused"),
    [
        (".", Move(1, 2 * SECOND_NS, step=True), True),
        (",", Move(1, -2 * SECOND_NS), True),
        ("]", Move(1, 10 * SECOND_NS), False),
        ("[", Move(1, -10 * SECOND_NS), False),
    ],
)
def test_keys_move_the_clock(key: str, move: Move, paused: bool) -> None:
    """Steps are an interval and pause; jumps are ten seconds and do not."""
    state = after(key)
    assert (state.moves, state.paused) == ((move,), paused)
    assert ask_of(state).moves == (move,)


def test_no_move_is_lost_and_none_is_done_twice() -> None:
    """Moves stay until a scene tells that they were done."""
    state = after(".", ".", "]")
    assert [each.number for each in state.moves] == [1, 2, 3]
    assert HERE.replay is not None
    done = replace(HERE, replay=replace(HERE.replay, moved=2))
    left = followed(state, done)
    assert [each.number for each in left.moves] == [3]
    assert [each.number for each in after(",", state=left, scene=done).moves] == [3, 4]


def test_the_speed_is_doubled_and_halved() -> None:
    """Up to as fast as can be, and down again."""
    speeds: list[float | None] = []
    state = after()
    for _ in range(9):
        state = after("}", state=state)
        speeds.append(state.speed)
    assert speeds == [2, 4, 8, 16, 32, 64, FASTEST, None, None]
    for _ in range(20):
        state = after("{", state=state)
        speeds.append(state.speed)
    assert speeds[9:13] == [FASTEST, 64, 32, 16]
    assert state.speed == SLOWEST
    assert after("{", state=started(interval_s=2, speed=0.01)).speed == 0.01
    assert after("}", state=started(interval_s=2, speed=1000)).speed is None


@pytest.mark.parametrize(
    ("text", "after_s"), [("40", 40), ("-10", 90), ("03:04:54.5", 60), ("0", 0)]
)
def test_a_time_is_typed_and_gone_to(text: str, after_s: float) -> None:
    """Enter goes there; the time is one of the capture."""
    assert HERE.replay is not None
    state = after("t", *text, "enter")
    assert state.going is None
    (move,) = state.moves
    assert not move.by
    assert move.ns == HERE.replay.span.first_ns + round(after_s * 1e9)


def test_a_time_that_is_not_in_the_capture_is_told_and_can_be_mended() -> None:
    """The line stays; the next key takes the message away."""
    state = after("t", *"4711", "enter")
    assert (state.going, state.moves) == ("4711", ())
    assert "a capture of 100.0 s" in state.message
    mended = after("backspace", "backspace", state=state)
    assert (mended.going, mended.message) == ("47", "")
    assert after("enter", state=mended).moves[0].ns > 0
    assert after("ctrl+u", "enter", state=state).moves == ()


def test_a_time_is_no_filter() -> None:
    """Letters are no keys while it is typed, Esc goes nowhere, and a filter stays as it was."""
    state = after("enter", "slash", *"size>90", "enter", "t", "q", "1", "escape")
    assert (state.going, state.typing, state.moves) == (None, None, ())
    assert state.place.filter == "size>90"
    assert texts(render(HERE, after("t", "7"), USUAL))[-1].startswith("to 7_")


def test_none_of_it_is_there_in_a_session() -> None:
    """Keys of a replay tell so, and change nothing else."""
    live = replace(HERE, replay=None)
    for key in [key for each in KEYS if each.replay for key in each.keys]:
        state = after(key, scene=live)
        assert state.message.startswith("only in a replay")
        assert state.telling("") == after(scene=live)
        footer = texts(render(live, after(scene=live), USUAL))[-1]
        assert "t go to" not in footer


# ---- the feed ------------------------------------------------------------------------


class Scripted(ReplaySource):
    """A capture, as fast as the reader's script: ``acts`` by the number of a wait, from 1 on.

    Each wait lets the capture go on by ``each_s`` unless it stands still.
    """

    acts: dict[int, Callable[[], None]]
    each_s = 2.0
    waits = 0
    # Of each wait, whether it was to last until a key comes.
    endless: tuple[bool, ...] = ()

    def wait(self, deadline_s: float, watch: object = ()) -> bool:
        del watch
        self.waits += 1
        self.endless += (deadline_s == float("inf"),)
        act = self.acts.get(self.waits)
        if act is not None:
            act()
            return True
        if self.speed is None and not self.ended:
            return super().wait(deadline_s)
        if not self.paused:
            self.player.advance(self.position_ns + round(self.each_s * 1e9))
        return False

    def _go_on(self) -> None:
        """Let no time go by but the script's."""


class Watcher:
    """A reader of scenes from a capture of 20 s, and what was logged."""

    def __init__(self, path: Path, *, speed: float | None = 1.0, **options: object) -> None:
        self.scenes: list[Scene] = []
        self.logged: list[Snapshot] = []
        self.reader = CaptureReader(path)
        duration_s = options.get("duration_s")
        self.source = Scripted(
            Player(self.reader),
            Pace(speed, 2 * SECOND_NS),
            duration_ns=round(duration_s * 1e9) if isinstance(duration_s, float) else None,
        )
        self.feed = Feed(
            self.source,
            Ask(2.0, speed=speed),
            FeedOptions(recording=self.source, log=self.logged.append, **options),  # type: ignore[arg-type]
            deliver=self.scenes.append,
            ended=lambda: None,
        )

    def run(self, *asked: Ask | None, last_frame: bool = False) -> None:
        """Ask for one thing in each wait, None for nothing; then end."""
        self.source.acts = {
            number: lambda ask=ask: self.feed.ask(ask)  # type: ignore[misc]
            for number, ask in enumerate(asked, start=1)
            if ask is not None
        }
        self.source.acts[len(asked) + 1] = lambda: self.feed.stop(last_frame=last_frame)
        self.feed.run()
        self.feed.join()
        self.reader.close()

    def at_s(self) -> list[float]:
        return [_at_s(scene) for scene in self.scenes]


def _at_s(scene: Scene) -> float:
    assert scene.replay is not None
    assert scene.snapshot.mono_ns == scene.replay.position_ns
    return (scene.replay.position_ns - FIRST_NS) / 1e9


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_capture(tmp_path_factory.mktemp("captures") / "one.zpcap")


def test_scenes_come_as_the_capture_goes(capture: Path) -> None:
    """Each with its place, the last one with the end; then none comes, nor is one logged."""
    watcher = Watcher(capture)
    watcher.source.each_s = 8
    watcher.run(*[None] * 3)
    assert watcher.at_s() == [0, 8, 16, 20]
    ended = [scene.replay.ended for scene in watcher.scenes if scene.replay]
    assert ended == [False, False, False, True]
    assert watcher.source.endless == (False, False, False, True)


def test_the_last_frame_is_logged_once(capture: Path) -> None:
    """Whether it ends where time stands still or not."""
    watcher = Watcher(capture)
    watcher.run(None, Ask(2.0, paused=True), last_frame=True)
    assert len(watcher.logged) == len(watcher.scenes) == 3
    watcher = Watcher(capture)
    watcher.run(None, last_frame=True)
    assert (len(watcher.logged), len(watcher.scenes)) == (3, 2)


def test_pausing_stops_the_clock(capture: Path) -> None:
    """Nothing comes while it stands, and it goes on from there."""
    watcher = Watcher(capture)
    still = Ask(2.0, paused=True)
    watcher.run(None, still, Ask(2.0), None)
    assert watcher.at_s() == [0, 2, 2, 2, 4]
    assert not any(scene.anew for scene in watcher.scenes)
    assert watcher.source.endless == (False, False, True, False, False)
    # What was there before the pause is still what rates count from.
    assert watcher.scenes[-1].rates[1].allocs is not None


def test_a_step_is_one_interval_with_its_rates(capture: Path) -> None:
    """On and on; what was done is told, and history goes on."""
    watcher = Watcher(capture)
    steps = [Move(number, 2 * SECOND_NS, step=True) for number in (1, 2, 3)]
    watcher.run(
        None,
        Ask(2.0, paused=True),
        Ask(2.0, paused=True, moves=(steps[0],)),
        Ask(2.0, paused=True, moves=(steps[0], steps[1], steps[2])),
    )
    assert watcher.at_s() == [0, 2, 2, 4, 8]
    assert [scene.replay.moved for scene in watcher.scenes if scene.replay] == [0, 0, 0, 1, 3]
    straight = Watcher(capture)
    straight.run(None, None)
    assert watcher.scenes[3].rates == straight.scenes[2].rates
    assert watcher.scenes[3].activity == straight.scenes[2].activity
    assert len(watcher.scenes[3].activity[1, -1]) == 2


def test_behind_a_seek_rates_and_history_begin_anew(capture: Path) -> None:
    """They are of the interval before that moment, whatever was shown before."""
    watcher = Watcher(capture)
    there = Move(1, FIRST_NS + 12 * SECOND_NS, by=False)
    watcher.run(None, None, Ask(2.0, moves=(there,)))
    assert [scene.doing for scene in watcher.scenes] == ["", "", "", SEEKING, ""]
    assert watcher.at_s() == [0, 2, 4, 4, 12]
    straight = Watcher(capture)
    straight.run(*[None] * 6)
    assert straight.at_s()[-1] == 12
    last, right = watcher.scenes[-1], straight.scenes[-1]
    assert last.snapshot.to_json() == right.snapshot.to_json()
    assert last.rates == right.rates
    assert [len(each) for each in last.activity.values()] == [1] * len(last.activity)
    assert len(right.activity[1, -1]) == 6


def test_back_is_as_good_as_on(capture: Path) -> None:
    """What was at a moment is the same from either side; jumps end at the ends."""
    watcher = Watcher(capture)
    far, back, begin = Move(1, 10**12), Move(2, -10 * SECOND_NS), Move(3, -(10**12))
    watcher.run(Ask(2.0, moves=(far,)), Ask(2.0, moves=(far, back)), Ask(2.0, moves=(back, begin)))
    shown = [scene for scene in watcher.scenes if not scene.doing]
    assert [_at_s(scene) for scene in shown] == [0, 20, 10, 0]
    straight = Watcher(capture)
    straight.run(*[None] * 5)
    assert shown[2].snapshot.to_json() == straight.scenes[-1].snapshot.to_json()
    assert shown[3].rates == {}


def test_many_moves_are_one(capture: Path) -> None:
    """Who holds a key waits for one seek, not for as many."""
    watcher = Watcher(capture)
    moves = tuple(Move(number, 2 * SECOND_NS) for number in range(1, 6))
    watcher.run(Ask(2.0, moves=(*moves, Move(6, -SECOND_NS))))
    assert watcher.at_s() == [0, 0, 9]


def test_a_step_at_the_end_leads_nowhere(capture: Path) -> None:
    """What is shown stays, and the step is told to be done."""
    watcher = Watcher(capture)
    end = Move(1, 10**12)
    watcher.run(
        Ask(2.0, moves=(end,)), Ask(2.0, paused=True, moves=(Move(2, SECOND_NS, step=True),))
    )
    last, before = watcher.scenes[-1], watcher.scenes[-2]
    assert last.replay is not None
    assert (last.replay.moved, last.replay.ended, last.rates) == (2, True, before.rates)
    assert last.rates


def test_the_speed_reaches_the_capture(capture: Path) -> None:
    """And so does its end by the reader's clock."""
    watcher = Watcher(capture)
    watcher.run(Ask(2.0, speed=8.0))
    assert watcher.source.speed == 8.0


def test_as_fast_as_can_be_every_interval_counts(capture: Path) -> None:
    """All frames are taken and logged, whatever of them is shown, the last one surely."""
    watcher = Watcher(capture, speed=None)
    watcher.run(*[None] * 10)
    logged = [(shot.mono_ns - FIRST_NS) / 1e9 for shot in watcher.logged]
    assert logged == list(range(0, 21, 2))
    assert watcher.at_s()[-1] == 20
    assert watcher.scenes[-1].replay is not None
    assert watcher.scenes[-1].replay.ended
    assert len(watcher.scenes[-1].activity[1, -1]) == 10


def test_a_duration_is_of_the_capture_as_fast_as_can_be(capture: Path) -> None:
    """The feed ends by itself behind so much of it."""
    watcher = Watcher(capture, speed=None, duration_s=5.0)
    watcher.run(*[None] * 30)
    assert watcher.at_s()[-1] == 5
    assert watcher.source.waits == 3
