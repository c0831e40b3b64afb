"""Every file that is made, by its path."""

from __future__ import annotations

from dashboards.metrics_page import metrics_page


def made() -> dict[str, str]:
    """Return the texts of all files that are made, by their paths in the checkout."""
    return {"docs/metrics.md": metrics_page()}
