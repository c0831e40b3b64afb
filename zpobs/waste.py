"""Where a pool's bytes go: what was asked for, and the five kinds of bytes beside it.

Everything is arithmetic on a pool's classes. A slot of a class of size S holds
one object and, except in a huge class, the object's handle in its first
HANDLE_BYTES. A request of r bytes goes to the smallest class that holds
r + HANDLE_BYTES (size_class_index in mm/zsmalloc.c), one that is too large for
all of them to the largest, which is huge. With P the size of the next smaller
class that the pool has:

    P < r + 8 and r + 8 <= S, or, in a huge class, P < r + 8 and r <= S

So the rounding of a class is bounded by its objects. That of a pool is exact if
its owner tells the sum of what it asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

# ZS_HANDLE_SIZE: in front of an object, and the size of its slot in the cache of handles.
HANDLE_BYTES = 8


class _Sizes(Protocol):
    """What must be known of a kernel (:class:`zpobs.snapshot.Kernel`)."""

    @property
    def page_size(self) -> int: ...

    @property
    def zspage_bytes(self) -> int: ...


class _Classes(Protocol):
    """What must be known of size classes (:class:`zpobs.snapshot.ClassTable`), shape (C,)."""

    @property
    def size(self) -> Ints: ...

    @property
    def size_below(self) -> Ints: ...

    @property
    def objs_per_zspage(self) -> Ints: ...

    @property
    def pages_per_zspage(self) -> Ints: ...

    @property
    def zspages(self) -> Ints: ...

    @property
    def objects(self) -> Ints: ...


class _Owned(Protocol):
    """What a pool's owner says of it (:class:`zpobs.snapshot.OwnerFigures`)."""

    @property
    def requested_bytes(self) -> int | None: ...

    @property
    def objects(self) -> int | None: ...

    @property
    def steady(self) -> bool: ...


class _Pool(Protocol):
    """What must be known of a pool (:class:`zpobs.snapshot.PoolView`)."""

    @property
    def status(self) -> str: ...

    @property
    def objects(self) -> int: ...

    @property
    def classes(self) -> _Classes: ...

    @property
    def owner_figures(self) -> _Owned | None: ...


@dataclass(frozen=True, slots=True)
class Range:
    """A number that is not below ``low`` and not above ``high``."""

    low: int
    high: int

    @property
    def exact(self) -> bool:
        """Whether there is only one such number."""
        return self.low == self.high

    def to_json(self) -> dict[str, int]:
        """Return both bounds."""
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class Waste:
    """The bytes of a pool or of one class, by what they are there for.

    ``requested`` is what the owner asked for, ``rounding`` what slots are larger
    than that, without the handle; where not even bounds are known both are None,
    and they are all that the other parts leave of ``pages``. ``headers`` are the
    handles in front of objects, ``tail`` the ends of zspages that no slot fits
    in, ``free_slots`` slots without an object; ``pages`` is the sum of these
    five. ``descriptors`` lie in slab memory beside the pages: a struct zspage a
    zspage and a handle an object, None if the size of the former is not known.
    What slabs round that up to is not counted, nor is struct page, which memory
    has whoever uses it.
    """

    requested: Range | None
    rounding: Range | None
    headers: int
    tail: int
    free_slots: int
    descriptors: int | None
    pages: int

    @property
    def total(self) -> int | None:
        """Pages and descriptors: the sum of all six parts."""
        return None if self.descriptors is None else self.pages + self.descriptors

    @property
    def wasted(self) -> Range | None:
        """All that was not asked for: of the total, or of the pages where that is not known."""
        if self.requested is None:
            return None
        whole = self.pages + (self.descriptors or 0)
        return Range(whole - self.requested.high, whole - self.requested.low)

    def to_json(self, status: str) -> dict[str, Any]:
        """Return the ``waste`` object; ``status`` is that of the figures it was made of."""
        known = "unknown" if self.requested is None else status
        if known == "exact" and self.requested and not self.requested.exact:
            known = "bounded"
        return {
            "page_bytes": self.pages,
            "descriptor_bytes": self.descriptors,
            "requested_bytes": self.requested.to_json() if self.requested else None,
            "rounding_bytes": self.rounding.to_json() if self.rounding else None,
            "header_bytes": self.headers,
            "tail_bytes": self.tail,
            "free_slot_bytes": self.free_slots,
            "requested_status": known,
        }


