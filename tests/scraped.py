"""What tests ask of a Prometheus that scrapes real exporters: every panel, every rule, every alert.

Used on this machine and in guests, which have no YAML: rules are known by what the server tells.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from dashboards.boards import BOARDS
from dashboards.panels import SERIES_MAX, Panel, metric_names
from lab.prometheus import Prometheus, Series
from zpobs.views.metrics.definitions import METRICS

RULES = Path(__file__).resolve().parents[1] / "dashboards" / "rules" / "zpobs.rules.yml"
PANELS: list[tuple[str, Panel]] = [(board.uid, panel) for board in BOARDS for panel in board.panels]
WITH_PROBES = {"probes", "latency", "objects"}
NEEDS_PROBES = {metric.name for metric in METRICS if metric.needs in WITH_PROBES}
JOB = "zpobs"
# What a template became that named a label which is not there.
_NO_VALUE = ("<no value>", "<error", "%!")


def shortened(rules: str) -> str:
    """Return a rules file whose alerts wait no longer than from one evaluation to the next."""
    short, count = re.subn(r"^(\s+for: )\w+$", r"\g<1>1s", rules, flags=re.MULTILINE)
    assert count >= 8
    return short


def filled(expr: str, job: str = JOB, rate_s: int = 30) -> str:
    """Put what a reader chose in the place of variables, and what Grafana rates over."""
    for name, value in (("job", job), ("instance", ".+"), ("pool", ".+")):
        expr = expr.replace(f'"${name}"', f'"{value}"')
    return expr.replace("$__rate_interval", f"{rate_s}s")


def well(server: Prometheus, expr: str) -> Series:
    """Return the series of an expression once there are any, numbers alone; fail if none come.

    A scrape that took too long on a busy machine leaves a gap, which the next one ends.
    """
    found: Series = []

    def numbers() -> bool:
        found[:] = server.instant(expr)
        return bool(found) and all(math.isfinite(float(each["value"][1])) for each in found)

    server.until(numbers, f"nothing, or no number: {expr}")
    return found


def shows(server: Prometheus, panel: Panel, rate_s: int = 30) -> None:
    """Run every query of a panel; it has no more series than can be told apart."""
    found = [well(server, filled(query.expr, rate_s=rate_s)) for query in panel.queries]
    assert sum(map(len, found)) <= SERIES_MAX[panel.kind], panel.title


def records(server: Prometheus, name: str, job: str = JOB) -> None:
    """A recording rule is evaluated without error, to numbers."""
    rule = server.rules()[name]
    assert (rule["health"], rule.get("lastError")) == ("ok", None), name
    well(server, f'{name}{{job="{job}"}}')


def judges(server: Prometheus, name: str) -> None:
    """An alert is evaluated without error, and each metric that is in it is there."""
    rule = server.rules()[name]
    assert (rule["health"], rule.get("lastError")) == ("ok", None), name
    for metric in metric_names(rule["query"]) or {"up"}:
        well(server, f'{metric}{{job=~"{JOB}"}}')


def fires(server: Prometheus, name: str, **labels: str) -> None:
    """Wait until an alert fires: in the series ALERTS, and with words for who is told."""
    chosen = "".join(f', {label}="{value}"' for label, value in labels.items())
    server.until(
        lambda: bool(
            server.instant(f'ALERTS{{alertname="{name}", alertstate="firing"{chosen}}} == 1')
        ),
        f"{name} {labels}",
    )
    own = [each for each in alerts(server) if each["labels"]["alertname"] == name]
    (told,) = [each for each in own if labels.items() <= each["labels"].items()]
    for words in told["annotations"].values():
        assert not any(bad in words for bad in _NO_VALUE), words


def alerts(server: Prometheus) -> list[dict[str, Any]]:
    """Return the alerts that fire now."""
    found: list[dict[str, Any]] = server.get("alerts")["alerts"]
    return [each for each in found if each["state"] == "firing"]


def kinds(server: Prometheus) -> dict[str, set[str]]:
    """Return the names of all rules of the server by their kind: alerting or recording."""
    made: dict[str, set[str]] = {"alerting": set(), "recording": set()}
    for name, rule in server.rules().items():
        made[rule["type"]].add(name)
    return made
