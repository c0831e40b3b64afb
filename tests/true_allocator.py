"""A small true allocator: zsmalloc's behaviour in plain Python, with the probes' view of it.

It places objects as the kernel does, step for step: the zspage of the fullest
group that is not full and newest on its list, the free slot freed last, classes
from the largest down when compacting. The same operations in the same order
therefore give the same zspages; they are told apart by order of birth.

It shares no code with the model, only the numbers of the wire format.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from zpobs import wire
from zpobs.model.inputs import CountersReading, PoolReading

HANDLE_BYTES = 8
MIN_BYTES = 32
GROUPS = 12
FULL = 11
ZSPAGE_STRIDE = 56
ZSPAGES_PER_SLAB = 73

Record = tuple[int, ...]


class RefusedError(Exception):
    """An allocation that failed, with its negative errno."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Machine:
    """What pools share: a clock, addresses, page frames, and the stream of records."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.now_ns = 1_000_000_000
        self.records: list[Record] = []
        self.pools: list[Allocator] = []
        self.lost = 0
        # What others do meanwhile, called at moments inside operations; it may only look.
        self.meanwhile: Callable[[], None] = lambda: None
        self._serial = 0
        self._free_addresses: list[int] = []
        self._slabs = 0
        self._frames = 0x1000

    def tick(self) -> int:
        """Let a moment pass; return the time."""
        self.now_ns += self.random.randint(1, 200)
        return self.now_ns

    def emit(self, head: int, time_ns: int, subject: int, *words: int) -> None:
        """Append a record as a probe would."""
        padded = (*words, 0, 0, 0, 0)[:4]
        self.records.append((head, time_ns, subject, *(word % (1 << 64) for word in padded)))

    def next_serial(self) -> int:
        self._serial += 1
        return self._serial

    def take_frame(self) -> int:
        self._frames += self.random.randint(1, 3)
        return self._frames

    def take_address(self) -> int:
        """Allocate a zspage's own memory: mostly what was freed last, as slabs do."""
        if not self._free_addresses:
            base = 0xFFFF_8881_0000_0000 + self._slabs * 4096 * self.random.randint(1, 40)
            self._slabs += 1
            base += self._slabs << 24
            slots = range(ZSPAGES_PER_SLAB)
            self._free_addresses = [base + slot * ZSPAGE_STRIDE for slot in reversed(slots)]
        return self._free_addresses.pop()

    def give_address(self, address: int) -> None:
        self._free_addresses.append(address)

    def reading(self) -> CountersReading:
        """Read all counters at this instant."""
        return CountersReading(
            mono_ns=self.tick(),
            ring_full=self.lost,
            unpaired=0,
            missed_runs=0,
            untracked_pools=0,
            pools=tuple(pool.reading() for pool in self.pools),
        )


@dataclass(eq=False)
class Zspage:
    birth: int
    address: int
    size_class: SizeClass
    frames: list[int]
    free_slots: list[int]
    fullness: int = 0
    objects: dict[int, int] = field(default_factory=dict)
    locked: set[int] = field(default_factory=set)

    @property
    def inuse(self) -> int:
        return len(self.objects)

    @property
    def huge(self) -> bool:
        return self.size_class.objs == 1 and self.size_class.pages == 1

    def word3(self) -> int:
        """Return what a STATE's word 3 tells: objects, first free slot."""
        return self.inuse | (self.free_slots[-1] if self.free_slots else 0xFFFFFFFF) << 32


class SizeClass:
    """One size class: its geometry, its fullness lists (newest first), its counters."""

    def __init__(self, index: int, size: int, pages: int, objs: int) -> None:
        self.index = index
        self.size = size
        self.pages = pages
        self.objs = objs
        self.lists: list[list[Zspage]] = [[] for _ in range(GROUPS)]
        self.capacity = 0
        self.used = 0
        # Empty ones taken off their list by a deferred free count until they are freed.
        self.spliced = 0
        self.allocs = self.frees = self.moves = 0
        self.met = False

    def group(self, zspage: Zspage) -> int:
        if zspage.inuse == 0:
            return 0
        if zspage.inuse == self.objs:
            return FULL
        return 100 * zspage.inuse // self.objs // 10 + 1

    def insert(self, zspage: Zspage) -> None:
        zspage.fullness = self.group(zspage)
        self.lists[zspage.fullness].insert(0, zspage)

    def remove(self, zspage: Zspage) -> None:
        self.lists[zspage.fullness].remove(zspage)

    def stats(self) -> tuple[int, ...]:
        """Return the class's own statistics: zspages in each list, capacity, objects."""
        counts = [len(each) for each in self.lists]
        counts[0] += self.spliced
        return (*counts, self.capacity, self.used)

    def first(self, groups: Iterable[int]) -> Zspage | None:
        return next((self.lists[group][0] for group in groups if self.lists[group]), None)

    def spare_pages(self) -> int:
        if self.capacity <= self.used:
            return 0
        return (self.capacity - self.used) // self.objs * self.pages


