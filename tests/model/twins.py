"""Two models that must answer alike, the second made of the state of one at any moment."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from tests.model.observer import Observer
from tests.model.support import FULL_COVERAGE, KERNEL
from tests.model.telling import Told
from zpobs.model import CountersReading, Coverage, ShadowModel
from zpobs.model.objects import ObjectLedger
from zpobs.model.state import ModelState
from zpobs.objects import Sampling
from zpobs.snapshot import Snapshot

# Below 100 they are operations; above, looks, losses, long waits, probes that attach, and scans.
LOOK, LOSE, WAIT, ATTACH, SCAN, END = 100, 115, 118, 120, 121, 134


def assert_same(one: Any, other: Any, what: str = "") -> None:
    """Hold two values against each other, down to the elements of arrays."""
    assert type(one) is type(other), what
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            inside = f"{what}.{field.name}"
            assert_same(getattr(one, field.name), getattr(other, field.name), inside)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, what
        assert np.array_equal(one, other), what
    elif isinstance(one, tuple | list):
        assert len(one) == len(other), what
        for at, (mine, its) in enumerate(zip(one, other, strict=True)):
            assert_same(mine, its, f"{what}[{at}]")
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), what
        for key in one:
            assert_same(one[key], other[key], f"{what}[{key}]")
    else:
        assert one == other, what


def through_a_file(state: ModelState) -> ModelState:
    """Return a state as a reader of a file has it."""
    columns = {
        name: np.frombuffer(column.tobytes(), column.dtype)
        for name, column in state.columns.items()
    }
    return ModelState(json.loads(json.dumps(state.values)), columns)


def sorted_tables(state: ModelState) -> dict[str, list[tuple[int, ...]]]:
    """Return the rows of each table but those of zspages, which have an order, in any order."""
    tables: dict[str, list[Any]] = {}
    for name, column in state.columns.items():
        table = name.rpartition(".")[0]
        if not name.endswith(".frames"):
            tables.setdefault(table, []).append(column.tolist())
    return {table: sorted(zip(*columns, strict=True)) for table, columns in tables.items()}


def assert_same_state(one: ModelState, other: ModelState) -> None:
    assert_same(one.values, other.values)
    tables, others = sorted_tables(one), sorted_tables(other)
    for table in tables:
        assert tables[table] == others[table], table
    for name in one.columns:
        if name.endswith(".frames"):
            assert one.columns[name].tolist() == other.columns[name].tolist()


class Twins:
    """A model and one made of its state at some moment: whatever is asked, both answer alike.

    At each call the second is made anew with probability ``renewing``, of the first or of itself.
    """

    def __init__(self, model: ShadowModel, renewing: float, seed: int) -> None:
        self.first = self.second = model
        self.renewing = renewing
        self.random = random.Random(seed)
        self.renewed = 0
        # What was asked and answered, for others.
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any], Any]] = []
        self.renew()

    @property
    def both(self) -> tuple[ShadowModel, ShadowModel]:
        return self.first, self.second

    def renew(self) -> None:
        whose = self.random.choice(self.both)
        state = whose.state()
        self.second = ShadowModel.restored(KERNEL, through_a_file(state))
        assert_same_state(state, self.second.state())
        self.renewed += 1

    def ask(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.random.random() < self.renewing:
            self.renew()
        first, second = (answer(each, name, args, kwargs) for each in self.both)
        assert_same(first, second, name)
        self.calls.append((name, args, kwargs, first))
        return first

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: self.ask(name, *args, **kwargs)


def answer(model: ShadowModel, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a model answers."""
    if name == "lose_objects":
        if model.objects:
            model.objects.losses = args
        return None
    told = getattr(model, name)
    return told(*args, **kwargs) if callable(told) else told


class Watched(Observer):
    """An observer of a model and its twin."""

    def __init__(
        self,
        seed: int,
        listening: list[Told],
        *,
        renewing: float,
        life: bool = True,
        rate: int = 1,
        coverage: Coverage = FULL_COVERAGE,
        loss: float = 0,
        reach: int = 0,
    ) -> None:
        super().__init__(seed, coverage=coverage, loss=loss, skipped=loss / 10, reach=reach)
        model = ShadowModel(KERNEL, coverage, life=life)
        listening.append(Told(Sampling.seeded(rate or 1 << 32, seed)))
        if rate:
            model.objects = ObjectLedger(listening[-1].sampling, kept=60)
            model.objects.begin(1, "", (("zram", "blocks are unknown"),))
        self.twins = Twins(model, renewing, seed)
        self.model = cast(ShadowModel, self.twins)

    def look(self) -> Snapshot:
        for what in ("unverified", "rows_held"):
            self.twins.ask(what)
        now_ns = self.machine.now_ns
        return self.model.snapshot(time_ns=now_ns + 10**9, mono_ns=now_ns, zspages=True)

    def read(self) -> None:
        """Read counters as observers do, but some pools found no place for theirs."""
        apply = self.twins.apply_counters

        def some(reading: CountersReading) -> None:
            pools = [
                dataclasses.replace(pool, class_counters=None, pool_counters=None)
                if pool.serial % 2
                else pool
                for pool in reading.pools
            ]
            apply(dataclasses.replace(reading, pools=tuple(pools)))

        self.twins.apply_counters = some
        super().read()
        del self.twins.apply_counters

    def go(self, steps: list[tuple[int, int]]) -> None:
        """Take steps; a scan goes on during some of those that follow it."""
        todo = steps[::-1]
        while todo:
            step, pick = todo.pop()
            if step < LOOK:
                self.step(step, pick)
            elif step < LOSE:
                self.drain()
                self.read()
                self.look()
            elif step < WAIT:
                self._lose(pick)
            elif step < ATTACH:
                self.machine.now_ns += pick * 1_000_000
            elif step < SCAN:
                missing = ("a kernel symbol",) if pick % 2 else ()
                self.attach()
                self.model.cover(dataclasses.replace(FULL_COVERAGE, untold=missing))
            else:
                during = [todo.pop() for _ in range(min(max(pick % 60 - 30, 0), len(todo)))]
                self.scan([each for each in during if each[0] < LOOK])
                self.look()
        self.drain()
        self.read()
        self.look()
        assert_same_state(*(each.state() for each in self.twins.both))

    def _lose(self, pick: int) -> None:
        reading = self.machine.reading()
        missed = {"migrations": pick % 3 + 1} if pick % 2 else {}
        told = dataclasses.replace(
            reading,
            missed_counting_runs=pick % 3,
            missed_counts=missed,
            untracked_pools=pick % 5 // 4,
        )
        self.model.apply_counters(told)
        if pick % 7 == 0:
            self.twins.ask("lose_objects", "3 runs of its probes were skipped")
