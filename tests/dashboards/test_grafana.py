"""The dashboards follow the published lint rules, re-expressed: Grafana itself is not at hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards.boards import BOARDS
from dashboards.developer import DEVELOPER
from dashboards.grafana import COLUMNS, dashboard_json
from dashboards.on_call import ON_CALL
from dashboards.panels import Dashboard, Panel, metric_names
from zpobs.views.metrics.definitions import METRICS

NAMES = {metric.name: metric for metric in METRICS}
UNITS = {"bytes", "Bps", "s", "short", "ops", "percentunit"}
PANELS = [(board, panel) for board in BOARDS for panel in board.panels]
VARIABLES = {"job", "instance", "pool", "__rate_interval"}
# What no panel is about: facts, and figures that others tell in a better form.
UNSHOWN = {
    "zpobs_bpf_runs_total",
    "zpobs_build_info",
    "zpobs_counts_hidden",
    "zpobs_events_total",
    "zpobs_health",
    "zpobs_host_boot_time_seconds",
    "zpobs_host_cpus",
    "zpobs_host_memory_bytes",
    "zpobs_host_swap_bytes",
    "zpobs_kernel_info",
    "zpobs_pool_compaction_runs_total",
    "zpobs_pool_info",
    "zpobs_pool_requested_bytes",
    "zpobs_pool_scan_timestamp_seconds",
    "zpobs_pool_since_timestamp_seconds",
    "zpobs_pools",
    "zpobs_pools_untracked",
    "zpobs_process_open_fds",
    "zpobs_process_start_time_seconds",
    "zpobs_process_threads",
    "zpobs_scan_last_timestamp_seconds",
    "zpobs_scans_total",
    "zpobs_snapshot_interval_seconds",
    "zpobs_verification_seconds_total",
    "zpobs_verifications_total",
    "zpobs_zram_compressed_bytes",
    "zpobs_zram_huge_bytes",
    "zpobs_zram_same_filled_bytes",
    "zpobs_zram_used_bytes",
    "zpobs_zram_used_max_bytes",
    "zpobs_zram_written_back_bytes",
    "zpobs_zswap_stored_bytes",
    # For who asks with --objects.
    *(metric.name for metric in METRICS if metric.tier == "objects"),
    # One by one size classes make no panel but the fleet's; the matrix has them by fullness.
    *(
        metric.name
        for metric in METRICS
        if metric.tier == "class" and metric.name != "zpobs_class_freeable_bytes"
    ),
}


@pytest.fixture(params=BOARDS, ids=lambda board: board.uid)
def board(request: pytest.FixtureRequest) -> Dashboard:
    found: Dashboard = request.param
    return found


def made(board: Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(dashboard_json(board))
    return found


def queried(board: Dashboard) -> Iterator[dict[str, Any]]:
    yield from (each for each in made(board)["panels"] if each["type"] != "row")


def test_dashboards_have_their_variables(board: Dashboard) -> None:
    """A data source, and job, instance and pool: several or all, renewed with the time range."""
    source, *others = made(board)["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert [each["name"] for each in others] == ["job", "instance", "pool"]
    for each in others:
        assert each["multi"]
        assert each["includeAll"]
        assert (each["allValue"], each["refresh"]) == (".+", 2)
        assert each["datasource"]["uid"] == "${datasource}"
        assert metric_names(each["definition"]) <= set(NAMES)


def test_dashboards_are_not_edited_where_they_are_shown(board: Dashboard) -> None:
    """What is changed there would be lost; titles and identities are stable and their own."""
    found = made(board)
    assert found["editable"] is False
    assert (found["id"], found["uid"]) == (None, board.uid)
    assert len({each.uid for each in BOARDS} | {each.title for each in BOARDS}) == 4
    assert found["description"]


def test_panels_do_not_overlap(board: Dashboard) -> None:
    """Each cell of the grid is one panel's, each number too."""
    cells: set[tuple[int, int]] = set()
    panels = made(board)["panels"]
    assert len({each["id"] for each in panels}) == len(panels)
    for each in panels:
        place = each["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, each["title"]
        assert max(x for x, _ in own) < COLUMNS
        cells |= own


def test_panels_say_what_they_show(board: Dashboard) -> None:
    """Title, description and unit, and a name for each series; titles are there once."""
    titles = [each["title"] for each in queried(board)]
    assert len(set(titles)) == len(titles)
    for each in queried(board):
        assert each["title"][0].isupper()
        assert each["description"].endswith(".")
        assert each["fieldConfig"]["defaults"]["unit"] in UNITS
        assert each["datasource"]["uid"] == "${datasource}"
        for target in each["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"] or each["type"] == "table"


@pytest.mark.parametrize(
    ("board", "panel"), PANELS, ids=[f"{board.uid} {panel.title}" for board, panel in PANELS]
)
def test_queries_are_of_what_is_chosen(board: Dashboard, panel: Panel) -> None:
    """Every selector has job and instance; counters are rated over $__rate_interval."""
    assert panel in board.panels
    for query in panel.queries:
        recorded = re.findall(r"job\w*:zpobs_\w+:\w+(\{[^}]*\})?", query.expr)
        assert set(recorded) <= {'{job=~"$job"}'}
        for name, selector in re.findall(r"(?<![:\w])(zpobs_\w+)(\{[^}]*\})?", query.expr):
            metric = NAMES.get(name) or NAMES[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert 'job=~"$job"' in selector
            assert 'instance=~"$instance"' in selector
            assert ('pool=~"$pool"' in selector) == (metric.of_pool is not None)
            labels = set(re.findall(r"(\w+)=", selector))
            assert labels <= {"job", "instance", *metric.all_labels}
            if metric.kind in ("counter", "histogram"):
                assert re.search(
                    rf"(rate|increase)\({name}\{{[^}}]*\}}\[\$__rate_interval\]\)", query.expr
                )
        assert set(re.findall(r"\$(\w+)", query.expr)) <= VARIABLES
        # What a legend names is in the series.
        kept = re.search(r"by \(([^)]*)\)", query.expr)
        for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
            labels = {"instance", *(each for metric in panel.metrics for each in metric.all_labels)}
            assert label in (re.split(r",\s*", kept[1]) if kept else labels)


def test_each_metric_is_shown_or_said_not_to_be() -> None:
    """Those of pools that matter to a developer; what the table gains is decided on."""
    shown = {metric.name for _, panel in PANELS for metric in panel.metrics}
    assert NAMES.keys() - shown == UNSHOWN


def test_each_reader_finds_what_was_promised() -> None:
    """Heatmap, waste, compaction, migrations, lives; on call three rows, and one of the fleet."""
    titles = " ".join(panel.title for panel in DEVELOPER.panels)
    kinds = {panel.kind for panel in DEVELOPER.panels}
    assert {"heatmap", "matrix", "timeseries", "bargauge"} <= kinds
    for words in ("Waste", "size class and fullness", "freed for each object moved", "migrated"):
        assert words in titles
    assert [row.title for row in ON_CALL.rows] == ["Now", "Memory", "Troubles", "Fleet"]
    assert all(len(row.panels) <= 4 for row in ON_CALL.rows)
