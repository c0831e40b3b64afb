"""The kernel's figures against the model's: what each proves, and what it cannot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.factories import COUNTERS, make_snapshot
from tests.verify.support import pool_of, zspages
from zpobs.snapshot import Snapshot
from zpobs.sources.witnesses import (
    Absent,
    ClassStat,
    SlabReading,
    VmstatReading,
    Witnesses,
    ZramReading,
    ZswapReading,
)
from zpobs.verify.witnesses import Witness, at_rest, judge

GOOD = zspages()
# Of the six zspages: 2 of one page, 3 of three pages, a huge one; 6 + 13 + 1 objects.
PAGES, OBJECTS, HUGE = 12, 20, 1


def zram(**changed: Any) -> ZramReading:
    columns = {
        "orig_data_size": (OBJECTS + 4) * 4096,
        "mem_used_total": PAGES * 4096,
        "same_pages": 4,
        "huge_pages": HUGE,
    }
    others = {
        key: changed.pop(key) for key in ("activity", "in_flight", "written_back") & changed.keys()
    }
    values: dict[str, Any] = {"written_back": 0, "activity": ("quiet",), "in_flight": 0}
    return ZramReading(mm_stat=columns | changed, **(values | others))


def reading(**changed: Any) -> Witnesses:
    values: dict[str, Any] = {
        "zram": {"zram0": zram()},
        "classes": Absent("debugfs is not mounted"),
        "zswap": ZswapReading(0, ("quiet",)),
        "vmstat": VmstatReading(PAGES - 3, 8),
        "slabs": {
            "zs_handle-zram0": SlabReading(30, 64, 0),
            "zspage-zram0": Absent("merged with other caches (:0000056)"),
        },
    }
    return Witnesses(**(values | changed))


def snapshot(**changed: Any) -> Snapshot:
    return make_snapshot(pool_of(GOOD.values(), **changed))


def judged(
    before: Witnesses | None = None,
    after: Witnesses | None = None,
    *,
    shadow: Snapshot | None = None,
    rest: bool = True,
    whole: bool = True,
    lags: bool = False,
) -> dict[tuple[str, str], Witness]:
    before = before or reading()
    shadow = shadow or snapshot()
    scanned = snapshot(kernel_pages=PAGES)
    resting = {pool.id for pool in shadow.pools} if rest else set()
    found = judge(
        shadow, scanned, (before, after or before), resting=resting, whole=whole, zswap_lags=lags
    )
    return {(each.name, each.unit): each for each in found}


def test_at_rest_exact_witnesses_are_equal() -> None:
    """Every figure of mm_stat and of the pool itself equals the model's."""
    found = judged()
    exact = {key: each for key, each in found.items() if each.standing == "exact"}
    assert {name for name, _ in exact} == {
        "mm_stat mem_used_total",
        "mm_stat pages stored",
        "mm_stat huge_pages",
        "pages_allocated",
        "zs_size_stat of 3 classes",
        "meminfo Zswap",
    }
    assert {each.verdict for each in exact.values()} == {"equal"}
    assert not any(each.contradicts for each in found.values())


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [
        ("mem_used_total", (PAGES + 1) * 4096, "mm_stat mem_used_total"),
        ("orig_data_size", (OBJECTS + 3) * 4096, "mm_stat pages stored"),
        ("same_pages", 5, "mm_stat pages stored"),
        ("huge_pages", 2, "mm_stat huge_pages"),
    ],
)
def test_one_unit_contradicts_at_rest_and_only_then(column: str, value: int, name: str) -> None:
    """An exact witness that differs by one proves the model wrong; in use it proves nothing."""
    wrong = reading(zram={"zram0": zram(**{column: value})})
    assert {key for (key, _), each in judged(wrong).items() if each.contradicts} == {name}
    busy = judged(wrong, rest=False)
    assert not any(each.contradicts for each in busy.values())
    (told,) = [each for (key, _), each in busy.items() if key == name]
    assert (told.standing, told.verdict) == ("not at rest", "not judged")


def test_not_at_rest_a_figure_lies_between_two_readings() -> None:
    """The readings around the scan are the bounds."""
    before = reading(zram={"zram0": zram(mem_used_total=(PAGES - 2) * 4096)})
    after = reading(zram={"zram0": zram(mem_used_total=(PAGES + 5) * 4096)})
    told = judged(before, after, rest=False)["mm_stat mem_used_total", "pages"]
    assert (told.lowest, told.highest, told.verdict) == (PAGES - 2, PAGES + 5, "within")
    told = judged(after, rest=False)["mm_stat mem_used_total", "pages"]
    assert told.verdict == "not judged"
    more = reading(zram={"zram0": zram(mem_used_total=(PAGES + 9) * 4096)})
    told = judged(after, more, rest=False)["mm_stat mem_used_total", "pages"]
    assert (told.verdict, told.contradicts) == ("outside", False)


