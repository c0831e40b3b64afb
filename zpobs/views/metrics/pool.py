"""Metrics of pools: what they hold, where the bytes go, what was done to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from zpobs.life import PoolLife
from zpobs.migration import error_name
from zpobs.snapshot import PoolView
from zpobs.views.metrics.metric import (
    Distribution,
    Metric,
    Moment,
    Needs,
    Value,
    fullness_names,
    one,
)
from zpobs.views.metrics.own import STATUSES
from zpobs.waste import Waste, class_waste, pool_waste

# Size classes are put together in so many bands of equal width, up to the size of a page.
BANDS = 16
# Failed migrations are told by these errors, all others together: the kernel's own for zsmalloc.
ERRORS = ("EAGAIN", "EBUSY", "EINVAL", "ENOMEM")
OTHER_ERROR = "other"
# Ages are told in so many kinds; a bucket b of life's ends below 2^b ns.
AGES: Mapping[str, int] = {"1s": 30, "17s": 34, "5min": 38, "1h": 42, "20h": 46}
OLDER, AGE_UNKNOWN = "older", "unknown"
# The ends of lifetimes' buckets in the histogram: 2^b ns, from a millisecond to 20 hours.
LIFETIME_BUCKETS = tuple(range(20, 47, 2))
# What is gathered besides the pool's state, and may be less exact than that.
PARTS = ("life", "runs", "migration_errors", "latency")

_MM_STAT: tuple[tuple[str, str, str, str], ...] = (
    ("original_bytes", "orig_data_size", "Bytes stored in the device, before compression", "byte"),
    ("compressed_bytes", "compr_data_size", "Bytes that they were compressed to", "byte"),
    ("used_bytes", "mem_used_total", "Memory that the device says its pool has", "byte"),
    ("limit_bytes", "mem_limit", "Memory that the pool may take; 0 for any", "byte"),
    ("used_max_bytes", "mem_used_max", "The most memory that the pool ever had", "byte"),
    ("same_filled_bytes", "same_pages", "Bytes of pages of one value, not in the pool", "page"),
    ("huge_bytes", "huge_pages", "Bytes of pages that could not be compressed", "page"),
)


def _known(get: Callable[[PoolView, Moment], float | None]) -> Callable[..., Iterator[Value]]:
    """Return values of one figure of the state of pools, of those whose state is known."""

    def values(pool: PoolView, moment: Moment) -> Iterator[Value]:
        if pool.status != "unknown":
            yield from one(get(pool, moment))

    return values


def _waste(get: Callable[[Waste], float | None]) -> Callable[..., Iterator[Value]]:
    return _known(lambda pool, moment: get(pool_waste(pool, moment.snapshot.kernel)))


def _requested(waste: Waste, *, rounding: bool = False) -> int | None:
    """Return what was asked for, or what slots are larger than that, if it is known to the byte."""
    if waste.requested is None or waste.rounding is None or not waste.requested.exact:
        return None
    return waste.rounding.low if rounding else waste.requested.low


def _status(pool: PoolView, _: Moment) -> Iterator[Value]:
    for status in STATUSES:
        yield (status,), float(pool.status == status)


def _parts(pool: PoolView, _: Moment) -> Iterator[Value]:
    """Tell of what has a status of its own, and is there, whether it is exact."""
    migration = None if pool.counters.migration_failures is None else pool.migration
    for name, part in zip(PARTS, (pool.life, pool.runs, migration, pool.latency), strict=True):
        if part is not None and part.status != "unknown":
            yield (name,), int(part.status == "exact")


def _fullness(pool: PoolView, moment: Moment) -> Iterator[Value]:
    if pool.status == "unknown":
        return
    names = fullness_names(moment.snapshot.kernel.fullness_groups)
    for name, count in zip(names, pool.classes.fullness.sum(axis=0).tolist(), strict=True):
        yield (name,), count


def _bands(pool: PoolView, moment: Moment, column: list[int]) -> Iterator[Value]:
    """Sum a column of the classes up by the bands that their sizes are in."""
    if pool.status == "unknown":
        return
    width = moment.snapshot.kernel.page_size // BANDS
    sums = [0] * BANDS
    for size, value in zip(pool.classes.size.tolist(), column, strict=True):
        sums[min(max(-(-size // width), 1), BANDS) - 1] += value
    for number, value in enumerate(sums, start=1):
        yield (str(width * number),), value


def _band_bytes(pool: PoolView, moment: Moment) -> Iterator[Value]:
    page_size = moment.snapshot.kernel.page_size
    return _bands(pool, moment, (pool.classes.pages * page_size).tolist())


def _band_free(pool: PoolView, moment: Moment) -> Iterator[Value]:
    waste = class_waste(pool.classes, moment.snapshot.kernel)
    return _bands(pool, moment, [each.free_slots for each in waste])


def _counter(name: str) -> Callable[[PoolView, Moment], Iterator[Value]]:
    return lambda pool, _: one(getattr(pool.counters, name))


def _freed(pool: PoolView, moment: Moment) -> Iterator[Value]:
    pages = pool.counters.pages_freed
    return one(None if pages is None else pages * moment.snapshot.kernel.page_size)


def _compacted(pool: PoolView, moment: Moment) -> Iterator[Value]:
    pages = pool.pages_compacted
    return one(None if pages is None else pages * moment.snapshot.kernel.page_size)


def _errors(pool: PoolView, _: Moment) -> Iterator[Value]:
    if pool.migration is None or pool.counters.migration_failures is None:
        return
    counts = dict.fromkeys((*ERRORS, OTHER_ERROR), 0)
    for error, count in pool.migration.errors.items():
        name = error_name(error)
        counts[name if name in ERRORS else OTHER_ERROR] += count
    for name, count in counts.items():
        yield (name,), count


def _life(get: Callable[[PoolLife, Moment], Iterable[Value]]) -> Callable[..., Iterator[Value]]:
    """Return values of the lives of pools' zspages, where they are followed."""

    def values(pool: PoolView, moment: Moment) -> Iterator[Value]:
        if pool.life is not None and pool.life.status != "unknown":
            yield from get(pool.life, moment)

    return values


