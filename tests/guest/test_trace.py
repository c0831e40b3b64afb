"""The true allocator of the tests does what the kernel does.

The model is tested against that allocator, and here the allocator against the
kernel, so that no mistake can hide in both.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from pathlib import Path

import pytest

from lab.recorder import Operation, recording
from lab.witness import KernelPool, Witness
from lab.workload import Churn, ZramDevice
from tests.true_allocator import Allocator

# Where a new recording is kept, to become tests/data/trace-RELEASE.json.
SAVED = Path("/tmp/trace.json")


def lists_of_kernel(pool: KernelPool) -> list[list[int]]:
    return [[zspage.class_index, zspage.fullness, zspage.inuse] for zspage in pool.zspages]


def lists_of_allocator(pool: Allocator) -> list[list[int]]:
    return [
        [size_class.index, group, zspage.inuse]
        for size_class in pool.own_classes()
        for group, zspages in enumerate(size_class.lists)
        for zspage in zspages
    ]


def as_data(operations: list[Operation], lists: list[list[int]]) -> str:
    """Return a recording to be kept: objects get ordinals for names, no kernel address."""
    ordinal: dict[str | int, int] = {}
    renamed: list[Operation] = []
    for operation in operations:
        if operation[0] == "malloc":
            ordinal[operation[2]] = len(renamed)
        names = [ordinal[operation[-1]]] if len(operation) > 1 else []
        renamed.append((*operation[:1], *operation[1:-1], *names))
    return json.dumps({"operations": renamed, "lists": lists}, separators=(",", ":")) + "\n"


@pytest.mark.needs("percent groups")
def test_recorded_trace_replays_to_what_the_kernel_did(witness: Witness) -> None:
    """One CPU's recorded operations lead the allocator to the kernel's very lists.

    Compared are all zspages in the order of class, group and place in the
    group's list, so the choice of zspage and the order of lists are tested too.
    """
    device = ZramDevice("64M")
    os.sched_setaffinity(0, {0})
    try:
        with recording() as recorder:
            churn = Churn(device, operations=1_600, seed=31, mix="45:10:45", rate=400)
            for _ in range(2):
                time.sleep(1)
                with churn.paused():
                    device.compact()
            made = churn.finish()
    finally:
        os.sched_setaffinity(0, {0, 1})
    address = witness.zram_pool(device.name)
    operations = recorder.operations(address)
    pool = witness.walk(address)
    device.remove()
    kinds = Counter(operation[0] for operation in operations)
    assert kinds == {"malloc": made["zs_malloc"], "free": made["zs_free"], "compact": 2}
    lists = lists_of_kernel(pool)
    SAVED.write_text(as_data(operations, lists))
    allocator = Allocator()
    allocator.replay(operations)
    assert lists_of_allocator(allocator) == lists
