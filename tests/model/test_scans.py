"""What one scan does to the model: each rule by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.delivery import as_words
from tests.model.support import FULL_COVERAGE, KERNEL, listed, snapshot
from tests.model.test_shadow import ADDRESS, OTHER, birth, created, death, frames, reading, state
from zpobs import wire
from zpobs.model import CountersReading, Coverage, PoolReading, ShadowModel
from zpobs.model.scans import BIRTH_NS
from zpobs.snapshot import PoolView, ZspagesOf

# Of every class here.
OBJS = 4
GEOMETRY = 1000 | OBJS << 32 | 2 << 48
Record = tuple[int, ...]
ALONE = Coverage(hooks=0, why_no_hooks="refused")


def mark(kind: int, time_ns: int, *words: int, pool: int = 1, flags: int = 0) -> Record:
    padded = (*words, 0, 0, 0, 0)[:4]
    return (wire.head(kind, flags=flags, serial=pool), time_ns, 5, *padded)


def seen(time_ns: int, *, flags: int = 0, free: int = 1, inuse: int = 3, **more: int) -> Record:
    """A zspage as a scan tells of it."""
    told = state(time_ns, flags=flags | wire.FLAG_SCANNED, pages=2, inuse=inuse, **more)
    return (*told[:3], inuse | free << 32, *told[4:])


def walk(
    begin_ns: int,
    zspages: Sequence[Record] = (),
    *,
    index: int = 7,
    pool: int = 1,
    steady: bool = True,
    more: tuple[int, int] = (0, 0),
) -> list[Record]:
    """A class's walk from ``begin_ns`` to 10 later; ``more`` zspages, objects than it tells of."""
    capacity = (len(zspages) + more[0]) * OBJS
    objects = sum(record[3] & 0xFFFFFFFF for record in zspages) + more[1]
    flags = wire.FLAG_STEADY if steady else 0
    begin = mark(wire.KIND_SCAN_BEGIN, begin_ns, index, GEOMETRY, capacity, objects, pool=pool)
    ending = (index, begin_ns, capacity, objects)
    end = mark(wire.KIND_SCAN_END, begin_ns + 10, *ending, pool=pool, flags=flags)
    return [begin, *zspages, end]


def scanned(
    time_ns: int, begin_ns: int, *, pool: int = 1, pages: int = 0, objects: int = 0
) -> Record:
    return mark(wire.KIND_SCANNED, time_ns, pages, 3, begin_ns, objects, pool=pool)


def fed(*batches: list[Record], coverage: Coverage = FULL_COVERAGE) -> ShadowModel:
    model = ShadowModel(KERNEL, coverage)
    for batch in batches:
        model.apply(as_words(batch))
    return model


def addresses(model: ShadowModel, pool: int = 1) -> list[int]:
    return sorted(listed(snapshot(model))[pool])


def view(model: ShadowModel) -> PoolView:
    (pool,) = snapshot(model).pools
    return pool


def status_of(model: ShadowModel, index: int = 7) -> str:
    classes = view(model).classes
    return dict(zip(classes.index.tolist(), classes.statuses, strict=True))[index]


# -- sweeping -----------------------------------------------------------------


def test_a_verified_walk_sweeps_what_it_did_not_meet() -> None:
    """A zspage whose death was lost is gone after a walk without it; others of it stay."""
    other_class = state(12, address=OTHER + 64, index=8)
    model = fed(
        [created(1, 5), state(10), state(11, address=OTHER), other_class], walk(100, [seen(101)])
    )
    assert addresses(model) == [ADDRESS, OTHER + 64]


@pytest.mark.parametrize(
    "wrong", [{"steady": False}, {"more": (1, 0)}, {"more": (0, 1)}, {"more": (-1, 0)}]
)
def test_a_walk_that_does_not_add_up_sweeps_nothing(wrong: dict[str, object]) -> None:
    """Not steady, a zspage or an object more or less than the kernel says: nobody is gone."""
    model = fed([created(1, 5), state(10, address=OTHER)], walk(100, [seen(101)], **wrong))  # type: ignore[arg-type]
    assert addresses(model) == [ADDRESS, OTHER]
    assert model.busy_classes(1) == [7]


