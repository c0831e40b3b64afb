"""A real Prometheus scrapes a real exporter over real load: every rule and every panel answers.

What needs probes, which this kernel refuses, is asked of a second target: a page of
invented figures, written by the exporter's own code and served by its own server.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.boards import BOARDS
from dashboards.panels import SERIES_MAX, Panel, metric_names
from tests.factories import COUNTERS, make_latency, make_life
from tests.native.device import NativeDevice
from tests.native.exporter import Exporter
from tests.native.prometheus import Prometheus
from tests.views.metrics.support import FOOTING, full_pool, make_moment
from zpobs.footing import Footing
from zpobs.views.metrics.board import Board
from zpobs.views.metrics.definitions import METRICS
from zpobs.views.metrics.families import make_families
from zpobs.views.metrics.ledger import Ledger
from zpobs.views.metrics.listen import Place, open_socket
from zpobs.views.metrics.metric import Choice, Moment
from zpobs.views.metrics.pages import Page
from zpobs.views.metrics.server import Server

pytestmark = [pytest.mark.native, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "dashboards" / "rules" / "zpobs.rules.yml"
ALL_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
BY_NAME = {metric.name: metric for metric in METRICS}
REAL, INVENTED = "zpobs", "invented"
# With these there are real figures for all but what needs probes.
REAL_OPTIONS = ("--per-class-fullness", "--bpf-stats", "--verify", "1")
WITH_PROBES = {"probes", "latency", "objects"}
NEEDS_PROBES = {metric.name for metric in METRICS if metric.needs in WITH_PROBES}
# Pages are served for three of these, on a busy machine too.
INTERVAL_S = 5.0
# What a rule or panel is asked over, in the place of Grafana's variables.
RATE_INTERVAL = "30s"
PANELS = [(board.uid, panel) for board in BOARDS for panel in board.panels]
# Everything that is asked of invented figures alone, and nothing else may be.
PANELS_WITH_PROBES = {
    "Ages of live zspages",
    "Allocations and frees",
    "Allocations that fail",
    "Births and deaths of zspages",
    "Compactions, and objects that they moved",
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
}


class Invented:
    """A target whose figures go up with each page, as those of probes at work do."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self._board = Board(fresh_s=3600.0)
        listening = open_socket(Place("127.0.0.1", 0))
        self.target = f"127.0.0.1:{listening.getsockname()[1]}"
        self._server = Server(listening, self._board, landing="")
        self._ended = threading.Event()
        self._step(1)
        self._server.start()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        step = 1
        while not self._ended.wait(0.5):
            step += 1
            self._step(step)

    def _step(self, step: int) -> None:
        counted = dict.fromkeys(COUNTERS.__slots__, step * 10)
        life, latency = make_life(), make_latency()
        kinds = {
            name: replace(each, buckets=each.buckets * step, sum_ns=each.sum_ns * step)
            for name, each in latency.kinds.items()
        }
        pool = full_pool(
            counters=replace(COUNTERS, **counted),
            latency=replace(latency, kinds=kinds),
            life=replace(life, lifetimes=life.lifetimes * step, births=life.births * step),
        )
        lost = {name: count * step for name, count in FOOTING.lost.items()}
        footing: Footing = replace(FOOTING, lost=lost)
        moment: Moment = make_moment(pool)
        moment = replace(moment, snapshot=replace(moment.snapshot, footing=footing))
        self._board.put(Page(make_families(moment, self._ledger, Choice(True, True)), 1e12))

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._server.close()


@dataclass
class Scraped:
    """The server once there is enough to rate."""

    server: Prometheus
    devices: tuple[str, ...]


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    devices = [NativeDevice("1G") for _ in range(2)]
    invented = server = None
    try:
        for device in devices:
            # With a limit, holes, and something that a compaction freed.
            (Path("/sys/block") / device.name / "mem_limit").write_text("64M")
            device.fill("mixed", 1500)
            for first in range(0, 1500, 50):
                device.discard(first, 20)
            device.compact()
        invented = Invented()
        with Exporter(*REAL_OPTIONS, interval_s=INTERVAL_S) as exporter:
            targets = {REAL: exporter.target, INVENTED: invented.target}
            server = Prometheus(tmp_path_factory.mktemp("prometheus"), targets, RULES)
            wait_for_data(server)
            yield Scraped(server, tuple(device.name for device in devices))
            server.close()
    finally:
        if server is not None:
            server.close()
        if invented is not None:
            invented.close()
        for device in devices:
            device.remove()


def wait_for_data(server: Prometheus) -> None:
    """Wait until every target was scraped some times, and every rule was evaluated on that."""
    for job in (REAL, INVENTED):
        server.until(
            lambda job=job: (  # type: ignore[misc]
                bool(found := server.instant(f'count_over_time(zpobs_pools{{job="{job}"}}[10m])'))
                and float(found[0]["value"][1]) >= 8
            ),
            f"{job} is scraped",
        )
    server.until(
        lambda: all(rule["health"] != "unknown" for rule in rules_of(server).values()), "rules run"
    )
    server.until(
        lambda: bool(server.instant("instance_pool:zpobs_pool_freeable:share")), "rules record"
    )


