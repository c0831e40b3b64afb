"""docs/metrics.md: the table of all metrics, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zpobs.views.metrics.definitions import FINE_SERIES, METRICS, OBJECT_SERIES_MAX, POOL_SERIES_MAX
from zpobs.views.metrics.metric import Metric
from zpobs.views.metrics.pool import BANDS, ERRORS

_HEAD = f"""\
# Metrics

Made of the exporter's table by `make dashboards`, and compared with it by a test: what is
changed here is lost. How they are served, and what of it is true: [exporter.md](exporter.md).

All names begin with `zpobs_` and end in the unit, where there is one: bytes, seconds.
Counters end in `_total`; they go on as long as the process lives, for a pool by its name.
Times are seconds since 1970. Where a set has parts there is no sum of them beside them:
`sum()` makes it. There are no ratios: PromQL divides.

**known** says what it takes for a value to be there at all; where it is not, the metric is
left out. *probes*: attached ones (counters that a missing hook counts are left out);
*zram*: a device, and for what was asked for one at rest; *zswap*: the kernel has it;
*scans*: a scan was made; *latency*, *objects*: `--latency`, `--objects`, and probes;
*bpf-stats*: `--bpf-stats`, or the sysctl kernel.bpf_stats_enabled; *verify*: scans, so neither
`--verify 0` nor `--no-scan`, and no capture in the kernel's place. *always* is wherever there is
what it tells of: hooks, pools without a place in the probes' tables and times of scans are in no
page of a capture, and `zpobs_snapshot_interval_seconds` is in none of `--once`. The state of a pool
whose status is unknown is left out; one that is bounded is served, and `zpobs_pool_status` says so.
Lives, runs of compaction, errors of migrations and latencies have a status of their own: they are
left out if it is unknown, and `zpobs_pool_part_exact` is 0 if they are bounded.

**series** is the most that there can be, of each pool where a label is `pool`. Without
`--per-class` a pool has at most {POOL_SERIES_MAX} series in all, and {OBJECT_SERIES_MAX} more with
`--objects`, {FINE_SERIES} with `--latency-buckets fine`.

`size_max` puts size classes together in {BANDS} bands of equal width: the largest slot of
the band, in bytes. `fullness` is the percentage of slots in use that a group's zspages are
not above: 0 has none in use, 99 all but some, 100 all (kernels with four groups: empty,
almost_empty, almost_full, full). `error` is one of {", ".join(ERRORS)}, or other.
"""


def metrics_page() -> str:
    """Return the whole page."""
    own = [metric for metric in METRICS if metric.of_pool is None]
    pools = [metric for metric in METRICS if metric.of_pool is not None]
    by_tier = {
        tier: [metric for metric in pools if metric.tier == tier]
        for tier in ("default", "objects", "class", "fullness")
    }
    parts = [
        _HEAD,
        *_section("zpobs, kernel and host", own),
        *_section("Pools", by_tier["default"]),
        *_section("Objects one by one: `--objects`", by_tier["objects"]),
        *_section("Size classes: `--per-class`", by_tier["class"]),
        *_section(
            "Size classes by fullness: `--per-class-fullness`",
            by_tier["fullness"],
        ),
    ]
    return "\n".join(parts)


def _section(title: str, metrics: Iterable[Metric]) -> Iterator[str]:
    yield f"## {title}\n"
    yield "| metric | type | labels | meaning | known | series | from |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.all_labels)
        cells = (
            f"`{metric.name}`",
            metric.kind,
            labels,
            metric.help,
            metric.needs or "always",
            str(metric.series),
            metric.source.replace("|", "\\|"),
        )
        yield f"| {' | '.join(cells)} |".replace("|  |", "| |")
    yield ""
