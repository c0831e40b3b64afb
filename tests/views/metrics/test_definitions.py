"""The table of all metrics: its names, and the bounds of its series."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.factories import KERNEL, make_classes, make_pool
from tests.object_values import make_pins
from tests.views.metrics.support import families_of, full_pool, make_moment, values_of
from zpobs.objects import SIZE_BANDS
from zpobs.snapshot import PoolView
from zpobs.views.metrics.classes import CLASSES_MAX
from zpobs.views.metrics.definitions import FINE_SERIES, METRICS, OBJECT_SERIES_MAX, POOL_SERIES_MAX
from zpobs.views.metrics.families import series_of
from zpobs.views.metrics.metric import Choice, Distribution, Metric, fullness_names
from zpobs.views.metrics.objects import OBJECT_LIFETIME_BUCKETS

ALL = Choice(per_class_fullness=True, objects=True)
BY_NAME = {metric.name: metric for metric in METRICS}
CLASS_FAMILIES_MAX = 8
# What would say who or where something is.
FORBIDDEN = re.compile(r"0x|ffff|address|pfn|comm")


def many_classes(count: int) -> PoolView:
    """Return a pool with so many size classes."""
    lines = [(index, 32 + 16 * index, 4, 1, 3, 5) for index in range(count)]
    return full_pool(classes=make_classes(lines))


def test_names_are_unique() -> None:
    """No two entries are one metric."""
    assert len(BY_NAME) == len(METRICS) >= 80


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_practices(metric: Metric) -> None:
    """One prefix, base units last, _total for counters alone, _info for what is told by labels."""
    assert re.fullmatch(r"zpobs(_[a-z0-9]+)+", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert (metric.kind == "info") == metric.name.endswith("_info")
    assert not re.search(r"_(ms|us|ns|kb|mb|percent|ratio|pages)(_|$)", metric.name)
    assert not re.search(r"_(bucket|count|sum|created)$", metric.name)
    assert set(metric.all_labels).isdisjoint({"job", "instance", "le", "zone", "region"})
    assert (metric.of_pool is None) != (metric.of_moment is None)
    assert re.match(r"[A-Z0-9]", metric.help)
    assert not metric.help.endswith(".")


def test_every_metric_has_a_value_where_everything_is_known() -> None:
    """Each entry's function yields something, so none is dead."""
    families = families_of(make_moment(full_pool()), choice=ALL)
    assert {family.metric.name for family in families} == set(BY_NAME)


def test_no_pool_has_more_series_than_the_bound() -> None:
    """By default at most 150 of each pool, whatever classes it has: what is promised."""
    one, two = (
        series_of(families_of(make_moment(*[many_classes(200), full_pool(2, "zram1")][:count])))
        for count in (1, 2)
    )
    assert 100 <= two - one <= POOL_SERIES_MAX == 150


def test_no_metric_has_more_series_than_its_entry_says() -> None:
    """``series`` is the bound that docs/metrics.md tells."""
    families = families_of(make_moment(many_classes(CLASSES_MAX)), choice=ALL)
    for family in families:
        assert series_of([family]) <= family.metric.series, family.metric.name
    pool = sum(each.series for each in METRICS if each.of_pool and each.tier == "default")
    assert pool <= POOL_SERIES_MAX
    objects = sum(each.series for each in METRICS if each.tier == "objects")
    assert objects <= OBJECT_SERIES_MAX == 40


def test_detail_is_for_those_who_ask() -> None:
    """Eight families a class with --per-class, one by fullness with the other."""
    moment = make_moment(many_classes(100))

    def counted(choice: Choice) -> int:
        return series_of(families_of(moment, choice=choice))

    usual, by_class = counted(Choice()), counted(Choice(per_class=True))
    assert by_class - usual == CLASS_FAMILIES_MAX * 100
    assert counted(Choice(per_class_fullness=True)) - by_class == 100 * KERNEL.fullness_groups


def test_objects_are_for_those_who_ask() -> None:
    """At most 40 series a pool more, whatever was told; buckets are 12 at most."""
    moment = make_moment(many_classes(100))
    usual, told = families_of(moment), families_of(moment, choice=Choice(objects=True))
    assert 0 < series_of(told) - series_of(usual) <= OBJECT_SERIES_MAX
    assert max(len(OBJECT_LIFETIME_BUCKETS) + 1, SIZE_BANDS + 1) <= 12


def test_fine_buckets_are_for_those_who_ask() -> None:
    """So many series more as is told, and the same calls in them."""
    usual, fine = (
        families_of(make_moment(full_pool(), fine_latency=wanted)) for wanted in (False, True)
    )
    assert series_of(fine) - series_of(usual) == FINE_SERIES == 27
    coarse_value, fine_value = (
        values_of(found, "zpobs_pool_call_seconds")["zram0", "alloc"] for found in (usual, fine)
    )
    assert isinstance(coarse_value, Distribution)
    assert isinstance(fine_value, Distribution)
    assert coarse_value.total == fine_value.total
    assert sum(fine_value.counts.values()) + fine_value.above > 0

    def below(value: Distribution, end: float) -> int:
        return sum(count for bound, count in value.counts.items() if bound <= end)

    for end in coarse_value.counts:
        assert below(coarse_value, end) == below(fine_value, end)


def test_labels_tell_nobody_and_no_place() -> None:
    """No address, frame number or name of a process is anywhere in a label."""
    pool = replace(full_pool(), address=0xFFFF888000001000)
    pins = make_pins()
    told = {*pins.command, *pins.paths.values(), *map(hex, pins.handle), *map(str, pins.handle)}
    for family in families_of(make_moment(pool), choice=ALL):
        for labels in family.series:
            assert not FORBIDDEN.search(" ".join(labels).replace("unknown", ""))
            assert not (told - {""}) & set(labels)


def test_fullness_groups_have_names() -> None:
    """As many as groups, all different, whatever the kernel has."""
    for groups in (4, 12, 7):
        assert len(set(fullness_names(groups))) == groups
    assert fullness_names(12)[0] == "0"
    assert fullness_names(12)[-2:] == ("99", "100")


def test_pools_without_any_class_are_told_too() -> None:
    """An empty pool has its totals, 0."""
    moment = make_moment(make_pool(lines=()))
    (family,) = [each for each in families_of(moment) if each.metric.name == "zpobs_pool_bytes"]
    assert family.series == {("zram0",): 0}
