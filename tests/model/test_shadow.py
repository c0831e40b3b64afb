"""What the model promises beyond equality: lives, tombstones, status, cost, frozen arrays."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.calls import calls_of
from tests.delivery import as_words
from tests.model.support import FULL_COVERAGE, KERNEL, listed, make_model, snapshot
from tests.true_allocator import Allocator, Machine
from zpobs import wire
from zpobs.errors import RecordError
from zpobs.model import CountersReading, Coverage, PoolReading, ShadowModel, parts

ADDRESS = 0xFFFF_8881_0000_1000
OTHER = ADDRESS + 4096
SECOND_NS = 1_000_000_000


def state(
    time_ns: int,
    *,
    address: int = ADDRESS,
    pool: int = 1,
    index: int = 7,
    inuse: int = 3,
    flags: int = 0,
    pages: int = 0,
) -> tuple[int, ...]:
    head = wire.head(wire.KIND_STATE, flags=flags, a=4, b=pages, serial=pool)
    return (head, time_ns, address, inuse, index, 0, 0)


def birth(time_ns: int, *, pages: int = 2, pool: int = 1, index: int = 7) -> tuple[int, ...]:
    return state(time_ns, flags=wire.FLAG_NEWBORN, inuse=1, pages=pages, pool=pool, index=index)


def death(time_ns: int, *, address: int = ADDRESS) -> tuple[int, ...]:
    return (wire.head(wire.KIND_DEATH, serial=1), time_ns, address, 0, 7, 0, 0)


def frames(time_ns: int, *, first: int = 0, pages: int = 2, base: int = 100) -> tuple[int, ...]:
    head = wire.head(wire.KIND_FRAMES, a=first, b=pages, serial=1)
    numbers = [base + first + at if first + at < pages else 0 for at in range(4)]
    return (head, time_ns, ADDRESS, *numbers)


def created(serial: int, time_ns: int, name: str = "zram0", flags: int = 0) -> tuple[int, ...]:
    text = name.encode().ljust(32, b"\0")
    words = [int.from_bytes(text[at : at + 8], "little") for at in range(0, 32, 8)]
    return (wire.head(wire.KIND_POOL_CREATED, flags=flags, serial=serial), time_ns, 5, *words)


def control(kind: int, serial: int, time_ns: int, word: int = 0) -> tuple[int, ...]:
    return (wire.head(kind, serial=serial), time_ns, 5, word, 0, 0, 0)


def reading(mono_ns: int, *serials: int, ring_full: int = 0) -> CountersReading:
    """Pools 1, 2, ... of these readings were created at 5, 60, 70, 80, ..."""
    since_ns = (0, 5, 60, 70, 80)
    pools = tuple(PoolReading(serial, 5, "zram0", since_ns[serial], True) for serial in serials)
    return CountersReading(mono_ns, ring_full, 0, 0, 0, pools)


def fed(*batches: list[tuple[int, ...]]) -> ShadowModel:
    model = make_model()
    for batch in batches:
        model.apply(as_words(batch))
    return model


def only(model: ShadowModel, pool: int = 1) -> tuple[Any, ...]:
    (row,) = listed(snapshot(model))[pool].values()
    return row


# -- lives ------------------------------------------------------------------


def test_an_address_lives_again_in_another_pool_and_class_within_one_batch() -> None:
    """Death and rebirth at one address in one batch leave the second life alone."""
    model = fed([birth(10), frames(10), death(20), birth(30, pool=2, index=9, pages=1)])
    shot = listed(snapshot(model))
    assert shot[1] == {}
    assert shot[2] == {ADDRESS: (9, 1, 4, False, 30, 30, [])}


def test_a_newer_generation_counts_only_when_whole() -> None:
    """A chain is unknown while parts of its newest generation are missing."""
    model = fed([birth(10, pages=6), frames(10, pages=6), frames(10, first=4, pages=6)])
    assert only(model)[6] == [100, 101, 102, 103, 104, 105]
    model.apply(as_words([frames(20, first=4, pages=6, base=200)]))
    assert only(model)[6] == []
    model.apply(as_words([frames(20, pages=6, base=200)]))
    assert only(model)[6] == [200, 201, 202, 203, 204, 205]


def test_frames_from_before_the_birth_are_void() -> None:
    """Page frames of the former life do not become the new one's, whichever comes first."""
    assert only(fed([frames(5), birth(10)]))[6] == []
    assert only(fed([birth(10)], [frames(5)]))[6] == []
    assert only(fed([frames(10)], [birth(10)]))[6] == [100, 101]


