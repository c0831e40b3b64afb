"""What a compaction would do now, played through on the lists of a scan.

__zs_compact() in mm/zsmalloc.c works on one size class at a time. While the free
places of the class would fill a whole zspage it takes a destination, the first
of the fullest zspages that are not full, and a source, the first of the emptiest
that are not empty, and moves objects until the one is full or the other empty.
Which zspage that is depends on the order of the lists, which a scan tells. What
it cannot tell is whether others want the locks meanwhile, read objects, or
allocate and free: a forecast holds for a pool that is left alone.

Kernels with four fullness groups (6.1) choose in another way; there only what
could be freed at most is told.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.wire import Words

Ints = npt.NDArray[np.int64]
Status = Literal["exact", "bounded", "unknown"]

# Groups by tenths, one for the empty and one for the full beside them (enum fullness_group).
TENTHS_GROUPS = 12


class _Classes(Protocol):
    """What must be known of size classes (:class:`zpobs.snapshot.ClassTable`), shape (C,)."""

    @property
    def index(self) -> Ints: ...

    @property
    def size(self) -> Ints: ...

    @property
    def objs_per_zspage(self) -> Ints: ...

    @property
    def pages_per_zspage(self) -> Ints: ...

    @property
    def freeable_pages(self) -> Ints: ...

    @property
    def statuses(self) -> Sequence[Status]: ...


@dataclass(frozen=True, slots=True)
class ClassForecast:
    """What a compaction would do with one size class.

    It would move ``moves`` objects, ``moved_bytes`` in all, and free ``pages`` pages, those of
    ``zspages`` zspages. Moves are None, and pages no more than a bound, where the kernel's choice
    of zspages is not known.
    """

    index: int
    size: int
    moves: int | None
    zspages: int
    pages: int
    status: Status

    @property
    def moved_bytes(self) -> int | None:
        """Bytes that would be copied: whole places, whatever was asked for."""
        return None if self.moves is None else self.moves * self.size

    def to_json(self) -> dict[str, Any]:
        """Return one element of the ``classes`` of a forecast."""
        return {
            "index": self.index,
            "size": self.size,
            "moves": self.moves,
            "moved_bytes": self.moved_bytes,
            "zspages": self.zspages,
            "pages": self.pages,
            "status": self.status,
        }


@dataclass(frozen=True, slots=True)
class PoolForecast:
    """What a compaction would do with a pool: the classes that it would free pages of.

    Those that give most pages for the bytes that are copied come first: whoever stops
    early does best to go by that order. (The kernel goes from the largest class down.)
    """

    status: Status
    classes: tuple[ClassForecast, ...]

    @property
    def pages(self) -> int:
        """Pages that would be freed."""
        return sum(each.pages for each in self.classes)

    @property
    def moves(self) -> int | None:
        """Objects that would be moved, None if that is not known."""
        known = [each.moves for each in self.classes if each.moves is not None]
        return sum(known) if len(known) == len(self.classes) else None

    @property
    def moved_bytes(self) -> int | None:
        """Bytes that would be copied, None if that is not known."""
        known = [each.moved_bytes for each in self.classes if each.moved_bytes is not None]
        return sum(known) if len(known) == len(self.classes) else None

    def to_json(self) -> dict[str, Any]:
        """Return the ``compaction`` object of a pool."""
        return {
            "status": self.status,
            "pages": self.pages,
            "moves": self.moves,
            "moved_bytes": self.moved_bytes,
            "classes": [each.to_json() for each in self.classes],
        }


def forecast(words: Words, classes: _Classes, groups: int, status: Status) -> PoolForecast:
    """Play a compaction of a pool through.

    ``words`` are the records of its scan in the order of the walk, shape (N, RECORD_WORDS), each
    class walked once, ``groups`` the kernel's fullness groups, ``status`` that of the pool.
    """
    states = words[wire.kinds(words) == wire.KIND_STATE]
    of_class = states[:, 4].astype(np.int64)
    inuse = (states[:, 3] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    group = ((states[:, wire.WORD_HEAD] >> np.uint64(16)) & np.uint64(0xFF)).astype(np.int64)
    found = []
    for row in np.flatnonzero(classes.freeable_pages > 0).tolist():
        index, objs = int(classes.index[row]), int(classes.objs_per_zspage[row])
        pages_each, size = int(classes.pages_per_zspage[row]), int(classes.size[row])
        if groups != TENTHS_GROUPS:
            most = int(classes.freeable_pages[row])
            made = ClassForecast(index, size, None, most // pages_each, most, "bounded")
        else:
            own = np.flatnonzero(of_class == index)
            moves, freed = compacted(inuse[own].tolist(), group[own].tolist(), objs)
            pages = freed * pages_each
            made = ClassForecast(index, size, moves, freed, pages, classes.statuses[row])
        found.append(made)
    found.sort(key=_price)
    if groups != TENTHS_GROUPS and status == "exact":
        status = "bounded"
    return PoolForecast(status, tuple(each for each in found if each.pages))


def _price(made: ClassForecast) -> tuple[float, int]:
    """Return what to sort by: bytes copied for each page that is freed, then pages."""
    return (made.moved_bytes or 0) / max(made.pages, 1), -made.pages


def compacted(inuse: Sequence[int], group: Sequence[int], objs: int) -> tuple[int, int]:
    """Compact one class; return the objects moved and the zspages freed.

    ``inuse`` and ``group`` are those of its zspages, each list in its own order, first to last.
    """
    lists: list[deque[int]] = [deque() for _ in range(TENTHS_GROUPS)]
    for used, at in zip(inuse, group, strict=True):
        lists[at].append(used)
    partly = range(1, TENTHS_GROUPS - 1)
    spare = len(inuse) * objs - sum(inuse)
    moves = freed = target = 0
    while spare >= objs:
        if not target:
            target = _first(lists, reversed(partly))
        source = _first(lists, partly) if target else 0
        if not source:
            break
        moved = min(source, objs - target)
        moves += moved
        source -= moved
        target += moved
        if source:
            lists[100 * source // objs // 10 + 1].appendleft(source)
        else:
            freed += 1
            spare -= objs
        if target == objs:
            target = 0
    return moves, freed


def _first(lists: Sequence[deque[int]], groups: Iterable[int]) -> int:
    """Take the first zspage of the first of these groups that has any; return its objects, or 0."""
    for at in groups:
        if lists[at]:
            return lists[at].popleft()
    return 0
