"""Planted errors: each is found, named, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from tests.factories import make_classes, make_health, make_snapshot
from tests.verify.support import FIRST, Zspage, pool_of, table_of, zspages
from zpobs.snapshot import Event, Health, PoolView, Snapshot
from zpobs.verify.compare import compare, excuse, meanwhile, merge
from zpobs.verify.findings import Comparison, Difference, PoolComparison

GOOD = zspages()


def snapshot_of(*listed: Zspage, **changed: object) -> Snapshot:
    return make_snapshot(pool_of(listed, **changed))  # type: ignore[arg-type]


def kernel() -> Snapshot:
    return snapshot_of(*GOOD.values(), counted=None)


def only(found: Comparison) -> PoolComparison:
    (pool,) = found.pools
    return pool


def with_zspages(shadow: Snapshot, *listed: Zspage) -> Snapshot:
    """Return a snapshot whose sums are as they were and whose zspages are these."""
    (pool,) = shadow.pools
    return replace(shadow, pools=(replace(pool, zspage_list=table_of(listed)),))


def planted(letter: str, **changed: object) -> list[Difference]:
    """Return the differences after one zspage of the model was changed, its sums left alone."""
    others = [each for name, each in GOOD.items() if name != letter]
    wrong = replace(GOOD[letter], **changed)  # type: ignore[arg-type]
    pool = only(compare(with_zspages(kernel(), *others, wrong), kernel()))
    assert pool.differs
    return list(pool.differences)


def test_equal_snapshots_have_no_difference() -> None:
    """What is equal is told as such, with what was compared."""
    pool = only(compare(kernel(), kernel()))
    assert not pool.differs
    assert pool.compared
    assert (pool.zspages, pool.frames, len(pool.classes)) == (6, 2 * 1 + 3 * 3 + 1, 3)


@pytest.mark.parametrize(
    ("letter", "changed", "field", "values"),
    [
        ("b", {"inuse": 3, "group": 11}, "inuse", (3, 4)),
        ("c", {"group": 4}, "fullness", (4, 2)),
        ("f", {"huge": False}, "huge", (False, True)),
    ],
)
def test_one_wrong_column_is_one_difference(
    letter: str, changed: dict[str, int], field: str, values: tuple[int, int]
) -> None:
    """One object, one fullness group, one flag in one zspage: found, and nothing beside it."""
    wrong = GOOD[letter]
    expected = Difference(wrong.index, wrong.address, field, *values, "exact")
    assert planted(letter, **changed) == [expected]


@pytest.mark.parametrize("page", [0, 1, 2])
def test_one_wrong_frame_is_found(page: int) -> None:
    """A single frame of a chain is told with both chains."""
    right = GOOD["d"].chain
    wrong = (*right[:page], 77, *right[page + 1 :])
    expected = Difference(107, GOOD["d"].address, "frames", wrong, right, "exact")
    assert planted("d", frames=wrong) == [expected]


def test_an_unknown_chain_is_a_difference_where_the_kernel_tells_it() -> None:
    """The model must know the frames; where the scan does not, there is nothing to compare."""
    (found,) = planted("d", frames=())
    assert (found.field, found.shadow, found.kernel) == ("frames", (), GOOD["d"].chain)
    blind = with_zspages(kernel(), *(replace(each, frames=()) for each in GOOD.values()))
    assert only(compare(kernel(), blind)).differences == ()


def test_a_zspage_too_few_and_one_too_many_are_found() -> None:
    """What one side lacks is told with the other side's objects."""
    extra = Zspage(FIRST + 0x1000, 62, 3)
    without = [each for name, each in GOOD.items() if name != "e"]
    found = only(compare(with_zspages(kernel(), *without, extra), kernel())).differences
    assert found == (
        Difference(62, extra.address, "zspage", 3, None, "exact"),
        Difference(107, GOOD["e"].address, "zspage", None, 5, "exact"),
    )


