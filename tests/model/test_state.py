"""A model made of the state of another says, and will say, the same as that."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.delivery import as_words
from tests.model.observer import NO_PROBES
from tests.model.support import FULL_COVERAGE, KERNEL, examples
from tests.model.telling import Told, telling
from tests.model.test_shadow import (
    OTHER,
    birth,
    control,
    death,
    fed,
    frames,
    state,
)
from tests.model.twins import ATTACH, END, Twins, Watched, answer, assert_same
from zpobs import wire
from zpobs.errors import EXIT_BAD_INPUT, StateError
from zpobs.model import Coverage, ShadowModel
from zpobs.model.state import ModelState

STEPS = st.lists(st.tuples(st.integers(0, END), st.integers(0, 10_000)), min_size=10, max_size=120)
# Told by no figure: it is there for those who read files.
FOR_READERS = {("objects.node",), ("rounds", "begin_ns")}
HISTORIES = 40
COVERAGES = (
    FULL_COVERAGE,
    Coverage(9, ("a",), frozenset({"moves"}), ("births: a is not attached",), "", ("triggers",)),
    Coverage(hooks=0, why_no_hooks="refused"),
)
# 1 in so many handles is told, 0: nothing of objects.
RATES = st.sampled_from([0, 1, 3])


@pytest.fixture(scope="module")
def listening() -> Iterator[list[Told]]:
    with telling() as told:
        yield told


@settings(deadline=None, max_examples=examples(40))
@given(
    STEPS,
    st.integers(0, 1000),
    st.sampled_from([0, 60]),
    st.sampled_from([0, 3, 40]),
    st.sampled_from([0, 0.03, 0.3]),
    st.booleans(),
    RATES,
    st.sampled_from([FULL_COVERAGE, NO_PROBES]),
)
def test_a_restored_model_says_what_the_other_does_from_then_on(
    listening: list[Told],
    steps: list[tuple[int, int]],
    seed: int,
    warm: int,
    reach: int,
    loss: float,
    life: bool,
    rate: int,
    coverage: Coverage,
) -> None:
    """At any moment: between batches, in the middle of walks, before what comes late."""
    observer = Watched(
        seed,
        listening,
        renewing=0.1,
        life=life,
        rate=rate,
        coverage=coverage,
        loss=loss,
        reach=reach,
    )
    observer.warm_up(warm)
    observer.go(steps)
    assert observer.twins.renewed


def history(seed: int, listening: list[Told]) -> tuple[ModelState, list[Any]]:
    """Return the state of a model in the middle of a history, and what is asked from there on."""
    observer = Watched(
        seed,
        listening,
        renewing=0,
        loss=0.02 * (seed % 2),
        reach=40 if seed % 2 else 0,
        rate=(1, 3)[seed // 2 % 2],
        coverage=COVERAGES[seed % 3],
    )
    observer.overtaken, observer.slicing = 0.3, 0.5
    observer.warm_up(100)
    chance = observer.random
    steps = [(chance.randint(0, END), chance.randrange(10_000)) for _ in range(110)]
    observer.go(steps[:30])
    if seed % 6 == 5:
        observer.go([(ATTACH, 1)])
    observer.go(steps[30:60])
    # In the middle of a walk, or behind it.
    stop = chance.randrange(1, 12)
    state: list[ModelState] = []
    ask = observer.twins.ask

    def until_then(name: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal stop
        stop -= name == "apply"
        if stop <= 0 and not state:
            observer.twins.calls.clear()
            state.append(observer.twins.first.state())
        return ask(name, *args, **kwargs)

    observer.twins.ask = until_then  # type: ignore[method-assign]
    observer.go([(END, 59), *steps[60:], (END, 0), (END, 0)])
    return state[0], observer.twins.calls


def late_history() -> tuple[ModelState, list[Any]]:
    """The same of a model to which all comes too late then, or too early before."""

    def of(address: int, record: tuple[int, ...]) -> tuple[int, ...]:
        return (*record[:2], address, *record[3:])

    deferred = control(wire.KIND_DEFERRED_FREE, 1, 60, 50)
    before = [birth(10), frames(10), frames(20, base=300), of(OTHER, birth(10)), deferred]
    before += [of(OTHER, death(30)), of(OTHER + 4096, frames(40))]
    # A scan finds nothing in a class.
    begin, end = wire.head(wire.KIND_SCAN_BEGIN, serial=1), wire.head(wire.KIND_SCAN_END, serial=1)
    before.append((begin, 70, 5, 8, 100 | 40 << 32 | 1 << 48, 0, 0))
    before.append((end | wire.FLAG_STEADY << 8, 75, 5, 8, 70, 0, 0))
    after = [
        state(65, address=OTHER + 12288, index=8),
        frames(15, base=500),
        state(20, address=OTHER),
        of(OTHER + 4096, birth(40)),
    ]
    after += [of(OTHER + 8192, state(45, inuse=0))]
    twins = Twins(fed(before), 0, 0)
    twins.ask("snapshot", time_ns=100, mono_ns=100, zspages=True)
    kept = twins.first.state()
    twins.calls.clear()
    for record in after:
        twins.ask("apply", as_words([record]))
        twins.ask("snapshot", time_ns=100, mono_ns=100, zspages=True)
    return kept, twins.calls


def differs(state: ModelState, calls: list[Any]) -> bool:
    """Tell whether a model of a state answers anything but what was answered, or is refused."""
    try:
        model = ShadowModel.restored(KERNEL, state)
    except StateError:
        return True
    for name, args, kwargs, told in calls:
        try:
            assert_same(told, answer(model, name, args, kwargs))
        except AssertionError:
            return True
    return False


def altered(value: Any) -> Any:
    """Return another value that could stand in its place, None if there is none."""
    if isinstance(value, np.ndarray):
        if value.dtype == bool:
            return ~value if len(value) else None
        return np.zeros_like(value) if value.any() else np.ones_like(value) if len(value) else None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 10**12
    return value + "x" if isinstance(value, str) else value[:-1] if value else ["x"]


def leaves(values: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from leaves(value, (*path, name))
        elif value is not None:
            yield (*path, name)


def with_other(state: ModelState, path: tuple[str, ...]) -> ModelState | None:
    """Return a state with one column or value altered, None if it has none to alter."""
    values, columns = copy.deepcopy(dict(state.values)), dict(state.columns)
    inside: Any = columns if path[0] in columns else values
    for name in path[:-1]:
        inside = inside.get(name) or {}
    other = altered(inside[path[-1]]) if path[-1] in inside else None
    if other is None:
        return None
    inside[path[-1]] = other
    return ModelState(values, columns)


def test_whatever_is_saved_matters(listening: list[Told]) -> None:
    """Each column and value, were it another, would show: at once, or in what is judged later."""
    left: set[tuple[str, ...]] = set()
    met: set[tuple[str, ...]] = set()
    for seed in range(HISTORIES):
        state, calls = history(seed, listening) if seed else late_history()
        assert not differs(state, calls)
        names = {(name,) for name in state.columns} | set(leaves(state.values))
        left |= names - met - FOR_READERS
        met |= names
        for path in sorted(left):
            other = with_other(state, path)
            if other is not None and differs(other, calls):
                left.remove(path)
        if seed > 10 and not left:
            break
    assert not left, " ".join(".".join(each) for each in sorted(left))


@pytest.fixture(scope="module")
def rich(listening: list[Told]) -> ModelState:
    """Return a state with rows in nearly every table."""
    kept, _ = history(15, listening)
    empty = [name for name, column in kept.columns.items() if not len(column)]
    assert {name.partition(".")[0] for name in empty} <= {"migrations"}
    return kept


def test_all_columns_are_there_and_as_long_as_each_other(rich: ModelState) -> None:
    for name in rich.columns:
        columns = dict(rich.columns)
        del columns[name]
        with pytest.raises(StateError, match=f"has no column {name}"):
            ShadowModel.restored(KERNEL, ModelState(rich.values, columns))
        columns[name] = np.append(rich.columns[name], rich.columns[name].dtype.type(0))
        with pytest.raises(StateError):
            ShadowModel.restored(KERNEL, ModelState(rich.values, columns))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zspages.pool", -1),
        ("zspages.pool", 77777),
        ("zspages.pool", 2**32),
        ("zspages.class_index", 512),
        ("zspages.inuse", 2**16),
        ("zspages.fullness", KERNEL.fullness_groups),
        ("zspages.flags", 0x80),
        ("zspages.address", 0),
        ("zspages.pages", 17),
        ("zspages.parts", 255),
        ("zspages.seen_ns", -1),
        ("tombstones.pool", 77777),
        ("burials.address", 5),
        ("pools.serial", 2**32),
        ("pools.counted_classes", 513),
        ("pools.created", 2),
        ("counters.class_index", 400),
        ("classes.class_index", 512),
        ("classes.pool", -1),
        ("runs.classes.begin_ns", 7),
        ("runs.triggers.trigger", 3),
        ("runs.moves.class_index", 512),
        ("events.head", wire.KIND_STATE),
        ("life.groups.group", 16),
        ("life.lifetimes.bucket", 64),
        ("objects.handle", 0),
        ("objects.class_index", 512),
        ("objects.cpu", 2**16),
        ("objects.lifetimes.bucket", 64),
        ("objects.groups.group", 64),
        ("objects.groups.sum", 66),
    ],
)
def test_a_column_with_a_value_that_cannot_be_is_refused(
    rich: ModelState, name: str, value: int
) -> None:
    column = rich.columns[name].astype(object)
    column[-1] = value
    signed = min(column.tolist()) < 0
    wide = np.array(column.tolist(), dtype=np.int64 if signed else np.uint64)
    with pytest.raises(StateError) as refused:
        ShadowModel.restored(KERNEL, ModelState(rich.values, {**rich.columns, name: wide}))
    assert refused.value.exit_status == EXIT_BAD_INPUT
    assert name.rpartition(".")[0] in str(refused.value)


@pytest.mark.parametrize("name", ["pools.serial", "zspages.address", "objects.handle"])
def test_what_tells_rows_apart_may_not_be_twice(rich: ModelState, name: str) -> None:
    column = rich.columns[name].copy()
    column[0] = column[-1]
    with pytest.raises(StateError, match=name):
        ShadowModel.restored(KERNEL, ModelState(rich.values, {**rich.columns, name: column}))


@pytest.mark.parametrize(
    "column", [np.zeros((2, 2), dtype=np.uint64), np.zeros(2), np.array(["a"])], ids=str
)
def test_only_lists_of_whole_numbers_are_columns(rich: ModelState, column: Any) -> None:
    columns = {**rich.columns, "pools.serial": column}
    with pytest.raises(StateError, match="no list of whole numbers"):
        ShadowModel.restored(KERNEL, ModelState(rich.values, columns))


def test_addresses_all_over_the_place_are_refused(rich: ModelState) -> None:
    """An index of them would take more memory than there is."""
    handles = np.arange(1, 5000, dtype=np.uint64) << np.uint64(37)
    columns = dict(rich.columns)
    for name, column in rich.columns.items():
        if name.rpartition(".")[0] == "objects":
            columns[name] = np.repeat(column[:1], len(handles))
    columns["objects.handle"] = handles
    with pytest.raises(StateError, match=r"objects\.handle"):
        ShadowModel.restored(KERNEL, ModelState(rich.values, columns))


def test_values_are_of_their_kinds(rich: ModelState) -> None:
    """Whatever stands in the place of one, if it is of another kind, or nothing does."""
    for path in leaves(rich.values):
        for other in (None, -1, "nothing", [1], 1.5, {}):
            values = copy.deepcopy(dict(rich.values))
            inside: Any = values
            for name in path[:-1]:
                inside = inside[name]
            if type(inside[path[-1]]) is type(other):
                continue
            inside[path[-1]] = other
            with pytest.raises(StateError):
                ShadowModel.restored(KERNEL, ModelState(values, rich.columns))


def test_what_is_not_known_is_refused(rich: ModelState) -> None:
    columns = {**rich.columns, "zspages.colour": rich.columns["zspages.inuse"]}
    with pytest.raises(StateError, match=r"zspages\.colour"):
        ShadowModel.restored(KERNEL, ModelState(rich.values, columns))
    with pytest.raises(StateError, match="colour"):
        ShadowModel.restored(KERNEL, ModelState({**rich.values, "colour": 1}, rich.columns))
