"""Moments to families: what is known, left out, added up, and goes on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.factories import (
    COUNTERS,
    UNCOUNTED,
    make_health,
    make_latency,
    make_life,
    make_pool,
    make_runs,
    make_snapshot,
)
from tests.object_values import make_objects
from tests.views.metrics.support import (
    FOOTING,
    REQUESTED,
    families_of,
    full_pool,
    make_moment,
    values_of,
)
from zpobs.migration import PoolMigration
from zpobs.snapshot import Counters, OwnerFigures, PoolView
from zpobs.views.metrics.definitions import METRICS
from zpobs.views.metrics.families import down_families
from zpobs.views.metrics.ledger import NAMES_KEPT, Ledger
from zpobs.views.metrics.metric import Choice, Distribution, Moment
from zpobs.views.metrics.own import COUNTERS as COUNTED

ALLOCATIONS = "zpobs_pool_allocations_total"


def allocations(pools: list[PoolView], ledger: Ledger) -> dict[tuple[str, ...], object]:
    return dict(values_of(families_of(make_moment(*pools), ledger), ALLOCATIONS))


def counting(pool_id: int, count: int | None, name: str = "zram0") -> PoolView:
    return make_pool(pool_id, name, counters=replace(COUNTERS, allocs=count))


def test_the_parts_of_a_pools_bytes_sum_up() -> None:
    """Requested, rounding, headers, tail and free slots are the pages."""
    found = families_of(make_moment(full_pool()))
    parts = ("requested", "rounding", "header", "tail", "free_slot")
    values = [values_of(found, f"zpobs_pool_{part}_bytes")["zram0",] for part in parts]
    assert sum(values) == values_of(found, "zpobs_pool_bytes")["zram0",] > 0  # type: ignore[arg-type]
    assert values[0] == REQUESTED


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("zpobs_pool_fullness_zspages", "zpobs_pool_zspages"),
        ("zpobs_pool_band_bytes", "zpobs_pool_bytes"),
        ("zpobs_pool_band_free_slot_bytes", "zpobs_pool_free_slot_bytes"),
    ],
)
def test_parts_sum_to_their_whole(metric: str, labels: str) -> None:
    """Groups and bands leave nothing out and count nothing twice."""
    found = families_of(make_moment(full_pool()))
    whole = values_of(found, labels)["zram0",]
    assert sum(values_of(found, metric).values()) == whole > 0  # type: ignore[arg-type, operator]


def test_classes_are_in_the_band_of_their_size() -> None:
    """1024 is the last size of the fourth of sixteen bands, 1744 lies in the seventh."""
    found = values_of(families_of(make_moment(full_pool())), "zpobs_pool_band_bytes")
    assert found["zram0", "1024"] == 10 * 4096
    assert found["zram0", "1792"] == 200 * 3 * 4096
    assert found["zram0", "256"] == 0


def test_what_was_asked_for_is_left_out_where_only_bounds_are_known() -> None:
    """The bounds stay."""
    pool = full_pool(owner_figures=OwnerFigures(None, None, steady=True))
    found = families_of(make_moment(pool))
    assert not values_of(found, "zpobs_pool_requested_bytes")
    assert not values_of(found, "zpobs_pool_rounding_bytes")
    low, high = (
        values_of(found, f"zpobs_pool_requested_{end}_bytes")["zram0",] for end in ("min", "max")
    )
    assert 0 < low < high  # type: ignore[operator]


def test_an_unknown_pool_has_its_counters_and_no_state() -> None:
    """Figures that show only what was seen are no truth."""
    found = families_of(make_moment(full_pool(status="unknown")), choice=Choice(True, True))
    assert values_of(found, "zpobs_pool_status")["zram0", "unknown"] == 1
    assert values_of(found, ALLOCATIONS) == {("zram0",): COUNTERS.allocs}
    for name in ("bytes", "zspages", "free_slot_bytes", "fullness_zspages", "band_bytes"):
        assert not values_of(found, f"zpobs_pool_{name}"), name
    for name in ("bytes", "exact", "fullness_zspages"):
        assert not values_of(found, f"zpobs_class_{name}"), name


def test_a_bounded_pool_says_so() -> None:
    """Its figures are served, marked."""
    found = families_of(make_moment(full_pool(status="bounded")), choice=Choice(True))
    status = values_of(found, "zpobs_pool_status")
    assert {labels[1]: value for labels, value in status.items()} == {
        "exact": 0,
        "bounded": 1,
        "unknown": 0,
    }
    assert set(values_of(found, "zpobs_class_exact").values()) == {0}
    assert values_of(found, "zpobs_pool_bytes")


def test_what_is_less_exact_than_its_pool_says_so() -> None:
    """Each part by itself; one that is unknown has no figures and no mark."""
    name = "zpobs_pool_part_exact"
    whole = values_of(families_of(make_moment(full_pool())), name)
    parts = ("life", "runs", "migration_errors", "latency")
    assert whole == {("zram0", part): 1 for part in parts}
    errors = PoolMigration("bounded", {}, (), 0)
    bounded: tuple[dict[str, Any], ...] = (
        {"life": make_life(status="bounded")},
        {"runs": replace(make_runs(), status="bounded")},
        {"migration": errors},
        {"latency": make_latency(status="bounded")},
    )
    for part, changed in zip(parts, bounded, strict=True):
        found = families_of(make_moment(full_pool(**changed)))
        assert values_of(found, "zpobs_pool_status")["zram0", "exact"] == 1
        assert values_of(found, name) == whole | {("zram0", part): 0}
    found = families_of(make_moment(full_pool(life=make_life(status="unknown"), latency=None)))
    assert {part for _, part in values_of(found, name)} == {"runs", "migration_errors"}
    # Of two pools of one name both have to be.
    two = make_moment(full_pool(1), full_pool(2, life=make_life(status="bounded")))
    assert values_of(families_of(two), name) == whole | {("zram0", "life"): 0}
    classes = values_of(families_of(two, choice=Choice(True)), "zpobs_class_exact")
    assert set(classes.values()) == {1}


def test_what_nothing_counts_is_left_out() -> None:
    """Without probes no counter of theirs is there, not even as 0."""
    pool = full_pool(
        counters=UNCOUNTED,
        life=make_life(status="unknown"),
        latency=make_latency(status="unknown"),
        runs=replace(make_runs(), status="unknown"),
        migration=None,
    )
    footing = replace(FOOTING, lost={}, programs=())
    snapshot = make_snapshot(pool, footing=footing, health=make_health(hooks=0))
    found = families_of(Moment(snapshot))
    served = {family.metric.name for family in found}
    unseen = ("probes", "latency", "bpf-stats")
    assert not served & {each.name for each in METRICS if each.needs in unseen}
    assert {"zpobs_pool_bytes", "zpobs_scans_total", "zpobs_probe_attached"} <= served


def test_counters_that_did_not_count_yet_are_0() -> None:
    """Every error, verdict and stage is there from the start."""
    found = families_of(make_moment(full_pool()))
    errors = values_of(found, "zpobs_pool_page_migration_errors_total")
    assert {labels[1]: value for labels, value in errors.items()} == {
        "EAGAIN": 3,
        "EBUSY": 0,
        "EINVAL": 1,
        "ENOMEM": 0,
        "other": 1,
    }
    assert values_of(found, "zpobs_verifications_total")["differs",] == 0
    assert values_of(found, "zpobs_records_lost_total")["unpaired",] == 0


def test_counters_that_may_be_higher_say_by_how_much() -> None:
    """Each counter there is, by the metric that it is; 0 where nothing was hidden."""
    found = values_of(
        families_of(make_moment(full_pool(missed={"failures": 4}))), "zpobs_counts_hidden"
    )
    assert set(COUNTED) == set(Counters.__slots__)
    served = {metric.name for metric in METRICS}
    assert {name for (name,) in found} == set(COUNTED.values()) <= served
    assert found["zpobs_pool_allocation_failures_total",] == 4
    assert sum(found.values()) == 4  # type: ignore[arg-type]


def test_lifetimes_are_a_distribution_of_all_known_ones() -> None:
    """Every lifetime is in a bucket, and the sum is that of the life's own."""
    found = values_of(families_of(make_moment(full_pool())), "zpobs_pool_zspage_lifetime_seconds")
    value = found["zram0",]
    assert isinstance(value, Distribution)
    assert sum(value.counts.values()) + value.above == 3
    assert value.counts[(1 << 20) / 1e9] == 3
    assert value.total == pytest.approx(0.0027)


