"""Runs of compaction in the model: against the true allocator, and where records were lost."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.delivery import as_words
from tests.model.support import FULL_COVERAGE, KERNEL, SIZES, examples, make_model, snapshot
from tests.true_allocator import Allocator, Machine, Record
from zpobs import wire
from zpobs.model import CountersReading, Coverage, PoolReading, ShadowModel
from zpobs.model.compaction import RUNS_MAX
from zpobs.runs import PoolRuns, RunSums

# Class index, moves, pages freed.
Line = tuple[int, int, int]


def begun(begin_ns: int, trigger: int = wire.TRIGGER_CALL) -> Record:
    return (wire.head(wire.KIND_COMPACT_BEGIN, a=trigger, serial=1), begin_ns, 5, 0, 0, begin_ns, 0)


def told_class(begin_ns: int, at: int, line: Line, trigger: int = wire.TRIGGER_CALL) -> Record:
    """Return a class that took 3 ns; a moment before it is the run's place ``at``."""
    head = wire.head(wire.KIND_COMPACT_CLASS, a=trigger, serial=1)
    index, moves, pages = line
    end_ns = begin_ns + 10 * at
    return (head, end_ns, 5, index, moves | pages << 32, end_ns - 3, begin_ns)


def ended(begin_ns: int, lines: list[Line], trigger: int = wire.TRIGGER_CALL) -> Record:
    head = wire.head(wire.KIND_COMPACT_END, a=trigger, serial=1)
    moves, pages = sum(line[1] for line in lines), sum(line[2] for line in lines)
    return (head, begin_ns + 100, 5, moves, pages, begin_ns, len(lines))


def run(begin_ns: int, lines: list[Line], trigger: int = wire.TRIGGER_CALL) -> list[Record]:
    classes = [told_class(begin_ns, at, line, trigger) for at, line in enumerate(lines, 1)]
    return [begun(begin_ns, trigger), *classes, ended(begin_ns, lines, trigger)]


def told_of(
    records: list[Record],
    counted: tuple[int, int, int],
    *,
    name: str = "zram0",
    coverage: Coverage = FULL_COVERAGE,
    batch: int = 10_000,
) -> PoolRuns:
    """Return what a model tells that counted so many runs, moves and pages."""
    model = ShadowModel(KERNEL, coverage)
    for at in range(0, len(records), batch):
        model.apply(as_words(records[at : at + batch]))
    pool_counters = np.zeros(wire.POOL_WORDS, dtype=np.uint64)
    pool_counters[[wire.POOL_COMPACTIONS, wire.POOL_PAGES_FREED]] = counted[0], counted[2]
    classes = np.zeros((8, wire.CLASS_WORDS), dtype=np.uint64)
    classes[7] = 0, 0, counted[1], 128 | 32 << 32 | 1 << 48
    classes[6] = 0, 0, 0, 112 | 36 << 32 | 1 << 48
    pool = PoolReading(1, 5, name, 1, True, classes, pool_counters)
    model.apply_counters(CountersReading(10**6, 0, 0, 0, 0, (pool,)))
    (view,) = model.snapshot(time_ns=10**7 + 50, mono_ns=10**7).pools
    assert view.runs is not None
    return view.runs


def test_a_run_is_told_class_by_class() -> None:
    lines = [(7, 5, 2), (6, 3, 1)]
    told = told_of(run(1000, lines), (1, 8, 3))
    assert (told.status, told.reasons, told.forgotten) == ("exact", (), 0)
    assert told.by_trigger == {"sysfs": RunSums(1, 8, 5 * 128 + 3 * 112, 3, 100)}
    (made,) = told.recent
    assert made.to_json() == {
        "trigger": "sysfs",
        "begin_ns": 1050,
        "duration_ns": 100,
        "moves": 8,
        "moved_bytes": 976,
        "pages": 3,
        "status": "exact",
        "reasons": [],
        "classes": [
            {
                "index": 7,
                "size": 128,
                "moves": 5,
                "moved_bytes": 640,
                "pages": 2,
                "duration_ns": 3,
            },
            {
                "index": 6,
                "size": 112,
                "moves": 3,
                "moved_bytes": 336,
                "pages": 1,
                "duration_ns": 3,
            },
        ],
        "forecast": None,
    }


def test_how_long_a_class_took_is_not_always_known() -> None:
    """Where its beginning or end was not seen the record has no time for the former."""
    begin, of_class, end = run(1000, [(7, 5, 2)])
    told = told_of([begin, (*of_class[:5], 0, of_class[6]), end], (1, 5, 2))
    assert told.recent[0].classes[0].duration_ns is None
    assert told.status == "exact"