def size_classes(page_size: int, chain: int) -> list[SizeClass]:
    """Return the class of each of the size steps; steps that merge share one."""
    step = page_size >> 8
    count = -(-(page_size - MIN_BYTES) // step) + 1
    out: list[SizeClass] = []
    for index in reversed(range(count)):
        size = min(MIN_BYTES + index * step, page_size)
        pages = 1
        if size & (size - 1):
            pages = min(range(1, chain + 1), key=lambda n: (n * page_size % size, n))
        objs = pages * page_size // size
        if out and (out[-1].pages, out[-1].objs) == (pages, objs):
            out.append(out[-1])
        else:
            out.append(SizeClass(index, size, pages, objs))
    return out[::-1]


class Allocator:
    """One zsmalloc pool."""

    def __init__(
        self,
        machine: Machine | None = None,
        name: str = "zram0",
        *,
        page_size: int = 4096,
        chain: int = 8,
        late: bool = False,
    ) -> None:
        self.machine = machine or Machine()
        self.name = name
        self.page_size = page_size
        self.classes = size_classes(page_size, chain)
        self.serial = self.machine.next_serial()
        # A pool's address comes back with another pool: serials tell them apart.
        self.address = 0xFFFF_8880_4000_0000 + len(self.machine.pools) * 4096
        self.late = late
        self.handles: dict[int, tuple[Zspage, int]] = {}
        self.zspages: dict[Zspage, None] = {}
        self.spliced: list[Zspage] = []
        self.deferred_begin_ns = 0
        self.failures = self.migrations = self.migration_failures = 0
        self.compactions = self.pages_freed = 0
        self._births = 0
        self._handles = 0
        self._names: dict[Hashable, int] = {}
        self.machine.pools.append(self)
        self.since_ns = self.machine.tick()
        text = name.encode().ljust(wire.NAME_BYTES, b"\0")
        words = [int.from_bytes(text[at : at + 8], "little") for at in range(0, 32, 8)]
        flags = wire.FLAG_LATE if late else 0
        head = self._head(wire.KIND_POOL_CREATED, flags=flags)
        self.machine.emit(head, self.since_ns, self.address, *words)

    # -- operations ---------------------------------------------------------

    def malloc(self, size: int, *, no_pages: bool = False) -> int:
        """Allocate ``size`` bytes; return a handle. ``no_pages``: a new zspage cannot be had."""
        if not 0 < size <= self.page_size:
            raise self._refuse(size, -errno.EINVAL if size <= 0 else -errno.ENOSPC)
        step = self.page_size >> 8
        slot = max(-(-(size + HANDLE_BYTES - MIN_BYTES) // step), 0)
        size_class = self.classes[min(slot, len(self.classes) - 1)]
        zspage = size_class.first(range(FULL - 1, -1, -1))
        newborn = zspage is None
        if zspage is None:
            if no_pages:
                raise self._refuse(size, -errno.ENOMEM)
            zspage = self._new_zspage(size_class)
        self._handles += 1
        self._place(zspage, self._handles)
        size_class.allocs += 1
        size_class.met = True
        if newborn:
            zspage.fullness = size_class.group(zspage)
            time_ns = self._tell_state(zspage, newborn=True)
            self._tell_frames(zspage, time_ns)
            self.machine.meanwhile()
            size_class.insert(zspage)
            size_class.capacity += size_class.objs
            size_class.used += 1
        else:
            self.machine.meanwhile()
            size_class.used += 1
            self._fix_fullness(zspage)
        return self._handles

    def free(self, handle: int) -> None:
        """Free an object; an empty zspage goes too, unless one of its pages is locked."""
        zspage, slot = self.handles.pop(handle)
        del zspage.objects[slot]
        zspage.free_slots.append(slot)
        zspage.size_class.frees += 1
        zspage.size_class.used -= 1
        self.machine.meanwhile()
        self._fix_fullness(zspage)
        if zspage.inuse == 0 and not zspage.locked:
            self._bury(zspage)

    def compact(self) -> int:
        """Compact all classes, largest first; return the pages that counted as freed."""
        begin_ns = self.machine.tick()
        self.machine.emit(self._head(wire.KIND_COMPACT_BEGIN), begin_ns, self.address)
        moves = sum(each.moves for each in self.own_classes())
        freed = sum(self._compact_class(each) for each in reversed(self.own_classes()))
        moved = sum(each.moves for each in self.own_classes()) - moves
        self.compactions += 1
        self.pages_freed += freed
        head = self._head(wire.KIND_COMPACT_END)
        self.machine.emit(head, self.machine.tick(), self.address, moved, freed, begin_ns)
        return freed

    def migrate(self, zspage: Zspage, page: int, *, busy: bool = False) -> None:
        """Move one page of a zspage to another frame; ``busy``: a reader holds it."""
        old, new = zspage.frames[page], self.machine.take_frame()
        time_ns = self.machine.tick()
        head = self._head(wire.KIND_MIGRATION)
        if busy:
            self.migration_failures += 1
            self.machine.emit(head, time_ns, zspage.address, old, new, -errno.EBUSY)
            return
        self.migrations += 1
        zspage.frames[page] = new
        self._tell_frames(zspage, time_ns)
        self.machine.emit(head, self.machine.tick(), zspage.address, old, new, 0)

    def splice_deferred(self) -> None:
        """Begin the deferred free: take all empty zspages off their lists."""
        self.deferred_begin_ns = self.machine.tick()
        for size_class in self.own_classes():
            self.spliced += size_class.lists[0]
            size_class.spliced += len(size_class.lists[0])
            size_class.lists[0] = []

    def free_deferred(self) -> None:
        """Go on with the deferred free: give back what was taken off the lists."""
        for zspage in self.spliced:
            zspage.locked.clear()
            zspage.size_class.spliced -= 1
            self._forget(zspage)
            self.machine.meanwhile()
        self.spliced = []

    def end_deferred(self) -> None:
        """End the deferred free: its return is when a probe can tell of it."""
        head = self._head(wire.KIND_DEFERRED_FREE)
        self.machine.emit(head, self.machine.tick(), self.address, self.deferred_begin_ns)

    def run_deferred(self) -> None:
        """Do a whole deferred free at once."""
        self.splice_deferred()
        self.free_deferred()
        self.end_deferred()

    def destroy(self) -> None:
        """Destroy the pool; objects still in it are leaked, as the kernel leaks them."""
        self.machine.pools.remove(self)
        self.zspages.clear()
        head = self._head(wire.KIND_POOL_DESTROYED)
        self.machine.emit(head, self.machine.tick(), self.address)

    def replay(self, trace: Iterable[tuple[Hashable, ...]]) -> None:
        """Do recorded operations: ("malloc", size, name), ("free", name), ("compact",).

        Names are whatever the recorder called the objects; a name can be used again.
        """
        for operation, *arguments in trace:
            if operation == "malloc":
                size, name = arguments
                assert isinstance(size, int)
                self._names[name] = self.malloc(size)
            elif operation == "free":
                self.free(self._names.pop(arguments[0]))
            elif operation == "compact":
                self.compact()
            else:
                raise ValueError(f"no operation {operation!r}")

    # -- what is so ----------------------------------------------------------

    def own_classes(self) -> list[SizeClass]:
        """Return each class once, by rising index."""
        return [each for index, each in enumerate(self.classes) if each.index == index]

    def by_birth(self) -> Iterator[tuple[int, int, int, int, bool]]:
        """Yield (birth, class index, inuse, fullness, huge) of the live zspages."""
        for zspage in sorted(self.zspages, key=lambda each: each.birth):
            index = zspage.size_class.index
            yield zspage.birth, index, zspage.inuse, zspage.fullness, zspage.huge

    def reading(self) -> PoolReading:
        """Read this pool's counters."""
        words = np.zeros((len(self.classes), wire.CLASS_WORDS), dtype=np.uint64)
        for each in self.own_classes():
            geometry = each.size | each.objs << 32 | each.pages << 48 if each.met else 0
            words[each.index] = (each.allocs, each.frees, each.moves, geometry)
        pool = (self.failures, self.migrations, self.migration_failures)
        return PoolReading(
            serial=self.serial,
            address=self.address,
            name=self.name,
            since_mono_ns=self.since_ns,
            created=not self.late,
            class_counters=words,
            pool_counters=np.array([*pool, self.compactions, self.pages_freed], dtype=np.uint64),
        )

    # -- inside ----------------------------------------------------------------

    def _head(self, kind: int, *, flags: int = 0, a: int = 0, b: int = 0) -> int:
        return kind | flags << 8 | a << 16 | b << 24 | self.serial << 32

    def _refuse(self, size: int, code: int) -> RefusedError:
        self.failures += 1
        head = self._head(wire.KIND_ALLOC_FAILURE)
        self.machine.emit(head, self.machine.tick(), self.address, size, code)
        return RefusedError(code)

    def _new_zspage(self, size_class: SizeClass) -> Zspage:
        self._births += 1
        zspage = Zspage(
            birth=self._births,
            address=self.machine.take_address(),
            size_class=size_class,
            frames=[self.machine.take_frame() for _ in range(size_class.pages)],
            free_slots=list(reversed(range(size_class.objs))),
        )
        self.zspages[zspage] = None
        return zspage

    def _place(self, zspage: Zspage, handle: int) -> None:
        slot = zspage.free_slots.pop()
        zspage.objects[slot] = handle
        self.handles[handle] = (zspage, slot)

    def _fix_fullness(self, zspage: Zspage) -> None:
        size_class = zspage.size_class
        if size_class.group(zspage) != zspage.fullness:
            size_class.remove(zspage)
            size_class.insert(zspage)
        self._tell_state(zspage)

    def _putback(self, zspage: Zspage) -> None:
        zspage.size_class.insert(zspage)
        self._tell_state(zspage)

    def _bury(self, zspage: Zspage) -> None:
        head = self._head(wire.KIND_DEATH)
        index = zspage.size_class.index
        self.machine.emit(head, self.machine.tick(), zspage.address, 0, index)
        # Told when its last page is locked; it stands on its list a moment longer.
        self.machine.meanwhile()
        zspage.size_class.remove(zspage)
        self._forget(zspage)

    def _forget(self, zspage: Zspage) -> None:
        del self.zspages[zspage]
        zspage.size_class.capacity -= zspage.size_class.objs
        self.machine.give_address(zspage.address)

    def _compact_class(self, size_class: SizeClass) -> int:
        freed = 0
        target: Zspage | None = None
        while size_class.spare_pages():
            if target is None:
                target = size_class.first(range(FULL - 1, 0, -1))
                if target is None:
                    break
                size_class.remove(target)
            source = size_class.first(range(1, FULL))
            if source is None:
                break
            size_class.remove(source)
            self._move_objects(source, target)
            self.machine.meanwhile()
            self._putback(source)
            self.machine.meanwhile()
            if source.inuse == 0:
                freed += size_class.pages
                if not source.locked:
                    self._bury(source)
            if target.inuse == size_class.objs:
                self._putback(target)
                target = None
        if target is not None:
            self._putback(target)
        return freed

    def _move_objects(self, source: Zspage, target: Zspage) -> None:
        for slot in sorted(source.objects):
            handle = source.objects.pop(slot)
            source.free_slots.append(slot)
            self._place(target, handle)
            source.size_class.moves += 1
            if target.inuse == target.size_class.objs:
                break

    def _tell_state(self, zspage: Zspage, *, newborn: bool = False) -> int:
        time_ns = self.machine.tick()
        flags = (wire.FLAG_HUGE if zspage.huge else 0) | (wire.FLAG_NEWBORN if newborn else 0)
        pages = zspage.size_class.pages if newborn else 0
        head = self._head(wire.KIND_STATE, flags=flags, a=zspage.fullness, b=pages)
        self.machine.emit(head, time_ns, zspage.address, zspage.word3(), zspage.size_class.index)
        return time_ns

    def _tell_frames(self, zspage: Zspage, time_ns: int) -> None:
        pages = len(zspage.frames)
        for first in range(0, pages, wire.FRAMES_PER_RECORD):
            head = self._head(wire.KIND_FRAMES, a=first, b=pages)
            part = zspage.frames[first : first + wire.FRAMES_PER_RECORD]
            self.machine.emit(head, time_ns, zspage.address, *part)


def as_words(records: list[Record]) -> wire.Words:
    """Return records as a batch, shape (N, RECORD_WORDS)."""
    return np.array(records, dtype=np.uint64).reshape(-1, wire.RECORD_WORDS)


def deliver(
    records: list[Record],
    seed: int,
    *,
    loss: float = 0.0,
    duplicates: float = 0.0,
    reach: int = 0,
) -> tuple[list[Record], int]:
    """Return what arrives of ``records`` and how many were lost.

    Each record is lost with probability ``loss``, comes again with probability
    ``duplicates``, and overtakes at most ``reach`` others.
    """
    chance = random.Random(seed)
    arriving: list[tuple[float, int, Record]] = []
    lost = 0
    for at, record in enumerate(records):
        if chance.random() < loss:
            lost += 1
            continue
        copies = 2 if chance.random() < duplicates else 1
        for _ in range(copies):
            arriving.append((at + chance.random() * reach, at, record))
    return [record for _, _, record in sorted(arriving)], lost