def test_latencies_are_of_calls_that_did_not_fail() -> None:
    """Every class's, by call; what is longer than all bounds is above them."""
    found = values_of(families_of(make_moment(full_pool())), "zpobs_pool_call_seconds")
    assert {call for _, call in found} == {"alloc", "free", "migration"}
    value = found["zram0", "alloc"]
    assert isinstance(value, Distribution)
    assert list(value.counts.values()) == [0, 95, 400, 0, 0, 1]
    assert value.above == 2
    kinds = make_latency().kinds
    assert value.total == pytest.approx(kinds["alloc"].sum_ns.sum() / 1e9)


def test_runs_are_told_by_what_began_them() -> None:
    """All triggers from the start; as many runs as there were."""
    found = families_of(make_moment(full_pool()))
    runs = values_of(found, "zpobs_pool_compaction_runs_total")
    assert {trigger for _, trigger in runs} == {"sysfs", "shrinker", "other", "unknown"}
    told = make_runs().by_trigger
    assert runs["zram0", "other"] == 0
    assert sum(runs.values()) == sum(each.runs for each in told.values()) > 0  # type: ignore[arg-type]
    seconds = values_of(found, "zpobs_pool_compaction_run_seconds_total")
    total_ns = sum(each.duration_ns for each in told.values())
    assert sum(seconds.values()) == pytest.approx(total_ns / 1e9)  # type: ignore[arg-type]