def test_frames_alone_make_no_zspage() -> None:
    """FRAMES of an address that no state told of leave nothing live."""
    shot = snapshot(fed([created(1, 1), frames(10)]))
    assert [pool.zspages for pool in shot.pools] == [0]


def test_parts_that_disagree_on_length_do_not_spoil_other_chains() -> None:
    """A part that names a longer chain at the same time starts the chain anew."""
    other = (wire.head(wire.KIND_FRAMES, b=4, serial=1), 12, OTHER, 1, 2, 3, 4)
    model = fed([birth(10), frames(10)], [state(11, address=OTHER), other])
    model.apply(as_words([frames(10, pages=16, first=4), frames(10, pages=16, first=0)]))
    rows = listed(snapshot(model))[1]
    assert rows[OTHER][6] == [1, 2, 3, 4]
    assert rows[ADDRESS][6] == []


def test_zspages_are_listed_by_rising_address() -> None:
    """zspage_list is sorted by address, whatever the order of births."""
    model = fed(*([state(10 + at, address=ADDRESS + 64 * (7 * at % 20))] for at in range(20)))
    table = snapshot(model).pools[0].zspage_list
    assert table is not None
    assert table.address.tolist() == [ADDRESS + 64 * at for at in range(20)]


def test_a_full_length_chain_fits() -> None:
    """A chain of CHAIN_MAX pages arrives whole, in any order of its parts."""
    parts = [frames(10, first=first, pages=16) for first in (12, 0, 8, 4)]
    assert only(fed([birth(10, pages=16), *parts]))[6] == list(range(100, 116))


def test_a_zspage_that_overlaps_a_former_one_replaces_it() -> None:
    """A state at an address inside a former zspage's memory ends that one."""
    model = fed([birth(10), frames(10)], [state(20, address=ADDRESS + 8)])
    rows = listed(snapshot(model))[1]
    assert list(rows) == [ADDRESS + 8]
    assert rows[ADDRESS + 8][4:] == (20, 20, [])


def test_a_deferred_free_spares_what_was_used_again() -> None:
    """Only zspages seen empty before the worker began are dead; late news of those as well."""
    empty = state(10, inuse=0)
    used = state(10, inuse=0, address=OTHER)
    done = control(wire.KIND_DEFERRED_FREE, 1, 40, 20)
    again = state(30, address=OTHER, inuse=1)
    for batches in ([[empty, used, again, done]], [[done], [again, empty, used]]):
        assert list(listed(snapshot(fed(*batches)))[1]) == [OTHER]


# -- tombstones -------------------------------------------------------------


def test_a_late_state_does_not_revive_the_dead() -> None:
    """A state older than the death is ignored, even if it comes in a later batch."""
    model = fed([birth(10), death(30)], [state(20)])
    assert listed(snapshot(model)) == {1: {}}


def test_tombstones_end_with_their_time() -> None:
    """Rows of the dead are free again once records are TOMBSTONE_NS newer."""
    model = fed([birth(10), frames(10), death(30)])
    assert model.rows_held == 1
    model.apply(as_words([birth(30 + parts.TOMBSTONE_NS + 1)]))
    assert model.rows_held == 1
    model.apply(as_words([state(SECOND_NS * 60, address=OTHER)]))
    assert model.rows_held == 2


