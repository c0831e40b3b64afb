"""A watching ``zpobs top`` and witnesses, shared by the tests of one guest; what tests need."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.features import detect, listed_as_lacking
from lab.results import TOLD
from lab.watcher import Top
from lab.witness import Witness
from lab.workload import load_zsmalloc
from lab.zswap import put_zsmalloc_behind_zswap

# Of tests whose files say nothing of it: what they need.
_NEEDS = {"test_something_is_missing[no headers]": ("headers",)}

FEATURES = pytest.StashKey[frozenset[str]]()
# Why a test is left out, once that is found to be rightly so.
LISTED = pytest.StashKey[str]()


def features_of(config: pytest.Config) -> frozenset[str]:
    """Return what this kernel has of lab/features.py; the first time, get zsmalloc ready."""
    if FEATURES not in config.stash:
        load_zsmalloc()
        put_zsmalloc_behind_zswap()
        config.stash[FEATURES] = frozenset(name for name, there in detect().items() if there)
    return config.stash[FEATURES]


def needs_of(item: pytest.Item) -> list[str]:
    """Return the features that a test names, the hook that it is about, and what bcc needs."""
    named = [str(name) for mark in item.iter_markers("needs") for name in mark.args]
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    if isinstance(parameters.get("hook"), str):
        named.append(f"hook {parameters['hook']}")
    if parameters.get("loader") == "bcc":
        named.append("headers")
    return [*named, *_NEEDS.get(item.name, ())]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out a test whose feature the kernel lacks, if that is listed; else let it fail."""
    features, listed = features_of(item.config), listed_as_lacking()
    for name in needs_of(item):
        if name in features:
            continue
        if name not in listed:
            pytest.fail(f"this kernel lacks {name}, and that is listed nowhere", pytrace=False)
        item.stash[LISTED] = f"{name}: {listed[name]}"
        pytest.skip(item.stash[LISTED])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):  # noqa: ARG001
    """Let any other skip be a failure, and what is marked to fail: nothing may be missing."""
    report = yield
    if hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"marked to fail in a guest: {report.wasxfail}"
        # Else it counts as an expected failure whatever its outcome says.
        del report.wasxfail
    elif report.skipped and LISTED not in item.stash:
        report.outcome = "failed"
        report.longrepr = f"skipped in a guest: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):  # noqa: ARG001
    """Let a file that skips itself be an error: nobody would miss its tests."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"not collected in a guest: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell the host in one line what became of the tests, and on what kernel."""
    if terminalreporter.config.option.collectonly:
        return
    reports = {
        outcome: terminalreporter.getreports(outcome)
        for outcome in ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
    }
    features = features_of(terminalreporter.config)
    told = {
        "release": os.uname().release,
        "descriptor": "zpdesc" if "zpdesc" in features else "page",
        "passed": len(reports["passed"]),
        "failed": [each.nodeid for each in (*reports["failed"], *reports["error"])],
        "skipped": {each.nodeid: _reason(each) for each in reports["skipped"]},
        "marked": [each.nodeid for each in (*reports["xfailed"], *reports["xpassed"])],
        "uncollected": [
            each.nodeid for each in reports["skipped"] if isinstance(each, pytest.CollectReport)
        ],
        "lacking": listed_as_lacking(),
    }
    terminalreporter.write_line(f"\n{TOLD}{json.dumps(told)}")


def _reason(report: pytest.TestReport) -> str:
    """Return what a test was left out for."""
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return told.removeprefix("Skipped: ")


@pytest.fixture(scope="session")
def attach_form() -> str:
    """Return how probes attach in this run: auto, fentry or kprobe."""
    return os.environ["ZPOBS_ATTACH"]


@pytest.fixture(scope="session")
def loader() -> str:
    """Return how probes are loaded in this run: core or bcc."""
    return os.environ.get("ZPOBS_LOADER", "auto")


@pytest.fixture(scope="session")
def features(pytestconfig: pytest.Config) -> frozenset[str]:
    """Return what this kernel has of lab/features.py."""
    return features_of(pytestconfig)


@pytest.fixture(scope="session")
def witness() -> Witness:
    """Return the reader of kernel memory."""
    return Witness()


@pytest.fixture(scope="session")
def top(loader: str, attach_form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Top]:
    """Return a ``zpobs top`` that watches for the whole run and ends well."""
    log = tmp_path_factory.mktemp("top") / "frames.jsonl"
    os.environ["PYTHONFAULTHANDLER"] = "1"
    # No scan but the first, which finds no pool of these tests: probes alone must do.
    arguments = ["--loader", loader, "--attach", attach_form, "--rescan", "0", "--json"]
    running = Top(Path(log), arguments, interval_s=1.0)
    running.await_first()
    yield running
    assert running.stop() == 0
