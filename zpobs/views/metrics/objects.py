"""Metrics of objects that are told one by one, for those who ask for them: --objects.

They are of the objects that were told, 1 in so many, and of nobody: no owner is in a label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from zpobs.objects import SIZE_BAND_BYTES, SIZE_BANDS, PoolObjects
from zpobs.snapshot import PoolView
from zpobs.views.metrics.metric import Distribution, Kind, Metric, Moment, Value, one
from zpobs.views.metrics.own import STATUSES

# Requested sizes above all bands.
LARGER = "larger"
# The ends of lifetimes' buckets: 2^b ns, from a millisecond to 39 hours.
OBJECT_LIFETIME_BUCKETS = tuple(range(20, 48, 3))


def _told(get: Callable[[PoolObjects, Moment], Iterable[Value]]) -> Callable[..., Iterator[Value]]:
    """Return values of what was told of pools' objects, where anything was."""

    def values(pool: PoolView, moment: Moment) -> Iterator[Value]:
        if pool.objects_told is not None and pool.objects_told.status != "unknown":
            yield from get(pool.objects_told, moment)

    return values


def _status(pool: PoolView, _: Moment) -> Iterator[Value]:
    if pool.objects_told is not None:
        for status in STATUSES:
            yield (status,), float(pool.objects_told.status == status)


def _sum(name: str) -> Callable[..., Iterator[Value]]:
    return _told(lambda objects, _: one(int(getattr(objects, name).sum())))


def _sizes(objects: PoolObjects, _: Moment) -> Iterator[Value]:
    names = [str(SIZE_BAND_BYTES * number) for number in range(1, SIZE_BANDS + 1)]
    for name, count in zip((*names, LARGER), objects.sizes.tolist(), strict=True):
        yield (name,), count


def _lifetimes(objects: PoolObjects, _: Moment) -> Iterator[Value]:
    buckets = objects.lifetimes.sum(axis=0)
    counts: dict[float, int] = {}
    begin = 0
    for end in OBJECT_LIFETIME_BUCKETS:
        counts[(1 << end) / 1e9] = int(buckets[begin : end + 1].sum())
        begin = end + 1
    above = int(buckets[begin:].sum())
    yield (), Distribution(counts, above, int(objects.lifetime_ns.sum()) / 1e9)


def _pinned(name: str, *, pages: bool = False) -> Callable[..., Iterator[Value]]:
    def get(objects: PoolObjects, moment: Moment) -> Iterator[Value]:
        if objects.pins is not None:
            scale = moment.snapshot.kernel.page_size if pages else 1
            yield (), getattr(objects.pins, name) * scale

    return _told(get)


def _of_told(
    name: str,
    kind: Kind,
    text: str,
    source: str,
    of_pool: Callable[..., Iterator[Value]],
    *,
    labels: tuple[str, ...] = (),
    series: int = 1,
) -> Metric:
    return Metric(
        f"zpobs_pool_{name}",
        kind,
        text,
        f"pool.objects.{source}",
        labels,
        of_pool=of_pool,
        tier="objects",
        needs="objects",
        merge="max" if source == "status" else "sum",
        series=series,
    )


OBJECTS: tuple[Metric, ...] = (
    Metric(
        "zpobs_pool_told_rate",
        "gauge",
        "One in so many objects is told, by handle: 1 for all",
        "--objects-rate",
        of_pool=_told(lambda objects, _: one(objects.sampling.rate)),
        tier="objects",
        needs="objects",
        merge="max",
    ),
    _of_told(
        "told_status",
        "gauge",
        "1 for the status of what is told of objects one by one: exact, bounded or unknown",
        "status",
        _status,
        labels=("status",),
        series=len(STATUSES),
    ),
    _of_told(
        "told_stores_total", "counter", "Stores of objects that were told", "stored", _sum("stored")
    ),
    _of_told(
        "told_frees_total",
        "counter",
        "Frees of objects whose store was told",
        "freed",
        _sum("freed"),
    ),
    _of_told("told_objects", "gauge", "Live objects whose store was told", "live", _sum("live")),
    _of_told(
        "told_requested_bytes",
        "gauge",
        "Bytes that were asked for for those live objects of which it was told",
        "live_bytes",
        _sum("live_bytes"),
    ),
    _of_told(
        "told_size_objects",
        "gauge",
        "Live objects by requested size: at most so many bytes and in no band before, or larger",
        "sizes",
        _told(_sizes),
        labels=("size_max",),
        series=SIZE_BANDS + 1,
    ),
    _of_told(
        "told_lifetime_seconds",
        "histogram",
        "How long objects lived whose store and free were told",
        "lifetimes",
        _told(_lifetimes),
        series=len(OBJECT_LIFETIME_BUCKETS) + 3,
    ),
    _of_told(
        "pinned_zspages",
        "gauge",
        "Zspages with at most a quarter of their slots in use that hold a told object",
        "pins.zspages",
        _pinned("zspages"),
    ),
    _of_told(
        "pinned_bytes",
        "gauge",
        "Memory of those zspages",
        "pins.pages",
        _pinned("pages", pages=True),
    ),
    _of_told(
        "pinning_objects",
        "gauge",
        "Told objects in those zspages",
        "pins.objects",
        _pinned("objects"),
    ),
)
