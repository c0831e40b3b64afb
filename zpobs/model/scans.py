"""What scans told of size classes: geometry, the kernel's own figures, how far to trust them.

A walk of a class is *verified* if the scanner found it steady and the zspages
that it told of are as many, and hold as many objects, as the class's own
statistics say. Then no other zspage was in the class when the walk began: what
was seen before and not in the walk is gone, and what comes late of before is
void. Of any other walk nothing follows for zspages that it did not tell of.

Without probes nothing ever tells of deaths. There a walk that told of nearly
all zspages drops the others even if it is not verified: the figures are bounded
then, but do not drift away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from zpobs.model.arrays import I64, U64, Bools, grown
from zpobs.model.state import StateReader, StateWriter, member, texts
from zpobs.wire import Words

CLASSES_MAX = 512
# No walk of the class is under way.
_CLOSED_NS = np.uint64(2**64 - 1)
# Without probes: of how many sixteenths of a class's zspages a walk must tell to drop the others.
_NEARLY_ALL = 15
# A birth is told under the class's lock before the zspage stands on its list: for so long at
# most a walk may miss it. Generous: whoever holds the lock can lose its CPU to a hypervisor.
BIRTH_NS = np.uint64(50_000_000)


class ScanLedger:
    """Columns by cell: pool slot * CLASSES_MAX + class index.

    ``geometry`` is as in the counters, 0 before the first walk. ``known_ns`` is
    the beginning of the last verified walk, 0 if none, or of a doubted one the
    birth that it may have missed. ``swept_ns``: zspages
    not seen since then are gone. ``capacity`` and ``objects`` are the kernel's
    figures at ``end_ns``, the end of the last walk, and ``verified`` whether
    that one was. While a walk is under way ``verified`` is false.
    """

    def __init__(self, slots: int, *, alone: bool) -> None:
        cells = slots * CLASSES_MAX
        self.alone = alone
        self.geometry: U64 = np.zeros(cells, dtype=np.uint64)
        self.known_ns: U64 = np.zeros(cells, dtype=np.uint64)
        self.swept_ns: U64 = np.zeros(cells, dtype=np.uint64)
        self.end_ns: U64 = np.zeros(cells, dtype=np.uint64)
        self.capacity: I64 = np.zeros(cells, dtype=np.int64)
        self.objects: I64 = np.zeros(cells, dtype=np.int64)
        self.verified: Bools = np.zeros(cells, dtype=bool)
        self._begin_ns: U64 = np.full(cells, _CLOSED_NS)
        self._seen: I64 = np.zeros(cells, dtype=np.int64)
        self._seen_objects: I64 = np.zeros(cells, dtype=np.int64)
        # The newest of swept_ns: batches that are newer altogether need not ask by record.
        self.newest_swept_ns = 0

    def begin(self, cells: I64, columns: Words) -> None:
        """Take SCAN_BEGIN records by column; the last of a cell stays."""
        self.geometry[cells] = columns[4]
        self._begin_ns[cells] = columns[1]
        self._seen[cells] = 0
        self._seen_objects[cells] = 0
        self.verified[cells] = False

    def see(self, cells: I64, inuse: I64, time_ns: U64, former_ns: U64) -> None:
        """Count zspages that a walk told of, shape (n,), no two alike.

        ``former_ns`` is the time of what was known of each before: whatever is
        of this very walk was counted already, or was told by a probe meanwhile.
        """
        begin_ns = self._begin_ns.take(cells)
        fresh = (time_ns >= begin_ns) & (former_ns < begin_ns)
        cells, inuse = cells[fresh], inuse[fresh]
        seen = np.bincount(cells)
        self._seen[: len(seen)] += seen
        # Sums of at most 2^16 each stay exact in a double.
        self._seen_objects[: len(seen)] += np.bincount(cells, weights=inuse).astype(np.int64)

    def end(self, cells: I64, steady: Bools, columns: Words) -> bool:
        """Take SCAN_END records by column; return whether any zspage may have to be swept."""
        begin_ns = columns[4]
        ours = begin_ns == self._begin_ns[cells]
        cells, steady, columns = cells[ours], steady[ours], columns[:, ours]
        begin_ns = columns[4]
        capacity, objects = columns[5].astype(np.int64), columns[6].astype(np.int64)
        zspages = self.zspages(cells, capacity)
        seen = self._seen[cells]
        verified = steady & (seen == zspages) & (self._seen_objects[cells] == objects)
        self.end_ns[cells] = columns[1]
        self.capacity[cells] = capacity
        self.objects[cells] = objects
        self.verified[cells] = verified
        self._begin_ns[cells] = _CLOSED_NS
        self.known_ns[cells[verified]] = begin_ns[verified]
        swept = verified | (16 * seen >= _NEARLY_ALL * zspages) if self.alone else verified
        if not swept.any():
            return False
        self.swept_ns[cells[swept]] = begin_ns[swept]
        self.newest_swept_ns = max(self.newest_swept_ns, int(begin_ns[swept].max()))
        return True

    def zspages(self, cells: I64, capacity: I64) -> I64:
        """Return how many zspages a capacity in objects is; -1 if that is no whole number."""
        objs = ((self.geometry[cells] >> np.uint64(32)) & np.uint64(0xFFFF)).astype(np.int64)
        count, rest = np.divmod(capacity, np.maximum(objs, 1))
        return np.where((rest == 0) & (objs > 0), count, -1)

    def totals(self, slot: int) -> tuple[int, int]:
        """Return a pool's pages and objects as its classes' last walks told them, one by one."""
        own = np.arange(slot * CLASSES_MAX, (slot + 1) * CLASSES_MAX)
        own = own[self.end_ns[own] > 0]
        pages = (self.geometry[own] >> np.uint64(48)).astype(np.int64)
        zspages = np.maximum(self.zspages(own, self.capacity[own]), 0)
        return int((zspages * pages).sum()), int(self.objects[own].sum())

    def busy(self, slot: int) -> list[int]:
        """Return the indices of a pool's classes whose last walk was not verified."""
        own = slice(slot * CLASSES_MAX, (slot + 1) * CLASSES_MAX)
        found: list[int] = np.flatnonzero((self.end_ns[own] > 0) & ~self.verified[own]).tolist()
        return found

    def doubt(self, cells: I64, time_ns: U64) -> None:
        """Note births so short before verified walks that these may have missed them, shape (n,).

        If nothing was lost since such a birth the zspage is alive, and all is as
        if the walk had met it. If anything was, another walk must tell.
        """
        self.verified[cells] = False
        np.minimum.at(self.known_ns, cells, time_ns)

    def told(self) -> Bools:
        """Return which cells anything was told of."""
        some: Bools = self._begin_ns != _CLOSED_NS
        for name in _COLUMNS:
            if name != "_begin_ns":
                some |= getattr(self, name) != 0
        return some

    def columns(self, cells: I64) -> dict[str, U64]:
        """Return what is known of cells, for a state."""
        kept = {name: getattr(self, own)[cells] for name, own in STATE_COLUMNS.items()}
        return geometry_columns(self.geometry[cells]) | kept

    def load(self, cells: I64, columns: dict[str, U64]) -> None:
        """Take what a state has of cells."""
        self.geometry[cells] = packed_geometry(columns)
        for name, own in STATE_COLUMNS.items():
            getattr(self, own)[cells] = columns[name]
        self.newest_swept_ns = int(self.swept_ns.max())

    def grow(self, slots: int) -> None:
        """Make room for more pools."""
        old = len(self.geometry)
        for name in _COLUMNS:
            setattr(self, name, grown(getattr(self, name), slots * CLASSES_MAX))
        self._begin_ns[old:] = _CLOSED_NS

    def forget(self, slot: int) -> None:
        """Forget all that was told of a pool."""
        own = slice(slot * CLASSES_MAX, (slot + 1) * CLASSES_MAX)
        for name in _COLUMNS:
            getattr(self, name)[own] = 0
        self._begin_ns[own] = _CLOSED_NS


