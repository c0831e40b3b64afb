"""A real Prometheus scrapes a real exporter over real load: every rule and every panel answers.

What needs probes, which this kernel refuses, is asked in a guest: tests/guest/test_prometheus.py.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.panels import Panel, metric_names
from lab.prometheus import LOOPBACK, Job, Prometheus, Setup, free_port
from tests import scraped
from tests.native.device import NativeDevice
from tests.native.exporter import Exporter, command
from tests.scraped import JOB, NEEDS_PROBES, PANELS, RULES, WITH_PROBES, well
from zpobs.views.metrics.definitions import METRICS

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

ALL_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
RECORDS = [rule for rule in ALL_RULES if "record" in rule]
BY_NAME = {metric.name: metric for metric in METRICS}
# With these there are real figures for all but what needs probes.
OPTIONS = ("--per-class-fullness", "--bpf-stats", "--verify", "1")
# Pages are served for three of these, on a busy machine too.
INTERVAL_S = 5.0
# A scrape may take as long: on a busy machine that is more than it looks.
SCRAPE_S = 2
TEXTFILE = "node"
# All that is asked in a guest alone, and nothing else may be.
PANELS_WITH_PROBES = {
    "Ages of live zspages",
    "Allocations and frees",
    "Allocations that fail",
    "Births and deaths of zspages",
    "Compactions, and objects that they moved",
    "Exact beside the pools' state",
    "Failures by error",
    "How long calls take",
    "How long zspages live",
    "Memory freed for each object moved",
    "Migrations that fail",
    "Observations lost and runs skipped",
    "Pages migrated, and failures",
    "Time in compaction, by what began it",
}
RULES_WITH_PROBES = {
    "ZpobsAllocationFailures",
    "ZpobsMigrationFailures",
    "ZpobsRecordsLost",
    "instance_pool:zpobs_pool_allocations:rate5m",
    "instance_pool:zpobs_pool_compaction_freed_bytes_per_move:quotient1h",
    "instance_pool:zpobs_pool_frees:rate5m",
    "instance_pool:zpobs_pool_page_migration_failures:share5m",
    "job_owner:zpobs_pool_allocation_failures:rate5m",
    "job_owner:zpobs_pool_allocations:rate5m",
    "job_owner:zpobs_pool_frees:rate5m",
    "job_owner:zpobs_pool_page_migration_failures:rate5m",
}


@dataclass
class Scraped:
    """The server once there is enough to rate, and what it looks at."""

    server: Prometheus
    # By what is wrong with each; nothing is with those of "well".
    devices: dict[str, NativeDevice]
    target: str
    # That of an exporter that was killed.
    gone: str
    # That of the file that an exporter left behind.
    left: str


def with_holes() -> NativeDevice:
    """Return a device with a limit, holes, and something that a compaction freed."""
    device = NativeDevice("1G")
    device.limit("64M")
    device.fill("mixed", 1500)
    for first in range(0, 1500, 50):
        device.discard(first, 20)
    device.compact()
    return device


def curable() -> NativeDevice:
    """Return one of over 64 MiB half of which is free, in zspages that are half empty."""
    device = NativeDevice("1G")
    device.fill("half", 40_000)
    device.discard_every_other(40_000)
    return device


def incurable() -> NativeDevice:
    """Return one with an object or two in each size class."""
    device = NativeDevice("1G")
    device.fill("mixed", 300)
    return device


def near_its_limit() -> NativeDevice:
    """Return one that has 95 % of the memory that it may have."""
    device = NativeDevice("1G")
    device.fill("incompressible", 3000)
    device.limit(str(device.mm_stat()[2] * 100 // 95))
    return device


MAKERS: dict[str, Callable[[], NativeDevice]] = {
    "well": with_holes,
    "well too": with_holes,
    "curable": curable,
    "incurable": incurable,
    "near its limit": near_its_limit,
}


@contextmanager
def left_behind(folder: Path) -> Iterator[str]:
    """Kill an exporter that writes a textfile, and serve what it leaves; yield the address."""
    path = folder / "zpobs.prom"
    line = command("--textfile", str(path), "--interval", "0.5")
    with subprocess.Popen(line, cwd=RULES.parents[2]) as exporter:
        while not (path.exists() and b"zpobs_up 1" in path.read_bytes()):
            assert exporter.poll() is None
            time.sleep(0.1)
        exporter.kill()
    port = free_port()
    serve = [sys.executable, "-m", "http.server", str(port), "--bind", LOOPBACK]
    serve += ["--directory", str(folder)]
    with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as server:
        yield f"{LOOPBACK}:{port}"
        server.kill()


@pytest.fixture(scope="module")
def looked_at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    devices: dict[str, NativeDevice] = {}
    with ExitStack() as stack:
        left = stack.enter_context(left_behind(tmp_path_factory.mktemp("textfile")))
        for name, make in MAKERS.items():
            devices[name] = make()
            stack.callback(devices[name].remove)
        exporter = stack.enter_context(Exporter(*OPTIONS, interval_s=INTERVAL_S))
        doomed = Exporter("--pool", devices["well"].name)
        setup = Setup(
            jobs=(
                Job(JOB, (exporter.target, doomed.target)),
                Job(TEXTFILE, (left,), "/zpobs.prom"),
            ),
            rules=scraped.shortened(RULES.read_text()),
            interval_s=SCRAPE_S,
        )
        server = Prometheus(tmp_path_factory.mktemp("prometheus"), setup)
        stack.callback(server.close)
        server.until(lambda: server.targets().get(doomed.target) == "up", "scraped at all")
        doomed.process.kill()
        doomed.process.communicate()
        # Enough to rate, and every rule evaluated on that.
        well(server, f'count_over_time(zpobs_pools{{job="{JOB}"}}[10m]) >= 8')
        yield Scraped(server, devices, exporter.target, doomed.target, left)


def test_what_needs_probes_is_listed() -> None:
    """Nothing but that is left to the guest."""
    assert {panel.title for _, panel in PANELS if panel.needs & WITH_PROBES} == PANELS_WITH_PROBES
    rules = {
        rule.get("alert") or rule["record"]
        for rule in ALL_RULES
        if metric_names(rule["expr"]) & NEEDS_PROBES
        or {f"{name}_total" for name in metric_names(rule["expr"])} & NEEDS_PROBES
    }
    assert rules == RULES_WITH_PROBES


@pytest.mark.parametrize(
    "panel",
    [
        pytest.param(panel, id=f"{uid}: {panel.title}")
        for uid, panel in PANELS
        if panel.title not in PANELS_WITH_PROBES
    ],
)
def test_every_panel_shows_something(looked_at: Scraped, panel: Panel) -> None:
    """Each query, and no panel has more series than can be told apart."""
    scraped.shows(looked_at.server, panel)


@pytest.mark.parametrize(
    "name", [each["record"] for each in RECORDS if each["record"] not in RULES_WITH_PROBES]
)
def test_every_recording_rule_records(looked_at: Scraped, name: str) -> None:
    """Numbers alone."""
    scraped.records(looked_at.server, name)


def test_no_rule_is_in_error(looked_at: Scraped) -> None:
    """Those neither whose figures are not to be had here."""
    rules = looked_at.server.rules()
    assert set(rules) == {each.get("alert") or each["record"] for each in ALL_RULES}
    looked_at.server.until(
        lambda: all(each["health"] == "ok" for each in looked_at.server.rules().values()),
        "every rule is well",
    )


@pytest.mark.parametrize(
    ("alert", "device"),
    [
        ("ZpobsFragmentationCurable", "curable"),
        ("ZpobsFragmentationIncurable", "incurable"),
        ("ZpobsPoolNearLimit", "near its limit"),
    ],
)
def test_a_pool_in_trouble_raises_its_alert(looked_at: Scraped, alert: str, device: str) -> None:
    """It fires, of that pool."""
    scraped.fires(
        looked_at.server,
        alert,
        instance=looked_at.target,
        pool=looked_at.devices[device].name,
    )


def test_an_exporter_that_is_gone_raises_its_alert(looked_at: Scraped) -> None:
    """Of that one, which the fleet lacks."""
    scraped.fires(looked_at.server, "ZpobsExporterDown", instance=looked_at.gone)
    well(looked_at.server, f'job:zpobs_up:missing{{job="{JOB}"}} == 1')


def test_a_file_that_nobody_renews_raises_its_alert(looked_at: Scraped) -> None:
    """Once it is older than a minute and three intervals."""
    scraped.fires(looked_at.server, "ZpobsExporterStale", job=TEXTFILE, instance=looked_at.left)


def test_nothing_is_raised_that_is_not_so(looked_at: Scraped) -> None:
    """Of pools and exporters with which nothing is wrong, when all that is wrong was raised."""
    scraped.fires(looked_at.server, "ZpobsExporterStale", job=TEXTFILE)
    names = {name: device.name for name, device in looked_at.devices.items()}
    raised = {
        (each["labels"]["alertname"], each["labels"].get("pool"))
        for each in scraped.alerts(looked_at.server)
        if each["labels"]["instance"] == looked_at.target
    }
    # A pool of two or three MiB has free slots by nature.
    raised = {each for each in raised if each[0] != "ZpobsFragmentationIncurable"}
    assert raised == {
        ("ZpobsFragmentationCurable", names["curable"]),
        ("ZpobsPoolNearLimit", names["near its limit"]),
    }


def test_the_server_has_what_was_served(looked_at: Scraped) -> None:
    """Every metric that needs no probe is there by its name, with its type."""
    listed = looked_at.server.get("label/__name__/values", **{"match[]": f'{{job="{JOB}"}}'})
    served = {name for name in listed if name in BY_NAME}
    assert {name for name in BY_NAME if name not in served} == NEEDS_PROBES
    told = looked_at.server.get("targets/metadata", match_target=f'{{job="{JOB}"}}')
    types = {each["metric"]: each["type"] for each in told}
    for name in served:
        # OpenMetrics tells counters and infos without their suffix.
        stem = name.removesuffix("_total").removesuffix("_info")
        assert (types.get(name) or types[stem]) == BY_NAME[name].kind


def test_both_pools_are_told(looked_at: Scraped) -> None:
    """With what their devices tell."""
    for key in ("well", "well too"):
        name = looked_at.devices[key].name
        (limit,) = well(looked_at.server, f'zpobs_zram_limit_bytes{{pool="{name}"}}')
        assert float(limit["value"][1]) == 64 << 20
        (freed,) = well(
            looked_at.server, f'zpobs_pool_kernel_compacted_bytes_total{{pool="{name}"}}'
        )
        assert float(freed["value"][1]) > 0