@dataclass(frozen=True, slots=True)
class _Columns:
    """The parts by class, shape (C,), with the least and the most that can have been asked for.

    ``told`` is False where bytes are held and the class's geometry is not known.
    """

    told: npt.NDArray[np.bool_]
    least: Ints
    most: Ints
    headers: Ints
    tail: Ints
    free_slots: Ints
    descriptors: Ints
    pages: Ints

    @classmethod
    def of(cls, classes: _Classes, kernel: _Sizes) -> _Columns:
        size, objs = classes.size, classes.objs_per_zspage
        zspages, objects = np.maximum(classes.zspages, 0), np.maximum(classes.objects, 0)
        zspage_bytes = classes.pages_per_zspage * kernel.page_size
        pages = zspages * zspage_bytes
        known = (size > HANDLE_BYTES) & (objs > 0) & (objs * size <= zspage_bytes)
        capacity = zspages * objs
        # Of a class that was busy both counts are the kernel's, read one after the other.
        used = np.minimum(objects, capacity)
        huge = (objs == 1) & (classes.pages_per_zspage == 1)
        handle = np.where(huge, 0, HANDLE_BYTES)
        most = size - handle
        least = np.clip(classes.size_below + 1 - HANDLE_BYTES, 1, np.maximum(most, 1))
        return cls(
            told=known | ((pages == 0) & (objects == 0)),
            least=np.where(known, used * least, 0),
            most=np.where(known, used * most, 0),
            headers=np.where(known, used * handle, 0),
            tail=np.where(known, pages - capacity * size, 0),
            free_slots=np.where(known, (capacity - used) * size, 0),
            descriptors=zspages * kernel.zspage_bytes + objects * HANDLE_BYTES,
            pages=pages,
        )


def pool_waste(pool: _Pool, kernel: _Sizes) -> Waste:
    """Return where a pool's bytes go.

    What was asked for is exact if the owner tells it, told the same before and
    after, has as many objects as the pool, and the pool's figures are exact.
    """
    columns = _Columns.of(pool.classes, kernel)
    sums = [int(getattr(columns, name).sum()) for name in _Columns.__slots__[1:]]
    waste = _waste([bool(columns.told.all()), *sums], described=kernel.zspage_bytes > 0)
    owner = pool.owner_figures
    if waste.requested is None or owner is None or not owner.steady or pool.status != "exact":
        return waste
    asked, bounds = owner.requested_bytes, waste.requested
    if asked is None or owner.objects not in (None, pool.objects):
        return waste
    if not bounds.low <= asked <= bounds.high:
        return waste
    rest = bounds.high - asked
    return replace(waste, requested=Range(asked, asked), rounding=Range(rest, rest))


def class_waste(classes: _Classes, kernel: _Sizes) -> list[Waste]:
    """Return where the bytes of each class go, by row."""
    columns = _Columns.of(classes, kernel)
    rows = zip(*(getattr(columns, name).tolist() for name in _Columns.__slots__), strict=True)
    return [_waste(row, described=kernel.zspage_bytes > 0) for row in rows]


def class_wasted_least(classes: _Classes, kernel: _Sizes) -> Ints:
    """Return how many bytes of each class's pages are surely wasted, rounding aside, shape (C,)."""
    columns = _Columns.of(classes, kernel)
    least: Ints = columns.headers + columns.tail + columns.free_slots
    return least


def _waste(values: Sequence[int], *, described: bool) -> Waste:
    """Make a waste of the columns' values, in their order."""
    told, least, most, headers, tail, free_slots, descriptors, pages = values
    return Waste(
        requested=Range(least, most) if told else None,
        rounding=Range(0, most - least) if told else None,
        headers=headers,
        tail=tail,
        free_slots=free_slots,
        descriptors=descriptors if described else None,
        pages=pages,
    )