def test_a_zspage_may_die_and_live_again_within_one_step_of_the_clock() -> None:
    """Of one time, what follows a birth is the new life's, wherever a batch ends."""
    lives = [birth(10), death(10), birth(10, pages=1, index=8), state(10, index=8, inuse=2)]
    for at in range(1, 4):
        assert only(fed(lives[:at], lives[at:]))[:2] == (8, 2)
    for at in range(1, 5):
        gone = fed(lives[:at], [*lives[at:], death(10)])
        assert listed(snapshot(gone)) == {1: {}}
    assert listed(snapshot(fed(lives[:2], [state(10)]))) == {1: {}}


def test_a_second_death_has_its_own_time() -> None:
    """A tombstone lasts from the newest death on, not from an earlier one at that address."""
    model = fed([birth(10), death(30)], [birth(4 * SECOND_NS), death(5 * SECOND_NS)])
    model.apply(as_words([state(7 * SECOND_NS, address=OTHER)]))
    model.apply(as_words([state(4 * SECOND_NS + 5)]))
    assert list(listed(snapshot(model))[1]) == [OTHER]


def test_tombstones_are_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """More dead zspages than TOMBSTONE_ROWS within their time give the oldest rows back."""
    monkeypatch.setattr(parts, "TOMBSTONE_ROWS", 100)
    model = make_model()
    for base in range(0, 1000, 50):
        some = [ADDRESS + 64 * at for at in range(base, base + 50)]
        model.apply(as_words([death(100 + base + at, address=a) for at, a in enumerate(some)]))
    assert model.rows_held == 100


def test_five_million_lives_leave_no_memory_behind() -> None:
    """Births and deaths over few live zspages, at ever new addresses, keep memory constant."""
    model = make_model()
    count = 50_000
    rng = np.random.default_rng(3)
    sizes = []
    for turn in range(100):
        # Slab pages wander over memory; a step is longer than tombstones last.
        base = ADDRESS + (int(rng.integers(0, 1 << 12)) << 21)
        address = np.uint64(base) + np.arange(count, dtype=np.uint64) * np.uint64(56)
        time_ns = np.uint64(turn * 6 * SECOND_NS + 1) + np.arange(count, dtype=np.uint64)
        model.apply(_lives(address, time_ns, pages=1 + turn % 4))
        sizes.append(model.nbytes)
    assert model.rows_held <= 2 * count
    # Tables of 2 MiB blocks stay: two KiB for each that ever held a zspage.
    assert sizes[-1] < sizes[10] * 1.25


def _lives(address: np.ndarray, time_ns: np.ndarray, pages: int) -> wire.Words:
    words = np.zeros((3, len(address), wire.RECORD_WORDS), dtype=np.uint64)
    words[0, :, 0] = wire.head(1, flags=wire.FLAG_NEWBORN, a=1, b=pages, serial=1)
    words[1, :, 0] = wire.head(wire.KIND_FRAMES, b=pages, serial=1)
    words[2, :, 0] = wire.head(wire.KIND_DEATH, serial=1)
    words[:, :, 1] = time_ns
    words[2, :, 1] += np.uint64(1_000_000)
    words[:, :, 2] = address
    words[0, :, 3] = 1
    return words.reshape(-1, wire.RECORD_WORDS)


# -- pools --------------------------------------------------------------------


def test_pool_identity_is_the_serial() -> None:
    """Pools of one name and address are two pools if their serials differ."""
    model = fed([created(1, 5), created(2, 6), state(10), state(11, address=OTHER, pool=2)])
    shot = snapshot(model)
    assert [(pool.id, pool.name, pool.zspages) for pool in shot.pools] == [
        (1, "zram0", 1),
        (2, "zram0", 1),
    ]


def test_serials_with_equal_low_bits_are_two_pools() -> None:
    """Pools whose serials agree in their low 16 bits keep their own zspages."""
    far = 1 + (1 << 16)
    model = fed([state(10)], [state(11, address=OTHER, pool=far)], [state(20), state(20, pool=far)])
    assert {serial: len(rows) for serial, rows in listed(snapshot(model)).items()} == {1: 0, far: 2}
    model.apply(as_words([state(30)]))
    assert {serial: len(rows) for serial, rows in listed(snapshot(model)).items()} == {1: 1, far: 1}


