"""The records of an invented pool's scan with details, all well, to be spoilt by tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zpobs import wire
from zpobs.kernel.pageflags import PageFlags
from zpobs.wire import Words

MAGIC = 0x58
LOCKED, MOVABLE_OPS, PRIVATE, ISOLATED = 0, 3, 14, 16
FLAGS = PageFlags(
    bits={
        "locked": LOCKED,
        "uptodate": 3,
        "movable_ops": MOVABLE_OPS,
        "private": PRIVATE,
        "movable_ops_isolated": ISOLATED,
    },
    chosen={
        LOCKED: "locked",
        MOVABLE_OPS: "movable_ops",
        PRIVATE: "private",
        ISOLATED: "movable_ops_isolated",
    },
    count=24,
    page_type=0xF6,
)
UNMARKED = PageFlags(FLAGS.bits, FLAGS.chosen, 24, None)

POOL = 0xFFFF888000A00000
ZSPAGES_AT = 0xFFFF888001000000
PAGES_AT = 0xFFFFEA0000000000
FIRST_FRAME = 4096
NODE = 0x0017_FFFF_C000_0000


@dataclass(frozen=True)
class ClassShape:
    index: int
    size: int
    objs: int
    pages: int


# index, size, objects and pages as the kernel has them with 4 KiB pages and chains of 8.
CLASSES = (
    ClassShape(62, 1024, 4, 1),
    ClassShape(107, 1744, 7, 3),
    ClassShape(202, 3264, 5, 4),
    ClassShape(254, 4096, 1, 1),
)
# (row of CLASSES, objects in use): empty, partly and wholly filled ones.
ZSPAGES = ((0, 0), (0, 1), (0, 4), (1, 3), (1, 6), (1, 7), (2, 5), (2, 2), (3, 1), (3, 0))


def group_of(inuse: int, objs: int, groups: int) -> int:
    """Return the fullness group in which the kernel holds a zspage."""
    if inuse == 0:
        return 0
    if inuse == objs:
        return groups - 1
    if groups == 4:
        return 1 if inuse <= 3 * objs // 4 else 2
    return 100 * inuse // objs // 10 + 1


class ScanRecords:
    """Writes records in the scanner's order; ``words`` is what it told so far."""

    def __init__(self, *, groups: int = 12, page_type: int = 0xF6, serial: int = 1) -> None:
        self._groups = groups
        self._page_type = page_type
        self._serial = serial
        self._rows: list[list[int]] = []
        self._frame = FIRST_FRAME
        self._time_ns = 1000

    @property
    def words(self) -> Words:
        return np.array(self._rows, dtype=np.uint64).reshape(-1, wire.RECORD_WORDS)

    def tell(self, kind: int, *payload: int, flags: int = 0, a: int = 0, b: int = 0) -> None:
        self._time_ns += 1
        head = wire.head(kind, flags=flags, a=a, b=b, serial=self._serial)
        words = [head, *payload]
        self._rows.append(words + [0] * (wire.RECORD_WORDS - len(words)))

    def begin(self, shape: ClassShape, capacity: int, objects: int) -> None:
        geometry = shape.size | shape.objs << 32 | shape.pages << 48
        self.tell(
            wire.KIND_SCAN_BEGIN, self._time_ns, POOL, shape.index, geometry, capacity, objects
        )

    def end(self, shape: ClassShape, capacity: int, objects: int, *, steady: bool = True) -> None:
        flags = wire.FLAG_STEADY if steady else 0
        payload = (self._time_ns, POOL, shape.index, 0, capacity, objects)
        self.tell(wire.KIND_SCAN_END, *payload, flags=flags)

    def torn(self, address: int, *, group: int, magic: int = MAGIC, links: int = 0) -> None:
        first, fullness = PAGES_AT, group
        self.tell(
            wire.DETAIL_LINKS,
            self._time_ns,
            address,
            magic,
            first,
            wire.UNKNOWN,
            group | links << 8,
            flags=wire.FLAG_TORN,
            a=fullness,
        )

    def zspage(
        self, address: int, shape: ClassShape, inuse: int, *, group: int | None = None
    ) -> None:
        """Tell a zspage's state, frames, links and descriptors."""
        now = self._time_ns
        huge = shape.objs == shape.pages == 1
        fullness = group_of(inuse, shape.objs, self._groups) if group is None else group
        full = inuse == shape.objs
        freeobj = (0xFFFFFFFF if full else inuse) if not huge else 0xDEADBEEF
        flags = wire.FLAG_SCANNED | (wire.FLAG_HUGE if huge else 0)
        self.tell(
            wire.KIND_STATE,
            now,
            address,
            inuse | freeobj << 32,
            shape.index,
            flags=flags,
            a=fullness,
            b=shape.pages,
        )
        frames = list(range(self._frame, self._frame + shape.pages))
        self._frame += shape.pages + 3
        for at in range(0, shape.pages, wire.FRAMES_PER_RECORD):
            part = frames[at : at + wire.FRAMES_PER_RECORD]
            self.tell(wire.KIND_FRAMES, now, address, *part, a=at, b=shape.pages)
        pages = [PAGES_AT + 64 * frame for frame in frames]
        free = wire.UNKNOWN if huge else shape.objs - inuse
        self.tell(wire.DETAIL_LINKS, now, address, MAGIC, pages[0], free, fullness, a=fullness, b=1)
        for number, page in enumerate(pages):
            later = [*pages[number + 1 :], 0][0]
            starts = range(0, shape.objs * shape.size + shape.size, shape.size)
            offset = next(at for at in starts if at >= number * 4096) - number * 4096
            word = NODE | 1 << MOVABLE_OPS | (1 << PRIVATE if number == 0 else 0)
            self.tell(
                wire.DETAIL_DESCRIPTOR,
                address,
                address,
                page,
                word,
                (0xFFFF888000F00009 if inuse else 0) if huge else later,
                offset | self._page_type << 24 | 1 << 32,
                a=number,
                b=shape.pages,
            )


def addresses(count: int) -> list[int]:
    """Return addresses of zspages that are in no order, as slab objects are."""
    return [ZSPAGES_AT + 56 * (number * 7919 % 65536) for number in range(count)]


def healthy(
    zspages: Sequence[tuple[int, int]] = ZSPAGES, *, groups: int = 12, page_type: int = 0xF6
) -> Words:
    """Return the records of a pool in which every invariant holds."""
    made = ScanRecords(groups=groups, page_type=page_type)
    places = addresses(len(zspages))
    for row, shape in enumerate(CLASSES):
        mine = [(at, inuse) for at, (of, inuse) in zip(places, zspages, strict=True) if of == row]
        objects = sum(inuse for _, inuse in mine)
        made.begin(shape, len(mine) * shape.objs, objects)
        for address, inuse in mine:
            made.zspage(address, shape, inuse)
        made.end(shape, len(mine) * shape.objs, objects)
    return made.words


def find(words: Words, kind: int, number: int = 0) -> int:
    """Return the row of the so-many-th record of a kind, counted from the end if below zero."""
    return int(np.flatnonzero(wire.kinds(words) == kind)[number])
