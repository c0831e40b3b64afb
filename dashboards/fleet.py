"""How many series many hosts make: counted from the tiers, and of what rules record of them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml

from zpobs.snapshot import Owner
from zpobs.views.metrics.classes import CLASSES_MAX
from zpobs.views.metrics.definitions import METRICS, POOL_SERIES_MAX
from zpobs.views.metrics.metric import Tier
from zpobs.views.metrics.pool import BANDS

RULES = Path(__file__).resolve().parent / "rules" / "zpobs.rules.yml"
OF_HOSTS, GROUP = "zpobs-recording", "zpobs-fleet"
# What Prometheus adds of each target: up, and four figures of the scrape.
SCRAPE_SERIES = 5
# The names of all that the group records: what a site hands on.
NAMES = "job(_[a-z_]+)?:zpobs_.+"
TIERS: tuple[tuple[Tier, str], ...] = (
    ("default", "by default"),
    ("class", "`--per-class`"),
    ("fullness", "`--per-class-fullness`"),
)
PAGE_BYTES = 4096
# struct size_class of kernels with pages of 4 KiB: zsmalloc.c.
_SIZES = range(32, PAGE_BYTES + 1, 16)
# Of a kernel's size classes; some are one class with a larger one.
INDEXES = len(_SIZES)
# CONFIG_ZSMALLOC_CHAIN_SIZE of Debian.
CHAIN_MAX = 8
DAY_S = 86_400
# Prometheus writes a block for so long.
BLOCK_S = 7_200
# Measured by tests/native/test_fleet.py and rounded up: what a sample takes in a block, what a
# series takes in a block's index, and a series on a page, as it is and with gzip.
SAMPLE_BYTES = 1.5
INDEX_BYTES = 100
LINE_BYTES = 80
GZIPPED_BYTES = 12


@dataclass(frozen=True, slots=True)
class Record:
    """What one rule of the group records, and how many series of a job that can be."""

    name: str
    expr: str
    series: int

    @property
    def by_class(self) -> bool:
        """Whether it is there only with --per-class."""
        return "_class:" in self.name


def records() -> Iterator[Record]:
    """Yield the rules of the group, counted by the labels that their names begin with."""
    owners = len(get_args(Owner))
    series = {
        "job": 1,
        "job_owner": owners,
        "job_owner_size_max": owners * BANDS,
        "job_owner_class": owners * INDEXES,
    }
    for rule in _rules(GROUP):
        name, expr = rule["record"], re.sub(r"\s+", " ", rule["expr"])
        yield Record(name, expr, series[name.split(":")[0]])


def _rules(group: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    (rules,) = (each["rules"] for each in groups if each["name"] == group)
    found: list[dict[str, Any]] = rules
    return found


def job_series(*, per_class: bool) -> int:
    """Return the most series that the group records of a job, however many hosts it has."""
    return sum(each.series for each in records() if per_class or not each.by_class)


def distinct_classes(chain_max: int = CHAIN_MAX) -> int:
    """Return how many size classes are none with a larger one (pool->size_class, can_merge())."""
    found = set()
    for size in _SIZES:
        # The chain that wastes the least; the shortest of those (calculate_zspage_chain_size()).
        pages = min(range(1, chain_max + 1), key=lambda count: count * PAGE_BYTES % size)
        found.add((pages, pages * PAGE_BYTES // size))
    return len(found)


def host_series(tier: Tier, pools: int) -> int:
    """Return the most series of a host with so many pools, without --bpf-stats."""
    own = sum(
        metric.series
        for metric in METRICS
        if metric.of_pool is None and metric.needs != "bpf-stats"
    )
    classes = distinct_classes()
    # Of a metric of size classes the table says how many there are by index.
    by_class = sum(metric.tier == "class" for metric in METRICS) * classes
    groups = next(metric.series for metric in METRICS if metric.tier == "fullness") // CLASSES_MAX
    of_pool = POOL_SERIES_MAX
    of_pool += by_class if tier != "default" else 0
    of_pool += groups * classes if tier == "fullness" else 0
    return own + pools * of_pool


def kept_series(tier: Tier, pools: int) -> int:
    """Return the most series that a Prometheus keeps of a host: what it adds to a page as well."""
    recorded = sum(
        pools if rule["record"].startswith("instance_pool:") else 1 for rule in _rules(OF_HOSTS)
    )
    return host_series(tier, pools) + recorded + SCRAPE_SERIES


def day_bytes(series: int, scrape_s: int) -> int:
    """Return what so many series take on the disk of a Prometheus each day, at most."""
    samples = series * DAY_S // scrape_s
    return round(samples * SAMPLE_BYTES) + series * INDEX_BYTES * DAY_S // BLOCK_S