_COLUMNS = (
    "geometry",
    "known_ns",
    "swept_ns",
    "end_ns",
    "capacity",
    "objects",
    "verified",
    "_begin_ns",
    "_seen",
    "_seen_objects",
)

# How a state names all but the geometry, which it has in three columns.
STATE_COLUMNS = {
    "capacity": "capacity",
    "objects": "objects",
    "verified": "verified",
    "known_ns": "known_ns",
    "swept_ns": "swept_ns",
    "end_ns": "end_ns",
    "walk_begin_ns": "_begin_ns",
    "walk_zspages": "_seen",
    "walk_objects": "_seen_objects",
}
STATE_KINDS = {
    name: np.bool_ if name == "verified" else np.uint64 if name.endswith("_ns") else np.int64
    for name in STATE_COLUMNS
}
GEOMETRY_KINDS = {
    "size_bytes": np.uint32,
    "objs_per_zspage": np.uint16,
    "pages_per_zspage": np.uint16,
}


def geometry_columns(words: U64) -> dict[str, U64]:
    """Return what geometry words of size classes pack."""
    return {
        "size_bytes": words & np.uint64(0xFFFFFFFF),
        "objs_per_zspage": words >> np.uint64(32) & np.uint64(0xFFFF),
        "pages_per_zspage": words >> np.uint64(48),
    }


def packed_geometry(columns: Mapping[str, U64]) -> U64:
    """Return the geometry words of such columns."""
    words: U64 = columns["size_bytes"].astype(np.uint64)
    words |= columns["objs_per_zspage"].astype(np.uint64) << np.uint64(32)
    words |= columns["pages_per_zspage"].astype(np.uint64) << np.uint64(48)
    return words


@dataclass(frozen=True, slots=True)
class ScanRounds:
    """How many rounds of scans over all pools there were, and what the last one did not reach."""

    count: int = 0
    begin_ns: int = 0
    end_ns: int = 0
    missing: tuple[str, ...] = ()

    def save(self, out: StateWriter) -> None:
        """Add it to a state."""
        out.value("rounds", {**asdict(self), "missing": list(self.missing)})

    @classmethod
    def load(cls, given: StateReader) -> ScanRounds:
        """Take it from a state."""
        told = given.value("rounds", dict)
        count, begin_ns, end_ns = (member(told, name, int) for name in _ROUND)
        return cls(count, begin_ns, end_ns, texts(member(told, "missing", list), "missing"))


_ROUND = ("count", "begin_ns", "end_ns")