def _ages(life: PoolLife, _: Moment) -> Iterator[Value]:
    begin = 0
    for name, end in AGES.items():
        yield (name,), int(life.ages[begin : end + 1].sum())
        begin = end + 1
    yield (OLDER,), int(life.ages[begin:].sum())
    yield (AGE_UNKNOWN,), life.ages_unknown


def _lifetimes(life: PoolLife, _: Moment) -> Iterator[Value]:
    counts: dict[float, int] = {}
    begin = 0
    for end in LIFETIME_BUCKETS:
        counts[(1 << end) / 1e9] = int(life.lifetimes[begin : end + 1].sum())
        begin = end + 1
    above = int(life.lifetimes[begin:].sum())
    yield (), Distribution(counts, above, int(life.lifetime_ns.sum()) / 1e9)


def _mm_stat(column: str, unit: str) -> Callable[[PoolView, Moment], Iterator[Value]]:
    def values(pool: PoolView, moment: Moment) -> Iterator[Value]:
        owned = moment.snapshot.owned
        told = owned.zram.get(pool.name) if owned else None
        if told is not None and column in told.mm_stat:
            scale = moment.snapshot.kernel.page_size if unit == "page" else 1
            yield (), told.mm_stat[column] * scale

    return values


def _written_back(pool: PoolView, moment: Moment) -> Iterator[Value]:
    owned = moment.snapshot.owned
    told = owned.zram.get(pool.name) if owned else None
    return one(None if told is None else told.written_back * 4096)


def _counting(name: str, text: str, field: str, needs: Needs = "probes") -> Metric:
    return Metric(
        name, "counter", text, f"pool.counters.{field}", of_pool=_counter(field), needs=needs
    )


