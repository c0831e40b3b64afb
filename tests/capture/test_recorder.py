"""Recordings of more than one file: what one ends with the next goes on from; the last moments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.capture.test_replay import environment
from tests.capture.test_steps import reading
from tests.model.support import FULL_COVERAGE, KERNEL
from zpobs.capture.anonymous import Anonymizer
from zpobs.capture.reader import CaptureReader
from zpobs.capture.recorder import Limits, Recorder
from zpobs.capture.replay import Player
from zpobs.capture.steps import Ended, Key, Loss
from zpobs.capture.summary import summary_of
from zpobs.capture.tap import TappedModel
from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.model.state import ModelState

SECOND_NS = 10**9


class Session:
    """A recorder with a clock of the test's, and a model that it taps."""

    def __init__(self, path: Path, limits: Limits, **options: Any) -> None:
        self.now_ns = SECOND_NS
        self.recorder = Recorder(path, limits, clock=lambda: self.now_ns, **options)
        self.model = TappedModel(
            KERNEL, FULL_COVERAGE, told=self.recorder, clock=lambda: self.now_ns
        )

    def state(self) -> ModelState:
        return self.model.state()

    def begin(self) -> None:
        self.recorder.begin(environment(self.now_ns))

    def go_on(self, *, ring_full: int = 0, uncounted: bool = False) -> None:
        self.now_ns += SECOND_NS
        if uncounted:
            self.model.cover(replace(FULL_COVERAGE, uncounted=frozenset({"failures"})))
        self.model.apply_counters(replace(reading(self.now_ns, {}), ring_full=ring_full))
        self.recorder.tick(self)


def test_what_was_lost_before_is_not_lost_again(tmp_path: Path) -> None:
    """Of rotated files each tells its own; the recorder tells all; nothing counted is nothing."""
    session = Session(tmp_path / "run.zpcap", Limits(rotate_ns=3 * SECOND_NS))
    session.begin()
    for ring_full in (0, 300, 300, 300, 300, 305, 305, 305, 305):
        session.go_on(ring_full=ring_full, uncounted=ring_full == 0)
    session.recorder.end("test")
    assert session.recorder.lost["ring_full"] == 305
    files = session.recorder.files
    assert len(files) > 2
    lost = []
    for file in files:
        with CaptureReader(file) as reader:
            told = [step for step in reader.steps() if isinstance(step, Loss)]
            lost.append(sum(step.ring_full for step in told))
            assert all(step.since_ns < step.mono_ns for step in told[1:])
            found = summary_of(reader)
            assert found.lost.get("ring_full", 0) == lost[-1]
            assert "failures" not in (found.operations or {})
    assert sum(lost) == 305
    assert sorted(lost)[0] == 0


def test_rotation_goes_on_behind_files_that_are_there(tmp_path: Path) -> None:
    """Nothing is written over, and nothing ends."""
    (tmp_path / "run-000002.zpcap").write_text("mine")
    session = Session(tmp_path / "run.zpcap", Limits(rotate_ns=SECOND_NS))
    session.begin()
    session.go_on()
    session.go_on()
    session.recorder.end("test")
    names = [file.name for file in session.recorder.files]
    assert names == ["run-000001.zpcap", "run-000003.zpcap", "run-000004.zpcap"]
    assert (tmp_path / "run-000002.zpcap").read_text() == "mine"


def flown(tmp_path: Path, seconds: int, **limits: Any) -> Session:
    limits = {"flight_ns": 8 * SECOND_NS, **limits}
    session = Session(tmp_path / "fly.zpcap", Limits(**limits))
    session.begin()
    for _ in range(seconds):
        session.go_on()
    return session


def test_the_last_moments_tell_of_no_more_time_than_they_have(tmp_path: Path) -> None:
    """Its beginning is the oldest key that is kept, whenever the recorder began."""
    session = flown(tmp_path, 100)
    path = session.recorder.dump("asked")
    with CaptureReader(path) as reader:
        kept_s = (reader.index.last_ns - reader.index.first_ns) / SECOND_NS
        assert 8 <= kept_s <= 11
        player = Player(reader)
        player.advance(reader.index.first_ns)
        assert player.model.snapshot(time_ns=0, mono_ns=0).health.hooks > 0
        assert next(type(step) for step in reader.steps()) is Key
        ended = reader.ended()
        assert isinstance(ended, Ended) and ended.why == "asked"


def test_each_dump_has_a_name_of_its_own(tmp_path: Path) -> None:
    """Behind those that are there."""
    session = flown(tmp_path, 3)
    (tmp_path / "fly-2.zpcap").write_text("mine")
    names = [session.recorder.dump("asked").name for _ in range(3)]
    assert names == ["fly.zpcap", "fly-3.zpcap", "fly-4.zpcap"]


def test_memory_is_bounded_whatever_the_time(tmp_path: Path) -> None:
    """Keys come by bytes too, so that old blocks can go."""
    bound = 40_000
    session = flown(tmp_path, 0, flight_ns=10**6 * SECOND_NS, flight_bytes=bound)
    held = 0
    for _ in range(2000):
        session.go_on()
        held = max(held, session.recorder.held_bytes)
    assert session.recorder.short
    assert bound / 2 < held <= bound


def test_why_it_was_written_names_nobody(tmp_path: Path) -> None:
    """As little as the rest of an anonymous capture."""
    session = Session(
        tmp_path / "fly.zpcap", Limits(flight_ns=8 * SECOND_NS), anonymizer=Anonymizer()
    )
    session.recorder.begin({**environment(SECOND_NS), "host": {"name": "secret"}, "pool": None})
    session.go_on()
    path = session.recorder.dump("pages of zram77 5 > 3")
    with CaptureReader(path) as reader:
        ended = reader.ended()
    assert ended is not None and "zram77" not in ended.why and "5 > 3" in ended.why


def test_whether_it_can_be_written_is_found_out_first(tmp_path: Path) -> None:
    """Not when the moments are to be written that would be lost then."""
    (tmp_path / "there.zpcap").write_text("mine")
    with pytest.raises(UsageError, match="exists"):
        Recorder(tmp_path / "there.zpcap", Limits(flight_ns=SECOND_NS))
    with pytest.raises(EnvironmentLacksError, match="No such file"):
        Recorder(tmp_path / "no" / "x.zpcap", Limits(flight_ns=SECOND_NS))
    for name in (".", "/"):
        with pytest.raises((UsageError, EnvironmentLacksError)):
            Recorder(Path(name), Limits(rotate_bytes=1))
    with pytest.raises(UsageError, match="no regular file"):
        Recorder(Path("/dev/null"), Limits(), overwrite=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["there.zpcap"]
