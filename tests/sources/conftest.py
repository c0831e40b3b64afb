"""The native producer, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ring_producer import compile_producer, why_not


@pytest.fixture(scope="session")
def producer_object(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the compiled producer; skip where BPF cannot run."""
    lacking = why_not()
    if lacking:
        pytest.skip(lacking)
    return compile_producer(tmp_path_factory.mktemp("producer"))
