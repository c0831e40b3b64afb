"""A watching ``zpobs top`` and witnesses, shared by the tests of one guest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.watcher import Top
from lab.witness import Witness


@pytest.fixture(scope="session")
def attach_form() -> str:
    """Return how probes attach in this run: fentry or kprobe."""
    return os.environ["ZPOBS_ATTACH"]


@pytest.fixture(scope="session")
def loader() -> str:
    """Return how probes are loaded in this run: core or bcc."""
    return os.environ.get("ZPOBS_LOADER", "auto")


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
