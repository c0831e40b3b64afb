"""A capture played back makes the model again that it was recorded from, at every moment."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.observer import NO_PROBES, Observer
from tests.model.support import FULL_COVERAGE, KERNEL, examples
from tests.model.test_any_moment import LOSS, REACH, SCAN, STEPS, WARM
from zpobs.capture.blocks import FORMAT_VERSION
from zpobs.capture.reader import CaptureReader
from zpobs.capture.recorder import Limits, Recorder
from zpobs.capture.replay import Player
from zpobs.capture.tap import TappedModel
from zpobs.model.state import ModelState
from zpobs.snapshot import Snapshot
from zpobs.wire import WIRE_VERSION

LOOK_EVERY = 12


class Session:
    """An observed machine whose model a recorder taps; looks are kept."""

    def __init__(self, observer: Observer, path: Path, **limits: Any) -> None:
        self.observer = observer
        self.machine = observer.machine
        clock = lambda: self.machine.now_ns  # noqa: E731
        self.recorder = Recorder(path, Limits(**limits), clock=clock)
        observer.model = TappedModel(
            KERNEL,
            FULL_COVERAGE if observer.probes else NO_PROBES,
            told=self.recorder,
            clock=clock,
        )
        self.looks: list[tuple[int, Snapshot]] = []
        self.recorder.begin(environment(self.machine.now_ns))

    def state(self) -> ModelState:
        return self.observer.model.state()

    def look(self) -> None:
        """Take a snapshot as sessions do: everything drained, then the counters, at one moment."""
        self.machine.now_ns += 10
        now_ns = self.machine.now_ns
        self.observer.drain()
        shot = self.observer.model.snapshot(time_ns=now_ns + WALL_NS, mono_ns=now_ns, zspages=True)
        self.recorder.moment(shot)
        self.looks.append((now_ns, shot))
        self.machine.now_ns += 10
        self.recorder.tick(self)


WALL_NS = 10**18


def environment(now_ns: int) -> dict[str, Any]:
    return {
        "format": FORMAT_VERSION,
        "wire_version": WIRE_VERSION,
        "clock": {"time_ns": now_ns + WALL_NS, "mono_ns": now_ns},
        "kernel": {name: getattr(KERNEL, name) for name in KERNEL.__slots__},
        "objects": None,
        "pool": None,
        "nodes": None,
    }


def same(one: Snapshot, other: Snapshot) -> bool:
    return one.to_json() == other.to_json() and one.events == other.events


def state_of(shot: Snapshot) -> Any:
    """Return a snapshot without what depends on when others were taken before it.

    A model tells what scans found gone when it is asked next: what comes meanwhile can make
    a birth known or not, and a walk verified or not, where records were lost.
    """
    told = shot.to_json()
    told["health"].pop("reasons")
    for pool in told["pools"]:
        for zspage in pool["zspage_list"]:
            zspage.pop("born")
            zspage.pop("first_seen_ns")
    return told


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def record(
    observer: Observer, steps: list[tuple[int, int]], path: Path, *, keys: bool = False
) -> Session:
    """Take steps, and look now and then; with keys at some looks."""
    session = Session(observer, path)
    for number, (step, pick) in enumerate(steps):
        if step >= SCAN:
            observer.scan([])
        else:
            observer.step(step % 100, pick)
        if number % LOOK_EVERY == 0:
            session.look()
            if keys and pick % 3 == 0:
                session.recorder.key(session)
    session.look()
    session.recorder.end("test")
    return session


@settings(max_examples=examples(40), deadline=None)
@given(STEPS, st.integers(0, 1000), WARM, REACH, LOSS)
def test_at_every_look_the_replayed_model_is_the_recorded_one(
    steps: list[tuple[int, int]], seed: int, warm: int, reach: int, loss: tuple[float, float]
) -> None:
    """With loss, late records, scans and all: whatever the live one said is said again."""
    observer = Observer(seed, reach=reach, loss=loss[0], skipped=loss[1])
    observer.warm_up(warm)
    with folder() as place:
        session = record(observer, steps, place / "a.zpcap")
        with CaptureReader(place / "a.zpcap") as reader:
            player = Player(reader)
            for at_ns, shot in session.looks:
                player.advance(at_ns)
                assert same(player.snapshot(zspages=True), shot)


@settings(max_examples=examples(20), deadline=None)
@given(STEPS, st.integers(0, 1000), REACH, LOSS, st.randoms(use_true_random=False))
def test_seeking_gives_what_playing_gives(
    steps: list[tuple[int, int]], seed: int, reach: int, loss: tuple[float, float], pick: Any
) -> None:
    """Back and forth, from keys: the same model, at moments of looks and between them."""
    observer = Observer(seed, reach=reach, loss=loss[0], skipped=loss[1])
    observer.warm_up(30)
    with folder() as place:
        session = record(observer, steps, place / "a.zpcap", keys=True)
        with CaptureReader(place / "a.zpcap") as reader:
            first, last = session.looks[0][0], session.looks[-1][0]
            moments = [pick.randint(first, last) for _ in range(6)] + [
                at for at, _ in session.looks
            ]
            straight = Player(reader)
            shots = {}
            for at_ns in sorted(moments):
                straight.advance(at_ns)
                shots[at_ns] = straight.snapshot(zspages=True)
            pick.shuffle(moments)
            player = Player(reader)
            for at_ns in moments:
                player.seek(at_ns)
                assert state_of(player.snapshot(zspages=True)) == state_of(shots[at_ns])


def test_lives_are_told_from_a_key_on(tmp_path: Path) -> None:
    """No key has any, so their books begin there, and say since when."""
    observer = Observer(5)
    observer.warm_up(60)
    steps = [(at * 37 % 100, at * 101 % 10_000) for at in range(300)]
    session = record(observer, steps, tmp_path / "a.zpcap", keys=True)
    last_ns = session.looks[-1][0]
    with CaptureReader(tmp_path / "a.zpcap") as reader:
        assert reader.index.keys
        player = Player(reader, life=True)
        player.seek(last_ns)
        told = [pool.life for pool in player.snapshot().pools]
        assert told
        assert all(each is not None and each.to_json()["status"] != "unknown" for each in told)
        plain = Player(reader)
        plain.seek(last_ns)
        assert [pool.life for pool in plain.snapshot().pools] == [None] * len(told)