def test_written_back_pages_are_not_in_the_pool() -> None:
    """bd_count is taken off, and huge pages tell nothing then."""
    back = zram(written_back=6, orig_data_size=(OBJECTS + 4 + 6) * 4096)
    found = judged(reading(zram={"zram0": back}))
    assert found["mm_stat pages stored", "objects"].verdict == "equal"
    assert found["mm_stat huge_pages", "huge objects"].verdict == "absent"


def test_pages_allocated_is_the_kernels_own() -> None:
    """The pool's page counter is held against the model's zspages."""
    wrong = replace(snapshot().pools[0], pages=PAGES - 1)
    found = judged(shadow=make_snapshot(wrong))
    assert found["pages_allocated", "pages"].contradicts


@pytest.mark.parametrize(
    ("pages", "verdict"), [(3, "outside"), (4, "within"), (20, "within"), (21, "outside")]
)
def test_nr_zspages_is_bounded_by_what_cpus_hold_back(pages: int, verdict: str) -> None:
    """Within the sum of all thresholds; beyond it is told, but contradicts nothing exactly."""
    told = judged(reading(vmstat=VmstatReading(pages, 8)))["vmstat nr_zspages", "pages"]
    assert (told.standing, told.verdict, told.contradicts) == ("bounded", verdict, False)
    assert "8 pages" in told.why


def test_slab_rows_bound_from_above() -> None:
    """SLUB counts free objects of per-CPU slabs as active; a merged cache tells nothing."""
    found = judged()
    handles = found["slabinfo zs_handle-zram0", "objects"]
    assert (handles.lowest, handles.highest, handles.verdict) == (None, 30, "within")
    merged = found["slabinfo zspage-zram0", "zspages"]
    assert (merged.verdict, merged.why) == ("absent", "merged with other caches (:0000056)")
    few = reading(slabs={"zs_handle-zram0": SlabReading(OBJECTS - 1, 64, 2)})
    told = judged(few)
    assert told["slabinfo zs_handle-zram0", "objects"].verdict == "outside"
    assert "2 other caches" in told["slabinfo zs_handle-zram0", "objects"].why
    assert "no such cache" in told["slabinfo zspage-zram0", "zspages"].why


def test_one_slab_cache_for_all_pools() -> None:
    """Kernels with one cache for all pools are held against the sum."""
    one = reading(slabs={"zs_handle": SlabReading(41, 64, 0), "zspage": SlabReading(13, 64, 0)})
    both = make_snapshot(*(pool_of(GOOD.values(), at, f"zram{at - 1}") for at in (1, 2)))
    told = judged(one, shadow=both)["slabinfo zs_handle", "objects"]
    assert (told.subject, told.shadow, told.highest) == ("all pools", 2 * OBJECTS, 41)


def test_with_one_pool_chosen_only_its_own_witnesses_speak() -> None:
    """Sums over all pools prove nothing about one."""
    assert {each.subject for each in judged(whole=False).values()} == {"zram0"}


def test_zswap_is_the_sum_of_its_pools() -> None:
    """Zswap in meminfo is held against all zswap pools together."""
    pools = [pool_of(GOOD.values(), at, "zswap1") for at in (1, 2)]
    right = reading(zram={}, zswap=ZswapReading(2 * PAGES * 4096, ()))
    told = judged(right, shadow=make_snapshot(*pools))["meminfo Zswap", "pages"]
    assert (told.shadow, told.verdict) == (2 * PAGES, "equal")
    wrong = reading(zram={}, zswap=ZswapReading(PAGES * 4096, ()))
    assert judged(wrong, shadow=make_snapshot(*pools))["meminfo Zswap", "pages"].contradicts
    used = reading(zram={}, zswap=ZswapReading(PAGES * 4096, ("used",)))
    told = judged(wrong, used, shadow=make_snapshot(*pools))["meminfo Zswap", "pages"]
    assert told.standing == "not at rest"


