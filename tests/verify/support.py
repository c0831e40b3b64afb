"""Pools told zspage by zspage, whose sums follow from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.factories import UNCOUNTED, ints, make_classes, make_pool
from zpobs.snapshot import PoolView, Snapshot, Status, ZspageTable

# Class index -> bytes, objects and pages of a zspage.
GEOMETRY: Mapping[int, tuple[int, int, int]] = {
    62: (1024, 4, 1),
    107: (1744, 7, 3),
    254: (4096, 1, 1),
}
FIRST = 0xFFFF888000001000


@dataclass(frozen=True)
class Zspage:
    """One zspage; its fullness group, its frames and when it was seen follow if not given."""

    address: int
    index: int
    inuse: int
    group: int | None = None
    frames: tuple[int, ...] | None = None
    huge: bool | None = None
    seen_ns: int = 1000

    @property
    def fullness(self) -> int:
        if self.group is not None:
            return self.group
        objs = GEOMETRY[self.index][1]
        return 11 if self.inuse == objs else 100 * self.inuse // objs // 10 + 1

    @property
    def chain(self) -> tuple[int, ...]:
        if self.frames is not None:
            return self.frames
        return tuple((self.address >> 4 & 0xFFFF) + page for page in range(GEOMETRY[self.index][2]))


def zspages() -> dict[str, Zspage]:
    """Return six zspages of three classes, by letter."""
    lines = [(62, 2), (62, 4), (107, 1), (107, 7), (107, 5), (254, 1)]
    return {
        letter: Zspage(FIRST + 0x40 * at, index, inuse)
        for at, (letter, (index, inuse)) in enumerate(zip("abcdef", lines, strict=True))
    }


def table_of(listed: Iterable[Zspage]) -> ZspageTable:
    rows = sorted(listed, key=lambda each: each.address)
    seen = np.array([each.seen_ns for each in rows], dtype=np.uint64)
    no = np.zeros(len(rows), dtype=bool)
    return ZspageTable(
        address=np.array([each.address for each in rows], dtype=np.uint64),
        class_index=ints(each.index for each in rows),
        inuse=ints(each.inuse for each in rows),
        fullness=ints(each.fullness for each in rows),
        huge=np.array(
            [each.index == 254 if each.huge is None else each.huge for each in rows], dtype=bool
        ),
        first_seen_ns=np.minimum(seen, 1000),
        last_seen_ns=seen,
        frame_start=ints(np.cumsum([0, *(len(each.chain) for each in rows)])),
        frames=np.array([frame for each in rows for frame in each.chain], dtype=np.uint64),
        freeobj=ints(-1 for _ in rows),
        scanned=no,
        locked=no,
        isolated=no,
        born=no,
        nodes=ints(0 for each in rows for _ in each.chain),
    )


def pool_of(
    listed: Iterable[Zspage],
    pool_id: int = 1,
    name: str = "zram0",
    *,
    status: Status = "exact",
    counted: tuple[int, int] | None = (1000, 900),
    busy: Iterable[int] = (),
    **changed: Any,
) -> PoolView:
    """Return a pool of these zspages; ``counted`` are allocs and frees of each class so far."""
    rows = list(listed)
    lines, groups = [], []
    for index, (size, objs, pages) in GEOMETRY.items():
        own = [each for each in rows if each.index == index]
        lines.append((index, size, objs, pages, len(own), sum(each.inuse for each in own)))
        groups.append(np.bincount([each.fullness for each in own], minlength=12))
    columns: dict[str, Any] = {"fullness": np.array(groups, dtype=np.int64)}
    columns["statuses"] = tuple("bounded" if i in set(busy) else status for i in GEOMETRY)
    for name_of, at in (("allocs", 0), ("frees", 1)):
        columns[name_of] = ints([counted[at]] * len(lines)) if counted else None
    columns["moves"] = ints([0] * len(lines)) if counted else None
    classes = make_classes(lines, **columns)
    values = {"classes": classes, "counters": UNCOUNTED, "zspage_list": table_of(rows)}
    return make_pool(pool_id, name, lines, status=status, **(values | changed))


def replant(snapshot: Snapshot, **columns: Any) -> Snapshot:
    """Return a snapshot with other columns in the zspage list of its first pool."""
    first, *others = snapshot.pools
    assert first.zspage_list is not None
    listed = replace(first.zspage_list, **columns)
    return replace(snapshot, pools=(replace(first, zspage_list=listed), *others))
