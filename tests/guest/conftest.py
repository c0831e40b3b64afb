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
def witness() -> Witness:
    """Return the reader of kernel memory."""
    return Witness()


@pytest.fixture(scope="session")
def top(attach_form: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Top]:
    """Return a ``zpobs top`` that watches for the whole run and ends well."""
    log = tmp_path_factory.mktemp("top") / "frames.jsonl"
    os.environ["PYTHONFAULTHANDLER"] = "1"
    running = Top(Path(log), ["--attach", attach_form, "--json"], interval_s=1.0)
    running.await_first()
    yield running
    assert running.stop() == 0
