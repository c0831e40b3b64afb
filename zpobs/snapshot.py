"""Frozen values that views read: one instant of every pool, and how far to trust it.

A :class:`Snapshot` holds no reference into the model. Arrays are read-only.
``Snapshot.to_json`` is the ``--json`` object (schema 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from zpobs.addons import AddOnView
from zpobs.compaction import PoolForecast
from zpobs.footing import Footing, Owned
from zpobs.latency import PoolLatency
from zpobs.life import PoolLife
from zpobs.migration import PoolMigration
from zpobs.objects import PoolObjects
from zpobs.pageblocks import Pageblocks
from zpobs.runs import PoolRuns
from zpobs.waste import class_waste, pool_waste

SCHEMA = 1

Status = Literal["exact", "bounded", "unknown"]
Owner = Literal["zram", "zswap", "unknown"]
Ints = npt.NDArray[np.int64]


def owner_of(name: str) -> Owner:
    """Tell who made a pool from the name that it was given (zram_drv.c, zswap.c)."""
    if re.fullmatch(r"zram[0-9]+", name):
        return "zram"
    return "zswap" if re.fullmatch(r"zswap[0-9a-f]+", name) else "unknown"


@dataclass(frozen=True, slots=True)
class Kernel:
    """What the observed kernel is; ``zspage_bytes`` is sizeof(struct zspage), 0 if not known."""

    release: str
    page_size: int
    chain_size: int
    descriptor: Literal["zpdesc", "page"]
    fullness_groups: int
    zspage_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Health:
    """What the reader must know to trust the figures.

    ``scans`` counts rounds of scans over all pools; the last ended at
    ``last_scan_ns``, wall-clock time. ``lost`` counts records that found the
    ring full, ``missed_runs`` probe runs that the kernel skipped or that came
    unpaired (``missed_counting_runs`` of them of probes that do nothing but
    count), ``missed_hooks`` names hooks that could not be attached, ``hooks``
    those that are. ``reasons`` are sentences, one for each thing that makes
    ``status`` less than exact; where only scans tell anything one says so,
    whatever the status. ``addons`` are what is gathered besides, if it was asked for.
    """

    status: Status
    lost: int
    missed_runs: int
    missed_hooks: tuple[str, ...]
    hooks: int
    scans: int
    last_scan_ns: int | None
    reasons: tuple[str, ...] = ()
    missed_counting_runs: int = 0
    addons: tuple[AddOnView, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the ``health`` object."""
        return {
            "status": self.status,
            "lost": self.lost,
            "missed_runs": self.missed_runs,
            "missed_counting_runs": self.missed_counting_runs,
            "missed_hooks": list(self.missed_hooks),
            "hooks": self.hooks,
            "scans": self.scans,
            "last_scan_ns": self.last_scan_ns,
            "reasons": list(self.reasons),
            "addons": [each.to_json() for each in self.addons],
        }


