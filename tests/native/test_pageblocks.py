"""The pageblocks of a pool on this very kernel are those in which its frames lie."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest

from tests.native.device import NativeDevice
from zpobs.session import open_session
from zpobs.sources.pageblocks import pageblock_order
from zpobs.wishes import Wishes

pytestmark = pytest.mark.native


def scanned(device: NativeDevice, *arguments: str) -> Any:
    command = [sys.executable, "-m", "zpobs", "scan", "--json", "--pool", device.name, *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_the_blocks_are_those_of_the_frames(device: NativeDevice) -> None:
    """Block by block as many pages, and every page in a block of a type that the kernel has."""
    device.fill("mixed", 4000, seed=7)
    told = scanned(device, "--pageblocks", "--zspages")
    (pool,) = told["pools"]
    blocks = pool["pageblocks"]
    order = pageblock_order()
    frames = [frame for zspage in pool["zspage_list"] for frame in zspage["pfns"]]
    assert len(frames) == pool["pages"] > 1000
    held = Counter(frame >> order for frame in frames)
    assert {each["block"]: each["pages"] for each in blocks["list"]} == held
    assert blocks["order"] == order
    assert (blocks["blocks"], blocks["pages"], blocks["unplaced_pages"]) == (
        len(held),
        len(frames),
        0,
    )
    assert sum(blocks["fill"]) == len(held)
    assert blocks["why_unknown"] == ""
    # zram asks for movable memory; little of it may have come from other blocks.
    assert blocks["by_type"]["movable"]["pages"] > len(frames) // 2
    kinds = Counter(each["type"] for each in blocks["list"])
    assert {name: each["blocks"] for name, each in blocks["by_type"].items()} == kinds
    assert set(kinds) <= {"movable", "unmovable", "reclaimable", "highatomic", "cma", "isolate"}
    assert (blocks["movable"], blocks["made_unmovable"]) == (True, {"blocks": 0, "pages": 0})
    assert told["pageblocks"] | {"list": blocks["list"]} == blocks


def test_no_frame_is_told_unless_zspages_are_listed(device: NativeDevice) -> None:
    device.fill("mixed", 100)
    (pool,) = scanned(device, "--pageblocks")["pools"]
    assert "list" not in pool["pageblocks"]
    assert "zspage_list" not in pool
    (pool,) = scanned(device)["pools"]
    assert "pageblocks" not in pool


def test_a_session_tells_them_without_zspages(device: NativeDevice) -> None:
    """What the map of the live view is made of: the same blocks, while the model is left alone."""
    device.fill("mixed", 2000)
    with open_session(Wishes(pool=device.name), attach=False) as session:
        shot = session.pageblocks(pool=device.name)
        (pool,) = shot.pools
        assert pool.zspage_list is None
        assert pool.pageblocks is not None
        assert pool.pageblocks.pages == pool.pages == session.snapshot().pools[0].pages
