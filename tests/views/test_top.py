"""``run_top`` without a terminal, on a scripted source and a clock that only waiting moves."""

from __future__ import annotations

import io
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.factories import COUNTERS, make_health, make_pool, make_snapshot, make_zspages
from zpobs.snapshot import Snapshot
from zpobs.views import top
from zpobs.views.top import StopSignal, TopOptions, run_top


@dataclass
class ScriptedSource:
    """A session whose pool gets ten allocations a second, and that may be signalled."""

    now_s: float = 1000.0
    # Number of the wait during which a signal comes, and by how much every frame is late.
    signal_in_wait: int | None = None
    late_s: float = 0.0
    waits: list[float] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    attached: int = 0
    # Behind which wait nothing more comes.
    ends_in_wait: int | None = None

    @property
    def ended(self) -> bool:
        return len(self.waits) == self.ends_in_wait

    def monotonic(self) -> float:
        return self.now_s

    def attach(self, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("attaching")
        self.attached += 1

    def wait(self, deadline_s: float, watch: tuple[int, ...] = ()) -> bool:
        self.waits.append(deadline_s)
        if self.signal_in_wait == len(self.waits):
            os.kill(os.getpid(), signal.SIGTERM)
            readable, _, _ = select.select(watch, [], [], 10)
            return bool(readable)
        self.now_s = max(self.now_s, deadline_s) + self.late_s
        return False

    def snapshot(self, *, zspages: bool = False, pool: str | None = None) -> Snapshot:
        self.asked.append({"zspages": zspages, "pool": pool})
        after_s = self.now_s - 1000
        made = make_pool(
            counters=type(COUNTERS)(*[round(10 * after_s)] * 8),
            zspage_list=make_zspages() if zspages else None,
        )
        return make_snapshot(made, at_s=after_s)


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> ScriptedSource:
    made = ScriptedSource()
    monkeypatch.setattr(top, "time", made)
    return made


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    with StopSignal() as made:
        yield made


def text_frames(out: str) -> list[str]:
    return out.split("zpobs top  ")[1:]


def test_once_is_one_frame_with_rates(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """--once waits one interval, so that the only frame has rates, and ends."""
    run_top(source, TopOptions(interval_s=2, once=True), stop)
    (frame,) = text_frames(capsys.readouterr().out)
    assert source.waits == [1002]
    (pool,) = [line.split() for line in frame.splitlines() if line.startswith("zram0 ")]
    assert pool[-3:] == ["10", "10", "20"]


def test_a_duration_ends_with_a_frame_of_its_own(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frames come every interval and one at the very end, even where no interval ends."""
    run_top(source, TopOptions(interval_s=2, duration_s=5), stop)
    assert source.waits == [1002, 1004, 1005]
    assert len(text_frames(capsys.readouterr().out)) == 3


def test_a_duration_of_whole_intervals_has_no_extra_frame(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """A duration of two intervals gives two frames, one of nothing gives one."""
    run_top(source, TopOptions(interval_s=2, duration_s=4), stop)
    assert len(text_frames(capsys.readouterr().out)) == 2
    run_top(source, TopOptions(interval_s=2, duration_s=0), stop)
    assert len(text_frames(capsys.readouterr().out)) == 1


def test_a_slow_reader_costs_frames_not_time(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """When frames take longer than the interval, those in between are left out."""
    source.late_s = 2.5
    run_top(source, TopOptions(interval_s=1, duration_s=10, as_json=True), stop)
    assert source.waits == [1001, 1004, 1007, 1010]
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_source_that_ends_gives_a_last_frame(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ends by itself ends the frames, whatever the duration; the last one is of its end."""
    source.ends_in_wait = 3
    run_top(source, TopOptions(interval_s=2, duration_s=60), stop)
    assert source.waits == [1002, 1004, 1006]
    assert len(text_frames(capsys.readouterr().out)) == 3
    source.waits, source.ends_in_wait = [], 0
    run_top(source, TopOptions(interval_s=2, at_once=True), stop)
    assert source.waits == []
    assert len(text_frames(capsys.readouterr().out)) == 1


def test_json_is_one_object_a_line(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """--json writes nothing but objects, one a line, each a whole snapshot."""
    run_top(source, TopOptions(interval_s=1, duration_s=3, as_json=True), stop)
    frames = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [frame["pools"][0]["counters"]["allocs"] for frame in frames] == [10, 20, 30]
    assert {frame["schema"] for frame in frames} == {1}


def test_zspages_and_pool_are_asked_of_the_source(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """--zspages and --pool reach every frame that is written."""
    options = TopOptions(interval_s=1, once=True, as_json=True, zspages=True, pool="zram0")
    run_top(source, options, stop)
    (frame,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(frame["pools"][0]["zspage_list"]) == 2
    assert source.asked[-1] == {"zspages": True, "pool": "zram0"}
    assert {asked["pool"] for asked in source.asked} == {"zram0"}


def test_a_pool_that_is_not_there_is_named(
    source: ScriptedSource,
    stop: StopSignal,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The text says which pool there is none of."""
    empty = make_snapshot(health=make_health(scans=1))
    monkeypatch.setattr(source, "snapshot", lambda **_: empty)
    run_top(source, TopOptions(interval_s=2, once=True, pool="zram7"), stop)
    assert "no pool is called zram7 now" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("as_json", [False, True])
def test_the_log_gets_every_frame(
    source: ScriptedSource,
    stop: StopSignal,
    capsys: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    """Each frame shown, as text or JSON, is in the log as JSON; what was there before stays."""
    log = io.StringIO()
    log.write("before\n")
    run_top(source, TopOptions(interval_s=1, duration_s=3, as_json=as_json, log=log), stop)
    before, *frames = log.getvalue().splitlines()
    assert before == "before"
    allocs = [json.loads(frame)["pools"][0]["counters"]["allocs"] for frame in frames]
    assert allocs == [10, 20, 30]
    out = capsys.readouterr().out
    assert (len(out.splitlines()) if as_json else len(text_frames(out))) == 3


def test_a_signal_gives_a_last_frame(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM in the middle of an interval ends the run with one more whole frame."""
    source.signal_in_wait = 3
    run_top(source, TopOptions(interval_s=1, duration_s=9, as_json=True), stop)
    frames = capsys.readouterr().out.splitlines()
    assert len(frames) == 3
    assert json.loads(frames[-1])["schema"] == 1


def test_a_signal_before_the_first_wait_is_not_missed(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signal that came during the start ends the run with exactly one frame, without waiting."""
    os.kill(os.getpid(), signal.SIGINT)
    run_top(source, TopOptions(interval_s=1, duration_s=9, as_json=True), stop)
    assert source.waits == []
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_signals_are_noted_once_and_given_back() -> None:
    """Any number of signals makes one readable byte; afterwards the handlers are as before."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with StopSignal() as stop:
        assert not stop.raised
        for number in (*numbers, *numbers):
            os.kill(os.getpid(), number)
        assert stop.raised
        assert os.read(stop.descriptor, 10) == b"."
    assert [signal.getsignal(number) for number in numbers] == before
    with pytest.raises(OSError, match="Bad file"):
        os.read(stop.descriptor, 1)


def test_a_hangup_that_is_ignored_stays_so() -> None:
    """As nohup wants it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.raised
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_sort_key_is_the_first_order(
    source: ScriptedSource, stop: StopSignal, capsys: pytest.CaptureFixture[str]
) -> None:
    """--sort chooses the order of the size classes in text."""
    run_top(source, TopOptions(interval_s=1, once=True, sort="size"), stop)
    assert "(by size)" in capsys.readouterr().out
