"""Paths of control groups by their ids.

The id of a cgroup of version 2 is the inode number of its folder
(kernfs_node.id, Documentation/admin-guide/cgroup-v2.rst tells of the tree).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


class CgroupPaths:
    """Folders of the tree by number, walked when an id is asked for that is not known."""

    def __init__(self, roots: Iterable[Path] = _ROOTS) -> None:
        self._root = next((each for each in roots if (each / "cgroup.procs").exists()), None)
        self._paths: dict[int, str] = {}
        self._absent: set[int] = set()

    def of(self, ids: Iterable[int]) -> Mapping[int, str]:
        """Return the paths of those of the ids that exist, or did when they were found."""
        wanted = set(ids)
        # Ids are not used again: what was not there when it was first asked for is gone.
        if wanted - self._paths.keys() - self._absent:
            self._walk()
            self._absent = wanted - self._paths.keys()
        return {each: self._paths[each] for each in wanted if each in self._paths}

    def _walk(self) -> None:
        if self._root is None:
            return
        for folder, _, _ in os.walk(self._root):
            try:
                number = Path(folder).stat().st_ino
            except OSError:
                continue
            self._paths[number] = "/" + os.path.relpath(folder, self._root).removeprefix(".")