def test_where_zswap_lags_it_may_miss_what_compaction_freed() -> None:
    """Its figure is then at most so much too high, and no proof; without compaction it is exact."""

    def told(kernel_pages: int, *, freed: int | None) -> Witness:
        pool = pool_of(GOOD.values(), 1, "zswap1", counters=replace(COUNTERS, pages_freed=freed))
        seen = reading(zram={}, zswap=ZswapReading(kernel_pages * 4096, ()))
        return judged(seen, shadow=make_snapshot(pool), lags=True)["meminfo Zswap", "pages"]

    assert told(PAGES + 3, freed=3).verdict == "within"
    assert told(PAGES + 4, freed=3).verdict == "outside"
    assert told(PAGES - 1, freed=3).verdict == "outside"
    assert told(PAGES + 90, freed=None).verdict == "within"
    assert told(PAGES, freed=0).verdict == "equal"
    assert told(PAGES + 3, freed=0).contradicts


def test_absent_witnesses_say_why() -> None:
    """Nothing is left out silently."""
    nothing = Witnesses(
        zram={},
        classes=Absent("one"),
        zswap=Absent("two"),
        vmstat=Absent("three"),
        slabs=Absent("four"),
    )
    found = judged(nothing)
    whys = {each.why for each in found.values() if each.verdict == "absent"}
    assert whys == {"no such device", "one", "two", "three", "four"}


# ---- debugfs -------------------------------------------------------------------


def stats(**changed: ClassStat) -> Witnesses:
    groups = {
        62: {6: 1, 11: 1},
        107: {2: 1, 8: 1, 11: 1},
        254: {11: 1},
    }
    lines = {62: (8, 6, 2), 107: (21, 13, 9), 254: (1, 1, 1)}
    table = {
        index: ClassStat(tuple(groups[index].get(group, 0) for group in range(1, 12)), *line)
        for index, line in lines.items()
    }
    table |= {int(name[1:]): line for name, line in changed.items()}
    return reading(classes={"zram0": table})


def test_debugfs_classes_equal_the_model() -> None:
    """Objects, capacity and pages of all classes; groups get no line of their own."""
    found = [each for (name, _), each in judged(stats()).items() if name.startswith("debugfs")]
    assert [(each.unit, each.shadow, each.verdict) for each in found] == [
        ("objects", OBJECTS, "equal"),
        ("capacity", 30, "equal"),
        ("pages", PAGES, "equal"),
    ]


def test_debugfs_names_the_class_and_group_that_differ() -> None:
    """Two wrong classes whose sums agree are found, and a zspage in another group."""
    base = stats().classes
    assert not isinstance(base, Absent)
    table = base["zram0"]
    wrong = stats(
        c62=replace(table[62], obj_used=5),
        c107=replace(table[107], obj_used=14, fullness=(1, 0, *table[107].fullness[2:])),
    )
    found = {key: each for key, each in judged(wrong).items() if each.contradicts}
    assert set(found) == {
        ("debugfs classes, 62", "objects"),
        ("debugfs classes, 107", "objects"),
        ("debugfs classes, 107", "zspages of group 1"),
        ("debugfs classes, 107", "zspages of group 2"),
    }
    assert not any(each.contradicts for each in judged(wrong, rest=False).values())


def test_old_debugfs_has_no_groups() -> None:
    """Where fullness is told in words only sums are compared."""
    base = stats().classes
    assert not isinstance(base, Absent)
    old = {f"c{index}": replace(line, fullness=()) for index, line in base["zram0"].items()}
    assert not any(each.contradicts for each in judged(stats(**old)).values())


# ---- rest ----------------------------------------------------------------------


def test_rest_is_two_equal_readings() -> None:
    """Any activity between the readings, or a request in flight, is no rest."""
    pool = pool_of(GOOD.values())
    assert at_rest(pool, reading(), reading()) is True
    for change in ({"activity": ("write",)}, {"compr_data_size": 1}):
        assert at_rest(pool, reading(), reading(zram={"zram0": zram(**change)})) is False
    flying = reading(zram={"zram0": zram(in_flight=1)})
    assert at_rest(pool, flying, flying) is False


def test_rest_of_zswap_and_of_others() -> None:
    """zswap's own figures tell of its rest; nothing tells of a pool of an unknown owner."""
    pool = pool_of(GOOD.values(), 1, "zswap1")
    assert at_rest(pool, reading(), reading()) is True
    assert at_rest(pool, reading(), reading(zswap=ZswapReading(0, ("used",)))) is False
    assert at_rest(pool, reading(), reading(zswap=Absent("none"))) is None
    assert at_rest(replace(pool, owner="unknown", name="other"), reading(), reading()) is None
