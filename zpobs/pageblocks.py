"""Which pageblocks hold zsmalloc's pages, and of what migratetype these are.

Frozen values that hang on a :class:`zpobs.snapshot.Snapshot` and its pools. A
pageblock is what the kernel keeps free of unmovable pages, or gives up to them, as a
whole (Documentation/mm/page_allocation): one page in it that cannot be moved is
enough to make all of it useless for a huge page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

UNKNOWN = "unknown"
# Of blocks that are to stay movable, whoever holds pages in them.
MOVABLE_TYPES = ("movable", "cma")
# Blocks are told apart by eighths of their pages.
FILLS = 8


class _Zspages(Protocol):
    """What must be known of zspages (:class:`zpobs.snapshot.ZspageTable`)."""

    @property
    def frame_start(self) -> Ints: ...

    @property
    def frames(self) -> npt.NDArray[np.uint64]: ...

    @property
    def locked(self) -> Bools: ...

    @property
    def isolated(self) -> Bools: ...


@dataclass(frozen=True, slots=True)
class BlockTable:
    """Blocks that hold pages of zsmalloc, by rising number: frame number >> order.

    All have shape (B,). ``pages`` are those that it holds, ``fixed`` how many of them
    could not be moved when they were scanned, ``types`` migratetypes by name.
    """

    number: Ints
    pages: Ints
    fixed: Ints
    types: tuple[str, ...]

    def of_type(self, name: str) -> Bools:
        """Tell which blocks are of a migratetype, shape (B,)."""
        return np.array([each == name for each in self.types], dtype=bool)


@dataclass(frozen=True, slots=True)
class Pageblocks:
    """The blocks of a pool, or of all. ``unplaced`` pages are of frames that are not known.

    ``why_unknown`` says why migratetypes are not known, ``movable`` whether the kernel
    can migrate zsmalloc's pages at all.
    """

    order: int
    table: BlockTable
    unplaced: int
    movable: bool
    why_unknown: str = ""

    @property
    def pages(self) -> int:
        """Pages in these blocks."""
        return int(self.table.pages.sum())

    def by_type(self) -> dict[str, tuple[int, int]]:
        """Return blocks and pages by migratetype, those with most pages first."""
        names = dict.fromkeys(self.table.types)
        found = {}
        for name in names:
            own = self.table.of_type(name)
            found[name] = (int(own.sum()), int(self.table.pages[own].sum()))
        return dict(sorted(found.items(), key=lambda each: (-each[1][1], each[0])))

    def fill(self) -> Ints:
        """Return how many blocks are filled up to 1/8, 2/8 .. all by pages of zsmalloc, (8,)."""
        eighths = -(-self.table.pages * FILLS // (1 << self.order))
        return np.bincount(np.clip(eighths, 1, FILLS) - 1, minlength=FILLS)

    def made_unmovable(self) -> tuple[int, int] | None:
        """Return blocks of movable kinds with pages that cannot be moved, and these pages.

        That is all of zsmalloc's pages where the kernel cannot migrate them, else those of
        zspages that were locked, or isolated, when they were scanned. None without types.
        """
        if self.why_unknown:
            return None
        kinds = np.array([each in MOVABLE_TYPES for each in self.table.types], dtype=bool)
        fixed = self.table.fixed if self.movable else self.table.pages
        held = kinds & (fixed > 0)
        return int(held.sum()), int(fixed[held].sum())

    def to_json(self, *, blocks: bool) -> dict[str, Any]:
        """Return a ``pageblocks`` object; each block by number only with ``blocks``."""
        made = self.made_unmovable()
        out: dict[str, Any] = {
            "order": self.order,
            "blocks": len(self.table.number),
            "pages": self.pages,
            "unplaced_pages": self.unplaced,
            "by_type": {
                name: {"blocks": count, "pages": pages}
                for name, (count, pages) in self.by_type().items()
            },
            "why_unknown": self.why_unknown,
            "fill": self.fill().tolist(),
            "movable": self.movable,
            "made_unmovable": None if made is None else {"blocks": made[0], "pages": made[1]},
        }
        if blocks:
            columns = (self.table.number, self.table.pages, self.table.fixed)
            rows = zip(*(column.tolist() for column in columns), self.table.types, strict=True)
            out["list"] = [
                {"block": number, "pages": pages, "fixed_pages": fixed, "type": name}
                for number, pages, fixed, name in rows
            ]
        return out


def blocks_of(zspages: _Zspages, order: int) -> BlockTable:
    """Return the blocks in which the frames of some zspages lie, of types not yet known."""
    counts = np.diff(zspages.frame_start)
    fixed = np.repeat(zspages.locked | zspages.isolated, counts)
    number = (zspages.frames >> np.uint64(order)).astype(np.int64)
    return _summed(number, np.ones(len(number), dtype=np.int64), fixed.astype(np.int64))


def joined(tables: Sequence[BlockTable]) -> BlockTable:
    """Return the blocks of several pools, each once."""
    empty = [np.zeros(0, dtype=np.int64)]
    return _summed(
        np.concatenate(empty + [each.number for each in tables]),
        np.concatenate(empty + [each.pages for each in tables]),
        np.concatenate(empty + [each.fixed for each in tables]),
    )


def _summed(number: Ints, pages: Ints, fixed: Ints) -> BlockTable:
    distinct, where = np.unique(number, return_inverse=True)
    sums = np.zeros((2, len(distinct)), dtype=np.int64)
    np.add.at(sums[0], where, pages)
    np.add.at(sums[1], where, fixed)
    return BlockTable(distinct, sums[0], sums[1], (UNKNOWN,) * len(distinct))


def typed(table: BlockTable, numbers: Ints, names: Sequence[str]) -> BlockTable:
    """Return a table with its types, known for the blocks of these rising numbers."""
    at = np.searchsorted(numbers, table.number)
    return replace(table, types=tuple(names[each] for each in at.tolist()))
