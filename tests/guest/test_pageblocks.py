"""Pageblocks and their migratetypes, against what /proc/kcore shows at the kernel's own symbols."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from lab.witness import Witness
from lab.workload import Churn, ZramDevice

# enum migratetype (include/linux/mmzone.h) and the bit that isolation got in 6.17.
_NAMES = {0: "unmovable", 1: "movable", 2: "reclaimable", 3: "highatomic"}
_ISOLATED = 0x10


def scanned(device: ZramDevice) -> Any:
    command = [sys.executable, "-m", "zpobs", "scan", "--pageblocks", "--zspages", "--json"]
    told = subprocess.run([*command, "--pool", device.name], check=True, capture_output=True)
    (pool,) = json.loads(told.stdout)["pools"]
    return pool["pageblocks"]


def test_blocks_and_types_are_the_kernels() -> None:
    """Block by block: pages as the chains in kernel memory have them, types as its sections."""
    head = Path("/proc/pagetypeinfo").read_text().splitlines()[0]
    order = re.fullmatch(r"Page block order: (\d+)", head)
    assert order and int(order[1]) == 9
    device = ZramDevice("256M")
    witness = Witness()
    try:
        Churn(device, operations=15_000, seed=71).finish()
        told = scanned(device)
        pool = witness.walk(witness.zram_pool(device.name))
        held = Counter(pfn >> 9 for zspage in pool.zspages for pfn in zspage.pfns)
        assert {each["block"]: each["pages"] for each in told["list"]} == held
        assert (told["order"], told["why_unknown"]) == (9, "")
        memory = witness.memory()
        for each in told["list"]:
            flags = witness.block_flags(memory, each["block"])
            kind = "isolate" if flags & _ISOLATED else _NAMES.get(flags & 7, "other")
            assert each["type"] == kind, each
        memory.close()
        assert told["by_type"]["movable"]["blocks"] > 0
        assert (told["movable"], told["made_unmovable"]) == (True, {"blocks": 0, "pages": 0})
    finally:
        device.remove()
