"""Model against kernel: one frame of ``zpobs top --json --zspages`` held against witnesses."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lab.witness import KernelPool
from lab.workload import PAGE_BYTES
from lab.zswap import ZswapFigures, reckons_at_once

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Check:
    """One figure: what zpobs says, what the witness says."""

    figure: str
    ours: object
    witness: object
    source: str
    passed: bool


def equal(figure: str, ours: object, witness: object, source: str) -> Check:
    """Return a check that passes if the two are equal."""
    return Check(figure, ours, witness, source, ours == witness)


def at_least(figure: str, ours: int | None, witness: int, source: str) -> Check:
    """Return a check that passes if something happened, at least as often as the witness saw."""
    passed = ours is not None and ours >= max(witness, 1)
    return Check(figure, ours, f">= {max(witness, 1)}", source, passed)


def about(name: str, checks: Sequence[Check]) -> list[Check]:
    """Return checks whose figures begin with the name of what they are about."""
    return [replace(check, figure=f"{name} {check.figure}") for check in checks]


def pool_named(frame: Json, name: str) -> Json:
    """Return the pool of this name in a frame; LookupError if it is not there."""
    for pool in frame["pools"]:
        if pool["name"] == name:
            found: Json = pool
            return found
    raise LookupError(f"no pool {name} in the frame")


def compare_health(frame: Json) -> list[Check]:
    """Check that a frame claims to be exact, with nothing lost and every hook attached."""
    health = frame["health"]
    source = "probes"
    return [
        equal("health", health["status"], "exact", source),
        equal("lost records", health["lost"], 0, source),
        equal(
            "missed runs", health["missed_runs"], health["missed_counting_runs"], "those that count"
        ),
        equal("missed hooks", health["missed_hooks"], [], source),
    ]


def compare_pool(
    pool: Json, mm_stat: Sequence[int], kernel: KernelPool, made: Mapping[str, int]
) -> list[Check]:
    """Hold one pool, watched since its creation, against mm_stat, kernel memory and operations."""
    counters = pool["counters"]
    return [
        *_compare_counting(pool),
        equal("allocations", counters["allocs"], made["zs_malloc"], "operations made"),
        equal("frees", counters["frees"], made["zs_free"], "operations made"),
        equal("failures", counters["failures"], 0, "operations made"),
        equal(
            "failed migrations by error",
            sum(pool["migration"]["errors"].values()),
            counters["migration_failures"],
            "those counted",
        ),
        equal("objects", pool["objects"], made["live_objects"], "operations made"),
        equal("pages freed by compaction", counters["pages_freed"], mm_stat[6], "mm_stat"),
        *compare_state(pool, mm_stat, kernel),
    ]


def compare_state(pool: Json, mm_stat: Sequence[int], kernel: KernelPool) -> list[Check]:
    """Hold the state of one pool at rest against mm_stat and kernel memory."""
    return [
        equal("objects", pool["objects"], mm_stat[0] // PAGE_BYTES - mm_stat[5], "mm_stat"),
        equal("bytes", pool["pages"] * PAGE_BYTES, mm_stat[2], "mm_stat"),
        *_compare_memory(pool, kernel),
    ]


def compare_zswap(
    pools: Sequence[Json], figures: ZswapFigures, kernel: Sequence[KernelPool]
) -> list[Check]:
    """Hold zswap's pools, all watched since their creation, against zswap's own figures.

    ``figures`` are those at rest, and of what happened since before the first pool was made.
    """
    freed = figures.stores - figures.debug_stored
    # A page that comes back, to the process or on its way to the device, leaves its pool.
    known = figures.loads + figures.writebacks
    summed = [
        equal("allocations", _sum(pools, "allocs"), figures.stores, "zswpout of vmstat"),
        equal("frees", _sum(pools, "frees"), freed, "zswpout - stored_pages of debugfs"),
        at_least("frees", _sum(pools, "frees"), known, "zswpin + zswpwb of vmstat"),
        equal("failures", _sum(pools, "failures"), figures.failures, "reject_alloc_fail"),
    ]
    checks = [*about("zswap", summed), *compare_zswap_state(pools, figures, kernel)]
    for pool in pools:
        theirs = {each.name: each.pages_compacted for each in kernel}.get(pool["name"])
        counted = equal(
            "pages freed by compaction", pool["counters"]["pages_freed"], theirs, "struct zs_pool"
        )
        checks += about(pool["name"], [*_compare_counting(pool), counted])
    return checks


def _compare_zswap_bytes(ours: int, figures: ZswapFigures, kernel: Sequence[KernelPool]) -> Check:
    source = "Zswap of meminfo"
    if reckons_at_once():
        return equal("bytes", ours, figures.pool_bytes, source)
    compacted = sum(each.pages_compacted for each in kernel) * PAGE_BYTES
    passed = figures.pool_bytes - compacted <= ours <= figures.pool_bytes
    witness = f"{figures.pool_bytes}, less at most {compacted} compacted since zswap was used"
    return Check("bytes", ours, witness, source, passed)


def compare_zswap_state(
    pools: Sequence[Json], figures: ZswapFigures, kernel: Sequence[KernelPool]
) -> list[Check]:
    """Hold the state of all of zswap's pools at rest against its figures and kernel memory."""
    objects = sum(pool["objects"] for pool in pools)
    pages = sum(pool["pages"] for pool in pools)
    ours, theirs = (
        sorted(names) for names in ([p["name"] for p in pools], [k.name for k in kernel])
    )
    checks = about(
        "zswap",
        [
            equal("pools", ours, theirs, "the kernel's list"),
            equal("objects", objects, figures.debug_stored, "stored_pages of debugfs"),
            equal("objects", objects, figures.stored, "Zswapped of meminfo"),
            _compare_zswap_bytes(pages * PAGE_BYTES, figures, kernel),
        ],
    )
    by_name = {pool["name"]: pool for pool in pools}
    for each in kernel:
        if each.name in by_name:
            checks += about(each.name, _compare_memory(by_name[each.name], each))
    return checks