def test_a_zspage_met_twice_counts_once() -> None:
    """A list that was walked again tells its zspages again; the walk still adds up."""
    twice = walk(100, [seen(103, inuse=3)])
    twice[1:1] = [seen(101, inuse=2), seen(102, address=OTHER, inuse=2)]
    # The other one is gone from the list at the second attempt: then it does not add up.
    assert fed(twice).busy_classes(1) == [7]
    del twice[2]
    for batches in ([twice], [twice[:2], twice[2:]]):
        assert fed(*batches).busy_classes(1) == ([] if len(batches) == 1 else [7])


def test_a_zspage_met_in_two_slices_counts_once() -> None:
    """Told twice of one, once of none: that is not two zspages, wherever the slices end."""
    twice = walk(100, [seen(101), frames(101), seen(102), frames(102)])
    twice[-1] = walk(100, [seen(101), seen(102)])[-1]
    for cut in range(1, len(twice)):
        assert fed(twice[:cut], twice[cut:]).busy_classes(1) == [7]


def test_a_class_in_several_batches_is_one_walk() -> None:
    """Where the batches end does not matter."""
    whole = walk(100, [seen(101), frames(101), seen(102, address=OTHER)])
    whole[-1] = walk(100, [seen(101), seen(102, address=OTHER)])[-1]
    for cut in range(1, len(whole)):
        model = fed([created(1, 5), state(10, address=OTHER + 64)], whole[:cut], whole[cut:])
        assert addresses(model) == [ADDRESS, OTHER]
        assert model.busy_classes(1) == []


def test_late_news_of_the_swept_are_void() -> None:
    """A record from before a walk does not bring back what the walk did not meet."""
    model = fed([created(1, 5)], walk(100))
    assert addresses(model) == []
    model.apply(as_words([state(60)]))
    assert addresses(model) == []
    model.apply(as_words([state(101)]))
    assert addresses(model) == [ADDRESS]


def test_an_address_that_went_to_another_class_is_left_alone() -> None:
    """A walk of the old class takes nothing from the new one, in whatever order they come."""
    old, new = walk(100), walk(200, [seen(201, index=9)], index=9)
    for order in ([old, new], [old + new], [new, walk(300)]):
        model = fed([created(1, 5), state(10)], *order)
        model.apply_counters(reading(50, 1))
        (row,) = listed(snapshot(model))[1].values()
        assert row[0] == 9
        assert (status_of(model, 9), model.busy_classes(1)) == ("exact", [])


def test_a_birth_just_before_a_walk_is_not_swept() -> None:
    """It is told before it stands on its list; long before, it would have been met."""
    begin_ns = 10 * int(BIRTH_NS)
    young, old = begin_ns - int(BIRTH_NS) // 2, begin_ns - 2 * int(BIRTH_NS)
    for batches in ([[birth(young)], walk(begin_ns)], [walk(begin_ns), [birth(young)]]):
        model = fed([created(1, 5)], *batches)
        model.apply_counters(reading(begin_ns + 20, 1))
        assert (addresses(model), status_of(model)) == ([ADDRESS], "exact")
        assert not model.unverified
    # If anything was lost since, its death may be among it: another scan must tell.
    model = fed([created(1, 5), birth(young)])
    model.apply_counters(reading(begin_ns - 1, 1, ring_full=1))
    model.apply(as_words(walk(begin_ns)))
    assert (status_of(model), model.unverified) == ("bounded", True)
    assert addresses(fed([created(1, 5)], [birth(old)], walk(begin_ns))) == []


def test_a_dying_zspage_that_still_stands_on_its_list_stays_dead() -> None:
    """A death is told before the zspage leaves its list: its emptiness there is no news."""
    dying = walk(100, [seen(102, inuse=0)], steady=False)
    for batches in ([[death(101)], dying], [dying, [death(101)]]):
        assert addresses(fed([created(1, 5), state(10)], *batches)) == []
    # Without probes it is all there is to tell.
    assert addresses(fed(dying, coverage=ALONE)) == [ADDRESS]


def test_a_swept_address_lives_anew() -> None:
    """Its first sight and its frames are those of the new life."""
    model = fed([created(1, 5), birth(10), frames(10)], walk(10 * int(BIRTH_NS)))
    assert addresses(model) == []
    later = 20 * int(BIRTH_NS)
    model.apply(as_words(walk(later, [seen(later + 1)])))
    (row,) = listed(snapshot(model))[1].values()
    assert row[4:] == (10 * int(BIRTH_NS), later + 1, [])