@dataclass(frozen=True, slots=True)
class Counters:
    """Cumulative counts of one pool since ``since_ns``; None where no hook counts them."""

    allocs: int | None
    frees: int | None
    failures: int | None
    moves: int | None
    migrations: int | None
    migration_failures: int | None
    compactions: int | None
    pages_freed: int | None

    def to_json(self) -> dict[str, int | None]:
        """Return the ``counters`` object of a pool."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Columns of one pool's size classes, one row a class in use, by rising index.

    All arrays have shape (C,), ``fullness`` has (C, groups): zspages in each
    fullness group. ``allocs``, ``frees`` and ``moves`` are None where no hook
    counts them. ``statuses`` has a status for each row. ``size_below`` is the
    size of the next smaller class that the pool has, 0 for the smallest, -1
    where that is not known: objects of a class were too large for it.
    """

    index: Ints
    size: Ints
    objs_per_zspage: Ints
    pages_per_zspage: Ints
    zspages: Ints
    objects: Ints
    fullness: Ints
    allocs: Ints | None
    frees: Ints | None
    moves: Ints | None
    statuses: tuple[Status, ...]
    size_below: Ints

    @property
    def capacity(self) -> Ints:
        """Objects that fit into the class's zspages."""
        return self.zspages * self.objs_per_zspage

    @property
    def pages(self) -> Ints:
        """Pages that the class's zspages hold."""
        return self.zspages * self.pages_per_zspage

    @property
    def freeable_pages(self) -> Ints:
        """Pages that a compaction could free (zs_can_compact in mm/zsmalloc.c)."""
        spare_objects = np.maximum(self.capacity - self.objects, 0)
        spare_zspages: Ints = spare_objects // np.maximum(self.objs_per_zspage, 1)
        return spare_zspages * self.pages_per_zspage

    def to_json(self, kernel: Kernel) -> list[dict[str, Any]]:
        """Return the ``classes`` array of a pool."""
        capacity = self.capacity
        waste = class_waste(self, kernel)
        return [
            {
                "index": int(self.index[row]),
                "size": int(self.size[row]),
                "objs_per_zspage": int(self.objs_per_zspage[row]),
                "pages_per_zspage": int(self.pages_per_zspage[row]),
                "zspages": int(self.zspages[row]),
                "objects": int(self.objects[row]),
                "capacity": int(capacity[row]),
                "status": self.statuses[row],
                "fullness": self.fullness[row].tolist(),
                "counters": {
                    name: None if column is None else int(column[row])
                    for name, column in (
                        ("allocs", self.allocs),
                        ("frees", self.frees),
                        ("moves", self.moves),
                    )
                },
                "waste": waste[row].to_json(self.statuses[row]),
            }
            for row in range(len(self.index))
        ]


