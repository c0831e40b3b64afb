"""Three hosts, as three exporters are: what rules make of them all goes to a second Prometheus.

Its figures are the sums of the three pages, its panels answer, and its series are as few as
docs/fleet.md says. What that page reckons bytes with is measured here.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from dashboards import fleet
from dashboards.on_call import ON_CALL
from dashboards.panels import Panel
from lab.prometheus import Job, Prometheus, Setup
from tests import scraped
from tests.native.device import NativeDevice
from tests.native.exporter import Exporter
from tests.scraped import JOB, RULES, filled, well

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

HOSTS = 3
# How many scrapes of each host, before bytes are measured.
SCRAPES = 60
# All that is handed on, and of it what needs probes.
RECORDS = {each.name: each for each in fleet.records()}
OF_PROBES = {name for name in RECORDS if name.endswith(":rate5m")}
(PANELS,) = (row.panels for row in ON_CALL.rows if row.title == "Fleet")
Sums = dict[frozenset[tuple[str, str]], float]


@dataclass
class Fleet:
    """Exporters, who scrapes them, and who is told of them all."""

    folder: Path
    exporters: list[Exporter]
    site: Prometheus
    everywhere: Prometheus


def busy(devices: list[NativeDevice], over: threading.Event) -> None:
    """Write and discard, so that figures change from scrape to scrape."""
    turn = 0
    while not over.wait(0.2):
        turn += 1
        for number, device in enumerate(devices):
            device.fill("mixed", 64, first=(turn * 64 + number * 7) % 6000, seed=turn)
            device.discard(turn * 113 % 6000, 40)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """At rest, when there was enough to do."""
    with ExitStack() as stack:
        devices = []
        for number in range(HOSTS):
            devices.append(NativeDevice("1G"))
            stack.callback(devices[-1].remove)
            devices[-1].fill("mixed", 1000 * (number + 1), seed=number)
        exporters = [
            stack.enter_context(Exporter("--pool", each.name, "--per-class", interval_s=1.0))
            for each in devices
        ]
        folders = [tmp_path_factory.mktemp(name) for name in ("everywhere", "site")]
        everywhere = Prometheus(folders[0], Setup(takes_writes=True, interval_s=1))
        stack.callback(everywhere.close)
        setup = Setup(
            jobs=[Job(JOB, tuple(each.target for each in exporters))],
            rules=RULES.read_text(),
            interval_s=1,
            labels={"site": "north"},
            write_to=everywhere.address,
            written=fleet.NAMES,
            copied=True,
        )
        site = Prometheus(folders[1], setup)
        stack.callback(site.close)
        over = threading.Event()
        worker = threading.Thread(target=busy, args=(devices, over))
        worker.start()
        try:
            well(site, f"min(count_over_time(zpobs_pool_bytes[10m])) >= {SCRAPES}")
        finally:
            over.set()
            worker.join()
        for exporter in exporters:
            exporter.renewed()
        yield Fleet(folders[1], exporters, site, everywhere)


def of_pages(many: Fleet, record: str) -> Sums:
    """Return what a record must be, of the pages that the exporters serve."""
    name = record.split(":")[1]
    sums: Sums = {}
    for exporter in many.exporters:
        for (metric, labels), value in exporter.series().items():
            if metric == name:
                kept = {*labels, ("owner", "zram"), ("job", JOB)}
                key = frozenset(each for each in kept if each[0] != "pool")
                sums[key] = sums.get(key, 0) + value
    return sums


def told(server: Prometheus, record: str) -> Sums:
    return {
        frozenset(
            (label, value)
            for label, value in each["metric"].items()
            if label not in ("__name__", "site")
        ): float(each["value"][1])
        for each in server.instant(record)
    }


@pytest.mark.parametrize(
    "record", [name for name in RECORDS if name.startswith("job_owner") and name.endswith(":sum")]
)
def test_what_is_told_of_all_is_the_sum_of_all(many: Fleet, record: str) -> None:
    """By owner, band and size class: at the site, and where that is written to."""
    expected = of_pages(many, record)
    assert expected
    for server in (many.site, many.everywhere):
        server.until(
            lambda server=server: told(server, record) == expected,  # type: ignore[misc]
            f"{record} is {expected}",
        )


def test_hosts_and_pools_are_counted(many: Fleet) -> None:
    """Three, none missing, all of zram."""
    for record, expected in (
        ("job:zpobs_up:sum", HOSTS),
        ("job:zpobs_up:missing", 0),
        ("job_owner:zpobs_pool_info:count", HOSTS),
    ):
        (only,) = well(many.everywhere, record)
        assert float(only["value"][1]) == expected
        assert only["metric"]["site"] == "north"


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_panels_of_the_fleet_answer_there(many: Fleet, panel: Panel) -> None:
    """With the same figures as at the site."""
    scraped.shows(many.everywhere, panel)
    for query in panel.queries:
        expr = filled(query.expr)

        def same(expr: str = expr) -> bool:
            there = told(many.everywhere, expr)
            return bool(there) and there == told(many.site, expr)

        many.everywhere.until(same, f"{expr} is the same at both")


def test_only_what_is_recorded_is_handed_on(many: Fleet) -> None:
    """All of it that needs no probe, and no series of a host."""
    names = set(many.everywhere.get("label/__name__/values"))
    assert names == RECORDS.keys() - OF_PROBES
    assert not many.everywhere.instant('{instance!=""}')


def test_series_are_within_the_budget(many: Fleet) -> None:
    """Each record's, and all of them, as docs/fleet.md has it; pages are within theirs."""
    for name, record in RECORDS.items():
        for server in (many.site, many.everywhere):
            assert len(server.instant(name)) <= record.series, name
    for server in (many.site, many.everywhere):
        (count,) = well(server, f'count({{__name__=~"{fleet.NAMES}"}})')
        assert 100 < float(count["value"][1]) <= fleet.job_series(per_class=True)
    (stored,) = (many.everywhere.get("status/tsdb")["headStats"]["numSeries"],)
    assert stored <= fleet.job_series(per_class=True)
    for exporter in many.exporters:
        series = exporter.series()
        assert len(series) <= fleet.host_series("class", 1)
        classes = {labels for name, labels in series if name == "zpobs_class_bytes"}
        assert 60 < len(classes) <= fleet.distinct_classes()
        (kept,) = well(many.site, f'count({{instance="{exporter.target}"}})')
        assert float(kept["value"][1]) <= fleet.kept_series("class", 1)


