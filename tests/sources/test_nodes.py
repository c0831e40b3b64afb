"""Nodes of frames, on made-up hosts and on this one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zpobs.sources.nodes import UNKNOWN, NodeMap

PAGE = 4096
# Frames of a block.
BLOCK = 0x8000000 // PAGE


def make_host(root: Path, nodes: dict[int, list[int]], online: str, block: str | None) -> Path:
    """Write which blocks are linked to which node, as sysfs has it."""
    for node, blocks in nodes.items():
        for number in blocks:
            place = root / f"node/node{node}/memory{number}"
            place.mkdir(parents=True, exist_ok=True)
        (root / f"node/node{node}/meminfo").parent.mkdir(parents=True, exist_ok=True)
        (root / f"node/node{node}/meminfo").write_text("")
    (root / "node/online").write_text(online)
    if block is not None:
        (root / "memory").mkdir(exist_ok=True)
        (root / "memory/block_size_bytes").write_text(block)
    return root


def frames(*blocks: int) -> np.ndarray:
    """Return the first and the last frame of each block."""
    return np.array(
        [frame for at in blocks for frame in (at * BLOCK, (at + 1) * BLOCK - 1)], dtype=np.uint64
    )


def test_frames_are_on_the_node_of_their_block(tmp_path: Path) -> None:
    """To the last frame of each block; a shared block and one that is not there are unknown."""
    host = make_host(tmp_path, {0: [0, 1, 2], 3: [2, 40]}, "0,3\n", "8000000\n")
    nodes = NodeMap(PAGE, host).nodes_of(frames(0, 1, 2, 40, 7, 41))
    assert nodes.tolist() == [0, 0, 0, 0, UNKNOWN, UNKNOWN, 3, 3, *[UNKNOWN] * 4]


def test_on_one_node_is_everything(tmp_path: Path) -> None:
    """Blocks that are not linked too, and where memory has no blocks at all."""
    host = make_host(tmp_path, {2: [0]}, "2\n", "8000000\n")
    assert NodeMap(PAGE, host).nodes_of(frames(0, 9)).tolist() == [2] * 4
    (host / "memory/block_size_bytes").unlink()
    assert NodeMap(PAGE, host).nodes_of(frames(0, 9)).tolist() == [2] * 4


def test_several_nodes_without_blocks_tell_nothing(tmp_path: Path) -> None:
    """Nor does a host without any node, or without sysfs."""
    host = make_host(tmp_path, {0: [], 1: []}, "0-1\n", None)
    assert NodeMap(PAGE, host).nodes_of(frames(0)).tolist() == [UNKNOWN] * 2
    assert NodeMap(PAGE, tmp_path / "none").nodes_of(frames(0)).tolist() == [UNKNOWN] * 2
    assert NodeMap(PAGE, host).nodes_of(frames()).tolist() == []


def test_memory_that_came_later_is_found(tmp_path: Path) -> None:
    """A frame beyond what is known is looked up anew; what is known is not read again."""
    host = make_host(tmp_path, {0: [0], 1: [1]}, "0-1\n", "8000000\n")
    nodes = NodeMap(PAGE, host)
    assert nodes.nodes_of(frames(0, 1)).tolist() == [0, 0, 1, 1]
    make_host(tmp_path, {1: [5]}, "0-1\n", "8000000\n")
    assert nodes.nodes_of(frames(5, 0, 6)).tolist() == [1, 1, 0, 0, UNKNOWN, UNKNOWN]
    make_host(tmp_path, {0: [6]}, "0-1\n", "8000000\n")
    # Told once that it is nowhere.
    assert nodes.nodes_of(frames(6)).tolist() == [UNKNOWN] * 2
    # A new block brings the news of all others.
    assert nodes.nodes_of(frames(7)).tolist() == [UNKNOWN] * 2
    assert nodes.nodes_of(frames(6)).tolist() == [0, 0]


def test_this_hosts_nodes_are_those_that_blocks_name() -> None:
    """Each block of this host names its node too, from the other side."""
    memory = Path("/sys/devices/system/memory")
    if not memory.exists():
        pytest.skip("no blocks of memory in sysfs")
    block = int((memory / "block_size_bytes").read_text(), 16) // PAGE
    found = NodeMap(PAGE)
    for each in memory.glob("memory[0-9]*"):
        linked = {int(node.name[4:]) for node in each.glob("node[0-9]*")}
        frame = np.array([int(each.name.removeprefix("memory")) * block], dtype=np.uint64)
        if len(linked) == 1:
            assert found.nodes_of(frame).tolist() == list(linked)
