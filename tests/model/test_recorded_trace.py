"""Operations recorded on a real kernel, through the true allocator, through the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.delivery import as_words
from tests.model.support import KERNEL
from tests.true_allocator import Allocator
from zpobs.model.inputs import Coverage
from zpobs.model.shadow import ShadowModel

TRACES = sorted((Path(__file__).parent.parent / "data").glob("trace-*.json"))


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_model_equals_kernel_on_a_recorded_trace(path: Path) -> None:
    """The records of a replayed trace give the model the zspages that the kernel had in the end.

    tests/guest/test_trace.py makes such recordings and explains ``lists``.
    """
    trace = json.loads(path.read_text())
    allocator = Allocator()
    allocator.replay(tuple(operation) for operation in trace["operations"])
    model = ShadowModel(KERNEL, Coverage(hooks=11))
    model.apply(as_words(allocator.machine.records))
    model.apply_counters(allocator.machine.reading())
    (pool,) = model.snapshot(time_ns=1, mono_ns=allocator.machine.tick(), zspages=True).pools
    assert pool.status == "exact"
    listed = pool.zspage_list
    assert listed is not None
    columns = (listed.class_index, listed.fullness, listed.inuse)
    ours = sorted(zip(*(column.tolist() for column in columns), strict=True))
    assert ours == sorted(tuple(row) for row in trace["lists"])


def test_there_is_a_trace() -> None:
    """At least one recording is kept."""
    assert TRACES
