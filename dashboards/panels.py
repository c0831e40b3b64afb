"""What a panel is, whatever draws it: its queries, its unit, and how many series it may have."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from zpobs.views.metrics.definitions import METRICS
from zpobs.views.metrics.metric import Metric, Needs

Kind = Literal["timeseries", "stat", "heatmap", "matrix", "bargauge"]

_BY_NAME = {metric.name: metric for metric in METRICS}
# Whose series a panel shows, as it stands in each selector.
HOST = 'job=~"$job", instance=~"$instance"'
POOL = f'{HOST}, pool=~"$pool"'
# Of what rules recorded of many hosts.
FLEET = 'job=~"$job"'
# Lines that can be told apart; a matrix has cells instead, one for each class and group.
SERIES_MAX: dict[Kind, int] = {
    "timeseries": 32,
    "stat": 16,
    "heatmap": 16,
    "bargauge": 32,
    "matrix": 256 * 12,
}


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel, and what its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel; widths are of 24 columns. ``unit`` empty: that of the first metric.

    ``steps`` are the values from which on a colour is shown.
    """

    kind: Kind
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = ""
    width: int = 12
    height: int = 8
    stacked: bool = False
    steps: tuple[tuple[float, str], ...] = ()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The metrics that its queries ask for."""
        names = sorted({name for each in self.queries for name in metric_names(each.expr)})
        return tuple(_BY_NAME[name] for name in names)

    @property
    def needs(self) -> frozenset[Needs]:
        """What must be there for each of its queries to have a value."""
        return frozenset(metric.needs for metric in self.metrics if metric.needs)

    @property
    def shown_unit(self) -> str:
        """The unit by Grafana's name: of the metric, per second where it is a rate."""
        if self.unit:
            return self.unit
        first = self.metrics[0]
        rated = "rate(" in self.queries[0].expr
        if first.unit == "bytes":
            return "Bps" if rated else "bytes"
        if first.unit == "seconds":
            return "percentunit" if rated else "s"
        return "ops" if rated else "short"


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard for one kind of reader."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in their order."""
        return tuple(panel for row in self.rows for panel in row.panels)


def metric_names(expr: str) -> set[str]:
    """Return the metrics that an expression asks for; the parts of a histogram are one."""
    found = set()
    for name in re.findall(r"\bzpobs_\w+", expr):
        stem = re.sub(r"_(bucket|sum|count)$", "", name)
        found.add(name if name in _BY_NAME else stem)
    return found


def of_host(name: str) -> str:
    """Return the selector of a metric of hosts."""
    return f"{name}{{{HOST}}}"


def of_pool(name: str, more: str = "") -> str:
    """Return the selector of a metric of pools."""
    return f"{name}{{{POOL}{more}}}"


def of_fleet(record: str) -> str:
    """Return the selector of what a rule recorded of all hosts of a job."""
    return f"{record}{{{FLEET}}}"


def rate(selector: str) -> str:
    """Return the rate of a counter over the interval that Grafana finds fitting."""
    return f"rate({selector}[$__rate_interval])"