def test_what_began_a_run() -> None:
    """The shrinker tells of itself; else it is the file of zram, or nobody that is known."""
    records = run(1000, [(7, 1, 1)]) + run(2000, [(7, 2, 1)], wire.TRIGGER_SHRINKER)
    assert list(told_of(records, (2, 3, 2)).by_trigger) == ["sysfs", "shrinker"]
    assert list(told_of(records, (2, 3, 2), name="zswap1").by_trigger) == ["other", "shrinker"]
    coverage = Coverage(hooks=11, untold=("no hook tells",))
    told = told_of(records, (2, 3, 2), coverage=coverage)
    assert told.by_trigger == {"unknown": RunSums(2, 3, 3 * 128, 2, 200)}
    assert (told.status, told.reasons) == ("exact", ("no hook tells",))


def test_what_was_lost_of_a_run_is_said() -> None:
    """A class, an end or a beginning that did not come; what is there stays."""
    lines = [(7, 5, 2), (6, 3, 1)]
    whole = run(1000, lines)
    told = told_of([*whole[:1], *whole[2:]], (1, 8, 3))
    (made,) = told.recent
    assert (made.status, made.moves, made.pages, made.moved_bytes) == ("bounded", 8, 3, None)
    assert made.reasons == ("1 of 2 size classes were not told",)
    assert told.by_trigger["sysfs"].moved_bytes is None
    # Another run began: this one has ended.
    told = told_of([*whole[:-1], *run(2000, [(7, 1, 1)])], (2, 9, 4))
    assert told.recent[0].reasons == (
        "its end was not told: these are its classes as far as they were",
    )
    assert (told.recent[0].duration_ns, told.recent[0].moves) == (None, 8)
    assert told.status == "bounded"
    assert told.reasons == ("1 of 9 moves were told", "1 of 4 pages freed were told")
    told = told_of(whole[1:], (1, 8, 3))
    assert (told.status, told.recent[0].status) == ("exact", "exact")
    told = told_of([], (1, 8, 3))
    assert told.reasons[0] == "0 of 1 runs were told"


def test_a_run_under_way_is_not_listed_yet() -> None:
    whole = run(1000, [(7, 5, 2)])
    told = told_of(whole[:-1], (1, 5, 2))
    assert (told.recent, told.under_way_ns, told.status) == ((), 1050, "bounded")


def test_the_last_runs_are_kept() -> None:
    """All count in the sums, in however many batches they come."""
    runs = [run(1000 * (at + 1), [(7, at + 1, 1)]) for at in range(2 * RUNS_MAX)]
    records = [record for each in runs for record in each]
    for batch in (1, 3, 7, len(records)):
        told = told_of(records, (32, 528, 32), batch=batch)
        assert [each.moves for each in told.recent] == list(range(RUNS_MAX + 1, 2 * RUNS_MAX + 1))
        assert all(len(each.classes) == 1 for each in told.recent)
        assert (told.forgotten, told.by_trigger["sysfs"].runs) == (RUNS_MAX, 2 * RUNS_MAX)


@settings(max_examples=examples(25))
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_runs_equal_those_of_the_true_allocator(seed: int, times: int) -> None:
    """Moves, pages and triggers of each run and class, and sums that equal the counters."""
    machine = Machine(seed)
    pool = Allocator(machine, name="zram0")
    rng = random.Random(seed)
    books = []
    for _ in range(times):
        handles = [pool.malloc(rng.choice(SIZES)) for _ in range(rng.randrange(200))]
        for handle in rng.sample(handles, len(handles) * 2 // 3):
            pool.free(handle)
        trigger = rng.choice([wire.TRIGGER_CALL, wire.TRIGGER_SHRINKER])
        moves = {each.index: each.moves for each in pool.own_classes()}
        pages = pool.compact(trigger)
        moved = {each.index: each.moves - moves[each.index] for each in pool.own_classes()}
        books.append((trigger, pages, {index: count for index, count in moved.items() if count}))
    model = make_model()
    model.apply(as_words(machine.records))
    model.apply_counters(machine.reading())
    (view,) = snapshot(model).pools
    told = view.runs
    assert told is not None
    assert (told.status, told.reasons) == ("exact", ())
    names = {wire.TRIGGER_CALL: "sysfs", wire.TRIGGER_SHRINKER: "shrinker"}
    assert [
        (each.trigger, each.pages, {line.index: line.moves for line in each.classes if line.moves})
        for each in told.recent
    ] == [(names[trigger], pages, moved) for trigger, pages, moved in books]
    assert all(each.status == "exact" for each in told.recent)
    sizes = {each.index: each.size for each in pool.own_classes()}
    copied = [sum(sizes[at] * count for at, count in moved.items()) for _, _, moved in books]
    assert [each.moved_bytes for each in told.recent] == copied