def rules_of(server: Prometheus) -> dict[str, dict[str, Any]]:
    return {
        rule["name"]: rule for group in server.get("rules")["groups"] for rule in group["rules"]
    }


def well(server: Prometheus, expr: str) -> list[dict[str, Any]]:
    """Return the series of an expression once there are any, numbers alone; fail if none come.

    A scrape that took too long on a busy machine leaves a gap, which the next one ends.
    """
    found: list[dict[str, Any]] = []

    def numbers() -> bool:
        found[:] = server.instant(expr)
        return bool(found) and all(math.isfinite(float(each["value"][1])) for each in found)

    server.until(numbers, f"nothing, or no number: {expr}")
    return found


def filled(expr: str, job: str) -> str:
    """Put what a reader chose in the place of variables."""
    for name, value in (("job", job), ("instance", ".+"), ("pool", ".+")):
        expr = expr.replace(f'"${name}"', f'"{value}"')
    return expr.replace("$__rate_interval", RATE_INTERVAL)


def test_what_needs_probes_is_listed() -> None:
    """Nothing but that is left to invented figures."""
    panels = {panel.title for _, panel in PANELS if panel.needs & WITH_PROBES}
    assert panels == PANELS_WITH_PROBES
    rules = {
        rule.get("alert") or rule["record"]
        for rule in ALL_RULES
        if metric_names(rule["expr"]) & NEEDS_PROBES
    }
    assert rules == RULES_WITH_PROBES


@pytest.mark.parametrize(
    ("panel"), [panel for _, panel in PANELS], ids=[f"{uid}: {each.title}" for uid, each in PANELS]
)
def test_every_panel_shows_something(scraped: Scraped, panel: Panel) -> None:
    """Each query, and no panel has more series than can be told apart."""
    job = INVENTED if panel.title in PANELS_WITH_PROBES else REAL
    count = 0
    for query in panel.queries:
        count += len(well(scraped.server, filled(query.expr, job)))
    assert count <= SERIES_MAX[panel.kind]


@pytest.mark.parametrize(
    "rule", [each for each in ALL_RULES if "record" in each], ids=lambda rule: rule["record"]
)
def test_every_recording_rule_records(scraped: Scraped, rule: dict[str, Any]) -> None:
    """Numbers alone; of the real exporter wherever no probe is needed."""
    name = rule["record"]
    assert rules_of(scraped.server)[name]["health"] == "ok"
    job = INVENTED if name in RULES_WITH_PROBES else REAL
    well(scraped.server, f'{name}{{job="{job}"}}')


@pytest.mark.parametrize(
    "rule", [each for each in ALL_RULES if "alert" in each], ids=lambda rule: rule["alert"]
)
def test_every_alert_has_what_it_judges(scraped: Scraped, rule: dict[str, Any]) -> None:
    """It is evaluated without error, and each metric in it is there, of the right target."""
    told = rules_of(scraped.server)[rule["alert"]]
    assert (told["health"], told.get("lastError")) == ("ok", None)
    job = INVENTED if rule["alert"] in RULES_WITH_PROBES else REAL
    names = metric_names(rule["expr"]) or {"up"}
    for name in names:
        well(scraped.server, f'{name}{{job="{job}"}}')


@pytest.mark.parametrize("alert", ["ZpobsDivergence", "ZpobsExporterStale", "ZpobsExporterDown"])
def test_nothing_is_raised_that_is_not_so(scraped: Scraped, alert: str) -> None:
    """Of the real exporter; nothing is wrong with it."""
    (rule,) = [each for each in ALL_RULES if each.get("alert") == alert]
    scraped.server.until(
        lambda: all(each["metric"]["job"] != REAL for each in scraped.server.instant(rule["expr"])),
        f"not {alert}",
    )


def test_the_server_has_what_was_served(scraped: Scraped) -> None:
    """Every metric that needs no probe is there by its name, of the real target, with its type."""
    listed = scraped.server.get("label/__name__/values", **{"match[]": f'{{job="{REAL}"}}'})
    served = {name for name in listed if name in BY_NAME}
    assert {name for name in BY_NAME if name not in served} == NEEDS_PROBES
    types = scraped.server.get("metadata")
    for name in served:
        # OpenMetrics tells counters and infos without their suffix.
        stem = name.removesuffix("_total").removesuffix("_info")
        assert {each["type"] for each in types.get(name) or types[stem]} == {BY_NAME[name].kind}


def test_both_pools_are_told(scraped: Scraped) -> None:
    """With what their devices tell."""
    for name in scraped.devices:
        (limit,) = well(scraped.server, f'zpobs_zram_limit_bytes{{pool="{name}"}}')
        assert float(limit["value"][1]) == 64 << 20
        (freed,) = well(scraped.server, f'zpobs_pool_kernel_compacted_bytes_total{{pool="{name}"}}')
        assert float(freed["value"][1]) > 0