def test_records_newer_than_the_walk_win() -> None:
    """What a probe told in the walk stays, whatever the walk told of before."""
    told = [*walk(100, [seen(101)])]
    told.insert(2, frames(101))
    for news, expected in (
        (state(105, inuse=2), (2, 105, [100, 101])),
        (frames(105, base=500), (3, 101, [500, 501])),
        (frames(99, base=500), (3, 101, [100, 101])),
    ):
        model = fed([created(1, 5), news], told)
        (row,) = listed(snapshot(model))[1].values()
        assert (row[1], row[5], row[6]) == expected


def test_without_probes_a_busy_class_does_not_fill_up() -> None:
    """A walk that told of nearly all zspages drops the rest even if it was not steady."""
    model = fed([seen(10, address=OTHER)], walk(100, [seen(101)], steady=False), coverage=ALONE)
    assert addresses(model) == [ADDRESS]
    torn = walk(200, [], steady=False, more=(1, 3))
    model.apply(as_words(torn))
    assert addresses(model) == [ADDRESS]


# -- status -------------------------------------------------------------------


def test_loss_is_healed_by_a_scan_that_begins_at_its_reading_or_later() -> None:
    """Loss told until a walk began is past; loss told later makes its class bounded."""
    for told_ns, expected in ((99, "exact"), (100, "exact"), (101, "bounded")):
        model = fed([created(1, 5), state(10)])
        model.apply_counters(reading(told_ns, 1, ring_full=3))
        model.apply(as_words([*walk(100, [seen(101)]), scanned(111, 100)]))
        model.note_scan(95, 112, ())
        shot = snapshot(model)
        assert (status_of(model), shot.pools[0].status) == (expected, expected)
        assert shot.health.status == expected
        assert bool(shot.health.reasons) == (expected != "exact")
        assert shot.health.lost == 3


def test_classes_have_statuses_of_their_own() -> None:
    """After loss, a class whose walk was verified is exact beside one that was busy."""
    model = fed([created(1, 5), state(10), state(11, address=OTHER, index=8)])
    model.apply_counters(reading(50, 1, ring_full=3))
    busy = walk(120, [seen(121, address=OTHER, index=8)], index=8, steady=False)
    model.apply(as_words([*walk(100, [seen(101)]), *busy, scanned(140, 100)]))
    shot = snapshot(model)
    assert (shot.pools[0].classes.statuses, shot.pools[0].status) == (
        ("exact", "bounded"),
        "bounded",
    )
    assert "pool 1 (zram0): 1 size class was busy during the last scan" in shot.health.reasons
    assert model.unverified
    model.apply(as_words(walk(200, [seen(201, address=OTHER, index=8)], index=8)))
    assert (snapshot(model).health.status, model.unverified) == ("exact", False)


def test_a_busy_class_that_nothing_was_lost_of_stays_exact() -> None:
    """A walk that could not be verified takes nothing from what probes saw from the beginning."""
    model = fed([created(1, 5), state(10)], [*walk(100, [seen(101)], steady=False)])
    model.apply_counters(reading(50, 1))
    assert (status_of(model), snapshot(model).health.reasons) == ("exact", ())
    assert not model.unverified


def test_a_late_pool_is_exact_once_scanned_as_a_whole() -> None:
    """One that was there before the probes: class by class, and only a whole scan tells all."""
    model = fed([created(1, 5, flags=wire.FLAG_LATE), state(10)])
    model.apply_counters(replace(reading(50), pools=(PoolReading(1, 5, "zram0", 5, False),)))
    assert snapshot(model).health.reasons == ("pool 1 (zram0): its creation was not seen",)
    model.apply(as_words(walk(100, [seen(101)])))
    assert (status_of(model), view(model).status) == ("exact", "unknown")
    model.apply(as_words([scanned(120, 90)]))
    assert (view(model).status, snapshot(model).health.status) == ("exact", "exact")


def test_a_scan_from_before_the_probes_is_no_base() -> None:
    """What happened between it and their attaching nobody saw."""
    model = fed([*walk(100, [seen(101)]), scanned(120, 90, pages=2, objects=3)], coverage=ALONE)
    model.apply_counters(alone(130))
    model.note_scan(90, 121, ())
    assert view(model).status == "exact"
    model.cover(FULL_COVERAGE)
    assert view(model).status == "bounded"
    sentence = "pool 1 (zram0): 1 size class was not scanned since the probes attached"
    assert sentence in snapshot(model).health.reasons
    model.apply(as_words([*walk(200, [seen(201)]), scanned(220, 200)]))
    assert view(model).status == "exact"
    # From now on probes tell of deaths, and emptiness is no news.
    model.apply(as_words([seen(300, address=OTHER, inuse=0)]))
    assert addresses(model) == [ADDRESS]