@pytest.mark.parametrize(
    ("name", "owner"),
    [("zram0", "zram"), ("zram12", "zram"), ("zswap3f", "zswap"), ("zram", "unknown")],
)
def test_owner_follows_from_the_name(name: str, owner: str) -> None:
    """zram<digits> is zram's pool, zswap<hex> is zswap's, any other nobody's known."""
    (pool,) = snapshot(fed([created(1, 5, name)])).pools
    assert (pool.name, pool.owner) == (name, owner)


def test_since_is_told_in_wall_clock_time() -> None:
    """A pool's since_ns is wall-clock time, as much ago as its creation is."""
    model = fed([created(1, 400)])
    (pool,) = model.snapshot(time_ns=10_000, mono_ns=1000).pools
    assert pool.since_ns == 10_000 - 600


def test_a_reading_ends_pools_and_brings_lost_ones() -> None:
    """A pool missing from a complete reading is gone, one only there is entered."""
    model = fed([created(1, 5), state(10), created(3, 60)])
    model.apply_counters(reading(50, 2))
    assert [pool.id for pool in snapshot(model).pools] == [2, 3]


def test_a_late_state_of_a_destroyed_pool_counts_nowhere() -> None:
    """News of a destroyed pool that come after its end are in no pool, and leave no row."""
    model = fed([created(1, 5), created(2, 6), control(wire.KIND_POOL_DESTROYED, 1, 20)])
    model.apply(as_words([state(10)]))
    assert listed(snapshot(model)) == {2: {}}
    assert [pool.zspages for pool in snapshot(model).pools] == [0]
    model.apply(as_words([state(60 * SECOND_NS, address=OTHER, pool=2)]))
    assert model.rows_held == 1


def test_many_pools_in_a_row_leave_only_the_last() -> None:
    """Thousands of pools that come and go do not fill the model up."""
    model = make_model()
    for serial in range(1, 3000):
        at = serial * 100
        model.apply(
            as_words(
                [
                    created(serial, at),
                    state(at + 1, pool=serial),
                    control(wire.KIND_DEFERRED_FREE, serial, at + 2, 10**9),
                    control(wire.KIND_POOL_DESTROYED, serial, at + 3),
                ]
            )
        )
    # Its slot was another pool's: nothing of that may cling to it.
    model.apply(as_words([created(3000, 10**6), state(10**6 + 1, pool=3000, inuse=0)]))
    assert {serial: len(rows) for serial, rows in listed(snapshot(model)).items()} == {3000: 1}


def test_pools_can_be_chosen_by_name_or_id() -> None:
    """snapshot(pool=...) keeps the pools of that name, or the one of that id."""
    model = fed([created(1, 5), created(2, 6, "zswap1")])
    assert [p.id for p in model.snapshot(time_ns=1, mono_ns=1, pool="zswap1").pools] == [2]
    assert [p.id for p in model.snapshot(time_ns=1, mono_ns=1, pool="1").pools] == [1]
    assert model.snapshot(time_ns=1, mono_ns=1, pool="none").pools == ()


# -- status -------------------------------------------------------------------


def test_loss_before_a_pools_birth_does_not_touch_it() -> None:
    """A pool created after the reading that told the loss is exact, an older one bounded."""
    model = fed([created(1, 5)])
    model.apply_counters(reading(50, 1, ring_full=3))
    model.apply(as_words([created(2, 60)]))
    model.apply_counters(reading(90, 1, 2, ring_full=3))
    assert {pool.id: pool.status for pool in snapshot(model).pools} == {1: "bounded", 2: "exact"}
    assert snapshot(model).health.status == "bounded"
    assert "3 records found the ring full" in snapshot(model).health.reasons


def test_loss_read_before_a_pools_first_record_arrives_counts_for_it() -> None:
    """A pool born before a reading is bounded by the loss that reading told."""
    model = make_model()
    model.apply_counters(replace(reading(50, 1, ring_full=3), pools=()))
    model.apply(as_words([created(1, 40)]))
    assert snapshot(model).pools[0].status == "bounded"