_STATE: tuple[Metric, ...] = (
    Metric(
        "zpobs_pool_info",
        "info",
        "Whose pool it is",
        "pool.owner",
        ("owner",),
        of_pool=lambda pool, _: [((pool.owner,), 1)],
        merge="max",
    ),
    Metric(
        "zpobs_pool_status",
        "gauge",
        "1 for the status of the pool's figures: exact, bounded or unknown",
        "pool.status",
        ("status",),
        of_pool=_status,
        merge="max",
        series=3,
    ),
    Metric(
        "zpobs_pool_part_exact",
        "gauge",
        "1 where lives, compaction runs, migration errors, latencies are exact, 0 where bounded",
        "status of pool.life, .runs, .migration, .latency",
        ("part",),
        of_pool=_parts,
        needs="probes",
        merge="min",
        series=len(PARTS),
    ),
    Metric(
        "zpobs_pool_since_timestamp_seconds",
        "gauge",
        "When the pool was first seen, from which on it is counted: since 1970",
        "pool.since_ns",
        of_pool=lambda pool, _: one(pool.since_ns / 1e9),
        merge="max",
    ),
    Metric(
        "zpobs_pool_scan_timestamp_seconds",
        "gauge",
        "When the last scan of the pool ended: since 1970",
        "pool.scan_ns",
        of_pool=lambda pool, _: one(None if pool.scan_ns is None else pool.scan_ns / 1e9),
        needs="scans",
        merge="max",
    ),
    Metric(
        "zpobs_pool_bytes",
        "gauge",
        "Memory of the pool's pages",
        "pool.pages",
        of_pool=_known(lambda pool, moment: pool.pages * moment.snapshot.kernel.page_size),
    ),
    Metric(
        "zpobs_pool_zspages",
        "gauge",
        "Zspages",
        "pool.zspages",
        of_pool=_known(lambda pool, _: pool.zspages),
    ),
    Metric(
        "zpobs_pool_objects",
        "gauge",
        "Objects that are allocated",
        "pool.objects",
        of_pool=_known(lambda pool, _: pool.objects),
    ),
    Metric(
        "zpobs_pool_object_capacity",
        "gauge",
        "Objects that the zspages have slots for",
        "pool.classes.capacity",
        of_pool=_known(lambda pool, _: int(pool.classes.capacity.sum())),
    ),
    Metric(
        "zpobs_pool_freeable_bytes",
        "gauge",
        "Memory that a compaction could free now",
        "pool.classes.freeable_pages",
        of_pool=_known(
            lambda pool, moment: (
                int(pool.classes.freeable_pages.sum()) * moment.snapshot.kernel.page_size
            )
        ),
    ),
    Metric(
        "zpobs_pool_requested_bytes",
        "gauge",
        "Bytes that the owner asked for; left out where only bounds are known",
        "pool_waste",
        of_pool=_waste(_requested),
        needs="zram",
    ),
    Metric(
        "zpobs_pool_requested_min_bytes",
        "gauge",
        "The least that the owner can have asked for",
        "pool_waste",
        of_pool=_waste(lambda waste: waste.requested.low if waste.requested else None),
    ),
    Metric(
        "zpobs_pool_requested_max_bytes",
        "gauge",
        "The most that the owner can have asked for",
        "pool_waste",
        of_pool=_waste(lambda waste: waste.requested.high if waste.requested else None),
    ),
    Metric(
        "zpobs_pool_rounding_bytes",
        "gauge",
        "Bytes that slots are larger than what was asked for; left out with requested_bytes",
        "pool_waste",
        of_pool=_waste(lambda waste: _requested(waste, rounding=True)),
        needs="zram",
    ),
    Metric(
        "zpobs_pool_header_bytes",
        "gauge",
        "Bytes of the handles in front of objects",
        "pool_waste",
        of_pool=_waste(lambda waste: waste.headers),
    ),
    Metric(
        "zpobs_pool_tail_bytes",
        "gauge",
        "Bytes at the ends of zspages, in which no slot fits",
        "pool_waste",
        of_pool=_waste(lambda waste: waste.tail),
    ),
    Metric(
        "zpobs_pool_free_slot_bytes",
        "gauge",
        "Bytes of slots without an object",
        "pool_waste",
        of_pool=_waste(lambda waste: waste.free_slots),
    ),
    Metric(
        "zpobs_pool_descriptor_bytes",
        "gauge",
        "Slab memory of struct zspage and of handles, beside the pages",
        "pool_waste",
        of_pool=_waste(lambda waste: waste.descriptors),
    ),
    Metric(
        "zpobs_pool_fullness_zspages",
        "gauge",
        "Zspages by fullness group: the percentage of their slots in use that they are not above",
        "pool.classes.fullness",
        ("fullness",),
        of_pool=_fullness,
        series=12,
    ),
    Metric(
        "zpobs_pool_band_bytes",
        "gauge",
        "Memory of the pages of size classes, by bands of the size of their slots",
        "pool.classes",
        ("size_max",),
        of_pool=_band_bytes,
        series=BANDS,
    ),
    Metric(
        "zpobs_pool_band_free_slot_bytes",
        "gauge",
        "Bytes of slots without an object, by bands of the size of the slots",
        "class_waste",
        ("size_max",),
        of_pool=_band_free,
        series=BANDS,
    ),
)