def test_a_zspage_in_another_class_is_one_difference() -> None:
    """The class is told as of the kernel, and nothing else of that zspage."""
    (found,) = planted("b", index=107)
    assert (found.class_index, found.field, found.shadow, found.kernel) == (62, "class", 107, 62)


def test_sums_of_classes_and_pools_are_compared() -> None:
    """Published sums are compared on their own: they can be wrong where the zspages are right."""
    right = kernel()
    (pool,) = right.pools
    groups = pool.classes.fullness.copy()
    groups[1, 2] += 1
    objects = pool.classes.objects.copy()
    objects[0] -= 1
    classes = replace(pool.classes, objects=objects, fullness=groups)
    wrong = replace(right, pools=(replace(pool, classes=classes, pages=pool.pages + 1),))
    found = only(compare(wrong, right)).differences
    assert [(each.class_index, each.zspage, each.field) for each in found] == [
        (None, None, "pages"),
        (62, None, "objects"),
        (107, None, "fullness"),
    ]
    assert (found[1].shadow, found[1].kernel) == (5, 6)


def test_a_difference_says_how_far_the_model_is_trusted() -> None:
    """Differences of a bounded class are listed, with that standing."""
    wrong = [each for name, each in GOOD.items() if name != "a"]
    pool = only(compare(snapshot_of(*wrong, status="bounded"), kernel()))
    assert pool.differs
    assert {each.standing for each in pool.differences} == {"bounded"}


def test_zspages_must_be_listed() -> None:
    """A snapshot without lists cannot be compared."""
    (pool,) = kernel().pools
    bare = make_snapshot(replace(pool, zspage_list=None))
    with pytest.raises(ValueError, match="lists no zspages"):
        compare(bare, kernel())


def test_three_hundred_thousand_zspages_are_quick() -> None:
    """The comparison is by columns: no zspage is looked at one by one."""
    count = 300_000
    like = table_of(GOOD.values())
    frames = np.arange(3 * count, dtype=np.uint64)
    listed = replace(
        like,
        address=np.arange(count, dtype=np.uint64) * np.uint64(64),
        class_index=np.full(count, 107),
        inuse=np.full(count, 7),
        fullness=np.full(count, 11),
        frame_start=np.arange(count + 1) * 3,
        frames=frames,
        **{name: np.zeros(count, dtype=bool) for name in ("huge", "scanned", "locked", "isolated")},
        **{
            name: np.zeros(count, dtype=np.uint64)
            for name in ("first_seen_ns", "last_seen_ns", "freeobj")
        },
    )
    lines = [(107, 1744, 7, 3, count, 7 * count)]
    view = pool_of((), classes=make_classes(lines), zspage_list=listed)
    shot = make_snapshot(view)
    wrong = frames.copy()
    wrong[-1] += np.uint64(1)
    other = make_snapshot(replace(view, zspage_list=replace(listed, frames=wrong)))
    begin_s = time.perf_counter()
    during = meanwhile(shot, shot, other, shot)
    (found,) = only(compare(shot, other, during)).differences
    # A hundred times what it takes: a loop over zspages would show.
    assert time.perf_counter() - begin_s < 10
    assert (found.field, found.zspage) == ("frames", 64 * (count - 1))


# ---- pools ---------------------------------------------------------------------


def test_a_pool_that_only_one_side_has_is_a_difference() -> None:
    """Pools too many and too few are told as such, not zspage by zspage."""
    both = [pool_of(GOOD.values(), 1), pool_of(GOOD.values(), 2, "zram1")]
    for shadow, scanned, values in (
        (both, both[:1], (6, None)),
        (both[:1], both, (None, 6)),
    ):
        found = compare(make_snapshot(*shadow), make_snapshot(*scanned))
        assert [pool.differs for pool in found.pools] == [False, True]
        (difference,) = found.pools[1].differences
        assert (difference.field, difference.shadow, difference.kernel) == ("pool", *values)


def aged(view: PoolView, shot: Snapshot, mono_ns: int) -> PoolView:
    """Return a pool that is there since so many ns after a snapshot."""
    return replace(view, since_ns=shot.time_ns + mono_ns)


