"""Every file that is made, by its path."""

from __future__ import annotations

from dashboards.boards import BOARDS
from dashboards.fleet_page import fleet_page
from dashboards.grafana import dashboard_json
from dashboards.metrics_page import metrics_page


def made() -> dict[str, str]:
    """Return the texts of all files that are made, by their paths in the checkout."""
    boards = {f"dashboards/grafana/{board.uid}.json": dashboard_json(board) for board in BOARDS}
    return {"docs/metrics.md": metrics_page(), "docs/fleet.md": fleet_page()} | boards
