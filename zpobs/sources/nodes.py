"""On which NUMA node a page frame lies, from sysfs.

The kernel links each block of memory to the nodes that it is on
(Documentation/ABI/stable/sysfs-devices-node). Where the only node is online
everything is on it, blocks or not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zpobs.errors import BadInputError

Ints = npt.NDArray[np.int64]
Frames = npt.NDArray[np.uint64]

UNKNOWN = -1
_DEVICES = Path("/sys/devices/system")


class NodeMap:
    """Nodes by block of memory, read when first needed and when an unknown block comes up."""

    def __init__(self, page_bytes: int, devices: Path = _DEVICES) -> None:
        self._page_bytes = page_bytes
        self._devices = devices
        self._blocks: Ints | None = None
        self._nodes: Ints = np.zeros(0, dtype=np.int64)
        self._block_frames = 0

    @classmethod
    def told(cls, told: Mapping[str, Any] | None) -> NodeMap:
        """Return the map that :meth:`to_json` told of, wherever this is; no file is read."""
        found = cls(1, Path(os.devnull))
        try:
            blocks = [] if told is None else [int(each) for each in told["blocks"]]
            nodes = [] if told is None else [int(each) for each in told["nodes"]]
            found._block_frames = 0 if told is None else int(told["block_frames"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadInputError("nodes of memory are not told", found=str(error)) from error
        if not blocks or len(blocks) != len(nodes):
            blocks, nodes, found._block_frames = [0], [UNKNOWN], 0
        found._blocks = np.array(blocks, dtype=np.int64)
        found._nodes = np.array(nodes, dtype=np.int64)
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the map as of now: frames of a block of memory, blocks, and the node of each."""
        self._read(np.zeros(0, dtype=np.int64))
        assert self._blocks is not None
        return {
            "block_frames": self._block_frames,
            "blocks": self._blocks.tolist(),
            "nodes": self._nodes.tolist(),
        }

    def nodes_of(self, frames: Frames) -> Ints:
        """Return the node of each frame, UNKNOWN where the host does not tell it, shape (N,)."""
        if self._blocks is None:
            self._read(np.zeros(0, dtype=np.int64))
        assert self._blocks is not None
        if not self._block_frames:
            return np.full(len(frames), self._nodes[0], dtype=np.int64)
        wanted = (frames // np.uint64(self._block_frames)).astype(np.int64)
        # Blocks are few and frames many: a mark for each block tells which ones occur.
        at = np.searchsorted(self._blocks, wanted)
        new = self._blocks[np.minimum(at, len(self._blocks) - 1)] != wanted
        if new.any():
            # Memory came since; what is not listed even now is not asked for again.
            self._read(np.unique(np.concatenate([self._blocks, wanted[new]])))
            at = np.searchsorted(self._blocks, wanted)
        found: Ints = self._nodes[at]
        return found

    def _read(self, blocks: Ints) -> None:
        """Read what there is; ``blocks`` are listed too, on the only node if there is one."""
        listed: dict[int, int] = {}
        for node in self._devices.glob("node/node[0-9]*"):
            number = int(node.name.removeprefix("node"))
            for block in node.glob("memory[0-9]*"):
                at = int(block.name.removeprefix("memory"))
                # Some blocks are shared: which frames of it are whose is not told.
                listed[at] = number if at not in listed else UNKNOWN
        rest = self._only_node()
        try:
            text = (self._devices / "memory/block_size_bytes").read_text(encoding="ascii")
            self._block_frames = int(text, 16) // self._page_bytes
        except (OSError, ValueError):
            self._block_frames = 0
        if not listed or not self._block_frames:
            self._block_frames = 0
            listed = {0: rest}
        for at in blocks.tolist():
            listed.setdefault(at, rest)
        self._blocks = np.array(sorted(listed), dtype=np.int64)
        self._nodes = np.array([listed[at] for at in sorted(listed)], dtype=np.int64)

    def _only_node(self) -> int:
        """Return the node that is online, UNKNOWN if there are more or none is told."""
        try:
            text = (self._devices / "node/online").read_text(encoding="ascii").strip()
        except OSError:
            return UNKNOWN
        return int(text) if text.isdigit() else UNKNOWN