ONE, TWO = pool_of(GOOD.values(), 1), pool_of(GOOD.values(), 2, "zram1")
FOLLOWED = make_health()
BLIND = (
    make_health(hooks=0, missed_hooks=("obj_malloc",)),
    make_health(missed_hooks=("zs_destroy_pool",)),
)


def of_pools(
    shadow: Sequence[PoolView],
    scanned: Sequence[PoolView],
    after: Sequence[PoolView],
    *,
    health: Health = FOLLOWED,
    last: Health | None = None,
    events: tuple[Event, ...] = (),
) -> Comparison:
    """Return the comparison of a round that met these pools, one after the other."""
    frozen = make_snapshot(*shadow, health=health, at_s=1)
    first = make_snapshot(*shadow, health=health)
    kernel_ = make_snapshot(*scanned, at_s=2)
    end = make_snapshot(*after, health=last or health, at_s=3, events=events)
    return compare(frozen, kernel_, meanwhile(first, frozen, kernel_, end))


def found_of(found: Comparison) -> tuple[list[int], int]:
    """Return the ids of the pools that differ, and how many came or went."""
    return [pool.id for pool in found.pools if pool.differs], len(found.meanwhile)


def test_a_pool_that_lived_only_meanwhile_is_no_difference() -> None:
    """The scan met a pool that is in neither model: the model was told of its end."""
    gone = Event("pool_destroyed", make_snapshot(at_s=2).mono_ns, 2, None, ())
    found = of_pools([ONE], [ONE, TWO], [ONE], events=(gone,))
    assert found_of(found) == ([], 1)
    assert [pool.id for pool in found.pools] == [1]


@pytest.mark.parametrize("health", BLIND, ids=["no probe", "a hook is missing"])
def test_without_probes_a_pool_that_only_the_scan_met_came_and_went(health: Health) -> None:
    """Nothing tells of a pool that is made after the freeze and gone before the next scan."""
    found = of_pools([ONE], [ONE, TWO], [ONE], health=health)
    assert found_of(found) == ([], 1)
    assert found.meanwhile == ("zram1 was created or destroyed meanwhile: not compared",)


def test_after_a_loss_a_pool_that_only_the_scan_met_came_and_went() -> None:
    """The record of its end may be among those that were lost."""
    found = of_pools([ONE], [ONE, TWO], [ONE], last=make_health(lost=1))
    assert found_of(found) == ([], 1)


def test_with_probes_a_pool_that_only_the_scan_met_is_a_difference() -> None:
    """Its end would have been told."""
    assert found_of(of_pools([ONE], [ONE, TWO], [ONE])) == ([2], 0)


@pytest.mark.parametrize("health", [FOLLOWED, *BLIND])
def test_a_pool_that_went_before_the_scan_is_no_difference(health: Health) -> None:
    """It is in the frozen model alone."""
    assert found_of(of_pools([ONE, TWO], [ONE], [ONE], health=health)) == ([], 1)


@pytest.mark.parametrize("health", [FOLLOWED, *BLIND])
def test_a_pool_that_the_scan_missed_is_a_difference(health: Health) -> None:
    """Both models have it, so that it was there all the time."""
    assert found_of(of_pools([ONE, TWO], [ONE], [ONE, TWO], health=health)) == ([2], 0)


@pytest.mark.parametrize("health", [FOLLOWED, *BLIND])
def test_a_pool_that_came_after_the_freeze_is_no_difference(health: Health) -> None:
    """The scan met it, and the model knows it since then."""
    came = aged(TWO, make_snapshot(at_s=1), 1000)
    assert found_of(of_pools([ONE], [ONE, came], [ONE, came], health=health)) == ([], 1)


def test_a_pool_that_the_model_lacked_is_a_difference() -> None:
    """Probes follow everything, and it is older than the round: the model must have known it."""
    old = aged(TWO, make_snapshot(), -1000)
    for health, differing in ((FOLLOWED, [2]), *((blind, []) for blind in BLIND)):
        found = of_pools([ONE], [ONE, old], [ONE, old], health=health)
        assert [pool.id for pool in found.pools if pool.differs] == differing


