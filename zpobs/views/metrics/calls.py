"""Metrics of what calls into zsmalloc took: latencies, and runs of compaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zpobs.latency import Histogram
from zpobs.runs import TRIGGERS, RunSums
from zpobs.snapshot import PoolView
from zpobs.views.metrics.metric import Distribution, Metric, Moment, Value

# Of all kinds of calls, those that are told of; one that failed is in no histogram.
CALLS = ("alloc", "free", "migration")
# The ends of the buckets: 2^b ns, from a microsecond to one of a thousand.
CALL_BUCKETS = tuple(range(10, 21, 2))
# With --latency-buckets fine: one to each power of two, up to 16 ms.
FINE_BUCKETS = tuple(range(10, 25))


def _distribution(histogram: Histogram, ends: tuple[int, ...]) -> Distribution:
    buckets = histogram.buckets.sum(axis=0)
    counts: dict[float, int] = {}
    begin = 0
    for end in ends:
        counts[(1 << end) / 1e9] = int(buckets[begin : end + 1].sum())
        begin = end + 1
    return Distribution(counts, int(buckets[begin:].sum()), int(histogram.sum_ns.sum()) / 1e9)


def _latencies(pool: PoolView, moment: Moment) -> Iterator[Value]:
    if pool.latency is None or pool.latency.status == "unknown":
        return
    ends = FINE_BUCKETS if moment.fine_latency else CALL_BUCKETS
    for call in CALLS:
        if call in pool.latency.kinds:
            yield (call,), _distribution(pool.latency.kinds[call], ends)


def _by_trigger(get: Callable[[RunSums], float]) -> Callable[[PoolView, Moment], Iterator[Value]]:
    def values(pool: PoolView, _: Moment) -> Iterator[Value]:
        if pool.runs is None or pool.runs.status == "unknown":
            return
        for trigger in TRIGGERS:
            sums = pool.runs.by_trigger.get(trigger)
            yield (trigger,), 0 if sums is None else get(sums)

    return values


CALL: tuple[Metric, ...] = (
    Metric(
        "zpobs_pool_call_seconds",
        "histogram",
        "How long allocations, frees and migrations took that did not fail",
        "pool.latency",
        ("call",),
        of_pool=_latencies,
        needs="latency",
        series=len(CALLS) * (len(CALL_BUCKETS) + 3),
    ),
    Metric(
        "zpobs_pool_compaction_runs_total",
        "counter",
        "Runs of compaction that were seen to their end, by what began them",
        "pool.runs.by_trigger",
        ("trigger",),
        of_pool=_by_trigger(lambda sums: sums.runs),
        needs="probes",
        series=len(TRIGGERS),
    ),
    Metric(
        "zpobs_pool_compaction_run_seconds_total",
        "counter",
        "Time in runs of compaction that were seen to their end, by what began them",
        "pool.runs.by_trigger",
        ("trigger",),
        of_pool=_by_trigger(lambda sums: sums.duration_ns / 1e9),
        needs="probes",
        series=len(TRIGGERS),
    ),
)
