"""What the host's own files add to a snapshot: what owners say of their pools, nodes of frames.

Owners are asked before and after everything else is read: what stood still
between was so at the moment of the snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from zpobs.footing import Owned, ZramFigures, ZswapFigures
from zpobs.objects import Pins, frame_shift
from zpobs.snapshot import OwnerFigures, PoolView, Snapshot, owner_of
from zpobs.sources.cgroups import CgroupPaths
from zpobs.sources.nodes import Ints, NodeMap
from zpobs.sources.witnesses import Absent, Owners, ZramReading, ZswapReading, read_owners

# What bd_stat counts written back pages in.
_BD_UNIT_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The files below ``root``, and what must be known to read them.

    ``zswap_objects``: each page that this kernel's zswap counts as stored is an
    object of its pool.
    """

    page_bytes: int
    zswap_objects: bool
    nodes: NodeMap
    root: Path = Path("/")
    cgroups: CgroupPaths = field(default_factory=CgroupPaths)

    def owners(self) -> Owners:
        """Ask owners; to be done before a snapshot is taken."""
        return read_owners(self.root)

    def added_to(self, snapshot: Snapshot, before: Owners, names: Iterable[str]) -> Snapshot:
        """Return a snapshot just taken with all that can be told beside it.

        ``names`` are those of all pools there are, shown or not: zswap tells
        nothing of each of several.
        """
        after = self.owners()
        named = Counter(names)
        zswaps = sum(count for name, count in named.items() if owner_of(name) == "zswap")
        pools = []
        for pool in snapshot.pools:
            figures = None
            if pool.owner == "zram" and named[pool.name] == 1:
                figures = self._zram(before.zram.get(pool.name), after.zram.get(pool.name))
            elif pool.owner == "zswap" and zswaps == 1:
                figures = self._zswap(before.zswap, after.zswap)
            pools.append(replace(self._with_paths(pool), owner_figures=figures))
        found = replace(snapshot, pools=tuple(pools), owned=_owned(after))
        return with_nodes(found, self.nodes, self.page_bytes)

    def _with_paths(self, pool: PoolView) -> PoolView:
        objects = pool.objects_told
        if objects is None or objects.pins is None:
            return pool
        paths = self.cgroups.of(set(objects.pins.cgroup.tolist()) - {0})
        return replace(pool, objects_told=replace(objects, pins=replace(objects.pins, paths=paths)))

    def _zram(
        self, before: ZramReading | Absent | None, after: ZramReading | Absent | None
    ) -> OwnerFigures | None:
        if not isinstance(before, ZramReading) or not isinstance(after, ZramReading):
            return None
        # Of the pages that are stored those of one value and those on a disk are no objects;
        # those that do not compress are.
        stored = after.mm_stat["orig_data_size"] // self.page_bytes
        elsewhere = after.written_back * _BD_UNIT_BYTES // self.page_bytes
        return OwnerFigures(
            requested_bytes=after.mm_stat["compr_data_size"],
            objects=stored - after.mm_stat["same_pages"] - elsewhere,
            steady=before == after and not after.in_flight,
        )

    def _zswap(
        self, before: ZswapReading | Absent, after: ZswapReading | Absent
    ) -> OwnerFigures | None:
        if not self.zswap_objects:
            return None
        if not isinstance(before, ZswapReading) or not isinstance(after, ZswapReading):
            return None
        if after.stored_bytes is None:
            return None
        # No file tells the sum of compressed sizes: memory.stat's zswap is what control groups
        # were charged, which lags behind and leaves out what is in none.
        return OwnerFigures(
            requested_bytes=None,
            objects=after.stored_bytes // self.page_bytes,
            steady=before == after,
        )


def with_nodes(snapshot: Snapshot, nodes: NodeMap, page_bytes: int) -> Snapshot:
    """Return a snapshot in which the node of each frame is told, as far as it is known."""
    shift = frame_shift(page_bytes)
    pools = []
    for pool in snapshot.pools:
        table, objects = pool.zspage_list, pool.objects_told
        if table is not None:
            own = _frozen(nodes.nodes_of(table.frames))
            pool = replace(pool, zspage_list=replace(table, nodes=own))  # noqa: PLW2901
        if objects is not None and objects.pins is not None:
            pins = objects.pins
            told: Pins = replace(pins, node=_frozen(nodes.nodes_of(pins.value >> shift)))
            pool = replace(pool, objects_told=replace(objects, pins=told))  # noqa: PLW2901
        pools.append(pool)
    return replace(snapshot, pools=tuple(pools))


def _frozen(nodes: Ints) -> Ints:
    nodes.setflags(write=False)
    return nodes


def _owned(told: Owners) -> Owned:
    zswap = told.zswap
    return Owned(
        zram={
            name: ZramFigures(each.mm_stat, each.written_back)
            for name, each in told.zram.items()
            if isinstance(each, ZramReading)
        },
        zswap=ZswapFigures(zswap.pool_bytes, zswap.stored_bytes, zswap.limit_bytes)
        if isinstance(zswap, ZswapReading)
        else None,
    )