# ---- busy classes --------------------------------------------------------------


def later(shadow: Snapshot, *listed: Zspage, counted: tuple[int, int] = (1000, 900)) -> Snapshot:
    return replace(snapshot_of(*listed, counted=counted), events=shadow.events)


def test_a_class_that_the_scan_could_not_verify_is_left_to_its_bounds() -> None:
    """It is not compared zspage by zspage; the others are."""
    shadow = snapshot_of(*GOOD.values())
    fewer = [each for name, each in GOOD.items() if name not in "cf"]
    scanned = snapshot_of(*fewer, busy=(107,), counted=None)
    pool = only(compare(shadow, scanned, meanwhile(shadow, shadow, scanned, shadow)))
    (busy,) = pool.busy
    assert (busy.index, busy.shadow, busy.kernel) == (107, 13, 12)
    assert sorted(pool.classes) == [62, 254]
    assert {each.class_index for each in pool.differences} == {254}
    assert "while the kernel was scanned" in busy.reason
    # The pool's sums are not known while one of its classes is not.
    assert pool.sums == ()


@pytest.mark.parametrize(
    "change",
    [{"inuse": 3}, {"group": 5}, {"seen_ns": 2000}, {"frames": (1, 2, 3)}],
    ids=lambda change: next(iter(change)),
)
def test_a_class_that_changed_in_the_model_meanwhile_is_busy(change: dict[str, object]) -> None:
    """Any record between the two freezes shows."""
    shadow = snapshot_of(*GOOD.values())
    others = [each for name, each in GOOD.items() if name != "c"]
    changed = replace(GOOD["c"], **change)  # type: ignore[arg-type]
    found = meanwhile(shadow, shadow, kernel(), later(shadow, *others, changed))
    assert set(found.busy[1]) == {107}


def test_what_was_born_and_freed_meanwhile_shows_in_the_counters() -> None:
    """A zspage that came and went leaves no row, but its operations were counted."""
    shadow = snapshot_of(*GOOD.values())
    found = meanwhile(shadow, shadow, kernel(), later(shadow, *GOOD.values(), counted=(1001, 901)))
    assert set(found.busy[1]) == {62, 107, 254}


def test_a_rescan_is_no_change() -> None:
    """A scan applied between the freezes sees every zspage again: only values count then."""
    shadow = snapshot_of(*GOOD.values())
    seen = [replace(each, seen_ns=5000) for each in GOOD.values()]
    after = replace(later(shadow, *seen), health=make_health(scans=1))
    assert meanwhile(shadow, shadow, kernel(), after).busy[1] == {}


@pytest.mark.parametrize(
    ("kernel_inuse", "outside"), [(1, True), (2, False), (5, False), (6, False), (7, True)]
)
def test_a_busy_class_is_bounded_by_the_counted_operations(
    kernel_inuse: int, outside: bool
) -> None:
    """Frozen minus frees <= the kernel's <= frozen plus allocations; beyond is a finding."""
    listed = [Zspage(FIRST, 107, 5)]
    before = snapshot_of(*listed, counted=(1000, 900))
    after = snapshot_of(replace(listed[0], inuse=3, seen_ns=9), counted=(1001, 903))
    scanned = snapshot_of(replace(listed[0], inuse=kernel_inuse), busy=(107,), counted=None)
    pool = only(compare(before, scanned, meanwhile(before, before, scanned, after)))
    (busy,) = [each for each in pool.busy if each.index == 107]
    assert (busy.lowest, busy.highest, busy.kernel) == (2, 6, kernel_inuse)
    assert busy.outside is outside
    assert pool.differs is outside