_COUNTED: tuple[Metric, ...] = (
    _counting("zpobs_pool_allocations_total", "Objects allocated", "allocs"),
    _counting("zpobs_pool_frees_total", "Objects freed", "frees"),
    _counting("zpobs_pool_allocation_failures_total", "Allocations that failed", "failures"),
    _counting("zpobs_pool_compactions_total", "Compactions of the pool", "compactions"),
    _counting(
        "zpobs_pool_compaction_moved_objects_total", "Objects that compactions moved", "moves"
    ),
    Metric(
        "zpobs_pool_compaction_freed_bytes_total",
        "counter",
        "Memory that compactions freed",
        "pool.counters.pages_freed",
        of_pool=_freed,
        needs="probes",
    ),
    Metric(
        "zpobs_pool_kernel_compacted_bytes_total",
        "counter",
        "Memory that compactions freed since the pool was made, as the kernel counts it",
        "pool.pages_compacted",
        of_pool=_compacted,
        needs="scans",
    ),
    _counting("zpobs_pool_page_migrations_total", "Pages migrated", "migrations"),
    _counting(
        "zpobs_pool_page_migration_failures_total",
        "Migrations of pages that failed",
        "migration_failures",
    ),
    Metric(
        "zpobs_pool_page_migration_errors_total",
        "counter",
        "Migrations of pages that failed and whose error was seen, by error",
        "pool.migration.errors",
        ("error",),
        of_pool=_errors,
        needs="probes",
        series=len(ERRORS) + 1,
    ),
)

_LIVES: tuple[Metric, ...] = (
    Metric(
        "zpobs_pool_zspage_births_total",
        "counter",
        "Zspages whose birth was seen",
        "pool.life.births",
        of_pool=_life(lambda life, _: one(int(life.births.sum()))),
        needs="probes",
    ),
    Metric(
        "zpobs_pool_zspage_deaths_total",
        "counter",
        "Zspages whose death was seen",
        "pool.life.deaths",
        of_pool=_life(lambda life, _: one(int(life.deaths.sum()))),
        needs="probes",
    ),
    Metric(
        "zpobs_pool_age_zspages",
        "gauge",
        "Live zspages by age: below so much and not in the kind before, older, or unknown",
        "pool.life.ages",
        ("age",),
        of_pool=_life(_ages),
        needs="probes",
        series=len(AGES) + 2,
    ),
    Metric(
        "zpobs_pool_zspage_lifetime_seconds",
        "histogram",
        "How long zspages lived whose birth and death were seen",
        "pool.life.lifetimes",
        of_pool=_life(_lifetimes),
        needs="probes",
        series=len(LIFETIME_BUCKETS) + 3,
    ),
)

_ZRAM: tuple[Metric, ...] = (
    *(
        Metric(
            f"zpobs_zram_{name}",
            "gauge",
            text,
            f"mm_stat: {column}",
            of_pool=_mm_stat(column, unit),
            needs="zram",
            merge="max",
        )
        for name, column, text, unit in _MM_STAT
    ),
    Metric(
        "zpobs_zram_written_back_bytes",
        "gauge",
        "Bytes of pages that are on the backing device",
        "bd_stat: bd_count",
        of_pool=_written_back,
        needs="zram",
        merge="max",
    ),
)

POOL: tuple[Metric, ...] = (*_STATE, *_COUNTED, *_LIVES, *_ZRAM)