def test_unpaired_and_missed_runs_are_loss() -> None:
    """Each kind of lost observation makes a pool bounded and has its sentence."""
    for field in ("ring_full", "unpaired", "missed_runs"):
        model = fed([created(1, 5)])
        model.apply_counters(replace(reading(50, 1), **{field: 2}))
        shot = snapshot(model)
        assert shot.pools[0].status == "bounded"
        assert len(shot.health.reasons) == 1
        assert (shot.health.lost, shot.health.missed_runs) == (
            (2, 0) if field == "ring_full" else (0, 2)
        )


def test_unseen_creation_or_state_is_unknown() -> None:
    """A late pool, one met in use, and any pool with unseen state are unknown."""
    late = fed([created(1, 5, flags=wire.FLAG_LATE), state(9, pool=2)])
    late.apply_counters(CountersReading(8, 0, 0, 0, 0, ()))
    assert [pool.status for pool in snapshot(late).pools] == ["unknown"]
    blind = ShadowModel(KERNEL, Coverage(hooks=1, unseen=("deaths are not seen",)))
    blind.apply_counters(reading(9))
    assert snapshot(blind).health.status == "unknown"
    assert snapshot(blind).health.reasons == ("deaths are not seen",)


def test_nothing_is_exact_before_the_loss_is_known() -> None:
    """Without any reading the status is unknown, and says why."""
    shot = snapshot(fed([created(1, 5)]))
    assert (shot.health.status, shot.pools[0].status) == ("unknown", "unknown")
    assert shot.health.reasons == ("the loss counters were not read yet",)


def test_uncounted_fields_are_none() -> None:
    """Counters without a hook, and those of a pool without a slot, are None."""
    machine = Machine(1)
    pool = Allocator(machine)
    pool.malloc(100)
    model = ShadowModel(KERNEL, replace(FULL_COVERAGE, uncounted=frozenset({"frees", "failures"})))
    model.apply(as_words(machine.records))
    assert snapshot(model).pools[0].counters.allocs is None
    model.apply_counters(machine.reading())
    view = snapshot(model).pools[0]
    assert (view.counters.allocs, view.counters.frees, view.counters.failures) == (1, None, None)
    assert view.classes.frees is None
    assert view.counters.moves == 0


def test_the_spacing_of_classes_is_known_from_a_creation_whose_counters_tell_all() -> None:
    """The last class is told last: until it is there the table may have gaps."""
    words = np.zeros((4, wire.CLASS_WORDS), dtype=np.uint64)
    words[[0, 2], wire.CLASS_GEOMETRY] = [32 | 128 << 32 | 1 << 48, 64 | 64 << 32 | 1 << 48]

    def below(created: bool) -> list[int]:
        model = make_model()
        told = PoolReading(1, 5, "zram0", 5, created, words, np.zeros(5, dtype=np.uint64))
        model.apply_counters(CountersReading(50, 0, 0, 0, 0, (told,)))
        return snapshot(model).pools[0].classes.size_below.tolist()

    assert below(created=True) == [-1, -1]
    words[3, wire.CLASS_GEOMETRY] = 4096 | 1 << 32 | 1 << 48
    assert below(created=True) == [0, 32, 64]
    assert below(created=False) == [-1, -1, -1]


# -- records, events, arrays -----------------------------------------------


def test_a_foreign_record_is_refused_before_anything_changes() -> None:
    """An unknown kind, or a chain part that no chain has, leaves the model as it was."""
    model = fed([birth(10)])
    before = listed(snapshot(model))
    for wrong in ((99, 20, ADDRESS, 0, 0, 0, 0), frames(20, first=3), frames(20, pages=17)):
        with pytest.raises(RecordError):
            model.apply(as_words([state(15, inuse=9), wrong]))
        assert listed(snapshot(model)) == before