@pytest.mark.parametrize(
    ("kernel_inuse", "outside"), [(3, True), (4, False), (5, False), (6, True)]
)
def test_what_was_counted_and_not_told_yet_is_within_the_bounds(
    kernel_inuse: int, outside: bool
) -> None:
    """A free is counted, its CPU stops, the model is frozen; the kernel has it, the model later."""
    listed = [Zspage(FIRST, 107, 5)]
    before = snapshot_of(*listed, counted=(1000, 900))
    after = snapshot_of(replace(listed[0], inuse=4, seen_ns=9), counted=(1000, 900))
    scanned = snapshot_of(replace(listed[0], inuse=kernel_inuse), busy=(107,), counted=None)
    pool = only(compare(before, scanned, meanwhile(before, before, scanned, after)))
    (busy,) = [each for each in pool.busy if each.index == 107]
    assert (busy.lowest, busy.highest, busy.outside) == (4, 5, outside)


def test_without_counters_nothing_bounds_a_busy_class() -> None:
    """No probe, no bound, no finding."""
    shadow = snapshot_of(*GOOD.values(), counted=None)
    scanned = snapshot_of(GOOD["a"], busy=(62, 107, 254), counted=None)
    pool = only(compare(shadow, scanned, meanwhile(shadow, shadow, scanned, shadow)))
    assert [(each.lowest, each.highest) for each in pool.busy] == [(None, None)] * 3
    assert not pool.differs
    assert not pool.compared


def test_a_zspage_is_missed_where_one_class_was_at_rest() -> None:
    """The kernel has it in a class at rest, the model in a busy one: the model is wrong."""
    shadow = with_zspages(kernel(), *(replace(each, index=107) for each in [GOOD["a"]]))
    scanned = snapshot_of(GOOD["a"], busy=(107,), counted=None)
    pool = only(compare(shadow, scanned, meanwhile(shadow, shadow, scanned, shadow)))
    found = [each for each in pool.differences if each.zspage is not None]
    assert [(each.class_index, each.field) for each in found] == [(62, "class")]


def view(shadow: Snapshot, scanned: Snapshot) -> Comparison:
    return compare(shadow, scanned, meanwhile(shadow, shadow, scanned, shadow))


def test_excused_classes_are_busy() -> None:
    """Without witnesses of rest a difference proves nothing; what is equal stays so."""
    wrong = [each for name, each in GOOD.items() if name != "c"]
    found = view(snapshot_of(*wrong, counted=None), kernel())
    assert only(found).differs
    pool = only(excuse(found, [1]))
    assert not pool.differs
    assert [each.index for each in pool.busy] == [107]
    assert sorted(pool.classes) == [62, 254]
    assert only(excuse(found, [2])).differs


def test_a_pool_that_the_scan_lacks_may_have_been_another_meanwhile() -> None:
    """Where nothing says that it was at rest it may have gone and come again; else it differs."""
    lonely = compare(make_snapshot(ONE, TWO), make_snapshot(ONE))
    assert found_of(excuse(lonely, [1])) == ([2], 0)
    excused = excuse(lonely, [2])
    assert found_of(excused) == ([], 1)
    assert excused.meanwhile == ("zram1 was created or destroyed meanwhile: not compared",)
    assert [pool.id for pool in excused.pools] == [1]


def test_what_was_compared_once_stays_compared() -> None:
    """A class that is busy in the second try keeps what the first one found."""
    first = view(kernel(), kernel())
    second = view(kernel(), snapshot_of(*GOOD.values(), busy=(107,), counted=None))
    pool = only(merge(first, second))
    assert pool.busy == ()
    assert sorted(pool.classes) == [62, 107, 254]
    assert not pool.differs


def test_a_difference_is_not_forgotten() -> None:
    """An exact figure that was wrong and then healed was wrong; a bounded one is meant to heal."""
    wrong = [each for name, each in GOOD.items() if name != "c"]
    pool = only(merge(view(snapshot_of(*wrong), kernel()), view(kernel(), kernel())))
    assert {each.class_index for each in pool.differences} == {107}
    bounded = view(snapshot_of(*wrong, status="bounded"), kernel())
    assert only(bounded).differs
    assert not only(merge(bounded, view(kernel(), kernel()))).differs
