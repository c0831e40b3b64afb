"""``zpobs scan`` on this very kernel: descriptors against mm_stat, a witness and the invariants."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lab.workload import PAGE_BYTES
from tests.native.conftest import NativeDevice
from tests.native_memory import NativeWitness
from zpobs.descriptors import descriptor_dump
from zpobs.invariants import check
from zpobs.single_scan import scan_once

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[2]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zpobs", "scan", *arguments]


def scanned(device: NativeDevice, *arguments: str) -> dict[str, Any]:
    """Return the one pool that ``zpobs scan --json`` tells of."""
    line = command("--json", "--pool", device.name, *arguments)
    done = subprocess.run(line, check=True, cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    (pool,) = json.loads(done.stdout)["pools"]
    assert pool["status"] == "exact"
    return dict(pool)


@pytest.fixture
def used(device: NativeDevice) -> NativeDevice:
    """Return a device that was filled, thinned out and compacted."""
    device.fill("mixed", 3000)
    device.fill("incompressible", 300, first=3000, seed=2)
    for first in range(0, 3000, 100):
        device.discard(first, 40)
    device.compact()
    device.discard(2000, 25)
    return device


def test_descriptors_are_those_of_the_pools_pages(
    used: NativeDevice, native_witness: NativeWitness
) -> None:
    """There is one descriptor for every page, in the chain that an independent walk found."""
    pool = scanned(used, "--descriptors")
    mm_stat = used.mm_stat()
    walked = native_witness.walk(native_witness.zram_pool(used.name))
    truth = {each.address: each for each in walked.zspages}
    assert {int(each["address"], 16) for each in pool["zspage_list"]} == set(truth)
    pages = 0
    for each in pool["zspage_list"]:
        expected = truth[int(each["address"], 16)]
        found = [descriptor["pfn"] for descriptor in each["descriptors"]]
        assert found == each["pfns"] == list(expected.pfns)
        assert each["list_group"] == expected.fullness
        assert {descriptor["zspage"] for descriptor in each["descriptors"]} == {each["address"]}
        flags = [descriptor["flags"] for descriptor in each["descriptors"]]
        assert ["private" in names for names in flags] == [True] + [False] * (len(flags) - 1)
        links = [descriptor.get("next") for descriptor in each["descriptors"]]
        assert links == [*(found["address"] for found in each["descriptors"][1:]), None]
        assert ("handle" in each["descriptors"][0]) == expected.huge
        pages += len(found)
    assert pages == pool["pages"] == mm_stat[2] // PAGE_BYTES
    assert pool["torn_lists"] == []


def test_one_zspage_can_be_asked_for(used: NativeDevice) -> None:
    """--zspage and --class list what they name, as the whole list has it."""
    whole = scanned(used, "--zspages")["zspage_list"]
    wanted = whole[len(whole) // 2]
    (one,) = scanned(used, "--zspage", wanted["address"])["zspage_list"]
    times = ("first_seen_ns", "last_seen_ns")
    assert {key: one[key] for key in one if key not in times} == {
        key: wanted[key] for key in wanted if key not in times
    }
    of_class = scanned(used, "--class", str(wanted["class"]))["zspage_list"]
    assert [each["address"] for each in of_class] == [
        each["address"] for each in whole if each["class"] == wanted["class"]
    ]


def test_every_invariant_holds_on_this_kernel(used: NativeDevice) -> None:
    """At rest nothing is broken, and only free lists of huge zspages go unchecked."""
    result = scan_once(pool=used.name, zspages=True, detail=True)
    (pool,) = result.snapshot.pools
    dump = descriptor_dump(result.details[pool.id], result.page_flags)
    findings = check(dump, result.snapshot.kernel, result.page_flags, pool=pool.name)
    assert findings.findings == ()
    table = pool.zspage_list
    assert table is not None
    units = {"class": len(pool.classes.index), "zspage": pool.zspages, "descriptor": pool.pages}
    for each in findings.checks:
        left = {"huge zspages have no free list": int(table.huge.sum())}
        unchecked = left if each.invariant == "free_list" else {}
        assert dict(each.unchecked) == unchecked, each
        assert each.checked == units[each.unit] - sum(unchecked.values()), each


@pytest.mark.parametrize("arguments", [["--json", "--descriptors"], ["--descriptors"], []])
def test_a_reader_that_leaves_early_ends_it_quietly(
    used: NativeDevice, arguments: list[str]
) -> None:
    """A closed pipe is no error: status 0 and no word on standard error."""
    line = command("--pool", used.name, *arguments)
    with subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdout and running.stderr
        running.stdout.read(1)
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 0