def test_a_whole_scan_tells_the_spacing_of_classes() -> None:
    """The size of the class below, 0 of the smallest; not before the scan has told of all."""
    sizes = {3: 80, 7: 144, 9: 176}
    records = [
        mark(wire.KIND_SCAN_BEGIN, 100 + index, index, size | OBJS << 32 | 1 << 48, 0, 0)
        for index, size in sizes.items()
    ]
    model = fed([created(1, 5)], records[:2])
    assert view(model).classes.size_below.tolist() == [-1, -1]
    model.apply(as_words([*records[2:], scanned(120, 90)]))
    classes = view(model).classes
    assert classes.index.tolist() == list(sizes)
    assert classes.size_below.tolist() == [0, 80, 144]


def test_only_some_zspages_are_listed() -> None:
    """Those of a pool, or of one of its classes; sums are of all."""
    model = fed(
        [
            created(1, 5),
            created(2, 6),
            state(10),
            state(11, address=OTHER, index=8),
            state(12, address=OTHER + 64, pool=2),
        ]
    )

    def lists(which: bool | ZspagesOf) -> list[list[int] | None]:
        shot = model.snapshot(time_ns=1, mono_ns=1, zspages=which)
        assert [pool.zspages for pool in shot.pools] == [2, 1]
        tables = [pool.zspage_list for pool in shot.pools]
        return [None if table is None else table.address.tolist() for table in tables]

    assert lists(False) == [None, None]
    assert lists(True) == [[ADDRESS, OTHER], [OTHER + 64]]
    assert lists(ZspagesOf(1)) == [[ADDRESS, OTHER], None]
    assert lists(ZspagesOf(1, 8)) == [[OTHER], None]
    assert lists(ZspagesOf(2, 8)) == [None, []]
    assert lists(ZspagesOf(3)) == [None, None]


def alone(mono_ns: int, *serials: int) -> CountersReading:
    pools = [PoolReading(serial, 5, "zram0", 4, False) for serial in serials or (1,)]
    return CountersReading(mono_ns, 0, 0, 0, 0, tuple(pools))


def test_a_pool_known_from_scans_alone() -> None:
    """No counters, exact as of the scan; gone when it is missing from a reading."""
    model = ShadowModel(KERNEL, ALONE)
    assert snapshot(model).health.status == "unknown"
    model.apply_counters(alone(50))
    shot = snapshot(model)
    assert (shot.pools[0].status, shot.health.status) == ("unknown", "unknown")
    assert shot.health.reasons == (
        "no probe is attached (refused); nothing was scanned",
        "pool 1 (zram0): it was not scanned yet",
    )
    model.apply(as_words([*walk(100, [seen(101), seen(102, address=OTHER)])]))
    model.apply(as_words([scanned(120, 90, pages=4, objects=6)]))
    model.note_scan(80, 125, ())
    shot = model.snapshot(time_ns=10_000, mono_ns=1000, zspages=True)
    (pool,) = shot.pools
    assert (pool.name, pool.status, pool.zspages, pool.objects, pool.pages) == (
        "zram0",
        "exact",
        2,
        6,
        4,
    )
    assert (pool.scan_ns, pool.kernel_pages, pool.pages_compacted, pool.address) == (9120, 4, 3, 5)
    assert set(pool.counters.to_json().values()) == {None}
    assert (pool.classes.allocs, pool.classes.size.tolist()) == (None, [1000])
    health = shot.health
    assert (health.status, health.scans, health.last_scan_ns) == ("exact", 1, 9125)
    assert health.reasons == ("no probe is attached (refused); figures are those of the last scan",)
    model.apply_counters(alone(200, 2))
    assert [pool.id for pool in snapshot(model).pools] == [2]


def test_a_busy_class_without_probes_has_the_kernels_totals() -> None:
    """Its sums are the kernel's own, its fullness what the walk met."""
    busy = walk(100, [seen(101)], steady=False, more=(2, 5))
    model = fed(busy, [scanned(120, 90)], coverage=ALONE)
    classes = view(model).classes
    assert (classes.statuses, classes.zspages.tolist(), classes.objects.tolist()) == (
        ("bounded",),
        [3],
        [8],
    )
    assert classes.fullness.sum() == 1


