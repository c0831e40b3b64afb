"""Descriptors as they lie in the kernel: the detail records of a scan, as frozen columns.

A :class:`DescriptorDump` shows zspages and the descriptors of their pages word
for word, whether they make sense or not; :mod:`zpobs.invariants` judges them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from zpobs import wire
from zpobs.kernel.pageflags import PageFlags
from zpobs.wire import Words

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Addresses = npt.NDArray[np.uint64]
_FlagNames = Callable[[int], tuple[str, ...]]

# In columns of int64: what the records do not tell.
UNTOLD = -1

_TYPE_SHIFT = 24


@dataclass(frozen=True, slots=True)
class ScannedClasses:
    """Columns of the size classes that were walked, shape (C,), in the order of the walk.

    ``unchanged``: the class's own statistics were the same before and after the
    walk. ``steady``: they also equal what was walked.
    """

    index: Ints
    size: Ints
    objs_per_zspage: Ints
    pages_per_zspage: Ints
    unchanged: Bools
    steady: Bools


@dataclass(frozen=True, slots=True)
class ZspageColumns:
    """Columns of zspages, shape (Z,), one row for each place on a list, in the order of the walk.

    ``class_row`` is a row of :class:`ScannedClasses`, ``class_index`` the class
    whose list was walked, both UNTOLD if no class was begun. A ``torn`` row is a
    zspage that was not what its list says, where the walk of that list ended:
    ``inuse`` and ``freeobj`` are UNTOLD, ``huge``, ``locked`` and ``isolated``
    False, and it has no descriptors. ``lock`` is signed: holders, -1 for a
    writer, or the word of a rwlock. ``free_list`` is UNTOLD if it was not
    walked to its end. The descriptors of row i are rows
    ``descriptor_start[i]`` to ``descriptor_start[i + 1]``.
    """

    address: Addresses
    class_row: Ints
    class_index: Ints
    inuse: Ints
    fullness: Ints
    huge: Bools
    freeobj: Ints
    locked: Bools
    isolated: Bools
    magic: Ints
    lock: Ints
    first: Addresses
    free_list: Ints
    list_group: Ints
    torn: Bools
    back_broken: Bools
    foreign: Bools
    descriptor_start: Ints


@dataclass(frozen=True, slots=True)
class DescriptorColumns:
    """Columns of descriptors, shape (D,), by zspage and page.

    ``zspage`` is the row of the zspage whose chain it stands in, ``back`` the
    address that the descriptor itself names. ``frame`` is UNTOLD where frames
    are not known, ``page_type`` where the kernel marks no type.
    ``next_or_handle`` is the next descriptor's address, of a huge zspage the
    object's handle with the lowest bit set while the object is in use.
    """

    zspage: Ints
    page: Ints
    address: Addresses
    frame: Ints
    flags: Addresses
    page_type: Ints
    first_obj_offset: Ints
    refcount: Ints
    back: Addresses
    next_or_handle: Addresses


@dataclass(frozen=True, slots=True)
class DescriptorDump:
    """What one scan of one pool told with its details."""

    classes: ScannedClasses
    zspages: ZspageColumns
    descriptors: DescriptorColumns

    def rows_of(self, addresses: Addresses) -> Ints:
        """Return the last row that shows each zspage whole, UNTOLD for those that none shows."""
        whole = np.flatnonzero(~self.zspages.torn)
        if not len(whole):
            return np.full(len(addresses), UNTOLD, dtype=np.int64)
        order = whole[np.argsort(self.zspages.address[whole], kind="stable")]
        known = self.zspages.address[order]
        at = np.searchsorted(known, addresses, side="right") - 1
        found = (at >= 0) & (known[at] == addresses)
        return np.where(found, order[at], UNTOLD)

    def to_json(self, rows: Ints, flags: PageFlags) -> list[dict[str, Any]]:
        """Return what the details add to an entry of ``zspage_list``, for each row.

        For UNTOLD every value is None.
        """
        # The pages of a pool have few different flags words.
        names = lru_cache(maxsize=4096)(flags.names)
        return [self._entry(row, names) for row in rows.tolist()]

    def _entry(self, row: int, flag_names: _FlagNames) -> dict[str, Any]:
        if row < 0:
            return dict.fromkeys(("magic", "lock", "free_list", "list_group", "descriptors"))
        table = self.zspages
        free = int(table.free_list[row])
        begin, end = table.descriptor_start[row : row + 2].tolist()
        return {
            "magic": f"{int(table.magic[row]):#x}",
            "lock": int(table.lock[row]),
            "free_list": None if free == UNTOLD else free,
            "list_group": int(table.list_group[row]),
            "descriptors": self._descriptors(begin, end, bool(table.huge[row]), flag_names),
        }

    def _descriptors(
        self, begin: int, end: int, huge: bool, flag_names: _FlagNames
    ) -> list[dict[str, Any]]:
        table, part = self.descriptors, slice(begin, end)
        rows = zip(
            table.page[part].tolist(),
            table.address[part].tolist(),
            table.frame[part].tolist(),
            table.flags[part].tolist(),
            table.page_type[part].tolist(),
            table.first_obj_offset[part].tolist(),
            table.refcount[part].tolist(),
            table.back[part].tolist(),
            table.next_or_handle[part].tolist(),
            strict=True,
        )
        last = "handle" if huge else "next"
        return [
            {
                "page": page,
                "address": f"{address:#x}",
                "pfn": None if frame == UNTOLD else frame,
                "flags": list(flag_names(word)),
                "flags_word": f"{word:#x}",
                "type": None if kind == UNTOLD else f"{kind:#x}",
                "first_obj_offset": offset,
                "refcount": refcount,
                "zspage": f"{back:#x}",
                # The lowest bit of a handle's word says that it is in use.
                last: f"{link & ~int(huge):#x}" if link else None,
            }
            for page, address, frame, word, kind, offset, refcount, back, link in rows
        ]


@dataclass(frozen=True, slots=True)
class Look:
    """The descriptors of one size class of one pool, read at ``seen_ns`` (monotonic time)."""

    pool: int
    class_index: int
    seen_ns: int
    dump: DescriptorDump
    flags: PageFlags


def descriptor_dump(words: Words, flags: PageFlags) -> DescriptorDump:
    """Make columns of the records of one pool's scan, shape (N, 7), in their order.

    Of a class that was walked again only the last walk counts, of a list that
    was begun again what was seen last of each zspage. Records without details
    give no zspages.
    """
    words, class_row, classes = _last_walks(words)
    kinds = wire.kinds(words)
    all_links = np.flatnonzero(kinds == wire.DETAIL_LINKS)
    last = _last_seen(words[all_links], class_row[all_links])
    links = all_links[last]
    zspages = _zspages(words, links, class_row[links], classes)
    # Records of a zspage stand around its LINKS: frames before it, descriptors behind it.
    row_of_links = np.where(last, np.cumsum(last) - 1, UNTOLD)
    frames_at = np.flatnonzero(kinds == wire.KIND_FRAMES)
    owners = _rows(row_of_links, np.searchsorted(all_links, frames_at))
    frames = _frames(words[frames_at], owners, zspages.address)
    descriptors_at = np.flatnonzero(kinds == wire.DETAIL_DESCRIPTOR)
    owners = _rows(row_of_links, np.searchsorted(all_links, descriptors_at) - 1)
    owned = _owned(words[descriptors_at], owners, zspages.address)
    descriptors = _descriptors(words[descriptors_at[owned]], owners[owned], frames, flags)
    start = np.searchsorted(descriptors.zspage, np.arange(len(links) + 1))
    return DescriptorDump(classes, replace(zspages, descriptor_start=start), descriptors)


def _last_walks(words: Words) -> tuple[Words, Ints, ScannedClasses]:
    """Leave out walks of classes that were walked again.

    Returns the records left, for each of them the row of its class, and the classes.
    """
    kinds = wire.kinds(words)
    begins = kinds == wire.KIND_SCAN_BEGIN
    # Which walk a record belongs to, from 1 on; 0 if none was begun.
    walk = np.cumsum(begins)
    begun = words[begins]
    last = {index: number for number, index in enumerate(begun[:, 3].tolist())}
    chosen = np.array(sorted(last.values()), dtype=np.int64)
    row_of_walk = np.full(len(begun) + 1, UNTOLD, dtype=np.int64)
    row_of_walk[chosen + 1] = np.arange(len(chosen))
    ends = np.flatnonzero(kinds == wire.KIND_SCAN_END)
    ended = np.full(len(begun) + 1, UNTOLD, dtype=np.int64)
    ended[walk[ends]] = ends
    end = words[ended[chosen + 1]] if len(words) else begun[chosen]
    whole = ended[chosen + 1] != UNTOLD
    begun = begun[chosen]
    geometry = begun[:, 4]
    classes = ScannedClasses(
        index=begun[:, 3].astype(np.int64),
        size=(geometry & np.uint64(0xFFFFFFFF)).astype(np.int64),
        objs_per_zspage=(geometry >> np.uint64(32) & np.uint64(0xFFFF)).astype(np.int64),
        pages_per_zspage=(geometry >> np.uint64(48)).astype(np.int64),
        unchanged=whole & (begun[:, 5:] == end[:, 5:]).all(axis=1),
        steady=whole & _flag(end, wire.FLAG_STEADY),
    )
    kept = (walk == 0) | (row_of_walk[walk] != UNTOLD)
    return words[kept], row_of_walk[walk[kept]], classes


def _last_seen(links: Words, class_row: Ints) -> Bools:
    """Tell of LINKS records which are the last of their zspage and list, whole or torn."""
    # The list's group, and whether its walk ended there.
    place = (links[:, 6] & np.uint64(0xFF)) * np.uint64(2) + _flag(links, wire.FLAG_TORN)
    order = np.lexsort((np.arange(len(links)), links[:, 2], place, class_row))
    keys = (links[order, 2], place[order], class_row[order])
    again = np.logical_and.reduce([key[1:] == key[:-1] for key in keys])
    last = np.ones(len(links), dtype=bool)
    last[order[:-1][again]] = False
    return last


def _zspages(
    words: Words, links_at: Ints, class_row: Ints, classes: ScannedClasses
) -> ZspageColumns:
    """Make the zspages' columns, all but the last."""
    links = words[links_at]
    torn = _flag(links, wire.FLAG_TORN)
    states_at = np.flatnonzero(wire.kinds(words) == wire.KIND_STATE)
    before = np.searchsorted(states_at, links_at) - 1
    # A row of zeros stands for a state that was not told.
    states = np.zeros_like(links)
    told = before >= 0
    states[told] = words[states_at[before[told]]]
    told &= (states[:, 2] == links[:, 2]) & ~torn
    states[~told] = 0
    index = states[:, 4].astype(np.int64)
    if len(classes.index):
        index = np.where(class_row != UNTOLD, classes.index[class_row], index)
    inuse = (states[:, 3] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    freeobj = (states[:, 3] >> np.uint64(32)).astype(np.int64)
    free_list = links[:, 5]
    return ZspageColumns(
        address=links[:, 2].copy(),
        class_row=class_row,
        class_index=np.where(told | (class_row != UNTOLD), index, UNTOLD),
        inuse=np.where(told, inuse, UNTOLD),
        fullness=(links[:, 0] >> np.uint64(16) & np.uint64(0xFF)).astype(np.int64),
        huge=_flag(states, wire.FLAG_HUGE),
        freeobj=np.where(told, freeobj, UNTOLD),
        locked=_flag(states, wire.FLAG_LOCKED),
        isolated=_flag(states, wire.FLAG_ISOLATED),
        magic=(links[:, 3] & np.uint64(0xFFFFFFFF)).astype(np.int64),
        lock=(links[:, 3] >> np.uint64(32)).astype(np.uint32).view(np.int32).astype(np.int64),
        first=links[:, 4].copy(),
        # ZS_UNKNOWN is -1 in two's complement.
        free_list=free_list.astype(np.int64),
        list_group=(links[:, 6] & np.uint64(0xFF)).astype(np.int64),
        torn=~told,
        back_broken=links[:, 6] >> np.uint64(8) & np.uint64(wire.LINK_BACK_BROKEN) != 0,
        foreign=links[:, 6] >> np.uint64(8) & np.uint64(wire.LINK_FOREIGN) != 0,
        descriptor_start=np.zeros(len(links) + 1, dtype=np.int64),
    )


def _rows(row_of_links: Ints, at: Ints) -> Ints:
    """Return the zspage rows that these numbers of LINKS records stand for."""
    inside = (at >= 0) & (at < len(row_of_links))
    rows = np.full(len(at), UNTOLD, dtype=np.int64)
    rows[inside] = row_of_links[at[inside]]
    return rows


def _owned(records: Words, owners: Ints, addresses: Addresses) -> Bools:
    """Tell which records have an owner and are about it."""
    owned: Bools = owners != UNTOLD
    owned[owned] = records[owned, 2] == addresses[owners[owned]]
    return owned


def _frames(records: Words, owners: Ints, addresses: Addresses) -> Ints:
    """Return page frame numbers by zspage row and page, shape (Z, CHAIN_MAX)."""
    frames = np.full((len(addresses), wire.CHAIN_MAX), UNTOLD, dtype=np.int64)
    owned = _owned(records, owners, addresses)
    first = (records[:, 0] >> np.uint64(16) & np.uint64(0xFF)).astype(np.int64)
    pages = (records[:, 0] >> np.uint64(24) & np.uint64(0xFF)).astype(np.int64)
    for word in range(wire.FRAMES_PER_RECORD):
        page = first + word
        here = owned & (page < pages) & (page < wire.CHAIN_MAX)
        frames[owners[here], page[here]] = records[here, 3 + word].astype(np.int64)
    return frames


def _descriptors(records: Words, owners: Ints, frames: Ints, flags: PageFlags) -> DescriptorColumns:
    page = (records[:, 0] >> np.uint64(16) & np.uint64(0xFF)).astype(np.int64)
    word = (records[:, 6] & np.uint64(0xFFFFFFFF)).astype(np.int64)
    if flags.page_type is None:
        page_type, offset = np.full(len(word), UNTOLD, dtype=np.int64), word
    else:
        page_type, offset = word >> _TYPE_SHIFT, word & (1 << _TYPE_SHIFT) - 1
    refcount = (records[:, 6] >> np.uint64(32)).astype(np.uint32).view(np.int32)
    return DescriptorColumns(
        zspage=owners,
        page=page,
        address=records[:, 3].copy(),
        frame=frames[owners, np.minimum(page, wire.CHAIN_MAX - 1)],
        flags=records[:, 4].copy(),
        page_type=page_type,
        first_obj_offset=offset,
        refcount=refcount.astype(np.int64),
        back=records[:, 1].copy(),
        next_or_handle=records[:, 5].copy(),
    )


def _flag(records: Words, flag: int) -> Bools:
    found: Bools = records[:, 0] >> np.uint64(8) & np.uint64(flag) != 0
    return found
