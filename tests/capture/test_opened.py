"""The door to captures for Python programs, and the examples of its page."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import zpobs
from tests.capture.test_replay import record
from tests.model.observer import Observer
from zpobs import wire
from zpobs.capture.opened import Capture
from zpobs.errors import BadInputError, UsageError

PAGE = Path(__file__).resolve().parents[2] / "docs/captures-in-python.md"
GOLDEN = PAGE.parents[1] / "tests/data/captures"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
STEPS = [(at * 37 % 140, at * 101 % 10_000) for at in range(400)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    observer = Observer(3)
    observer.warm_up(50)
    record(observer, STEPS, tmp_path / "run.zpcap", keys=True)
    return tmp_path / "run.zpcap"


def all_words(capture: Capture) -> np.ndarray:
    return np.concatenate([batch.words for batch in capture.batches()])


def test_columns_are_the_records(path: Path) -> None:
    """By kind, in order, with names; numbers tell the order of all."""
    with zpobs.open_capture(path) as capture:
        words = all_words(capture)
        state = words[wire.kinds(words) == wire.KIND_STATE]
        told = [batch["state"] for batch in capture.batches()]
        numbers = np.concatenate([each["number"] for each in told])
        assert np.array_equal(numbers, np.flatnonzero(wire.kinds(words) == wire.KIND_STATE))
        for name, column in (
            ("time_ns", state[:, 1]),
            ("zspage", state[:, 2]),
            ("inuse", state[:, 3] & np.uint64(0xFFFFFFFF)),
            ("freeobj", state[:, 3] >> np.uint64(32)),
            ("class_index", state[:, 4]),
            ("fullness", state[:, 0] >> np.uint64(16) & np.uint64(0xFF)),
            ("newborn", state[:, 0] >> np.uint64(9) & np.uint64(1)),
        ):
            assert np.array_equal(np.concatenate([each[name] for each in told]), column), name
        assert set(told[0]) == set(capture.fields("state"))


def test_a_span_of_time_has_its_records_and_their_numbers(path: Path) -> None:
    """What is told from one moment to another, wherever reading begins."""
    with zpobs.open_capture(path) as capture:
        words = all_words(capture)
        time_ns = words[:, 1]
        low, high = (int(each) for each in np.quantile(time_ns, [0.4, 0.7]))
        inside = np.flatnonzero((time_ns >= low) & (time_ns < high))
        found = list(capture.batches(low, high))
        numbers = np.concatenate([each.first + np.arange(len(each)) for each in found])
        assert np.array_equal(numbers, inside)
        assert np.array_equal(np.concatenate([each.words for each in found]), words[inside])
        assert len(inside) > 100


def test_snapshots_go_from_the_beginning_to_the_end(path: Path) -> None:
    """Evenly, and the last one is the end's."""
    with zpobs.open_capture(path) as capture:
        shots = list(capture.snapshots(every_s=capture.seconds / 7))
        moments = [shot.mono_ns for shot in shots]
        assert moments[0] == capture.began_ns
        assert moments[-1] == capture.end_ns
        assert moments == sorted(set(moments))
        assert shots[-1].pools
        last = capture.at(capture.end_ns, zspages=True)
        assert [pool.zspages for pool in last.pools] == [pool.zspages for pool in shots[-1].pools]


def test_what_is_damaged_behind_the_last_records_is_told(path: Path, tmp_path: Path) -> None:
    """With a batch of none: whoever goes by batches knows what a summary does."""
    (tmp_path / "cut.zpcap").write_bytes(path.read_bytes()[:-100])
    with zpobs.open_capture(tmp_path / "cut.zpcap") as capture:
        *batches, last = capture.batches()
        assert all(len(batch) and not batch.gaps for batch in batches)
        assert (len(last), len(last.gaps)) == (0, 1)
        assert last.first == sum(len(batch) for batch in batches)


def test_losses_told_are_those_of_the_summary() -> None:
    """Also those behind the last records."""
    with zpobs.open_capture(GOLDEN / "probes-1.zpcap") as capture:
        lost = sum(loss.ring_full for batch in capture.batches() for loss in batch.lost)
        assert lost == capture.summary().lost["ring_full"] > 0


def test_the_first_state_of_a_recorded_kernel_has_its_pools() -> None:
    """As it was when the first scans had been made."""
    with zpobs.open_capture(GOLDEN / "zram-6.18.zpcap") as capture:
        (pool,) = capture.at(capture.began_ns, zspages=True).pools
        assert pool.zspages == 0 and pool.status == "exact"
        assert next(iter(capture.snapshots())).pools
        assert len(capture.class_table) == 119


def test_a_moment_that_is_not_in_it_is_refused(path: Path) -> None:
    """A wall-clock time is none of its moments."""
    with zpobs.open_capture(path) as capture:
        for moment in (0, capture.end_ns + 1, capture.wall_ns(capture.begin_ns)):
            with pytest.raises(UsageError, match="is not in the capture"):
                capture.at(moment)
        assert sum(len(batch) for batch in capture.batches(-5)) == len(all_words(capture))


def test_facts(path: Path) -> None:
    """Kernel, clocks, sampling."""
    with zpobs.open_capture(str(path)) as capture:
        assert capture.kernel.page_size == 4096
        assert capture.sampling_rate is None
        assert capture.wall_ns(capture.begin_ns) == capture.begin_ns + 10**18
        assert capture.summary().record_count == len(all_words(capture))


def test_an_unknown_kind_is_told_with_those_there_are(path: Path) -> None:
    """One line, not a KeyError."""
    with zpobs.open_capture(path) as capture, pytest.raises(UsageError, match="object_stored"):
        next(iter(capture.batches()))["states"]


def test_what_is_no_capture(tmp_path: Path) -> None:
    """Told by what it is."""
    (tmp_path / "x").write_bytes(b"hello\n" * 100)
    with pytest.raises(BadInputError, match="do not begin as a capture"):
        zpobs.open_capture(tmp_path / "x")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_run(
    number: int, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they stand on the page, and each in less than twenty lines."""
    monkeypatch.chdir(path.parent)
    exec(compile(EXAMPLES[number], str(PAGE), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out
    assert len(EXAMPLES[number].splitlines()) < 20