def test_an_empty_pool_is_exact_too() -> None:
    """A walk that meets nothing in a class of which the kernel says the same is verified."""
    model = fed([*walk(100), *walk(120, index=8), scanned(140, 90)], coverage=ALONE)
    model.apply_counters(alone(50))
    model.note_scan(90, 141, ())
    pool = view(model)
    assert (pool.status, pool.zspages, pool.classes.index.tolist()) == ("exact", 0, [7, 8])


def test_pools_that_were_not_scanned_make_the_whole_unknown() -> None:
    """Sentences of the last round are reasons; they go with the next."""
    model = fed([created(1, 5)])
    model.apply_counters(reading(50, 1))
    model.note_scan(60, 70, ("zswap is in use, but no pool of it was found",))
    health = snapshot(model).health
    assert (health.status, health.scans) == ("unknown", 1)
    assert health.reasons == ("zswap is in use, but no pool of it was found",)
    model.note_scan(80, 90, ())
    assert (snapshot(model).health.status, snapshot(model).health.scans) == ("exact", 2)


def test_what_changed_after_a_scan_is_not_exact_where_probes_are_half_blind() -> None:
    """With something unseen a class is exact only as long as nothing was told of it since."""
    blind = replace(FULL_COVERAGE, unseen=("deaths are not seen",))
    model = fed([*walk(100, [seen(101)]), scanned(120, 90, pages=2, objects=3)], coverage=blind)
    model.apply_counters(reading(50, 1))
    model.note_scan(90, 121, ())
    assert (status_of(model), snapshot(model).health.status) == ("exact", "exact")
    assert "deaths are not seen" in snapshot(model).health.reasons
    model.apply(as_words([state(130)]))
    assert status_of(model) == "bounded"
    sentence = "pool 1 (zram0): 1 size class was changed since the last scan"
    assert sentence in snapshot(model).health.reasons


@pytest.mark.parametrize(("pages", "objects"), [(4, 3), (2, 4)])
def test_classes_of_different_moments_make_no_exact_pool(pages: int, objects: int) -> None:
    """Each class may be exact, but their sum never held if the pool's own totals are others."""
    told = scanned(120, 90, pages=pages, objects=objects)
    model = fed([*walk(100, [seen(101)]), told], coverage=ALONE)
    model.apply_counters(alone(130))
    model.note_scan(90, 121, ())
    assert (status_of(model), view(model).status) == ("exact", "bounded")
    sentence = "pool 1 (zram0): it changed while its size classes were scanned one by one"
    assert sentence in snapshot(model).health.reasons


def test_a_walk_under_way_is_not_exact_without_probes() -> None:
    """Between SCAN_BEGIN and SCAN_END a class is half old, half new."""
    model = fed([*walk(100, [seen(101)]), scanned(120, 90)], coverage=ALONE)
    model.apply(as_words(walk(200, [seen(201)])[:-1]))
    assert status_of(model) == "bounded"


# -- what zspages tell --------------------------------------------------------


def test_scans_tell_of_locks_and_free_slots() -> None:
    """Flags of the scan and the first free slot are columns; a probe's state has no locks."""
    locked = seen(101, flags=wire.FLAG_LOCKED, free=2)
    isolated = seen(102, flags=wire.FLAG_ISOLATED, free=0xFFFFFFFF, address=OTHER)
    huge = seen(103, flags=wire.FLAG_HUGE, free=5, address=OTHER + 64)
    probed = state(104, address=OTHER + 128)
    table = view(fed(walk(100, [locked, isolated, huge]), [probed], coverage=ALONE)).zspage_list
    assert table is not None
    assert table.locked.tolist() == [True, False, False, False]
    assert table.isolated.tolist() == [False, True, False, False]
    assert table.scanned.tolist() == [True, True, True, False]
    # A huge zspage keeps no links: what stands there is content.
    assert table.freeobj.tolist() == [2, -1, -1, 0]


@pytest.mark.parametrize("slots", [1, 200])
def test_what_was_scanned_goes_with_its_pool(slots: int) -> None:
    """A pool that gets the place of a former one in the model knows nothing of its scans."""
    model = ShadowModel(KERNEL, ALONE)
    for serial in range(1, 400):
        at = serial * 1000
        model.apply_counters(alone(at, *range(max(serial - slots, 0) + 1, serial + 1)))
        model.apply(as_words(walk(at + 1, [seen(at + 2, pool=serial)], pool=serial)))
    model.apply_counters(alone(10**6, 1000))
    (pool,) = snapshot(model).pools
    assert (pool.id, pool.status, pool.classes.index.tolist()) == (1000, "unknown", [])
