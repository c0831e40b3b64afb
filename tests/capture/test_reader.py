"""What files tell: all steps as they were taken, keys, and an index without reading bodies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.support import (
    OFFSET_NS,
    Memory,
    digest,
    make_aside,
    make_capture,
    make_writer,
    steps_of,
    told,
    write,
)
from tests.capture.test_steps import reading
from tests.model.support import FULL_COVERAGE, KERNEL, snapshot
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player
from zpobs.capture.steps import Counters, Key, Moment, Records, Step
from zpobs.model import ShadowModel
from zpobs.model.state import ModelState


@given(seed=st.integers(0, 2**32), operations=st.integers(1, 150))
def test_a_model_that_plays_a_capture_is_the_model_that_was_recorded(
    tmp_path_factory: pytest.TempPathFactory, seed: int, operations: int
) -> None:
    """From its beginning and from its key on."""
    made = make_capture(seed, operations=operations)
    path = write(tmp_path_factory.mktemp("played") / "made.zpcap", made.data)
    right = made.model.state()
    for seek in (False, True):
        with CaptureReader(path) as reader:
            player = Player(reader)
            if seek:
                (key,) = reader.index.keys
                player.seek(key.mono_ns)
            player.advance(reader.index.last_ns)
            assert digest(shown(player.model.state())) == digest(shown(right))
            if not seek:
                assert buried(player.model.state()) == buried(right)
            assert sorted(buried(player.model.state())) == sorted(buried(right))
            assert player.ended


def shown(state: ModelState) -> ModelState:
    """Return what a replay has of a state: all but in which order it found zspages gone at once.

    A key does not tell that. Nor does a session tell that it covered nothing before it began.
    """
    values = {name: each for name, each in state.values.items() if name != "covered_ns"}
    columns = {
        name: each for name, each in state.columns.items() if not name.startswith("burials.")
    }
    return ModelState(values, columns)


def buried(state: ModelState) -> list[tuple[int, int]]:
    """Return when which zspages were found gone, in the order in which they were."""
    times, addresses = (state.columns[f"burials.{name}"] for name in ("time_ns", "address"))
    return list(zip(times.tolist(), addresses.tolist(), strict=True))


def test_steps_are_what_was_written(tmp_path: Path) -> None:
    """Played into another writer they are the same file again."""
    made = make_capture(7, operations=100)
    path = write(tmp_path / "one", made.data)
    memory = Memory()
    writer = make_writer(memory)
    for step in steps_of(path):
        _write(writer, step)
    assert memory.whole == made.data


def _write(writer: object, step: Step) -> None:
    name = type(step).__name__
    take = {
        "Records": lambda: writer.records(step.words, step.mono_ns),  # type: ignore[attr-defined,union-attr]
        "Counters": lambda: writer.counters(step.reading),  # type: ignore[attr-defined,union-attr]
        "Covered": lambda: writer.covered(step.coverage, step.mono_ns),  # type: ignore[attr-defined,union-attr]
        "ScanNoted": lambda: writer.scan_noted(step.begin_ns, step.mono_ns, step.missing),  # type: ignore[attr-defined,union-attr]
        "Moment": lambda: writer.moment(  # type: ignore[attr-defined]
            step.time_ns,  # type: ignore[union-attr]
            step.mono_ns,
            step.aside,  # type: ignore[union-attr]
        ),
        "Key": lambda: writer.key(step.state, step.mono_ns),  # type: ignore[attr-defined,union-attr]
        "Ended": lambda: writer.end(step.why, step.mono_ns),  # type: ignore[attr-defined,union-attr]
        "Swept": lambda: writer.swept(step.mono_ns),  # type: ignore[attr-defined]
        "Loss": lambda: None,
    }
    take[name]()
    if name == "Loss" and not writer.totals.blocks > 1:  # type: ignore[attr-defined]
        writer.flush()  # type: ignore[attr-defined]


def test_the_index_is_what_headers_tell(tmp_path: Path) -> None:
    made = make_capture(1, operations=60)
    path = write(tmp_path / "one", made.data)
    with CaptureReader(path) as reader:
        index = reader.index
        records = [step for step in reader.steps() if isinstance(step, Records)]
        assert index.records == sum(len(step.words) for step in records)
        assert (index.blocks, index.bytes) == (len(made.memory.blocks), len(made.data))
        assert (index.first_ns, index.last_ns) == (10**9, made.observer.machine.now_ns)
        assert index.end is not None and not index.damage
        assert reader.offset_ns == OFFSET_NS
        assert reader.index is index


def test_the_key_before_a_moment_is_the_newest_that_is_not_after_it(tmp_path: Path) -> None:
    memory = Memory()
    writer = make_writer(memory)
    state = ModelState({}, {"t.a": np.arange(3, dtype=np.uint8)})
    for at in (10, 20, 30):
        writer.key(state, 10**9 + at)
    writer.end("duration", 10**9 + 40)
    with CaptureReader(write(tmp_path / "c", memory.whole)) as reader:
        assert [key.mono_ns - 10**9 for key in reader.index.keys] == [10, 20, 30]
        found = [reader.key_before(10**9 + at) for at in (9, 10, 19, 20, 99)]
        times = [None if key is None else key.mono_ns - 10**9 for key in found]
        assert times == [None, 10, 10, 20, 30]
        last = found[-1]
        assert last is not None
        steps = list(reader.steps(last))
        assert isinstance(steps[0], Key) and len(steps) == 2


def test_a_file_is_read_as_often_as_wanted(tmp_path: Path) -> None:
    """Two readings of steps at once do not disturb each other."""
    made = make_capture(1, operations=60)
    with CaptureReader(write(tmp_path / "one", made.data)) as reader:
        whole = [told(step) for step in reader.steps()]
        both = [
            (told(one), told(other))
            for one, other in zip(reader.steps(), reader.steps(), strict=True)
        ]
        assert both == [(each, each) for each in whole]


def test_what_changed_behind_a_gap_is_not_known_until_it_is_told_whole(tmp_path: Path) -> None:
    """Moments have nothing beside them and readings are left out, up to the next key."""
    memory = Memory()
    writer = make_writer(memory)
    asides = [make_aside({1: name}).to_json() for name in ("zram1", "zram2")]
    state = ShadowModel(KERNEL, FULL_COVERAGE).state()
    for at in range(4):
        if at == 3:
            writer.key(state, 10**9 + 10 * at)
        writer.counters(reading(10**9 + 10 * at, {1: None}))
        writer.moment(OFFSET_NS + 10**9 + 10 * at, 10**9 + 10 * at, asides[at % 2])
        writer.flush()
    writer.end("duration", 10**9 + 40)
    whole = steps_of(write(tmp_path / "whole", memory.whole))
    assert _beside(whole) == [*asides, *asides]
    assert sum(isinstance(step, Counters) for step in whole) == 4
    _, lost, *left = memory.blocks
    cut = write(tmp_path / "cut", memory.blocks[0] + b"".join(left))
    steps = steps_of(cut)
    assert lost and _beside(steps) == [None, None, asides[1]]
    assert [step.mono_ns for step in steps if isinstance(step, Counters)] == [10**9 + 30]
    with CaptureReader(cut) as reader:
        player = Player(reader)
        player.advance(10**9 + 25)
        assert player.snapshot().owned is None
        player.advance(10**9 + 40)
        owned = player.snapshot().owned
        assert owned is not None and set(owned.zram) == {"zram2"}


def _beside(steps: list[Step]) -> list[object]:
    return [step.aside for step in steps if isinstance(step, Moment)]


def test_what_is_played_shows_what_was_so(tmp_path: Path) -> None:
    """The figures that a session would have shown, and what stood beside them."""
    made = make_capture(2, operations=120)
    with CaptureReader(write(tmp_path / "one", made.data)) as reader:
        player = Player(reader)
        player.advance(reader.index.last_ns)
        shown = player.snapshot(zspages=True)
    right = snapshot(made.model)
    assert [pool.name for pool in shown.pools] == [pool.name for pool in right.pools]
    for one, other in zip(shown.pools, right.pools, strict=True):
        assert (one.pages, one.zspages, one.objects) == (other.pages, other.zspages, other.objects)
    assert shown.footing is not None and shown.footing.form == "fentry"
    assert shown.owned is not None
    assert all(pool.latency is not None for pool in shown.pools)