def test_ages_leave_none_out() -> None:
    """Known and unknown, each once."""
    found = values_of(families_of(make_moment(full_pool())), "zpobs_pool_age_zspages")
    life = make_life()
    assert sum(found.values()) == np.sum(life.ages) + life.ages_unknown  # type: ignore[arg-type]
    assert found["zram0", "1s"] == 4


def test_counters_go_on_over_a_reset() -> None:
    """A pool of the same name adds to what was counted; none of it goes back."""
    ledger = Ledger()
    assert allocations([counting(1, 100)], ledger) == {("zram0",): 100}
    assert allocations([counting(1, 130)], ledger) == {("zram0",): 130}
    assert allocations([], ledger) == {}
    assert allocations([counting(2, 7)], ledger) == {("zram0",): 137}
    assert allocations([counting(2, None)], ledger) == {}
    assert allocations([counting(2, 9)], ledger) == {("zram0",): 139}
    # The other device counts by itself.
    two = allocations([counting(2, 9), counting(3, 5, "zram1")], ledger)
    assert two == {("zram0",): 139, ("zram1",): 5}


def test_a_counter_that_starts_anew_does_not_go_back() -> None:
    """What it says then is more, not less."""
    ledger = Ledger()
    allocations([counting(1, 100)], ledger)
    assert allocations([counting(1, 40)], ledger) == {("zram0",): 140}


def test_pools_of_one_name_are_one_series() -> None:
    """While one goes and the next is there: added up, the later time, and any of their statuses."""
    pools = [counting(1, 100), counting(2, 7)]
    pools[1] = replace(pools[1], since_ns=pools[0].since_ns + 1_000_000_000)
    found = families_of(make_moment(*pools))
    assert values_of(found, ALLOCATIONS) == {("zram0",): 107}
    assert values_of(found, "zpobs_pool_objects") == {("zram0",): 2 * pools[0].objects}
    since = values_of(found, "zpobs_pool_since_timestamp_seconds")
    assert since == {("zram0",): pools[1].since_ns / 1e9}


def test_what_is_told_of_objects() -> None:
    """Sizes and lifetimes leave none out; what is not known is left out but for its status."""
    asked = Choice(objects=True)
    found = families_of(make_moment(full_pool()), choice=asked)
    assert values_of(found, "zpobs_pool_told_stores_total") == {("zram0",): 16}
    assert values_of(found, "zpobs_pool_told_frees_total") == {("zram0",): 5}
    sizes = values_of(found, "zpobs_pool_told_size_objects")
    assert (sizes["zram0", "512"], sizes["zram0", "1024"], sizes["zram0", "larger"]) == (9, 1, 0)
    assert sum(sizes.values()) == values_of(found, "zpobs_pool_told_objects")["zram0",] == 10  # type: ignore[arg-type]
    lived = values_of(found, "zpobs_pool_told_lifetime_seconds")["zram0",]
    assert isinstance(lived, Distribution)
    assert sum(lived.counts.values()) + lived.above == 5
    assert (lived.counts[(1 << 20) / 1e9], lived.counts[(1 << 32) / 1e9]) == (3, 2)
    assert lived.total == pytest.approx(1.4025)
    assert values_of(found, "zpobs_pool_pinned_bytes") == {("zram0",): 7 * 4096}
    unknown = full_pool(objects_told=make_objects(status="unknown"))
    found = families_of(make_moment(unknown), choice=asked)
    assert values_of(found, "zpobs_pool_told_status")["zram0", "unknown"] == 1
    served = {family.metric.name for family in found if family.metric.tier == "objects"}
    assert served == {"zpobs_pool_told_status"}


def test_sums_of_names_that_never_come_again_are_forgotten() -> None:
    """A ledger does not grow for ever; those in use stay."""
    ledger = Ledger()
    place = ALLOCATIONS, ()
    for number in range(NAMES_KEPT + 50):
        ledger.keep([(1, "zram0"), (number + 2, f"zswap{number:x}")])
        ledger.count(1, "zram0", place, 5)
        ledger.count(number + 2, f"zswap{number:x}", place, 3)
    ledger.keep([(1, "zram0"), (9999, "zswap0")])
    assert ledger.count(1, "zram0", place, 6) == 6
    assert ledger.count(9999, "zswap0", place, 1) == 1
    assert len(ledger._sums) <= NAMES_KEPT + 1
    assert len(ledger._last) == 2


def test_without_figures_there_is_one_metric() -> None:
    """Which says so."""
    (family,) = down_families()
    assert (family.metric.name, family.series) == ("zpobs_up", {(): 0.0})
