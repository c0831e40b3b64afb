"""Invented kernels, pools and snapshots, each with good values for what a test does not name."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zpobs.addons import AddOnView, MapFill
from zpobs.compaction import ClassForecast, PoolForecast
from zpobs.kernel.btf import Btf
from zpobs.kernel.facts import KernelFacts
from zpobs.kernel.hooks import all_hooks
from zpobs.latency import Histogram, PoolLatency
from zpobs.life import AGE_BUCKETS, PoolLife
from zpobs.pageblocks import UNKNOWN, BlockTable, Pageblocks
from zpobs.runs import ClassOutcome, Expected, PoolRuns, Run, RunSums
from zpobs.snapshot import (
    ClassTable,
    Counters,
    Health,
    Kernel,
    PoolView,
    Snapshot,
    Status,
    ZspageTable,
)

# ---- BTF ---------------------------------------------------------------------

INT, PTR, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
TYPEDEF, VOLATILE, CONST, RESTRICT = 8, 9, 10, 11
FUNC, FUNC_PROTO, TYPE_TAG, ENUM64 = 12, 13, 18, 19

# (name, type id, offset in bits) or, of a bit-field, (name, type id, offset in bits, bits).
MemberLine = tuple[str, int, int] | tuple[str, int, int, int]


class BtfBuilder:
    """Writes BTF type by type, as Documentation/bpf/btf.rst has it; methods return type ids.

    With a base, ids and strings go on where the base's end, as in a module's BTF.
    """

    def __init__(self, base: BtfBuilder | None = None) -> None:
        self._base = base
        self._types: list[bytes] = []
        self._first_id = base.next_id if base else 1
        self._string_base = base.string_end if base else 0
        self._strings = b"" if base else b"\0"

    @property
    def next_id(self) -> int:
        return self._first_id + len(self._types)

    @property
    def string_end(self) -> int:
        return self._string_base + len(self._strings)

    def add(self, kind: int, name: str = "", size_or_type: int = 0, **more: Any) -> int:
        """Append one type; ``vlen``, ``flag`` and the bytes of ``tail`` go where they belong."""
        info = kind << 24 | more.get("vlen", 0) | more.get("flag", 0) << 31
        head = struct.pack("<III", self._string(name), info, size_or_type)
        self._types.append(head + more.get("tail", b""))
        return self.next_id - 1

    def integer(self, name: str, size: int) -> int:
        return self.add(INT, name, size, tail=struct.pack("<I", size * 8))

    def pointer(self, target: int = 0) -> int:
        return self.add(PTR, "", target)

    def array(self, element: int, count: int) -> int:
        return self.add(ARRAY, tail=struct.pack("<III", element, 1, count))

    def struct(
        self, name: str, size: int, members: Iterable[MemberLine], *, kind: int = STRUCT
    ) -> int:
        lines = list(members)
        flag = any(len(line) == 4 for line in lines)
        tail = b""
        for member, type_id, offset, *bits in lines:
            place = sum(bits) << 24 | offset
            tail += struct.pack("<III", self._string(member), type_id, place)
        return self.add(kind, name, size, vlen=len(lines), flag=flag, tail=tail)

    def union(self, name: str, size: int, members: Iterable[MemberLine]) -> int:
        return self.struct(name, size, members, kind=UNION)

    def enum(self, name: str, values: Mapping[str, int], *, bits: int = 32) -> int:
        """Append an enumeration of 32 or 64 bits, signed if any value is below zero."""
        tail = b""
        for enumerator, value in values.items():
            words = struct.pack("<Q", value % (1 << bits))[: bits // 8]
            tail += struct.pack("<I", self._string(enumerator)) + words
        return self.add(
            ENUM if bits == 32 else ENUM64,
            name,
            bits // 8,
            vlen=len(values),
            flag=min(values.values()) < 0,
            tail=tail,
        )

    def function(self, name: str) -> int:
        return self.add(FUNC, name, self.add(FUNC_PROTO))

    def data(self) -> bytes:
        types = b"".join(self._types)
        sizes = (0, len(types), len(types), len(self._strings))
        return struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, *sizes) + types + self._strings

    def build(self, *, base: Btf | None = None) -> Btf:
        return Btf(self.data(), base=base)

    def _string(self, text: str) -> int:
        if not text:
            return 0
        at = self.string_end
        self._strings += text.encode() + b"\0"
        return at


def make_btf(
    functions: Iterable[str],
    *,
    descriptor: str = "zpdesc",
    groups: int = 12,
    without: Iterable[str] = (),
) -> Btf:
    """Return a kernel's BTF with zsmalloc's structures, but for those named ``without``."""
    made = BtfBuilder()
    u32 = made.integer("unsigned int", 4)
    u64 = made.integer("unsigned long", 8)
    pointer = made.pointer()
    node = made.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    lists, classes = made.array(node, groups), made.array(pointer, 255)
    work = made.struct("work_struct", 32, [("data", u64, 0), ("entry", node, 64)])
    flags = made.struct("", 4, [("huge", u32, 0, 1), ("fullness", u32, 1, 4), ("class", u32, 5, 9)])
    owned = made.union("", 8, [("next", pointer, 0), ("handle", u64, 0)])
    first = "first_zpdesc" if descriptor == "zpdesc" else "first_page"
    lines: dict[str, tuple[int, list[MemberLine]]] = {
        "zspage": (
            56,
            [
                ("", flags, 0),
                ("inuse", u32, 32),
                ("freeobj", u32, 64),
                (first, pointer, 128),
                ("list", node, 192),
                ("pool", pointer, 320),
            ],
        ),
        "page": (64, [("flags", u64, 0), ("index", u64, 256), ("private", u64, 320)]),
        "size_class": (
            8 + 16 * groups + 24,
            [
                ("fullness_list", lists, 64),
                ("size", u32, 64 + 128 * groups),
                ("objs_per_zspage", u32, 96 + 128 * groups),
                ("pages_per_zspage", u32, 128 + 128 * groups),
                ("index", u32, 160 + 128 * groups),
            ],
        ),
        "zs_pool": (
            2112,
            [
                ("name", pointer, 0),
                ("size_class", classes, 64),
                ("free_work", work, 16448),
                ("compaction_in_progress", u32, 16704),
            ],
        ),
    }
    if descriptor == "zpdesc":
        lines["zpdesc"] = (64, [("flags", u64, 0), ("", owned, 256), ("zspage", pointer, 320)])
    for name in lines.keys() - set(without):
        made.struct(name, *lines[name])
    for function in sorted(functions):
        made.function(function)
    return made.build()


# ---- kernels -----------------------------------------------------------------

_ALL = frozenset(hook.function for hook in all_hooks())
# Which of the functions that zpobs can hook a kernel of this shape has.
FUNCTIONS: Mapping[str, frozenset[str]] = {
    "7.3": _ALL - {"__free_zspage", "insert_zspage", "zs_compact"},
    "6.18": _ALL - {"insert_zspage", "trylock_zspage", "zs_compact"},
    "6.12": _ALL - {"insert_zspage", "trylock_zspage", "__zs_compact"},
    "6.1": _ALL - {"putback_zspage", "trylock_zspage", "__zs_compact"},
}


def make_facts(like: str = "7.3", **changed: Any) -> KernelFacts:
    """Return the facts of a kernel like this one, with some of them changed."""
    functions = changed.get("functions", FUNCTIONS[like])
    descriptor = "page" if like in ("6.1", "6.12") else "zpdesc"
    facts: dict[str, Any] = {
        "release": f"{like}.0-invented",
        "page_size": 4096,
        "functions": functions,
        "kprobes": True,
        "chain_size": 8,
    }
    if "btf" not in changed:
        facts["btf"] = make_btf(functions, descriptor=descriptor)
    return KernelFacts(**(facts | changed))


# ---- snapshots ---------------------------------------------------------------

KERNEL = Kernel("7.3.0-invented", 4096, 8, "zpdesc", 12, 56)
# 2026-01-02 03:04:05 UTC.
TIME_NS = 1_767_323_045_000_000_000
MONO_NS = 5_000_000_000
# index, size, objects and pages of a zspage, zspages, objects.
ClassLine = tuple[int, int, int, int, int, int]
LINES: tuple[ClassLine, ...] = (
    (62, 1024, 4, 1, 10, 25),
    (107, 1744, 7, 3, 200, 1300),
    (202, 3264, 5, 4, 3, 9),
    (254, 4096, 1, 1, 1000, 1000),
)


def ints(values: Iterable[int]) -> np.ndarray:
    return np.array(list(values), dtype=np.int64)


def make_classes(lines: Sequence[ClassLine] = LINES, **changed: Any) -> ClassTable:
    """Return a class table; the counters of row n are multiples of 10 * (n + 1)."""
    index, size, objs, pages, zspages, objects = (
        ints(line[column] for line in lines) for column in range(6)
    )
    fullness = np.zeros((len(lines), 12), dtype=np.int64)
    fullness[:, 11] = zspages
    count = ints(range(10, 10 * len(lines) + 10, 10))
    columns: dict[str, Any] = {
        "index": index,
        "size": size,
        "objs_per_zspage": objs,
        "pages_per_zspage": pages,
        "zspages": zspages,
        "objects": objects,
        "fullness": fullness,
        "allocs": 3 * count,
        "frees": 2 * count,
        "moves": count,
        "statuses": ("exact",) * len(lines),
        "size_below": np.concatenate([ints([0]), size[:-1]]),
    }
    return ClassTable(**(columns | changed))


COUNTERS = Counters(
    allocs=123_456,
    frees=123_056,
    failures=2,
    moves=789,
    migrations=34,
    migration_failures=5,
    compactions=6,
    pages_freed=70,
)
UNCOUNTED = Counters(**dict.fromkeys(Counters.__slots__))


def make_pool(
    pool_id: int = 1,
    name: str = "zram0",
    lines: Sequence[ClassLine] = LINES,
    *,
    status: Status = "exact",
    **changed: Any,
) -> PoolView:
    statuses = (status,) * len(lines)
    classes = changed.pop("classes", None) or make_classes(lines, statuses=statuses)
    values: dict[str, Any] = {
        "owner": "zswap" if name.startswith("zswap") else "zram",
        "since_ns": TIME_NS - 60_000_000_000,
        "pages": int(classes.pages.sum()),
        "zspages": int(classes.zspages.sum()),
        "objects": int(classes.objects.sum()),
        "counters": COUNTERS,
    }
    return PoolView(id=pool_id, name=name, status=status, classes=classes, **(values | changed))


def make_zspages() -> ZspageTable:
    """Return two zspages: a chain of two frames, and one whose chain is not known."""
    return ZspageTable(
        address=np.array([0xFFFF888000001000, 0xFFFF888000002000], dtype=np.uint64),
        class_index=ints([107, 254]),
        inuse=ints([6, 1]),
        fullness=ints([9, 11]),
        huge=np.array([False, True]),
        first_seen_ns=np.array([11, 12], dtype=np.uint64),
        last_seen_ns=np.array([21, 22], dtype=np.uint64),
        frame_start=ints([0, 2, 2]),
        frames=np.array([4097, 4242], dtype=np.uint64),
        freeobj=ints([3, -1]),
        scanned=np.array([False, True]),
        locked=np.array([False, True]),
        isolated=np.array([False, False]),
        born=np.array([True, False]),
        nodes=ints([0, 1]),
    )


def make_health(status: Status = "exact", **changed: Any) -> Health:
    values: dict[str, Any] = {
        "lost": 0,
        "missed_runs": 0,
        "missed_hooks": (),
        "hooks": 11,
        "scans": 0,
        "last_scan_ns": None,
        "reasons": (),
    }
    return Health(status=status, **(values | changed))


def make_snapshot(*pools: PoolView, at_s: float = 0, **changed: Any) -> Snapshot:
    """Return a snapshot taken so many seconds after the first one there could be."""
    later_ns = int(at_s * 1e9)
    values: dict[str, Any] = {"kernel": KERNEL, "health": make_health()}
    return Snapshot(
        time_ns=TIME_NS + later_ns, mono_ns=MONO_NS + later_ns, pools=pools, **(values | changed)
    )


def _ints(*values: int) -> npt.NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def make_addon() -> AddOnView:
    """Return the add-on that measures latencies, one of whose hooks is missing."""
    cells = MapFill("zs_latencies", 203, 4096)
    return AddOnView("latency", "exact", (), 4, ("zs_page_migrate",), (cells,))


def make_latency(**changed: object) -> PoolLatency:
    """Return the latencies of a pool of two classes; no migration failed."""

    def made(*rows: tuple[int, dict[int, int]]) -> Histogram:
        buckets = np.zeros((len(rows), 40), dtype=np.int64)
        for at, (_, counts) in enumerate(rows):
            for bucket, count in counts.items():
                buckets[at, bucket] = count
        # As if all were three quarters of what the bucket ends with.
        sums = (buckets * 3 * (1 << np.arange(40)) // 4).sum(axis=1)
        return Histogram(_ints(*(index for index, _ in rows)), sums, buckets)

    kinds = {
        "alloc": made((3, {11: 60, 12: 35, 20: 1}), (254, {14: 400, 39: 2})),
        "alloc_lock": made((3, {9: 96})),
        "alloc_grow": made((254, {13: 402})),
        "alloc_failed": made((-1, {5: 1})),
        "free": made((3, {10: 50})),
        "free_lock": made((3, {8: 50})),
        "migration": made((3, {16: 7})),
        "migration_failed": made(),
    }
    values = {"status": "exact", "reasons": (), "since_ns": 5_000_000_000, "kinds": kinds}
    return PoolLatency(**(values | changed))  # type: ignore[arg-type]


def make_life(**changed: object) -> PoolLife:
    """Return the lives of a pool of two classes."""
    lifetimes, ages = (np.zeros(AGE_BUCKETS, dtype=np.int64) for _ in range(2))
    lifetimes[20], ages[30] = 3, 4
    values: dict[str, object] = {
        "status": "exact",
        "reasons": (),
        "since_ns": 5_000_000_000,
        "index": _ints(3, 9),
        "started": _ints(1, 0),
        "births": _ints(4, 4),
        "found": _ints(0, 0),
        "deaths": _ints(2, 2),
        "vanished": _ints(0, 0),
        "live": _ints(3, 2),
        "group_ns": np.array([[0] * 11 + [300], [100] + [0] * 11], dtype=np.int64),
        "lifetimes_known": _ints(2, 1),
        "lifetime_ns": _ints(2_000_000, 700_000),
        "lifetimes": lifetimes,
        "ages": ages,
        "lifetimes_unknown": 1,
        "ages_unknown": 1,
        "shortest_ns": 700_000,
        "longest_ns": 1_040_000,
    }
    return PoolLife(**(values | changed))  # type: ignore[arg-type]


# Index, size, moves, zspages and pages of a forecast, those that pay best first.
FORECAST = ((62, 1024, 9, 3, 3), (107, 1744, 75, 13, 39), (202, 3264, 4, 1, 4))


def make_forecast(*, bounded: bool = False) -> PoolForecast:
    """Return what a compaction would do with three classes; ``bounded``: at most that."""
    status: Status = "bounded" if bounded else "exact"
    classes = [
        ClassForecast(index, size, None if bounded else moves, zspages, pages, status)
        for index, size, moves, zspages, pages in FORECAST
    ]
    return PoolForecast(status, tuple(classes))


def make_runs() -> PoolRuns:
    """Return two runs that are kept of three: by the file as forecast, by the shrinker not."""
    forecast = make_forecast()
    classes = tuple(
        ClassOutcome(index, size, moves, pages, 1_000_000 * pages)
        for index, size, moves, _, pages in reversed(FORECAST)
    )
    first = Run("sysfs", TIME_NS, 50_000_000, 88, 46, classes, "exact")
    why = "up to 1,234 allocations and frees since the forecast"
    second = Run(
        "shrinker",
        TIME_NS + 3_000_000_000,
        41_500_000,
        70,
        42,
        (ClassOutcome(202, 3264, 5, 4, 900), ClassOutcome(107, 1744, 65, 38, None)),
        "exact",
    )
    recent = (
        replace(first, expected=Expected(TIME_NS - 1_200_000_000, forecast, 0, "")),
        replace(second, expected=Expected(TIME_NS + 2_000_000_000, forecast, 1234, why)),
    )
    by_trigger: dict[Any, RunSums] = {
        "sysfs": RunSums(2, 100, 170_000, 50, 60_000_000),
        "shrinker": RunSums(1, 70, 129_680, 42, 41_500_000),
    }
    return PoolRuns("exact", (), by_trigger, recent, 1, None)


def make_pageblocks(*, why_unknown: str = "") -> Pageblocks:
    """Return sixty blocks of 512 pages in two places of memory, fuller and fuller, of all kinds."""
    numbers = ints([*range(70, 110), *range(4000, 4040, 2)])
    kinds = ("movable",) * 5 + ("unmovable", "reclaimable", "cma", "isolate", "highatomic")
    types = tuple(kinds[at % len(kinds)] for at in range(len(numbers)))
    pages = 1 + np.arange(len(numbers)) * 511 // (len(numbers) - 1)
    fixed = (np.arange(len(numbers)) == 3).astype(np.int64)
    types = (UNKNOWN,) * len(numbers) if why_unknown else types
    return Pageblocks(9, BlockTable(numbers, pages, fixed, types), 0, True, why_unknown)
