"""The scanner's view of the true allocator, step by step, while others go on.

It walks lists as ``bpf/scan.bpf.c`` does: no lock, each zspage believed only if
it stands where the walk came from, a list that changed walked again. Each step
is a moment at which anything may happen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.true_allocator import GROUPS, Allocator, Record, SizeClass, Zspage
from zpobs import wire

ATTEMPTS = 8


@dataclass
class Walk:
    """What a test may compare a class's walk with: the zspages on lists before and after."""

    before: set[Zspage]
    after: set[Zspage] = field(default_factory=set)
    stats: tuple[int, ...] = ()


class TrueScan:
    """One scan of a pool; ``records`` grow as :meth:`steps` goes on."""

    def __init__(self, pool: Allocator, *, only: int | None = None) -> None:
        self.pool = pool
        self.records: list[Record] = []
        self.walks: dict[int, Walk] = {}
        self._only = only
        self._torn = 0

    def steps(self) -> Iterator[None]:
        """Walk all classes, or the one that was asked for, yielding between steps."""
        begin_ns = self.pool.machine.tick()
        for each in self.pool.own_classes():
            if self._only in (None, each.index):
                yield from self._walk_class(each, self.pool.machine.tick())
            if self.pool not in self.pool.machine.pools:
                return
        pages = sum(each.size_class.pages for each in self.pool.zspages)
        objects = sum(each.stats()[-1] for each in self.pool.own_classes())
        words = (pages, self.pool.pages_freed, begin_ns, objects)
        self._tell(self._head(wire.KIND_SCANNED), self.pool.machine.tick(), *words)

    def run(self) -> list[Record]:
        """Do the whole scan at one go; return its records."""
        for _ in self.steps():
            pass
        return self.records

    def _walk_class(self, each: SizeClass, begin_ns: int) -> Iterator[None]:
        self._torn = 0
        stats = each.stats()
        geometry = each.size | each.objs << 32 | each.pages << 48
        self._tell(self._head(wire.KIND_SCAN_BEGIN), begin_ns, each.index, geometry, *stats[-2:])
        self.walks[each.index] = walk = Walk(self._zspages(each))
        walked, objects = [], 0
        if each.met:
            yield
        for group in range(GROUPS):
            seen: list[int] = []
            yield from self._walk_list(each, group, seen)
            walked.append(len(seen))
            objects += sum(seen)
        now = each.stats()
        capacity = sum(walked) * each.objs
        steady = not self._torn and now == stats == (*walked, capacity, objects)
        head = self._head(wire.KIND_SCAN_END, wire.FLAG_STEADY if steady else 0)
        self._tell(head, self.pool.machine.tick(), each.index, begin_ns, *now[-2:])
        walk.after, walk.stats = self._zspages(each), now

    def _walk_list(self, each: SizeClass, group: int, seen: list[int]) -> Iterator[None]:
        for _ in range(ATTEMPTS):
            seen.clear()
            came_from: Zspage | None = None
            pointer_ns = self.pool.machine.tick()
            node = self._next(each, group, None)
            while node is not None:
                yield
                now_ns = self.pool.machine.tick()
                if not self._stands(each, group, came_from, node):
                    break
                self._tell_zspage(node, pointer_ns)
                seen.append(node.inuse)
                came_from, pointer_ns = node, now_ns
                node = self._next(each, group, node)
            if node is None and (came_from is None or came_from not in self.pool.spliced):
                return
        self._torn += 1

    def _next(self, each: SizeClass, group: int, node: Zspage | None) -> Zspage | None:
        # A deferred free keeps what it took off a list linked as it was.
        for line in (each.lists[group], self.pool.spliced):
            if node is None or node in line:
                return next(iter(line[0 if node is None else line.index(node) + 1 :]), None)
        return None

    def _stands(self, each: SizeClass, group: int, came_from: Zspage | None, node: Zspage) -> bool:
        if node.size_class is not each or node.fullness != group:
            return False
        for line in (each.lists[group], self.pool.spliced):
            if node in line:
                at = line.index(node)
                # The first one spliced points back to a head that is not the list's.
                first = None if line is each.lists[group] else node
                return came_from is (line[at - 1] if at else first)
        return False

    def _tell_zspage(self, zspage: Zspage, time_ns: int) -> None:
        flags = wire.FLAG_SCANNED | (wire.FLAG_HUGE if zspage.huge else 0)
        flags |= wire.FLAG_LOCKED if zspage.locked or zspage.moving else 0
        pages = len(zspage.frames)
        head = self._head(wire.KIND_STATE, flags, zspage.fullness, pages)
        words = (zspage.word3(), zspage.size_class.index, 0, 0)
        self.records.append((head, time_ns, zspage.address, *words))
        for first in range(0, pages, wire.FRAMES_PER_RECORD):
            part = (*zspage.frames[first : first + wire.FRAMES_PER_RECORD], 0, 0, 0)[:4]
            head = self._head(wire.KIND_FRAMES, 0, first, pages)
            self.records.append((head, time_ns, zspage.address, *part))

    def _zspages(self, each: SizeClass) -> set[Zspage]:
        return {zspage for line in each.lists for zspage in line}

    def _head(self, kind: int, flags: int = 0, a: int = 0, b: int = 0) -> int:
        return wire.head(kind, flags=flags, a=a, b=b, serial=self.pool.serial)

    def _tell(self, head: int, time_ns: int, *words: int) -> None:
        self.records.append((head, time_ns, self.pool.address, *(*words, 0, 0, 0, 0)[:4]))
