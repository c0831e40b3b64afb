"""A small true allocator: zsmalloc's behaviour in plain Python, with the probes' view of it.

It places objects as the kernel does, step for step: the zspage of the fullest
group that is not full and newest on its list, the free slot freed last, classes
from the largest down when compacting. The same operations in the same order
therefore give the same zspages; they are told apart by order of birth.

What the kernel does while it holds no class lock goes in steps, :meth:`Allocator.compacting`,
:meth:`Allocator.migrating` and :meth:`Allocator.deferring`: between two of them anything else may
happen. An allocation that needs pages lets :attr:`Machine.reclaim` run before it gets them.

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
    """What pools share: a clock, addresses, page frames, and the stream of records.

    The clock goes in steps of ``step_ns``: with long ones many records have the same time.
    """

    def __init__(self, seed: int = 0, *, step_ns: int = 1) -> None:
        self.random = random.Random(seed)
        self.step_ns = step_ns
        self.now_ns = 1_000_000_000
        self.records: list[Record] = []
        self.pools: list[Allocator] = []
        self.lost = 0
        # How often the kernel skips a run of a probe that tells of a zspage or of a deferred free,
        # and how often it did. Counters are not short of it: zspages are what tests compare.
        self.skipping: float = 0
        self.missed_runs = 0
        # What others do meanwhile, called at moments inside operations; it may only look.
        self.meanwhile: Callable[[], None] = lambda: None
        # What getting a page may have to do first: any operation, in any pool.
        self.reclaim: Callable[[], None] = lambda: None
        self._serial = 0
        self._free_addresses: list[int] = []
        self._slabs = 0
        self._frames = 0x1000

    def tick(self) -> int:
        """Let a moment pass; return the time."""
        self.now_ns += self.random.randint(1, 200)
        return self.now_ns - self.now_ns % self.step_ns

    def probe_runs(self) -> bool:
        """Let a probe run, or skip the run as the kernel may; return whether it ran."""
        if self.skipping and self.random.random() < self.skipping:
            self.missed_runs += 1
            return False
        return True

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
            missed_runs=self.missed_runs,
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
    # Pages that somebody holds locked, until a deferred free has waited for them.
    locked: set[int] = field(default_factory=set)
    # Pages that a migration holds locked.
    moving: set[int] = field(default_factory=set)
    # Somebody reads an object: nothing is moved out of it meanwhile.
    read: bool = False
    # When its state was told last.
    told_ns: int = 0

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
        # Whether a deferred free is at work, when its beginning was seen, and what was freed:
        # addresses, each with the time at which it was told to be empty.
        self.deferring_now = False
        self.deferred_begin_ns = 0
        self.freed_untold: dict[int, int] = {}
        self.compacting_now = False
        self.failures = self.migrations = self.migration_failures = 0
        self.compactions = self.pages_freed = 0
        self._births = 0
        self._handles = 0
        self._free_handles: list[int] = []
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
        handle = self._take_handle()
        self._place(zspage, handle)
        size_class.allocs += 1
        size_class.met = True
        if newborn:
            zspage.fullness = size_class.group(zspage)
            if time_ns := self._tell_state(zspage, newborn=True):
                for _ in self._tell_frames(zspage, time_ns):
                    pass
            self.machine.meanwhile()
            size_class.insert(zspage)
            size_class.capacity += size_class.objs
            size_class.used += 1
        else:
            self.machine.meanwhile()
            size_class.used += 1
            self._fix_fullness(zspage)
        return handle

    def free(self, handle: int) -> None:
        """Free an object; an empty zspage goes too, unless one of its pages is locked."""
        zspage, slot = self.handles.pop(handle)
        self._free_handles.append(handle)
        del zspage.objects[slot]
        zspage.free_slots.append(slot)
        zspage.size_class.frees += 1
        zspage.size_class.used -= 1
        self.machine.meanwhile()
        self._fix_fullness(zspage)
        if zspage.inuse == 0 and not zspage.locked and not zspage.moving:
            self._bury(zspage)

    def compact(self, trigger: int = wire.TRIGGER_CALL) -> int:
        """Compact all classes at one go; return the pages that counted as freed."""
        freed = self.pages_freed
        for _ in self.compacting(trigger=trigger):
            pass
        return self.pages_freed - freed

    def compacting(
        self, contended: Callable[[], bool] = lambda: False, trigger: int = wire.TRIGGER_CALL
    ) -> Iterator[None]:
        """Compact all classes, largest first; nothing if somebody does already.

        ``contended`` tells, at the end of each round, whether others want the lock.
        """
        if self.compacting_now:
            return
        self.compacting_now = True
        begin_ns = self.machine.tick()
        head = self._head(wire.KIND_COMPACT_BEGIN, a=trigger)
        self.machine.emit(head, begin_ns, self.address, 0, 0, begin_ns)
        moved, freed, told = [0], [0], 0
        for each in reversed(self.own_classes()):
            before, class_begin_ns = (moved[0], freed[0]), self.machine.tick()
            yield from self._compact_class(each, contended, moved, freed)
            moves, pages = moved[0] - before[0], freed[0] - before[1]
            if moves or pages:
                told += 1
                head = self._head(wire.KIND_COMPACT_CLASS, a=trigger)
                words = (each.index, moves | pages << 32, class_begin_ns, begin_ns)
                self.machine.emit(head, self.machine.tick(), self.address, *words)
        self.compactions += 1
        self.pages_freed += freed[0]
        head = self._head(wire.KIND_COMPACT_END, a=trigger)
        words = (moved[0], freed[0], begin_ns, told)
        self.machine.emit(head, self.machine.tick(), self.address, *words)
        self.compacting_now = False

    def migrate(self, zspage: Zspage, page: int, *, busy: bool = False) -> None:
        """Move one page of a zspage to another frame; ``busy``: a reader holds it."""
        for _ in self.migrating(zspage, page, busy=busy):
            pass

    def migrating(self, zspage: Zspage, page: int, *, busy: bool = False) -> Iterator[None]:
        """Isolate a page, lock it, move it, and tell of it; others may run in between.

        The zspage can die before its page is locked. Then the kernel answers that all
        went well, and nothing moved.
        """
        yield
        if zspage not in self.zspages or page in zspage.moving:
            return
        zspage.moving.add(page)
        yield
        old, new = zspage.frames[page], self.machine.take_frame()
        if busy or zspage.read:
            self.migration_failures += 1
            yield from self._tell_migration(zspage, old, new, -errno.EBUSY)
        else:
            zspage.frames[page] = new
            yield
            # The class lock is free: other pages of the chain may be replaced while this tells.
            self.migrations += 1
            yield from self._tell_migration(zspage, old, new, 0)
        zspage.moving.remove(page)

    def deferring(self) -> Iterator[None]:
        """Free the empty zspages for which page locks were waited for; one worker at a time."""
        if self.deferring_now:
            return
        self.deferring_now = True
        # It had to be woken, which takes longer than a step of any clock.
        self.machine.now_ns += self.machine.step_ns
        self.deferred_begin_ns = self.machine.tick()
        for size_class in self.own_classes():
            if size_class.lists[0]:
                yield
                self.spliced += size_class.lists[0]
                size_class.spliced += len(size_class.lists[0])
                size_class.lists[0] = []
        while self.spliced:
            yield
            if not self.spliced[0].moving:
                self._free_spliced()
        yield
        # Its return is when a probe can tell of it, if it saw the beginning.
        if self.deferred_begin_ns and self.machine.probe_runs():
            head = self._head(wire.KIND_DEFERRED_FREE)
            self.machine.emit(head, self.machine.tick(), self.address, self.deferred_begin_ns)
            # What was empty later is told by the next run, which whoever emptied it asked for.
            for address, empty_ns in list(self.freed_untold.items()):
                if empty_ns < self.deferred_begin_ns:
                    del self.freed_untold[address]
        self.deferred_begin_ns = 0
        self.deferring_now = False

    def _free_spliced(self) -> None:
        zspage = self.spliced[0]
        zspage.locked.clear()
        zspage.size_class.spliced -= 1
        del self.spliced[0]
        self.freed_untold[zspage.address] = zspage.told_ns
        self._forget(zspage)
        self.machine.meanwhile()

    def run_deferred(self) -> None:
        """Do a whole deferred free at once."""
        for _ in self.deferring():
            pass

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
        address = self.machine.take_address()
        # No lock is held. Whatever gets room meanwhile, this makes a zspage.
        self.machine.reclaim()
        self._births += 1
        zspage = Zspage(
            birth=self._births,
            address=address,
            size_class=size_class,
            frames=[self.machine.take_frame() for _ in range(size_class.pages)],
            free_slots=list(reversed(range(size_class.objs))),
        )
        self.zspages[zspage] = None
        return zspage

    def _take_handle(self) -> int:
        if self._free_handles:
            return self._free_handles.pop()
        self._handles += 1
        return self._handles

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
        if self.machine.probe_runs():
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

    def _compact_class(
        self,
        size_class: SizeClass,
        contended: Callable[[], bool],
        moved: list[int],
        freed: list[int],
    ) -> Iterator[None]:
        """Compact a class, yielding where its lock is dropped; add to ``moved`` and ``freed``."""
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
            if source.read:
                self._putback(source)
                break
            moved[0] += self._move_objects(source, target)
            self.machine.meanwhile()
            self._putback(source)
            self.machine.meanwhile()
            if source.inuse == 0:
                freed[0] += size_class.pages
                if not source.locked and not source.moving:
                    self._bury(source)
            if target.inuse == size_class.objs or contended():
                self._putback(target)
                target = None
                yield
        if target is not None:
            self._putback(target)
        if size_class.met:
            yield

    def _move_objects(self, source: Zspage, target: Zspage) -> int:
        moved = 0
        for slot in sorted(source.objects):
            handle = source.objects.pop(slot)
            source.free_slots.append(slot)
            self._place(target, handle)
            moved += 1
            if target.inuse == target.size_class.objs:
                break
        source.size_class.moves += moved
        return moved

    def _tell_state(self, zspage: Zspage, *, newborn: bool = False) -> int:
        """Tell a zspage as it is; return when, 0 if that run was skipped."""
        time_ns = zspage.told_ns = self.machine.tick()
        if not self.machine.probe_runs():
            return 0
        flags = (wire.FLAG_HUGE if zspage.huge else 0) | (wire.FLAG_NEWBORN if newborn else 0)
        pages = zspage.size_class.pages if newborn else 0
        head = self._head(wire.KIND_STATE, flags=flags, a=zspage.fullness, b=pages)
        self.machine.emit(head, time_ns, zspage.address, zspage.word3(), zspage.size_class.index)
        return time_ns

    def _tell_migration(self, zspage: Zspage, old: int, new: int, error: int) -> Iterator[None]:
        """Tell how it ended and, on success, the chain as it is, of the time before this looked."""
        if not self.machine.probe_runs():
            return
        time_ns = self.machine.tick()
        head = self._head(wire.KIND_MIGRATION)
        self.machine.emit(head, self.machine.tick(), zspage.address, old, new, error)
        if not error:
            yield from self._tell_frames(zspage, time_ns)

    def _tell_frames(self, zspage: Zspage, time_ns: int) -> Iterator[None]:
        """Tell the chain as it is, four pages a record; each record is a step."""
        pages = len(zspage.frames)
        for first in range(0, pages, wire.FRAMES_PER_RECORD):
            head = self._head(wire.KIND_FRAMES, a=first, b=pages)
            part = zspage.frames[first : first + wire.FRAMES_PER_RECORD]
            self.machine.emit(head, time_ns, zspage.address, *part)
            yield