def test_events_are_the_newest_ones_in_signed_numbers() -> None:
    """A snapshot tells the last events; errors are negative numbers."""
    head = wire.head(wire.KIND_MIGRATION, serial=1)
    failed = (head, 20, ADDRESS, 7, 8, 2**64 - 16, 0)
    model = fed([failed] * 300 + [control(wire.KIND_COMPACT_BEGIN, 1, 30)])
    events = snapshot(model).events
    assert len(events) == parts.EVENTS_KEPT
    assert snapshot(model).events_seen == 301
    assert (events[0].kind, events[0].zspage, events[0].values) == (
        "migration",
        ADDRESS,
        (7, 8, -16),
    )
    assert (events[-1].kind, events[-1].values) == ("compact_begin", ())


def test_published_arrays_cannot_be_written() -> None:
    """Every array of a snapshot refuses to be changed, and holds when the model goes on."""
    machine = Machine(2)
    pool = Allocator(machine)
    for _ in range(50):
        pool.malloc(1500)
    model = make_model()
    model.apply(as_words(machine.records))
    model.apply_counters(machine.reading())
    shot = snapshot(model)
    view = shot.pools[0]
    assert view.zspage_list is not None
    held = 0
    for table in (view.classes, view.zspage_list):
        for name in table.__slots__:
            array = getattr(table, name)
            if isinstance(array, np.ndarray):
                held += 1
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0
    assert held == 11 + 15
    before = shot.to_json()
    pool.compact()
    model.apply(as_words(machine.records))
    assert shot.to_json() == before


def test_memory_per_zspage_is_within_budget() -> None:
    """A million zspages of three pages take at most 64 bytes each, and 8 a page."""
    model = make_model()
    count, per_slab = 1_000_000, 73
    slabs = np.random.default_rng(1).permutation(1 << 15)[: -(-count // per_slab)]
    address = (slabs[:, None] * 4096 + np.arange(per_slab) * 56).reshape(-1)[:count]
    address = address.astype(np.uint64) + np.uint64(ADDRESS)
    time_ns = np.arange(1, count + 1, dtype=np.uint64)
    for at in range(0, count, 50_000):
        part = slice(at, at + 50_000)
        model.apply(_lives(address[part], time_ns[part], pages=3)[: 2 * 50_000])
    assert snapshot_count(model) == count
    assert model.nbytes <= count * (64 + 3 * 8)


def snapshot_count(model: ShadowModel) -> int:
    return sum(pool.zspages for pool in model.snapshot(time_ns=1, mono_ns=1).pools)


# -- cost -------------------------------------------------------------------


def mixed_batch(count: int, *, seed: int) -> wire.Words:
    """Births with frames, states and deaths, out of order, over enough zspages."""
    rng = np.random.default_rng(seed)
    address = np.uint64(ADDRESS) + np.arange(count, dtype=np.uint64) * np.uint64(64)
    time_ns = rng.permutation(count).astype(np.uint64) + np.uint64(1)
    lives = _lives(address, time_ns, pages=3)
    return rng.permutation(lives)[:count]


def test_python_calls_do_not_depend_on_the_number_of_records() -> None:
    """A batch of 100,000 records makes exactly as many calls as one of 1,000."""
    counts = []
    for size in (1_000, 100_000):
        model = make_model()
        model.apply(mixed_batch(size, seed=1))
        batch = mixed_batch(size, seed=2)
        batch[:, 1] += np.uint64(1_000)
        counts.append(calls_of(lambda model=model, batch=batch: model.apply(batch)))
    assert counts[0] == counts[1]
    assert counts[0] < 1500


def test_row_order_in_memory_does_not_matter() -> None:
    """Row-major and column-major batches give the same model."""
    rng = random.Random(4)
    records = [
        state(rng.randint(1, 99), address=ADDRESS + 64 * rng.randint(0, 9)) for _ in range(99)
    ]
    rows, columns = make_model(), make_model()
    rows.apply(as_words(records))
    columns.apply(np.asfortranarray(as_words(records)))
    assert listed(snapshot(rows)) == listed(snapshot(columns))
