"""Which tests run where: in guests only those of tests/guest, outside all others."""

from __future__ import annotations

import os

import pytest

IN_GUEST = os.environ.get("ZPOBS_GUEST") == "1"

collect_ignore_glob = [] if IN_GUEST else ["guest/*"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # noqa: ARG001
    """In a guest a skip is a failure: nothing there may be missing."""
    report = yield
    if IN_GUEST and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in a guest: {report.longrepr}"
    return report