@dataclass(frozen=True, slots=True)
class ZspageTable:
    """Columns of one pool's live zspages, shape (Z,), by rising address.

    ``frames`` holds the page frame numbers of all zspages end to end;
    zspage i owns ``frames[frame_start[i]:frame_start[i + 1]]`` (``frame_start``
    has shape (Z + 1,)); an empty span is a chain that is not known. ``freeobj``
    is the first free slot, -1 if there is none or it is not known. ``scanned``:
    a scan told the last state, and with it whether the zspage or one of its
    pages was ``locked``, and a page ``isolated`` for migration. ``born``: its
    birth was seen, at ``first_seen_ns``; else it is older than that. ``nodes``
    holds for every one of ``frames`` its NUMA node, -1 where not known.
    """

    address: npt.NDArray[np.uint64]
    class_index: Ints
    inuse: Ints
    fullness: Ints
    huge: npt.NDArray[np.bool_]
    first_seen_ns: npt.NDArray[np.uint64]
    last_seen_ns: npt.NDArray[np.uint64]
    frame_start: Ints
    frames: npt.NDArray[np.uint64]
    freeobj: Ints
    scanned: npt.NDArray[np.bool_]
    locked: npt.NDArray[np.bool_]
    isolated: npt.NDArray[np.bool_]
    born: npt.NDArray[np.bool_]
    nodes: Ints

    def take(self, rows: Ints) -> ZspageTable:
        """Return some rows, in the order given."""
        begin = self.frame_start[rows]
        counts = self.frame_start[rows + 1] - begin
        start = np.concatenate([[0], np.cumsum(counts)])
        at = np.arange(start[-1]) + np.repeat(begin - start[:-1], counts)
        columns = {
            name: getattr(self, name)[rows]
            for name in self.__slots__
            if name not in ("frame_start", "frames", "nodes")
        }
        return ZspageTable(
            **columns, frame_start=start, frames=self.frames[at], nodes=self.nodes[at]
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return the ``zspage_list`` array of a pool."""
        frames, nodes, start = (
            column.tolist() for column in (self.frames, self.nodes, self.frame_start)
        )
        columns = (
            self.address,
            self.class_index,
            self.inuse,
            self.fullness,
            self.huge,
            self.first_seen_ns,
            self.last_seen_ns,
            self.freeobj,
            self.scanned,
            self.locked,
            self.isolated,
            self.born,
        )
        rows = zip(*(column.tolist() for column in columns), start[:-1], start[1:], strict=True)
        return [
            {
                "address": f"{address:#x}",
                "class": index,
                "inuse": inuse,
                "fullness": fullness,
                "huge": huge,
                "pfns": frames[begin:end],
                "first_seen_ns": first,
                "last_seen_ns": last,
                "freeobj": None if free < 0 else free,
                "locked": locked if scanned else None,
                "isolated": isolated if scanned else None,
                "born": born,
                "nodes": _distinct(nodes[begin:end]),
            }
            for (
                address,
                index,
                inuse,
                fullness,
                huge,
                first,
                last,
                free,
                scanned,
                locked,
                isolated,
                born,
                begin,
                end,
            ) in rows
        ]


def _distinct(nodes: list[int]) -> list[int] | None:
    """Return the nodes that occur, None if one is not known or no frame is."""
    found = sorted(set(nodes))
    return found if found and found[0] >= 0 else None


@dataclass(frozen=True, slots=True)
class OwnerFigures:
    """What a pool's owner itself says of it, read around the snapshot.

    ``requested_bytes`` is the sum of the sizes that it asked for, None where it
    does not say (zswap). ``objects`` is the number of objects it says it has,
    None where it does not say. ``steady``: both were the same before and after.
    """

    requested_bytes: int | None
    objects: int | None
    steady: bool


@dataclass(frozen=True, slots=True)
class ZspagesOf:
    """Which zspages a snapshot is to list: those of one pool, or of one of its classes."""

    pool: int
    class_index: int | None = None


@dataclass(frozen=True, slots=True)
class PoolView:
    """One pool at one instant. ``since_ns`` and ``scan_ns`` are wall-clock time.

    ``scan_ns`` is the end of its last scan; the kernel said then that it has
    ``kernel_pages`` pages and that compaction ever freed ``pages_compacted``.
    ``status`` speaks of every figure but the counters that ``missed`` names:
    each of these may be up to so many higher. ``migration`` are the failures, ``runs`` those
    of compaction. ``life``, ``compaction`` (a forecast), ``latency`` and ``objects_told`` are
    there if they were asked for.
    """

    id: int
    name: str
    owner: Owner
    status: Status
    since_ns: int
    pages: int
    zspages: int
    objects: int
    counters: Counters
    classes: ClassTable
    zspage_list: ZspageTable | None = None
    missed: Mapping[str, int] = field(default_factory=dict)
    address: int = 0
    scan_ns: int | None = None
    kernel_pages: int | None = None
    pages_compacted: int | None = None
    owner_figures: OwnerFigures | None = None
    migration: PoolMigration | None = None
    life: PoolLife | None = None
    compaction: PoolForecast | None = None
    latency: PoolLatency | None = None
    runs: PoolRuns | None = None
    objects_told: PoolObjects | None = None
    pageblocks: Pageblocks | None = None

    def to_json(self, kernel: Kernel) -> dict[str, Any]:
        """Return one element of the ``pools`` array."""
        waste = pool_waste(self, kernel)
        out: dict[str, Any] = {
            "id": self.id,
            "name": self.name,
            "owner": self.owner,
            "status": self.status,
            "since_ns": self.since_ns,
            "last_scan_ns": self.scan_ns,
            "pages": self.pages,
            "zspages": self.zspages,
            "objects": self.objects,
            "kernel_pages": self.kernel_pages,
            "pages_compacted": self.pages_compacted,
            "counters": self.counters.to_json(),
            "missed": dict(self.missed),
            "waste": {"total_bytes": waste.total, **waste.to_json(self.status)},
            "classes": self.classes.to_json(kernel),
        }
        if self.migration is not None:
            listed = self.zspage_list is not None
            out["migration"] = self.migration.to_json(addresses=listed)
        if self.life is not None:
            out["life"] = self.life.to_json()
        if self.compaction is not None:
            out["compaction"] = self.compaction.to_json()
        if self.latency is not None:
            out["latency"] = self.latency.to_json()
        if self.runs is not None:
            out["compaction_runs"] = self.runs.to_json()
        if self.objects_told is not None:
            listed = self.zspage_list is not None
            out["objects_told"] = self.objects_told.to_json(addresses=listed)
        if self.pageblocks is not None:
            out["pageblocks"] = self.pageblocks.to_json(blocks=self.zspage_list is not None)
        if self.zspage_list is not None:
            out["address"] = f"{self.address:#x}"
            out["zspage_list"] = self.zspage_list.to_json()
        return out


# What the values of each kind of event are.
_EVENT_VALUES: Mapping[str, tuple[str, ...]] = {
    "pool_created": (),
    "pool_destroyed": (),
    "compact_begin": (),
    "compact_end": ("moved", "freed_pages", "begin_ns"),
    "migration": ("old_pfn", "new_pfn", "result"),
    "alloc_failure": ("bytes", "error"),
    "deferred_free": ("begin_ns",),
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a pool, at monotonic ``time_ns``; not in the ``--json`` object.

    ``values`` by ``kind``: compact_end: objects moved, pages freed, begin_ns;
    migration: old frame, new frame, result; alloc_failure: bytes asked for,
    error; deferred_free: begin_ns; none for pool_created, pool_destroyed and
    compact_begin. Results and errors are 0 or negative errno values.
    """

    kind: str
    time_ns: int
    pool: int
    zspage: int | None
    values: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return an object with the values by name."""
        out: dict[str, Any] = {"kind": self.kind, "time_ns": self.time_ns, "pool": self.pool}
        if self.zspage is not None:
            out["zspage"] = f"{self.zspage:#x}"
        return out | dict(zip(_EVENT_VALUES[self.kind], self.values, strict=True))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one instant. ``time_ns`` is wall-clock, ``mono_ns`` monotonic time.

    ``events`` are the most recent ones, in the order of their arrival,
    ``events_seen`` how many there were in all. ``footing`` and ``owned`` are in no JSON.
    """

    time_ns: int
    mono_ns: int
    kernel: Kernel
    health: Health
    pools: tuple[PoolView, ...]
    events: tuple[Event, ...] = ()
    events_seen: int = 0
    pageblocks: Pageblocks | None = None
    footing: Footing | None = None
    owned: Owned | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the ``--json`` object."""
        whole = self.pageblocks
        blocks = {} if whole is None else {"pageblocks": whole.to_json(blocks=False)}
        return {
            "schema": SCHEMA,
            "time_ns": self.time_ns,
            "mono_ns": self.mono_ns,
            "kernel": {name: getattr(self.kernel, name) for name in self.kernel.__slots__},
            "health": self.health.to_json(),
            **blocks,
            "pools": [pool.to_json(self.kernel) for pool in self.pools],
        }

    def doubted(self, reason: str, status: Status = "bounded") -> Snapshot:
        """Return the same with nothing better than a status, for a reason: it may be behind."""
        pools = tuple(
            replace(
                pool,
                status=_worse(pool.status, status),
                classes=replace(
                    pool.classes,
                    statuses=tuple(_worse(each, status) for each in pool.classes.statuses),
                ),
            )
            for pool in self.pools
        )
        health = replace(
            self.health,
            status=_worse(self.health.status, status),
            reasons=(*self.health.reasons, reason),
        )
        return replace(self, health=health, pools=pools)


def _worse(first: Status, second: Status) -> Status:
    order: tuple[Status, ...] = ("exact", "bounded", "unknown")
    return max(first, second, key=order.index)