def test_bytes_are_no_more_than_is_reckoned_with(many: Fleet) -> None:
    """Of a block that Prometheus writes, and of pages on their way."""
    name = many.site.get("admin/tsdb/snapshot", method="POST")["name"]
    (block,) = (
        each for each in (many.folder / "data" / "snapshots" / name).iterdir() if each.is_dir()
    )
    stats = json.loads((block / "meta.json").read_text())["stats"]
    chunks = sum(each.stat().st_size for each in (block / "chunks").iterdir())
    index = (block / "index").stat().st_size
    figures = {
        "bytes a sample": chunks / stats["numSamples"],
        "bytes of index a series": index / stats["numSeries"],
    }
    page = many.exporters[0].page()
    series = len(many.exporters[0].series())
    figures["bytes a series on a page"] = len(page) / series
    figures["bytes a series with gzip"] = len(zipped(many.exporters[0])) / series
    print(stats, figures)
    assert figures["bytes a sample"] <= fleet.SAMPLE_BYTES
    assert figures["bytes of index a series"] <= fleet.INDEX_BYTES
    assert figures["bytes a series on a page"] <= fleet.LINE_BYTES
    assert figures["bytes a series with gzip"] <= fleet.GZIPPED_BYTES


def zipped(exporter: Exporter) -> bytes:
    """Return a page as it is sent to who takes gzip."""
    asked = urllib.request.Request(f"{exporter.url}/metrics", headers={"Accept-Encoding": "gzip"})
    with urllib.request.urlopen(asked) as answer:
        body: bytes = answer.read()
    assert gzip.decompress(body)
    return body


def test_the_regex_is_of_all_that_is_recorded_and_of_nothing_else() -> None:
    """What a site hands on, by name."""
    assert all(re.fullmatch(fleet.NAMES, name) for name in RECORDS)
    assert not re.fullmatch(fleet.NAMES, "instance_pool:zpobs_pool_freeable:share")
    done = subprocess.run(
        ["promtool", "check", "rules", str(RULES)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
