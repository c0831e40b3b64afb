"""Dashboards as Grafana's JSON (schema 39: Grafana 10 and later)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dashboards.panels import Dashboard, Panel, Row

SCHEMA_VERSION = 39
COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_PANEL_TYPES = {"matrix": "table"}
_DEFAULT_STEPS = ((0.0, "green"),)


def dashboard_json(board: Dashboard) -> str:
    """Return the dashboard as a file to import."""
    made = {
        "__inputs": [],
        "annotations": {"list": []},
        "description": board.description,
        "editable": False,
        "fiscalYearStartMonth": 0,
        "graphTooltip": 1,
        "id": None,
        "links": [],
        "panels": list(_panels(board)),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": ["zpobs", "zsmalloc"],
        "templating": {"list": list(_variables())},
        "time": {"from": "now-1h", "to": "now"},
        "timepicker": {},
        "timezone": "utc",
        "title": board.title,
        "uid": board.uid,
        "version": 1,
    }
    return json.dumps(made, indent=1, sort_keys=True) + "\n"


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "refresh": 1,
    }
    for name, label, query in (
        ("job", "Job", "label_values(zpobs_up, job)"),
        ("instance", "Instance", 'label_values(zpobs_up{job=~"$job"}, instance)'),
        (
            "pool",
            "Pool",
            'label_values(zpobs_pool_info{job=~"$job", instance=~"$instance"}, pool)',
        ),
    ):
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "multi": True,
            "includeAll": True,
            "allValue": ".+",
            "current": {"text": ["All"], "value": ["$__all"]},
            "hide": 0,
            # With each change of the time range: pools come and go.
            "refresh": 2,
            "sort": 1,
        }


def _panels(board: Dashboard) -> Iterator[dict[str, Any]]:
    number, top = 1, 0
    for row in board.rows:
        yield _row(row, number, top)
        number, top, left, highest = number + 1, top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                top, left, highest = top + highest, 0, 0
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": panel.height})
            number, left, highest = number + 1, left + panel.width, max(highest, panel.height)
        top += highest


def _row(row: Row, number: int, top: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
        "panels": [],
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.kind in ("stat", "bargauge", "matrix")
    made: dict[str, Any] = {
        "id": number,
        "type": _PANEL_TYPES.get(panel.kind, panel.kind),
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [
            {
                "refId": chr(ord("A") + at),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "editorMode": "code",
                "format": {"heatmap": "heatmap", "matrix": "table"}.get(panel.kind, "time_series"),
                "instant": instant,
                "range": not instant,
            }
            for at, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }
    if panel.kind == "matrix":
        # Rows are size classes, columns fullness groups.
        made["transformations"] = [
            {
                "id": "groupingToMatrix",
                "options": {
                    "columnField": "fullness",
                    "rowField": "class",
                    "valueField": "Value",
                },
            }
        ]
    return made


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [
        {"color": color, "value": None if at == 0 else value}
        for at, (value, color) in enumerate(panel.steps or _DEFAULT_STEPS)
    ]
    made: dict[str, Any] = {
        "unit": panel.shown_unit,
        "color": {"mode": "thresholds" if panel.steps else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.kind == "timeseries":
        made["min"] = 0
        made["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 20 if panel.stacked else 0,
            "lineWidth": 1,
            "showPoints": "never",
            # A gap is something that is not known.
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    if panel.kind == "matrix":
        made["color"] = {"mode": "continuous-BlYlRd"}
        made["custom"] = {"cellOptions": {"type": "color-background"}}
    return made


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    made: dict[str, dict[str, Any]] = {
        "timeseries": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "stat": {
            "reduceOptions": last,
            "colorMode": "value",
            "graphMode": "none",
            "textMode": "value_and_name",
        },
        "bargauge": {
            "reduceOptions": last,
            "displayMode": "gradient",
            "orientation": "horizontal",
        },
        "heatmap": {
            "calculate": False,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "yAxis": {"unit": "short"},
            "tooltip": {"show": True, "yHistogram": False},
        },
        "matrix": {"showHeader": True, "cellHeight": "sm"},
    }
    return made[panel.kind]
