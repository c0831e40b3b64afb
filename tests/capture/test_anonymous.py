"""Anonymous captures: nothing of whose they are is in them, and everything else is."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.golden import FOLDER
from tests.capture.support import (
    CGROUP,
    CGROUP_PATH,
    COMMAND,
    HANDLES_AT,
    HOST,
    Made,
    digest,
    environment,
    make_aside,
    make_capture,
    steps_of,
    write,
)
from tests.model.support import FULL_COVERAGE, KERNEL, snapshot
from zpobs import wire
from zpobs.capture.anonymous import Anonymizer
from zpobs.capture.blocks import HEADER, Header, Place, places
from zpobs.capture.layout import BY_CODE
from zpobs.capture.personal import STATE_HIDDEN, STATE_SHOWN, STATE_VALUES
from zpobs.capture.reader import CaptureReader
from zpobs.capture.steps import Counters, Key, Moment, Records, Step
from zpobs.model import ShadowModel
from zpobs.model.objects import ObjectLedger
from zpobs.model.state import ModelState
from zpobs.objects import Sampling


def bodies(path: Path) -> Iterator[bytes]:
    """Yield what is in all blocks of a file, decompressed."""
    with path.open("rb") as file:
        for place in places(file):
            assert isinstance(place, Place)
            file.seek(place.body_at)
            yield zstandard.ZstdDecompressor().decompress(file.read(place.header.stored_bytes))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Made, Path, Path]:
    """Return the same recording as it was and anonymous, and their files."""
    folder = tmp_path_factory.mktemp("anonymous")
    plain = make_capture(21, operations=200)
    hidden = make_capture(21, operations=200, anonymizer=Anonymizer())
    return (
        plain,
        hidden,
        write(folder / "plain.zpcap", plain.data),
        write(folder / "hidden.zpcap", hidden.data),
    )


def personal(plain: Made) -> tuple[set[int], set[str]]:
    """Return all numbers and names of a recording that tell whose it is."""
    numbers: set[int] = {CGROUP}
    names = {HOST, CGROUP_PATH, "secret", COMMAND.decode()}
    for pool in plain.observer.machine.pools:
        numbers |= {pool.address, *(zspage.address for zspage in pool.zspages)}
    for row in plain.observer.machine.records:
        numbers.add(row[2])
    return {each for each in numbers if each > 1 << 20}, names


def test_no_name_and_no_address_is_in_the_file(both: tuple[Made, Made, Path, Path]) -> None:
    """Nowhere in what is decompressed, as text or as a number; in the other file they are."""
    plain, _, path, hidden = both
    numbers, names = personal(plain)
    before, after = b"".join(bodies(path)), b"".join(bodies(hidden))
    assert len(numbers) > 50
    met = 0
    for name in names:
        assert name.encode() not in after
        met += name.encode() in before
    assert met == len(names) - 1, "a command stands in planes"
    # Addresses share their high bytes, and a plane of those says it is one.
    for number in numbers:
        assert str(number).encode() not in after
    assert any(str(number).encode() in before for number in numbers)
    assert all(value < 1 << 32 for value in personal_numbers(steps_of(hidden)))
    assert max(personal_numbers(steps_of(path))) > 1 << 63


def personal_numbers(steps: list[Step]) -> Iterator[int]:
    """Yield every number that stands where addresses, frames, handles or names do."""
    for step in steps:
        if isinstance(step, Records):
            for row in step.words.tolist():
                kind = BY_CODE[row[0] & 0xFF]
                if kind.group:
                    yield row[2]
                for field in kind.fields:
                    if field.personal and not (kind.name == "pool_created" and field.word > 2):
                        yield row[field.word]
        elif isinstance(step, Counters):
            yield from (pool.address for pool in step.reading.pools)
        elif isinstance(step, Key):
            for name, hidden in STATE_HIDDEN.items():
                if hidden != "value":
                    yield from step.state.columns[name].tolist()
            yield from step.state.columns["events.subject"].tolist()


def test_what_was_the_same_is_the_same(both: tuple[Made, Made, Path, Path]) -> None:
    """Each number has one other everywhere, of records, readings and keys alike."""
    _, _, path, hidden = both
    met: dict[tuple[str, int], int] = {}
    for one, other in zip(steps_of(path), steps_of(hidden), strict=True):
        assert type(one) is type(other) and one.mono_ns == other.mono_ns
        if isinstance(one, Records) and isinstance(other, Records):
            for row, shown in zip(one.words.tolist(), other.words.tolist(), strict=True):
                kind = BY_CODE[row[0] & 0xFF]
                pairs = [(kind.group, row[2], shown[2])] if kind.group else []
                pairs += [
                    (field.personal, row[field.word], shown[field.word])
                    for field in kind.fields
                    if field.personal and field.personal != "name"
                ]
                if kind.name == "object_stored":
                    pairs.append(("frame", row[5] >> 24, shown[5] >> 24))
                    assert row[5] & 0xFFFFFF == shown[5] & 0xFFFFFF
                for what, before, after in pairs:
                    assert met.setdefault((what, before), after) == after
    by_name: dict[str, set[int]] = {}
    for (what, before), after in met.items():
        assert (before == 0) == (after == 0)
        assert after not in by_name.setdefault(what, set())
        by_name[what].add(after)
    assert by_name.keys() == {"zspage", "handle", "pool", "frame", "cgroup"}


def test_nothing_else_changes(both: tuple[Made, Made, Path, Path]) -> None:
    """Every bit of a record that is not personal, and every figure of a replay."""
    _, _, path, hidden = both
    for one, other in zip(steps_of(path), steps_of(hidden), strict=True):
        if not isinstance(one, Records) or not isinstance(other, Records):
            continue
        for row, shown in zip(one.words.tolist(), other.words.tolist(), strict=True):
            kind = BY_CODE[row[0] & 0xFF]
            kept = {0, 1, 2, 3, 4, 5, 6} - {each.word for each in kind.fields if each.personal}
            kept -= {2} if kind.group else {5} if False else set()
            kept -= {5} if kind.name == "object_stored" else set()
            assert [row[at] for at in kept] == [shown[at] for at in kept]
    assert figures(path) == figures(hidden)


def figures(path: Path) -> list[object]:
    """Return the figures of all pools at the end, and of their zspages in no order."""
    from zpobs.capture.replay import Player  # noqa: PLC0415

    with CaptureReader(path) as reader:
        player = Player(reader)
        player.advance(reader.index.last_ns)
        shot = player.snapshot(zspages=True)
    out: list[object] = []
    for pool in shot.pools:
        table = pool.zspage_list
        assert table is not None
        columns = (table.class_index, table.inuse, table.fullness, table.freeobj)
        rows = sorted(zip(*(each.tolist() for each in columns), strict=True))
        counted = (pool.id, pool.owner, pool.status, pool.pages, pool.objects, pool.counters)
        objects = pool.objects_told
        assert objects is not None
        out.append([*counted, rows, objects.live.tolist(), objects.live_bytes.tolist()])
    return out


def test_a_state_is_that_of_a_model_that_was_told_so(both: tuple[Made, Made, Path, Path]) -> None:
    """Hiding a state gives what a model knows that took hidden records from the beginning."""
    _, _, _, hidden = both
    steps = steps_of(hidden)
    (at,) = (at for at, step in enumerate(steps) if isinstance(step, Key))
    key = steps[at]
    assert isinstance(key, Key)
    with CaptureReader(hidden) as reader:
        from zpobs.capture.replay import Player  # noqa: PLC0415

        player = Player(reader)
        player.advance(key.mono_ns - 1)
        for step in steps[:at]:
            if step.mono_ns == key.mono_ns:
                player._take(step)
        played = player.model.state()
    for name, column in key.state.columns.items():
        assert np.array_equal(played.columns[name], column), name
    assert played.values["pool_names"] == key.state.values["pool_names"]


def test_a_hidden_state_can_be_restored() -> None:
    made = make_capture(21, operations=200)
    hidden = Anonymizer().state(made.model.state())
    model = ShadowModel.restored(KERNEL, hidden)
    again = model.state()
    assert digest(ModelState({}, again.columns)) == digest(ModelState({}, dict(hidden.columns)))
    right, found = snapshot(made.model), snapshot(model)
    for one, other in zip(right.pools, found.pools, strict=True):
        assert (one.pages, one.zspages, one.objects) == (other.pages, other.zspages, other.objects)
        assert one.name != other.name or one.name[-1].isdigit()


def whole_state() -> ModelState:
    """Return a state with every table that a model can have."""
    model = ShadowModel(KERNEL, FULL_COVERAGE, life=True)
    model.objects = ObjectLedger(Sampling(1, 1))
    return model.state()


def test_all_columns_and_values_are_decided_on() -> None:
    """Whoever adds or renames one has to say in personal.py whether it tells whose it is."""
    state = whole_state()
    shown = {f"{table}.{name}" for table, names in STATE_SHOWN.items() for name in names}
    events = {name for name in shown if name.startswith("events.")}
    assert shown | set(STATE_HIDDEN) == state.columns.keys()
    assert shown.isdisjoint(STATE_HIDDEN)
    assert state.values.keys() == STATE_VALUES
    assert events == {f"events.{each}" for each in ("head", "time_ns", "subject", *_words())}


def _words() -> list[str]:
    # No event has anything in the last word.
    return [f"word{at}" for at in range(3, wire.RECORD_WORDS - 1)]


def test_what_nobody_decided_on_is_not_written() -> None:
    state = whole_state()
    columns = {**state.columns, "zspages.owner": np.zeros(3, dtype=np.uint64)}
    with pytest.raises(ValueError, match=r"zspages\.owner"):
        Anonymizer().state(ModelState(state.values, columns))
    with pytest.raises(ValueError, match="owner"):
        Anonymizer().state(ModelState({**state.values, "owner": "me"}, state.columns))


def test_every_address_of_a_record_is_marked() -> None:
    """Fields that are called so are personal, and subjects have a group."""
    for kind in BY_CODE.values():
        for field in kind.fields:
            telling = ("frame_", "name_", "command_", "cgroup", "zspage", "old_fr", "new_fr")
            named = field.name == "pool" or field.name.startswith(telling)
            assert bool(field.personal) == named, (kind.name, field.name)


def test_sentences_and_names_are_hidden() -> None:
    hidden = Anonymizer()
    assert [hidden.name(each) for each in ("zram7", "zswapbeef", "mine", "zram7", "")] == [
        "zram1",
        "zswap2",
        "pool3",
        "zram1",
        "",
    ]
    told = ("zram7 is busy, mine too", "zram77 and minerals", "zswap is no pool")
    assert hidden.sentences(told) == (
        "zram1 is busy, pool3 too",
        "zram4 and minerals",
        "zswap is no pool",
    )


def test_what_stands_beside_is_hidden() -> None:
    hidden = Anonymizer()
    aside = hidden.aside(make_aside({1: "zram7"}).to_json())
    assert aside["owned"]["zram"].keys() == {"zram1"}
    assert aside["cgroups"] == {"1": "/cgroup1"}
    assert aside["owners"].keys() == {"1"}
    words = np.zeros((1, 7), dtype=np.uint64)
    words[0, [0, 2, 4]] = wire.KIND_OBJECT_OWNER, HANDLES_AT, CGROUP
    assert hidden.words(words)[0, 4] == 1


def test_where_it_was_made_is_hidden() -> None:
    told = Anonymizer().environment(environment(pool="zram7"))
    assert (told["host"]["name"], told["nodes"], told["pool"]) == ("", None, "zram1")
    assert told["anonymous"] is True
    kept = {"format", "wire_version", "kernel", "clock", "objects", "class_table"}
    assert all(told[name] == environment()[name] for name in kept)


@given(values=st.lists(st.integers(0, 40), min_size=1, max_size=60), seed=st.integers(0, 99))
def test_ordinals_are_of_numbers_not_of_batches(values: list[int], seed: int) -> None:
    """One batch or several: what came first in a batch is called the same."""
    chance = random.Random(seed)
    table = [0, *(0xFFFF_8881_0000_0000 + 56 * at for at in range(40))]
    words = np.zeros((len(values), 7), dtype=np.uint64)
    words[:, 0] = wire.KIND_DEATH
    words[:, 2] = [table[each] for each in values]
    one = Anonymizer()
    cuts = sorted({0, len(values), *(chance.randrange(len(values)) for _ in range(3))})
    parts = [one.words(words[begin:end])[:, 2] for begin, end in pairwise(cuts)]
    found = np.concatenate(parts).tolist()
    again = one.words(words)[:, 2].tolist()
    assert found == again
    assert len(set(found)) == len(set(values))
    assert all(each % 32 == 0 for each in found)


def test_the_golden_one_is_anonymous() -> None:
    with CaptureReader(FOLDER / "anonymous-1.zpcap") as reader:
        assert reader.environment["anonymous"] is True
        header = Header.of((FOLDER / "anonymous-1.zpcap").read_bytes()[: HEADER.size])
        assert header is not None
        moments = [step for step in reader.steps() if isinstance(step, Moment)]
    assert moments and all(set(step.aside["cgroups"].values()) == {"/cgroup1"} for step in moments)
    assert replace(header, sequence=0) == header
