"""Panels that both dashboards have more than one of."""

from __future__ import annotations

from dashboards.panels import Panel, Query, of_pool, rate

AT = "{{instance}} {{pool}}"


def total(name: str) -> str:
    """Return the sum of a metric of pools, by host and pool."""
    return f"sum by (instance, pool) ({of_pool(name)})"


def by_pool(title: str, description: str, name: str) -> Panel:
    """Return a panel with a line for each pool."""
    return Panel("timeseries", title, description, (Query(of_pool(name), AT),))


def rates(title: str, description: str, *names: tuple[str, str]) -> Panel:
    """Return a panel with the rates of counters of pools, each with what it is called."""
    queries = tuple(Query(rate(of_pool(name)), f"{AT} {legend}".rstrip()) for name, legend in names)
    return Panel("timeseries", title, description, queries)
