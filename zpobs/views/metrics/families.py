"""A moment in, families of samples out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from zpobs.views.metrics.definitions import METRICS
from zpobs.views.metrics.ledger import Ledger
from zpobs.views.metrics.metric import Choice, Distribution, Metric, Moment, Number
from zpobs.views.metrics.own import UP

Labels = tuple[str, ...]
_MERGES: Mapping[str, Callable[[float, float], float]] = {
    "sum": operator.add,
    "max": max,
    "min": min,
}


@dataclass(frozen=True, slots=True)
class Family:
    """The series of one metric: numbers by the values of its labels."""

    metric: Metric
    series: dict[Labels, Number] = field(default_factory=dict)


def make_families(moment: Moment, ledger: Ledger, choice: Choice) -> list[Family]:
    """Return every metric that has a value; what is not known is left out.

    The ledger takes what is counted; two moments are to be given to it in their order.
    """
    ledger.keep((pool.id, pool.name) for pool in moment.snapshot.pools)
    made = [_family(metric, moment, ledger) for metric in METRICS if metric.tier in choice.tiers]
    return [family for family in made if family.series]


def down_families() -> list[Family]:
    """Return all that is served while there is nothing fresh: that it is so."""
    return [Family(UP, {(): 0.0})]


def _family(metric: Metric, moment: Moment, ledger: Ledger) -> Family:
    family = Family(metric)
    if metric.of_moment is not None:
        family.series.update(metric.of_moment(moment))
    if metric.of_pool is not None:
        for pool in moment.snapshot.pools:
            for labels, value in metric.of_pool(pool, moment):
                key = (pool.name, *labels)
                if metric.kind in ("counter", "histogram"):
                    # The sum of all pools of this name, those before among them.
                    family.series[key] = _counted(metric, ledger, pool.id, key, value)
                else:
                    _merge(family, key, value)
    return family


def _merge(family: Family, key: Labels, value: Number) -> None:
    """Put a number where another pool of the same name may have one."""
    before = family.series.get(key)
    if before is None:
        family.series[key] = value
        return
    assert isinstance(before, float | int)
    assert isinstance(value, float | int)
    family.series[key] = _MERGES[family.metric.merge](before, value)


def _counted(metric: Metric, ledger: Ledger, pool: int, key: Labels, value: Number) -> Number:
    name = key[0]

    def count(part: str, number: float) -> float:
        return ledger.count(pool, name, (metric.name + part, key), number)

    if not isinstance(value, Distribution):
        return count("", value)
    return Distribution(
        {bound: round(count(f" {bound}", number)) for bound, number in value.counts.items()},
        round(count(" above", value.above)),
        count(" sum", value.total),
    )


def series_of(families: Iterable[Family]) -> int:
    """Return how many series these are once written out."""
    return sum(
        len(value.counts) + 3 if isinstance(value, Distribution) else 1
        for family in families
        for value in family.series.values()
    )
