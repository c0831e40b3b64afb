"""zswap's pools: found without a probe, several at once, equal to what the kernel says of them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.zswap import Zswap
from zpobs.single_scan import scan_once
from zpobs.waste import pool_waste

SCAN = [sys.executable, "-m", "zpobs", "scan", "--json"]
GROUPS = Path("/sys/fs/cgroup")
# Takes so many MiB of half-random pages in the group, says when it has them, and keeps them.
HOG = """
import os, sys, time
open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
held = bytearray(int(sys.argv[2]) << 20)
for at in range(0, len(held), 4096):
    held[at : at + 1500] = os.urandom(1500)
print("there", flush=True)
time.sleep(3600)
"""


@pytest.fixture(scope="module")
def zswap() -> Iterator[Zswap]:
    """Turn on zswap in front of a swap device in memory."""
    turned_on = Zswap()
    yield turned_on
    turned_on.close()


def hog(name: str, mebibytes: int) -> subprocess.Popen[str]:
    """Start a process whose pages do not fit into its memory cgroup."""
    group = GROUPS / name
    group.mkdir()
    (group / "memory.max").write_text(str(20 << 20))
    command = [sys.executable, "-c", HOG, str(group), str(mebibytes)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "there\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def meminfo(name: str) -> int:
    """Return a figure of /proc/meminfo in bytes."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    return int(re.findall(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)[0]) << 10


def scan_at_rest() -> list[dict[str, Any]]:
    """Return zswap's pools between two equal readings of its figures."""
    while True:
        before = meminfo("Zswap"), meminfo("Zswapped")
        done = subprocess.run(SCAN, check=True, capture_output=True, text=True)
        if before == (meminfo("Zswap"), meminfo("Zswapped")):
            frame = json.loads(done.stdout)
            assert frame["health"]["status"] == "exact", frame["health"]
            return [pool for pool in frame["pools"] if pool["owner"] == "zswap"]
        time.sleep(0.2)


def assert_equals_meminfo(pools: list[dict[str, Any]]) -> None:
    assert sum(pool["pages"] for pool in pools) * 4096 == meminfo("Zswap")
    assert sum(pool["objects"] for pool in pools) * 4096 == meminfo("Zswapped")


@pytest.mark.needs("zswap entries are objects")
@pytest.mark.usefixtures("zswap")
def test_the_owner_tells_how_many_objects_its_only_pool_has() -> None:
    """Not how large they are: that is bounded by the size classes."""
    process = hog("only", 40)
    scan_at_rest()
    shot = scan_once().snapshot
    (pool,) = (each for each in shot.pools if each.owner == "zswap")
    assert pool.objects > 4000
    figures = pool.owner_figures
    assert figures is not None
    assert (figures.requested_bytes, figures.objects) == (None, pool.objects)
    waste = pool_waste(pool, shot.kernel)
    assert waste.requested is not None
    # Every page of the hog has 1500 bytes that nothing compresses.
    assert 1500 * pool.objects < waste.requested.high
    assert not waste.requested.exact
    end(process)


def test_two_pools_at_once(zswap: Zswap) -> None:
    """Entries stay in the pool of the compressor that made them; a new one has its own."""
    first_hog = hog("first", 44)
    first = scan_at_rest()
    assert_equals_meminfo(first)
    assert sum(pool["objects"] for pool in first) > 4000
    zswap.new_pool()
    second_hog = hog("second", 36)
    both = scan_at_rest()
    assert_equals_meminfo(both)
    in_use = [pool for pool in both if pool["objects"]]
    assert len(in_use) == 2
    assert len({pool["id"] for pool in in_use}) == 2
    assert all(re.fullmatch(r"zswap[0-9a-f]+", pool["name"]) for pool in in_use)
    verified = subprocess.run(
        [sys.executable, "-m", "zpobs", "verify", "--invariants"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout
    end(first_hog)
    end(second_hog)
    rest = scan_at_rest()
    assert_equals_meminfo(rest)
    assert sum(pool["objects"] for pool in rest) < sum(pool["objects"] for pool in first) // 2
