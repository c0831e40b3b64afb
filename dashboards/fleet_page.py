"""docs/fleet.md: how many hosts are laid out, and what they take, in numbers that are counted."""

from __future__ import annotations

from collections.abc import Iterator

from dashboards.fleet import (
    CHAIN_MAX,
    DAY_S,
    GZIPPED_BYTES,
    INDEX_BYTES,
    LINE_BYTES,
    NAMES,
    SAMPLE_BYTES,
    TIERS,
    day_bytes,
    distinct_classes,
    host_series,
    job_series,
    kept_series,
    records,
)

SCRAPE_S = 15
# A host with zram and zswap.
POOLS = 2
HOSTS = 1000
SITES = 4

_HEAD = f"""\
# Many hosts

Made by `make dashboards`, and compared by a test: what is changed here is lost.

An exporter knows its host alone. Many hosts are Prometheus' own job: it scrapes them, the group
`zpobs-fleet` of [zpobs.rules.yml](../dashboards/rules/zpobs.rules.yml) records what they come to
by job, owner of the pool (zram, zswap), band of sizes and size class, and only that is handed on.
The row *Fleet* of the on-call dashboard is asked of that.

```
hosts of a site ──scraped──> Prometheus of the site ──remote write──> Prometheus of all sites
  every series             rules, alerts, dashboards          zpobs-fleet alone: row Fleet
```

The job is called `zpobs` in two rules, `job:zpobs_up:missing` and `ZpobsExporterDown`, as only
Prometheus' own `up` tells of hosts that cannot be scraped: another name is to be put into both.

In prometheus.yml of a site, beside what [exporter.md](exporter.md#prometheus) says:

```yaml
global:
  external_labels: {{site: north}}
remote_write:
  - url: https://prometheus.example/api/v1/write
    write_relabel_configs:
      - source_labels: [__name__]
        regex: "{NAMES}"
        action: keep
```

The other one is started with `--web.enable-remote-write-receiver`. Alerts are best raised at
the sites, where the figures of each host are. Hosts that are too many for one server are shared out
among several (`hashmod` of `__address__`), each with a label of its own as if it were a site: the
panels add up.
"""


def fleet_page() -> str:
    """Return the whole page."""
    return "\n".join([_HEAD, *_budget(), *_hosts(), *_all()])


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _mebibytes(value: float) -> str:
    return f"{value / (1 << 20):,.1f} MiB".replace(",", " ")


def _budget() -> Iterator[str]:
    yield "## What is recorded of all hosts\n"
    yield (
        "At most so many series of each job, however many hosts it has: "
        f"{job_series(per_class=False)} in all, {_number(job_series(per_class=True))} where "
        "exporters run with `--per-class`.\n"
    )
    yield "| record | of | series |"
    yield "| --- | --- | --- |"
    for each in records():
        yield f"| `{each.name}` | `{each.expr}` | {each.series} |"
    yield ""


def _hosts() -> Iterator[str]:
    yield "## What a host takes\n"
    yield (
        "The most that it can be, by the table of [metrics.md](metrics.md), without "
        f"`--bpf-stats`. A kernel with pages of 4 KiB and zspages of at most {CHAIN_MAX} pages has "
        f"{distinct_classes()} size classes, of which a pool has those that are in use. Bytes are "
        f"reckoned with {SAMPLE_BYTES:g} for a sample in a block of Prometheus, {INDEX_BYTES} for "
        f"a series in its index, every two hours, and with {LINE_BYTES} for a series on a page, "
        f"{GZIPPED_BYTES} with gzip: each is more than `tests/native/test_fleet.py` "
        "measures. *kept* is with what rules record of each host and pool, and what Prometheus "
        "adds of each scrape.\n"
    )
    yield (
        "| tier | pools | series | page, KiB | with gzip, KiB | kept | "
        f"on disk, a day, every {SCRAPE_S} s |"
    )
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for tier, words in TIERS:
        for pools in (1, POOLS):
            series, kept = host_series(tier, pools), kept_series(tier, pools)
            cells = (
                words,
                str(pools),
                _number(series),
                _number(series * LINE_BYTES / 1024),
                _number(series * GZIPPED_BYTES / 1024),
                _number(kept),
                _mebibytes(day_bytes(kept, SCRAPE_S)),
            )
            yield f"| {' | '.join(cells)} |"
    yield ""


def _all() -> Iterator[str]:
    yield f"## {HOSTS} hosts\n"
    yield (
        f"With {POOLS} pools each, at {SITES} sites, of one job, every {SCRAPE_S} s; nothing here "
        "was measured with so many, it is counted.\n"
    )
    yield "| tier | | series | samples a second | on disk, 15 days |"
    yield "| --- | --- | --- | --- | --- |"
    for tier, words in TIERS:
        recorded = job_series(per_class=tier != "default")
        at_site = kept_series(tier, POOLS) * HOSTS // SITES + recorded
        at_all = recorded * SITES
        for where, series in ((f"each of {SITES} sites", at_site), ("all sites", at_all)):
            cells = (
                words,
                where,
                _number(series),
                _number(series / SCRAPE_S),
                f"{day_bytes(series, SCRAPE_S) * 15 / (1 << 30):.1f} GiB",
            )
            yield f"| {' | '.join(cells)} |"
    yield ""
    yield (
        f"A sample a series every {SCRAPE_S} s is {_number(DAY_S / SCRAPE_S)} a day. Where that is "
        "much, `--per-class` is for the hosts that are looked into, and `scrape_interval: 60s` "
        "makes a quarter of it: counters lose nothing by that."
    )
    yield ""
