"""The books of lives, held against ones kept a zspage at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.delivery import as_words
from tests.model.observer import Observer
from tests.model.support import FULL_COVERAGE, KERNEL, examples
from tests.true_allocator import GROUPS
from zpobs import wire
from zpobs.life import PoolLife, bucket_of
from zpobs.model import CountersReading, Coverage, PoolReading, ShadowModel

BASE = 0xFFFF_8881_0000_1000
Record = tuple[int, ...]


@dataclass
class Books:
    """Lives of one pool by the definition of :class:`PoolLife`, in plain Python."""

    births: int = 0
    found: int = 0
    deaths: int = 0
    vanished: int = 0
    group_ns: list[int] = field(default_factory=lambda: [0] * GROUPS)
    lifetimes: list[int] = field(default_factory=list)
    unknown: int = 0
    # Address -> birth (None if it was not seen), time and group of the last state.
    alive: dict[int, tuple[int | None, int, int]] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        head, time_ns, address = record[:3]
        life = self.alive.pop(address, None)
        newborn = bool(head >> 8 & wire.FLAG_NEWBORN)
        dead = head & 0xFF == wire.KIND_DEATH
        if life is not None and newborn and life[2] == 0:
            # The kernel's worker has freed it meanwhile.
            self.group_ns[0] += time_ns - life[1]
            self.end(life[0], time_ns)
            life = None
        elif life is not None and newborn:
            self.vanished += 1
            life = None
        if life is not None:
            self.group_ns[life[2]] += time_ns - life[1]
        elif not newborn:
            self.found += 1
        self.births += newborn
        if not dead:
            birth_ns = time_ns if newborn else life[0] if life else None
            self.alive[address] = (birth_ns, time_ns, head >> 16 & 0xFF)
            return
        self.end(life[0] if life else None, time_ns)

    def end(self, birth_ns: int | None, time_ns: int) -> None:
        self.deaths += 1
        if birth_ns is None:
            self.unknown += 1
        else:
            self.lifetimes.append(time_ns - birth_ns)

    def finish(self, now_ns: int) -> None:
        for _, time_ns, group in self.alive.values():
            self.group_ns[group] += now_ns - time_ns


def the_life(model: ShadowModel, now_ns: int, serial: int = 1) -> PoolLife:
    shot = model.snapshot(time_ns=now_ns, mono_ns=now_ns)
    (pool,) = [each for each in shot.pools if each.id == serial]
    assert pool.life is not None
    return pool.life


def assert_equal(life: PoolLife, books: Books, now_ns: int) -> None:
    books.finish(now_ns)
    assert int(life.births.sum()) == books.births
    assert int(life.found.sum()) == books.found
    assert int(life.deaths.sum()) == books.deaths
    assert int(life.vanished.sum()) == books.vanished
    assert int(life.live.sum()) == len(books.alive)
    assert life.group_ns.sum(axis=0).tolist() == books.group_ns
    assert int(life.lifetime_ns.sum()) == sum(books.lifetimes)
    assert int(life.lifetimes_known.sum()) == len(books.lifetimes)
    assert life.lifetimes_unknown == books.unknown
    buckets = bucket_of(np.array(books.lifetimes, dtype=np.uint64))
    assert life.lifetimes.tolist() == np.bincount(buckets, minlength=64).tolist()
    if books.lifetimes:
        assert (life.shortest_ns, life.longest_ns) == (min(books.lifetimes), max(books.lifetimes))
    ages = [now_ns - birth for birth, *_ in books.alive.values() if birth is not None]
    buckets = bucket_of(np.array(ages, dtype=np.uint64))
    assert life.ages.tolist() == np.bincount(buckets, minlength=64).tolist()
    assert life.ages_unknown == len(books.alive) - len(ages)


# Which zspage, what is told of it, its group, how long after the last record, whether twice.
STEPS = st.tuples(
    st.integers(0, 5),
    st.sampled_from(("birth", "state", "state", "death")),
    st.integers(0, GROUPS - 1),
    st.sampled_from((1, 7, 1000, 10**6, 10**9)),
    st.booleans(),
    st.booleans(),
)


def record_of(address: int, kind: str, group: int, time_ns: int) -> Record:
    flags = wire.FLAG_NEWBORN if kind == "birth" else 0
    if kind == "birth":
        group = max(group, 1)
    index = address >> 12 & 7
    if kind == "death":
        return (wire.head(wire.KIND_DEATH, serial=1), time_ns, address, 0, index, 0, 0)
    head = wire.head(wire.KIND_STATE, flags=flags, a=group, b=0, serial=1)
    return (head, time_ns, address, min(group, 1), index, 0, 0)


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(STEPS, min_size=1, max_size=80))
def test_books_equal_those_kept_one_by_one(
    steps: list[tuple[int, str, int, int, bool, bool]],
) -> None:
    """Whatever is told, and however it is cut into batches; births and deaths may go untold."""
    model = ShadowModel(KERNEL, FULL_COVERAGE, life=True)
    books = Books()
    batch: list[Record] = []
    now_ns = 1000
    dead: set[int] = set()
    for number, kind, group, later_ns, twice, cut in steps:
        address = BASE + number * 4096
        # Of the dead nothing is told but a birth: the model takes anything else for late.
        if address in dead and kind != "birth":
            continue
        (dead.add if kind == "death" else dead.discard)(address)
        now_ns += later_ns
        record = record_of(address, kind, group, now_ns)
        books.take(record)
        batch += [record, record] if twice else [record]
        if cut:
            model.apply(as_words(batch))
            batch = []
    model.apply(as_words(batch))
    if books.alive or books.births or books.found:
        assert_equal(the_life(model, now_ns + 500), books, now_ns + 500)


@settings(deadline=None, max_examples=examples(25))
@example(293, [(0, 0), (0, 0), (4, 0), (0, 1)])
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 2**16))))
def test_an_allocators_lives_add_up(seed: int, operations: list[tuple[int, int]]) -> None:
    """Fed by probes alone from the beginning on nothing is found, and nothing vanishes."""
    observer = Observer(seed)
    observer.operate(operations)
    model, records = ShadowModel(KERNEL, FULL_COVERAGE, life=True), observer.machine.records
    while records:
        count = observer.random.randint(1, len(records))
        model.apply(as_words(records[:count]))
        records = records[count:]
    now_ns = observer.machine.tick()
    shot = model.snapshot(time_ns=now_ns, mono_ns=now_ns)
    for pool in shot.pools:
        life = pool.life
        assert life is not None
        assert life.status == "exact"
        assert not (life.started + life.found + life.vanished).any()
        assert (life.births == life.deaths + life.live).all()
        assert int(life.live.sum()) == pool.zspages


def test_a_scan_begins_the_books_and_what_was_there_is_told_apart() -> None:
    model = ShadowModel(KERNEL, FULL_COVERAGE, life=True)
    model.apply(
        as_words([record_of(BASE, "birth", 1, 100), record_of(BASE + 4096, "state", 2, 150)])
    )
    model.cover(FULL_COVERAGE)
    model.note_scan(190, 200, ())
    model.apply(as_words([record_of(BASE, "death", 0, 300)]))
    life = the_life(model, 1000)
    assert (int(life.started.sum()), int(life.births.sum()), int(life.deaths.sum())) == (2, 0, 1)
    assert life.since_ns == 200
    # Its birth was seen, though before the books began; its time counts since they did.
    assert (life.shortest_ns, life.ages_unknown) == (200, 1)
    assert life.group_ns.sum(axis=0)[:3].tolist() == [0, 100, 800]
    model.note_scan(1100, 1200, ())
    assert the_life(model, 1300).since_ns == 200


def test_what_is_lost_or_late_makes_books_bounded() -> None:
    model = ShadowModel(KERNEL, FULL_COVERAGE, life=True)
    model.apply(as_words([record_of(BASE, "birth", 1, 100), record_of(BASE, "state", 2, 200)]))
    assert the_life(model, 300).status == "exact"
    model.apply(as_words([record_of(BASE, "state", 2, 150)]))
    late = the_life(model, 300)
    assert (late.status, len(late.reasons)) == ("bounded", 1)
    pool = PoolReading(1, 5, "zram0", 100, created=True)
    model.apply_counters(CountersReading(250, 3, 0, 0, 0, (pool,)))
    assert any("3 observations" in why for why in the_life(model, 300).reasons)


def test_without_probes_nothing_is_told() -> None:
    model = ShadowModel(KERNEL, Coverage(hooks=0, why_no_hooks="none wanted"), life=True)
    model.apply(as_words([record_of(BASE, "state", 1, 100)]))
    life = the_life(model, 300)
    assert life.to_json() == {"status": "unknown", "reasons": ["no probe is attached: none wanted"]}


@pytest.mark.parametrize(("ns", "bucket"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (2**62, 63)])
def test_buckets(ns: int, bucket: int) -> None:
    assert bucket_of(np.array([ns], dtype=np.uint64)).tolist() == [bucket]