def _sum(pools: Sequence[Json], counter: str) -> int:
    return sum(pool["counters"][counter] or 0 for pool in pools)


def _compare_counting(pool: Json) -> list[Check]:
    return [
        equal("last scan of this pool", pool["last_scan_ns"], None, "probes alone"),
        equal("counters of classes", *_class_counters(pool), "sum up to the pool's"),
    ]


def _compare_memory(pool: Json, kernel: KernelPool) -> list[Check]:
    return [
        equal("status", pool["status"], "exact", "at rest"),
        equal("pages", pool["pages"], kernel.pages_allocated, "struct zs_pool"),
        equal("size classes", *_classes(pool, kernel), "zs_size_stat"),
        equal("zspages", *_zspages(pool, kernel), "kernel memory"),
    ]


def _class_counters(pool: Json) -> tuple[str, str]:
    """Return allocations, frees and moves: summed over the classes, and the pool's own."""
    names = ("allocs", "frees", "moves")
    sums = [sum(each["counters"][name] or 0 for each in pool["classes"]) for name in names]
    return "/".join(map(str, sums)), "/".join(str(pool["counters"][name]) for name in names)


def _told(ours: dict[Any, Any], theirs: dict[Any, Any]) -> tuple[str, str]:
    """Return two equal texts if two tables are equal, else texts that show the first difference."""
    if ours == theirs:
        text = f"all {len(ours)}"
        return text, text
    keys = [key for key in sorted(ours.keys() | theirs.keys()) if ours.get(key) != theirs.get(key)]
    count = f"{len(keys)} differ; {keys[0]}"
    return f"{count}: {ours.get(keys[0])}", f"{count}: {theirs.get(keys[0])}"


def _classes(pool: Json, kernel: KernelPool) -> tuple[str, str]:
    names = ("size", "objs_per_zspage", "pages_per_zspage", "fullness", "capacity", "objects")
    ours = {each["index"]: [each[name] for name in names] for each in pool["classes"]}
    theirs: dict[int, list[Any]] = {
        each.index: [
            each.size,
            each.objs_per_zspage,
            each.pages_per_zspage,
            list(each.zspages_by_group),
            each.capacity,
            each.objects,
        ]
        for each in kernel.classes
    }
    return _told(ours, theirs)


def _zspages(pool: Json, kernel: KernelPool) -> tuple[str, str]:
    names = ("class", "inuse", "fullness", "huge", "pfns")
    ours = {each["address"]: [each[name] for name in names] for each in pool["zspage_list"]}
    theirs: dict[str, list[Any]] = {
        f"{each.address:#x}": [
            each.class_index,
            each.inuse,
            each.fullness,
            each.huge,
            list(each.pfns),
        ]
        for each in kernel.zspages
    }
    return _told(ours, theirs)


def frames_that_changed(before: KernelPool, after: KernelPool) -> int:
    """Return how many pages of zspages that lived through lie elsewhere now."""
    was = {zspage.address: zspage for zspage in before.zspages}
    return sum(
        old != new
        for zspage in after.zspages
        if zspage.address in was and was[zspage.address].class_index == zspage.class_index
        for old, new in zip(was[zspage.address].pfns, zspage.pfns, strict=True)
    )


def report(checks: Sequence[Check]) -> bool:
    """Print a comparison; return whether everything passed."""
    print("\nzpobs against the kernel, at rest")
    for check in checks:
        verdict = "equal" if check.passed else "DIFFERS"
        # What is equal is said once: a line fits into 80 columns.
        theirs = "" if check.ours == check.witness else f": {check.witness}"
        figure = f"  {verdict:8}{check.figure:33} {check.ours!s:>10}"
        print(f"{figure}  {check.source}{theirs}")
    passed = all(check.passed for check in checks)
    print("all figures equal" if passed else "FAILED: some figures differ")
    sys.stdout.flush()
    return passed
