"""The ledger of objects, held against one kept an object at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.delivery import as_words
from tests.model.support import FULL_COVERAGE, KERNEL, examples
from zpobs import wire
from zpobs.life import bucket_of
from zpobs.model import CountersReading, PoolReading, ShadowModel
from zpobs.model.objects import ObjectLedger
from zpobs.objects import SIZE_BAND_BYTES, SIZE_BANDS, PoolObjects, Sampling

HANDLE = 0xFFFF_8881_0100_0000
ZSPAGE = 0xFFFF_8881_0200_0000
ALL = Sampling.seeded(1, 1)
Record = tuple[int, ...]


def record(kind: int, time_ns: int, handle: int, *words: int, flags: int = 0) -> Record:
    padded = (*words, 0, 0, 0, 0)[:4]
    return (wire.head(kind, flags=flags, serial=1), time_ns, handle, *padded)


def stored(time_ns: int, handle: int, zspage: int, class_index: int, *, moved: bool = False):
    flags = wire.FLAG_MOVED if moved else 0
    place = class_index | 3 << 32 | 1 << 48
    return record(wire.KIND_OBJECT_STORED, time_ns, handle, zspage, place, 77 << 24, flags=flags)


def owner(time_ns: int, handle: int, size: int, cgroup: int = 42, command: bytes = b"kswapd0"):
    low, high = np.frombuffer(command.ljust(16, b"\0"), dtype=np.uint64).tolist()
    flags = wire.FLAG_OF_PAGE
    return record(wire.KIND_OBJECT_OWNER, time_ns, handle, size, cgroup, low, high, flags=flags)


def freed(time_ns: int, handle: int) -> Record:
    return record(wire.KIND_OBJECT_FREED, time_ns, handle)


def zspage_told(time_ns: int, zspage: int, class_index: int, inuse: int) -> Record:
    head = wire.head(wire.KIND_STATE, flags=wire.FLAG_NEWBORN, a=1, b=1, serial=1)
    return (head, time_ns, zspage, inuse, class_index, 0, 0)


def geometry(time_ns: int, class_index: int, size: int, objects: int, pages: int) -> Record:
    """Return what makes a class known: the beginning of a scan of it, which says no more."""
    word = size | objects << 32 | pages << 48
    head = wire.head(wire.KIND_SCAN_BEGIN, serial=1)
    return (head, time_ns, 5, class_index, word, 0, 0)


def make_model(sampling: Sampling = ALL, kept: int = 1 << 16) -> ShadowModel:
    model = ShadowModel(KERNEL, FULL_COVERAGE)
    model.objects = ObjectLedger(sampling, kept)
    model.objects.begin(1, "")
    return model


def told_of(model: ShadowModel, now_ns: int = 10**6) -> PoolObjects:
    (pool,) = model.snapshot(time_ns=now_ns, mono_ns=now_ns).pools
    assert pool.objects_told is not None
    return pool.objects_told


@dataclass
class Books:
    """The objects of one pool in plain Python, by the definition of :class:`PoolObjects`."""

    stored: int = 0
    freed: int = 0
    vanished: int = 0
    unseen: int = 0
    lifetimes: list[int] = field(default_factory=list)
    # Handle -> time, class, size (None while it is not told).
    live: dict[int, list[int | None]] = field(default_factory=dict)

    def take(self, told: Record) -> None:
        kind, moved = told[0] & 0xFF, told[0] >> 8 & wire.FLAG_MOVED
        time_ns, handle = told[1:3]
        if kind == wire.KIND_OBJECT_STORED and not moved:
            self.vanished += self.live.pop(handle, None) is not None
            self.stored += 1
            self.live[handle] = [time_ns, told[4] & 0xFFFF, None]
        elif kind == wire.KIND_OBJECT_OWNER and handle in self.live:
            self.live[handle][2] = told[3]
        elif kind == wire.KIND_OBJECT_FREED:
            life = self.live.pop(handle, None)
            if life is None:
                self.unseen += 1
            else:
                self.freed += 1
                assert life[0] is not None
                self.lifetimes.append(time_ns - life[0])


STEPS = st.tuples(
    st.integers(0, 4),
    st.sampled_from(("store", "store", "free", "free", "move", "owner")),
    st.integers(1, 5000),
    st.sampled_from((1, 7, 1000, 10**6)),
    st.booleans(),
)


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(STEPS, min_size=1, max_size=80))
def test_the_ledger_equals_one_kept_one_by_one(
    steps: list[tuple[int, str, int, int, bool]],
) -> None:
    """Handles are used again, ends and owners may go untold, and batches end anywhere."""
    model, books, batch = make_model(), Books(), []
    now_ns = 100
    batch.append(zspage_told(now_ns, ZSPAGE, 5, 1))
    for number, what, size, later_ns, cut in steps:
        now_ns += later_ns
        handle = HANDLE + 8 * number
        if what in ("store", "move"):
            # Class by handle: a move keeps it.
            told = stored(now_ns, handle, ZSPAGE + 64, 5 + number, moved=what == "move")
        elif what == "owner":
            told = owner(now_ns, handle, size)
        else:
            told = freed(now_ns, handle)
        books.take(told)
        batch.append(told)
        if cut:
            model.apply(as_words(batch))
            batch = []
    if batch:
        model.apply(as_words(batch))
    told_objects = told_of(model, now_ns + 5)
    sums = [int(getattr(told_objects, name).sum()) for name in ("stored", "freed", "vanished")]
    assert sums == [books.stored, books.freed, books.vanished]
    assert int(told_objects.live.sum()) == len(books.live)
    assert told_objects.freed_unseen == books.unseen
    sizes = [size for _, _, size in books.live.values() if size is not None]
    assert (int(told_objects.sized.sum()), int(told_objects.live_bytes.sum())) == (
        len(sizes),
        sum(sizes),
    )
    buckets = bucket_of(np.array(books.lifetimes, dtype=np.uint64))
    known = [int(life[2]) for life in books.live.values() if life[2] is not None]
    assert told_objects.sizes.tolist() == [
        sum(min(max(size - 1, 0) // SIZE_BAND_BYTES, SIZE_BANDS) == band for size in known)
        for band in range(SIZE_BANDS + 1)
    ]
    counted = told_objects.lifetimes.sum(axis=0)
    assert counted.tolist() == np.bincount(buckets, minlength=64).tolist()
    assert int(told_objects.lifetime_ns.sum()) == sum(books.lifetimes)


def test_a_move_takes_an_object_to_another_zspage_and_ends_nothing() -> None:
    model = make_model()
    records = [
        geometry(50, 5, 100, 40, 1),
        zspage_told(100, ZSPAGE, 5, 1),
        zspage_told(100, ZSPAGE + 64, 5, 1),
    ]
    model.apply(as_words([*records, stored(100, HANDLE, ZSPAGE, 5), owner(101, HANDLE, 60)]))
    model.apply(as_words([stored(200, HANDLE, ZSPAGE + 64, 5, moved=True)]))
    told = told_of(model)
    assert (int(told.stored.sum()), int(told.moves.sum()), int(told.live.sum())) == (1, 1, 1)
    assert told.pins is not None
    assert told.pins.zspage.tolist() == [ZSPAGE + 64]
    assert told.pins.stored_ns.tolist() == [100]
    assert told.pins.size.tolist() == [60]


def test_a_move_that_comes_behind_the_free_revives_nothing() -> None:
    model = make_model()
    model.apply(as_words([zspage_told(100, ZSPAGE, 5, 1), stored(100, HANDLE, ZSPAGE, 5)]))
    model.apply(as_words([freed(200, HANDLE)]))
    model.apply(as_words([stored(201, HANDLE, ZSPAGE, 5, moved=True)]))
    assert int(told_of(model).live.sum()) == 0


@pytest.mark.parametrize(("inuse", "pinned"), [(1, True), (10, True), (11, False)])
def test_pins_are_in_zspages_with_a_quarter_of_their_places_taken(inuse: int, pinned: bool) -> None:
    model = make_model()
    slot = record(wire.KIND_OBJECT_SLOT, 102, HANDLE, 1 << 58 | 9, flags=wire.FLAG_SWAP)
    model.apply(
        as_words(
            [
                geometry(50, 5, 100, 40, 3),
                zspage_told(100, ZSPAGE, 5, inuse),
                stored(100, HANDLE, ZSPAGE, 5),
                owner(101, HANDLE, 60),
                slot,
            ]
        )
    )
    pins = told_of(model).pins
    assert pins is not None
    assert (pins.zspages, pins.objects, pins.pages) == ((1, 1, 3) if pinned else (0, 0, 0))
    (row,) = pins.to_json(addresses=False)["listed"] if pinned else [None]
    if row:
        assert row["place"] == {"swap_type": 1, "swap_offset": 9}
        assert (row["command"], row["cgroup_id"], row["cgroup_of"]) == ("kswapd0", 42, "page")
        assert (row["requested_bytes"], row["cpu"], row["cgroup"]) == (60, 3, None)
        assert "handle" not in row


def test_what_finds_no_place_is_counted_and_told() -> None:
    model = make_model(kept=3)
    records = [zspage_told(100, ZSPAGE, 5, 5)]
    records += [stored(100, HANDLE + 8 * at, ZSPAGE, 5) for at in range(5)]
    model.apply(as_words(records))
    told = told_of(model)
    assert (int(told.stored.sum()), int(told.live.sum()), int(told.unkept.sum())) == (5, 3, 2)
    assert told.status == "bounded"
    assert any("--objects-rate" in why for why in told.reasons)
    assert model.objects is not None
    fill = model.objects.fill()
    assert (fill.used, fill.size, fill.refused) == (3, 3, 2)


def test_objects_of_zspages_that_died_are_no_more_where_ends_were_lost() -> None:
    """Nothing is taken for gone while nothing was lost: its zspage may be to be told yet."""
    model = make_model()
    model.apply(as_words([zspage_told(100, ZSPAGE, 5, 1), stored(100, HANDLE, ZSPAGE, 5)]))
    death = (wire.head(wire.KIND_DEATH, serial=1), 200, ZSPAGE, 0, 5, 0, 0)
    model.apply(as_words([death]))
    assert int(told_of(model, 10**11).live.sum()) == 1
    assert model.objects is not None
    model.objects.losses = ("1 runs of its probes were skipped",)
    told = told_of(model, 10**11)
    assert (int(told.live.sum()), int(told.vanished.sum()), told.status) == (0, 1, "bounded")


def test_objects_from_before_the_probes_are_counted_apart() -> None:
    model = make_model()
    model.apply(as_words([zspage_told(100, ZSPAGE, 5, 7), stored(100, HANDLE, ZSPAGE, 5)]))
    told = told_of(model)
    assert (told.unseen, told.status) == (6, "bounded")


def test_without_programs_nothing_is_told_but_why() -> None:
    model = make_model()
    assert model.objects is not None
    model.objects.begin(0, "no probe tells of objects: none wanted")
    model.apply(as_words([zspage_told(100, ZSPAGE, 5, 7)]))
    assert told_of(model).to_json(addresses=False) == {
        "status": "unknown",
        "reasons": ["no probe tells of objects: none wanted"],
    }


def test_without_a_ledger_what_is_told_of_objects_is_left_alone() -> None:
    model = ShadowModel(KERNEL, FULL_COVERAGE)
    model.apply(as_words([zspage_told(100, ZSPAGE, 5, 1), stored(100, HANDLE, ZSPAGE, 5)]))
    shot = model.snapshot(time_ns=200, mono_ns=200)
    assert (shot.events, shot.events_seen, shot.pools[0].zspages) == ((), 0, 1)


def test_a_pool_that_is_gone_takes_its_objects_along() -> None:
    model = make_model()
    model.apply(as_words([zspage_told(100, ZSPAGE, 5, 1), stored(100, HANDLE, ZSPAGE, 5)]))
    gone = (wire.head(wire.KIND_POOL_DESTROYED, serial=1), 300, 5, 0, 0, 0, 0)
    model.apply(as_words([gone]))
    assert model.objects is not None
    assert model.objects.fill().used == 0


def sampled_model(hot: int) -> tuple[ShadowModel, int]:
    """Return a model that was told 1 in 8 of what happened, one handle ``hot`` times untold."""
    sampling = Sampling.seeded(8, 3)
    model = make_model(sampling)
    handles = np.uint64(HANDLE) + 8 * np.arange(4000, dtype=np.uint64)
    told = handles[sampling.tells(handles)].tolist()
    records = [zspage_told(100, ZSPAGE, 5, 7)]
    for handle in told:
        records += [stored(100, handle, ZSPAGE, 5), owner(101, handle, 60), freed(900, handle)]
    model.apply(as_words(records))
    classes = np.zeros((255, wire.CLASS_WORDS), dtype=np.uint64)
    classes[5, wire.CLASS_ALLOCS] = 4000 + hot
    pool = PoolReading(1, 5, "zram0", 50, True, classes, np.zeros(wire.POOL_WORDS, dtype=np.uint64))
    model.apply_counters(CountersReading(950, 0, 0, 0, 0, (pool,)))
    return model, len(told)


def test_estimates_of_a_sample_are_of_all_objects() -> None:
    model, count = sampled_model(hot=0)
    told = told_of(model)
    for name in ("stored", "freed"):
        made = told.estimates[name]
        assert made.value == 8 * count
        assert 3000 < made.low < 4000 <= made.high < 5200
    (bucket,) = np.flatnonzero(told.lifetimes.sum(axis=0))
    assert told.lifetime_estimates[bucket] == told.estimates["freed"]
    assert told.reasons == ()


def test_a_handle_that_stands_for_most_and_is_not_told_widens_what_is_estimated() -> None:
    model, count = sampled_model(hot=50_000)
    told = told_of(model)
    assert told.estimates["freed"].low == count
    assert told.estimates["freed"].high == 54_000
    assert any("few handles" in why for why in told.reasons)
