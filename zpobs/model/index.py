"""From a zspage's address to its row: radix tables walked by gathers alone.

The address is cut into four keys, as the page tables of a CPU do it. A table
entry of 0 leads to block 0 of the next level, which holds only zeros, so a walk
never tests anything and an unknown address ends at row 0, the row of nobody.

    bits 39..56   region of 512 GiB     one table
    bits 21..38   block of 2 MiB        2^18 entries a region
    bits 12..20   page of 4 KiB         512 entries a block
    bits  5..11   granule of 32 bytes   128 entries a page

The highest seven bits are alike in all kernel addresses, save for memory tags,
and are left out. A granule is smaller than ``struct zspage`` (56 bytes in all
kernels known): two zspages that live at one time never share one.
"""

from __future__ import annotations

import numpy as np

from zpobs.model.arrays import I64, U8, U16, U32, U64, FreeList, grown, grown_length, unique_sorted

GRANULE_SHIFT = 5
PAGE_SHIFT = 12
BLOCK_SHIFT = 21
REGION_SHIFT = 39
ADDRESS_BITS = 57

_LEAF_BITS = PAGE_SHIFT - GRANULE_SHIFT
_PAGE_BITS = BLOCK_SHIFT - PAGE_SHIFT
_BLOCK_BITS = REGION_SHIFT - BLOCK_SHIFT
_REGION_BITS = ADDRESS_BITS - REGION_SHIFT
# More than the memory of any machine lies in: 512 TiB.
REGIONS_MAX = 1024
_REGION_AT = 64 - _REGION_BITS


def granules(address: U64) -> U64:
    """Return the granule number of each address: equal for addresses that share a row."""
    return (address & np.uint64((1 << ADDRESS_BITS) - 1)) >> np.uint64(GRANULE_SHIFT)


def regions(address: U64) -> int:
    """Return in how many regions addresses lie: each costs an index 1 MiB."""
    return len(unique_sorted((address << np.uint64(64 - ADDRESS_BITS)) >> np.uint64(_REGION_AT)))


class AddressIndex:
    """A map from addresses to rows; row 0 means none."""

    def __init__(self) -> None:
        self._regions: U16 = np.zeros(1 << _REGION_BITS, dtype=np.uint16)
        self._region_count = 1
        self._blocks: U32 = np.zeros(2 << _BLOCK_BITS, dtype=np.uint32)
        self._block_count = 1
        self._pages: U32 = np.zeros(16 << _PAGE_BITS, dtype=np.uint32)
        self._leaves: U32 = np.zeros(16 << _LEAF_BITS, dtype=np.uint32)
        self._leaf_parent: U32 = np.zeros(16, dtype=np.uint32)
        self._leaf_used: U8 = np.zeros(16, dtype=np.uint8)
        self._leaf_free = FreeList(start=1)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        tables = (self._regions, self._blocks, self._pages, self._leaves)
        per_leaf = (self._leaf_parent, self._leaf_used, self._leaf_free)
        return sum(part.nbytes for part in (*tables, *per_leaf))

    def find(self, address: U64) -> U32:
        """Return the row of each address, 0 where there is none, shape (N,)."""
        bits = address.view(np.int64)
        return self._leaves.take(self._leaf_slot(bits, self._leaf(bits)))

    def insert(self, address: U64, row: U32) -> None:
        """Give each address its row; all in granules that are free and differ."""
        bits = address.view(np.int64)
        slot = (bits >> REGION_SHIFT) & ((1 << _REGION_BITS) - 1)
        lacking = unique_sorted(slot[self._regions[slot] == 0])
        if len(lacking):
            self._add_regions(lacking)
        slot = self._block_slot(bits, self._regions[slot])
        lacking = unique_sorted(slot[self._blocks[slot] == 0])
        if len(lacking):
            self._add_blocks(lacking)
        slot = self._page_slot(bits, self._blocks[slot])
        lacking = unique_sorted(slot[self._pages[slot] == 0])
        if len(lacking):
            self._add_leaves(lacking)
        leaf = self._pages[slot]
        self._leaves[self._leaf_slot(bits, leaf)] = row
        # At most 128 granules a leaf, so a byte holds the count.
        touched, count = _counted(leaf)
        self._leaf_used[touched] += count

    def remove(self, address: U64) -> None:
        """Forget addresses that are all known and differ; empty leaves are freed."""
        bits = address.view(np.int64)
        leaf = self._leaf(bits)
        self._leaves[self._leaf_slot(bits, leaf)] = 0
        touched, count = _counted(leaf)
        self._leaf_used[touched] -= count
        empty = touched[self._leaf_used[touched] == 0]
        self._pages[self._leaf_parent[empty]] = 0
        self._leaf_free.give(empty)

    def _leaf(self, bits: I64) -> U32:
        region = self._regions.take((bits >> REGION_SHIFT) & ((1 << _REGION_BITS) - 1))
        block = self._blocks.take(self._block_slot(bits, region))
        return self._pages.take(self._page_slot(bits, block))

    @staticmethod
    def _block_slot(bits: I64, region: U16) -> I64:
        slot = (bits >> BLOCK_SHIFT) & ((1 << _BLOCK_BITS) - 1)
        return slot + (region.astype(np.int64) << _BLOCK_BITS)

    @staticmethod
    def _page_slot(bits: I64, block: U32) -> I64:
        slot = (bits >> PAGE_SHIFT) & ((1 << _PAGE_BITS) - 1)
        return slot + (block.astype(np.int64) << _PAGE_BITS)

    @staticmethod
    def _leaf_slot(bits: I64, leaf: U32) -> I64:
        slot = (bits >> GRANULE_SHIFT) & ((1 << _LEAF_BITS) - 1)
        return slot + (leaf.astype(np.int64) << _LEAF_BITS)

    def _add_regions(self, slot: I64) -> None:
        end = self._region_count + len(slot)
        if end << _BLOCK_BITS > len(self._blocks):
            self._blocks = grown(self._blocks, end << _BLOCK_BITS)
        self._regions[slot] = np.arange(self._region_count, end, dtype=np.uint16)
        self._region_count = end

    def _add_blocks(self, slot: I64) -> None:
        end = self._block_count + len(slot)
        if end << _PAGE_BITS > len(self._pages):
            blocks = grown_length(len(self._pages) >> _PAGE_BITS, end)
            self._pages = grown(self._pages, blocks << _PAGE_BITS)
        self._blocks[slot] = np.arange(self._block_count, end, dtype=np.uint32)
        self._block_count = end

    def _add_leaves(self, slot: I64) -> None:
        leaf = self._leaf_free.take(len(slot))
        end = self._leaf_free.end
        if end > len(self._leaf_used):
            count = grown_length(len(self._leaf_used), end)
            self._leaves = grown(self._leaves, count << _LEAF_BITS)
            self._leaf_parent = grown(self._leaf_parent, count)
            self._leaf_used = grown(self._leaf_used, count)
        self._pages[slot] = leaf
        self._leaf_parent[leaf] = slot


def _counted(leaf: U32) -> tuple[U32, U8]:
    """Return the distinct leaves in rising order, and how often each stands there."""
    leaf = np.sort(leaf)
    first = np.flatnonzero(np.concatenate([[len(leaf) > 0], leaf[1:] != leaf[:-1]]))
    return leaf[first], np.diff(first, append=len(leaf)).astype(np.uint8)
