"""What a metric is, and what it is made of: the columns of the table of all metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from zpobs.footing import MachineFigures
from zpobs.snapshot import PoolView, Snapshot

Kind = Literal["gauge", "counter", "info", "histogram"]
# Which series there are: always, with --per-class, with --per-class-fullness, with --objects.
Tier = Literal["default", "class", "fullness", "objects"]
# What must be there for a value to be known.
Needs = Literal["", "probes", "zram", "zswap", "scans", "latency", "objects", "bpf-stats", "verify"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """What a histogram holds: counts by upper bound, not cumulative, those above all, the sum."""

    counts: Mapping[float, int]
    above: int
    total: float


Number = float | Distribution
# Values of a metric's labels in their order, but for the pool's name, and the number.
Value = tuple[tuple[str, ...], Number]


@dataclass(frozen=True, slots=True)
class Checks:
    """What verifications told so far: rounds by verdict, differences by what differs.

    ``seconds`` is what they took, ``left_out`` counts those that would have taken too long.
    """

    rounds: Mapping[str, int]
    divergences: Mapping[str, int]
    seconds: float = 0.0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """All that metrics are made of, at one instant; times are in seconds.

    ``snapshot_s`` is what taking the snapshot took, ``interval_s`` None if there is to be one
    alone. ``checks`` is None if nothing is verified. ``fine_latency``: in more buckets.
    """

    snapshot: Snapshot
    version: str = ""
    interval_s: float | None = None
    snapshot_s: float = 0.0
    machine: MachineFigures | None = None
    checks: Checks | None = None
    fine_latency: bool = False


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. Either ``of_pool`` or ``of_moment`` gives its values.

    What ``of_pool`` gives gets the label ``pool``, in front of ``labels``. Counters and
    histograms of pools go on over the end of a pool whose name comes again. Of pools that have
    one name the numbers are added up, or the larger or the smaller one stands (``merge``).
    """

    name: str
    kind: Kind
    help: str
    source: str
    labels: tuple[str, ...] = ()
    of_pool: Callable[[PoolView, Moment], Iterable[Value]] | None = None
    of_moment: Callable[[Moment], Iterable[Value]] | None = None
    tier: Tier = "default"
    needs: Needs = ""
    merge: Literal["sum", "max", "min"] = "sum"
    # The most series of a pool, or in all, that there can be by default.
    series: int = 1

    @property
    def all_labels(self) -> tuple[str, ...]:
        """The labels as they are served."""
        return self.labels if self.of_pool is None else ("pool", *self.labels)

    @property
    def unit(self) -> str:
        """The unit that the name ends with, nothing for plain numbers."""
        stem = self.name.removesuffix("_total")
        return next((unit for unit in ("bytes", "seconds") if stem.endswith(f"_{unit}")), "")


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tiers are wanted."""

    per_class: bool = False
    per_class_fullness: bool = False
    objects: bool = False
    tiers: frozenset[Tier] = field(init=False)

    def __post_init__(self) -> None:
        tiers: set[Tier] = {"default"}
        if self.per_class or self.per_class_fullness:
            tiers.add("class")
        if self.per_class_fullness:
            tiers.add("fullness")
        if self.objects:
            tiers.add("objects")
        object.__setattr__(self, "tiers", frozenset(tiers))


def one(value: float | None) -> Iterator[Value]:
    """Yield the value of a metric without labels, nothing if it is not known."""
    if value is not None:
        yield (), value


def fullness_names(groups: int) -> tuple[str, ...]:
    """Return the names of fullness groups, group 0 first (enum fullness_group).

    With 12 groups each is the percentage that its zspages are not above, as in debugfs.
    """
    if groups == 12:
        return ("0", *(str(tenth) for tenth in range(10, 100, 10)), "99", "100")
    if groups == 4:
        return ("empty", "almost_empty", "almost_full", "full")
    return tuple(f"group_{number}" for number in range(groups))
