"""Adds to a scan's snapshot in which pageblocks the pages lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.facts import KernelFacts
from zpobs.kernel.pageblocks import pageblock_layout
from zpobs.loaders.scan import load_pageblocks
from zpobs.pageblocks import UNKNOWN, BlockTable, Pageblocks, blocks_of, joined, typed
from zpobs.snapshot import Snapshot
from zpobs.sources.pageblocks import BlockPlace, PageblockReader, pageblock_order
from zpobs.sources.scanner import Scanner


def with_pageblocks(snapshot: Snapshot, facts: KernelFacts, scanner: Scanner) -> Snapshot:
    """Return a snapshot that lists all zspages with the blocks of their frames.

    Raise EnvironmentLacksError if it is not known how large a block is. Where migratetypes
    cannot be read it says why, and the rest is there all the same.
    """
    order = pageblock_order()
    tables = {}
    unplaced = {}
    for pool in snapshot.pools:
        zspages = pool.zspage_list
        assert zspages is not None
        tables[pool.id] = blocks_of(zspages, order)
        unplaced[pool.id] = pool.pages - int(tables[pool.id].pages.sum())
    whole = joined(list(tables.values()))
    try:
        names, why = _types(whole, order, facts, scanner), ""
    except EnvironmentLacksError as error:
        names, why = [UNKNOWN] * len(whole.number), f"{error.problem}: {error.found}"
    movable = "zs_page_migrate" in facts.functions

    def made(table: BlockTable, pages: int) -> Pageblocks:
        return Pageblocks(order, typed(table, whole.number, names), pages, movable, why)

    pools = tuple(
        replace(pool, pageblocks=made(tables[pool.id], unplaced[pool.id]))
        for pool in snapshot.pools
    )
    return replace(snapshot, pools=pools, pageblocks=made(whole, sum(unplaced.values())))


def _types(table: BlockTable, order: int, facts: KernelFacts, scanner: Scanner) -> list[str]:
    """Return the migratetype of each block by name; raise EnvironmentLacksError if they cannot."""
    layout = pageblock_layout(facts.btf)
    if scanner.vmemmap_base is None:
        raise EnvironmentLacksError(
            "migratetypes of pageblocks cannot be read", found="page frames are unknown"
        )
    place = BlockPlace(
        section_bytes=layout.section_bytes,
        map_at=layout.map_at,
        usage_at=layout.usage_at,
        flags_at=layout.flags_at,
        bits=layout.bits,
        page_bytes=facts.page_size,
        vmemmap_base=scanner.vmemmap_base,
    )
    loaded = load_pageblocks()
    try:
        with PageblockReader(loaded.program_fds, loaded.map_fds) as reader:
            sections = reader.find_sections(scanner.direct_map, facts.page_size)
            flags = reader.flags(table.number, order, sections, place)
    finally:
        loaded.close()
    if len(flags) and (flags < 0).all():
        raise EnvironmentLacksError(
            "migratetypes of pageblocks cannot be read",
            found="the kernel's sections are not as zpobs knows them",
            hint="please report this kernel",
        )
    by_flags = {value: layout.names(value) for value in np.unique(flags[flags >= 0]).tolist()}
    return [by_flags.get(value, UNKNOWN) for value in flags.tolist()]
