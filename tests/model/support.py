"""What the model's tests share: a kernel, random operations, and answers to compare."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

from hypothesis import settings

from tests.delivery import as_words
from tests.plain_model import Listed
from tests.true_allocator import Allocator, Machine, Record, RefusedError, Zspage
from zpobs.model import Coverage, ShadowModel
from zpobs.snapshot import Kernel, Snapshot

KERNEL = Kernel("7.3", 4096, 8, "zpdesc", 12)
FULL_COVERAGE = Coverage(hooks=12)
# Few sizes, so that zspages fill, thin out and compact; long chains, the huge class, and one of
# which so many fit that zspages come into every fullness group.
SIZES = (2000, 2440, 3100, 3400, 4096, 500, 264)


def examples(count: int) -> int:
    """Return how many examples a property gets: so many, times what the Hypothesis profile asks.

    That of the usual run asks for 100.
    """
    return max(count * settings().max_examples // 100, 1)


def make_model() -> ShadowModel:
    return ShadowModel(KERNEL, FULL_COVERAGE)


def snapshot(model: ShadowModel, now_ns: int = 10**12) -> Snapshot:
    return model.snapshot(time_ns=now_ns, mono_ns=now_ns, zspages=True)


def listed(shot: Snapshot) -> Listed:
    """Return a snapshot's zspages as :meth:`PlainModel.live` does."""
    out: Listed = {}
    for pool in shot.pools:
        table = pool.zspage_list
        assert table is not None
        frames, start = table.frames.tolist(), table.frame_start.tolist()
        columns = (
            table.class_index,
            table.inuse,
            table.fullness,
            table.huge,
            table.first_seen_ns,
            table.last_seen_ns,
        )
        rows = zip(*(column.tolist() for column in columns), strict=True)
        out[pool.id] = {
            address: (*row, frames[begin:end])
            for address, row, begin, end in zip(
                table.address.tolist(), rows, start, start[1:], strict=False
            )
        }
    return out


def truth(machine: Machine) -> Listed:
    """Return what is so, without the times that only observers know."""
    return {
        pool.serial: {
            zspage.address: (
                zspage.size_class.index,
                zspage.inuse,
                zspage.fullness,
                zspage.huge,
                zspage.frames,
            )
            for zspage in pool.zspages
        }
        for pool in machine.pools
    }


def without_times(listing: Listed) -> Listed:
    return {
        serial: {address: (*row[:4], row[6]) for address, row in zspages.items()}
        for serial, zspages in listing.items()
    }


def feed(model: ShadowModel, records: list[Record], rng: random.Random, batch: int = 200) -> None:
    """Apply records in batches of random length."""
    at = 0
    while at < len(records):
        length = rng.randint(1, batch)
        model.apply(as_words(records[at : at + length]))
        at += length


class Workload:
    """Random operations on a machine, steered by numbers from outside.

    Compactions, migrations and deferred frees go on in steps, several at a time,
    and a page allocation does some of everything before it gets its page.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.reclaim = self._reclaim
        self._under_way: list[tuple[Allocator, Iterator[None]]] = []
        self._reclaims = 0
        # How often page allocations had to reclaim.
        self.reclaimed = 0

    def step(self, operation: int, pick: int) -> None:
        """Do one operation; both numbers can be anything."""
        pools = self.machine.pools
        if not pools:
            Allocator(self.machine, f"zram{pick % 3}")
            return
        operation %= 100
        if operation >= 97:
            self._pools_come_and_go(pick)
        elif operation >= 88:
            self._go_on(pick)
        else:
            self._work(pools[pick % len(pools)], operation, pick)

    def _work(self, pool: Allocator, operation: int, pick: int) -> None:
        if operation < 38:
            size = SIZES[pick // 7 % len(SIZES)]
            # Now and then many of one size at once, so that there is something to compact.
            for _ in range(20 if operation < 4 else 1):
                with contextlib.suppress(RefusedError):
                    pool.malloc(size, no_pages=pick % 50 == 0)
        elif operation < 76:
            # And now and then every third object, so that zspages thin out.
            step = 3 if operation < 42 else max(len(pool.handles), 1)
            for handle in list(pool.handles)[pick // 3 % step :: step]:
                # What frees a page has to be got for may free others.
                if handle in pool.handles:
                    pool.free(handle)
        elif operation < 84:
            self._touch_pages(pool, operation, pick)
        else:
            begin = pool.deferring() if operation >= 86 else pool.compacting(self._contended)
            self._begin(pool, begin, pick)

    def _touch_pages(self, pool: Allocator, operation: int, pick: int) -> None:
        zspages = list(pool.zspages)
        if not zspages:
            return
        zspage = zspages[pick // 3 % len(zspages)]
        page = pick // 11 % len(zspage.frames)
        if operation < 80:
            # Two pages of one zspage at a time, too.
            for each in {page, pick // 17 % len(zspage.frames)}:
                self._begin(pool, pool.migrating(zspage, each, busy=pick % 5 == 0), pick)
        elif operation < 83:
            zspage.locked ^= {page}
            if pick % 4:
                self._die_locked(pool, zspage, pick)
        else:
            zspage.read = not zspage.read

    def _die_locked(self, pool: Allocator, zspage: Zspage, pick: int) -> None:
        """Free all objects of a zspage that may have a locked page, and wake the worker."""
        for handle in list(zspage.objects.values()):
            pool.free(handle)
        # It may free all that it finds before anything else happens.
        self._begin(pool, pool.deferring(), pick, steps=pick % 20)

    def _begin(
        self, pool: Allocator, task: Iterator[None], pick: int, *, steps: int | None = None
    ) -> None:
        """Begin something that goes on in steps: some of them now, the others sometime."""
        for _ in range(pick // 13 % 4 if steps is None else steps):
            if next(task, self) is self:
                return
        self._under_way.append((pool, task))

    def _go_on(self, pick: int) -> None:
        """Do some steps of something that is under way, if anything is."""
        if self._under_way:
            pool, task = self._under_way.pop(pick % len(self._under_way))
            self._begin(pool, task, pick + 13)

    def _pools_come_and_go(self, pick: int) -> None:
        pools = self.machine.pools
        if len(pools) < 3 and pick % 8:
            Allocator(self.machine, f"zswap{pick % 16:x}")
        elif not self._reclaims and pick % 4 == 0:
            gone = pools[pick % len(pools)]
            # Its owner has no operation on it any more, and its worker is waited for.
            self._finish(gone)
            gone.destroy()

    def _reclaim(self) -> None:
        chance = self.machine.random
        if self._reclaims == 2 or chance.random() < 0.7:
            return
        self._reclaims += 1
        self.reclaimed += 1
        for _ in range(chance.randint(1, 4)):
            self.step(chance.randrange(100), chance.randrange(10_000))
        self._reclaims -= 1

    def _contended(self) -> bool:
        return self.machine.random.random() < 0.3

    def _finish(self, pool: Allocator) -> None:
        mine = [task for each, task in self._under_way if each is pool]
        self._under_way = [each for each in self._under_way if each[0] is not pool]
        while mine:
            # In turn: a deferred free waits for migrations.
            mine = [task for task in mine if next(task, self) is not self]

    def settle(self) -> None:
        """Let all that is under way end, and pending deferred frees run as the kernel's worker."""
        for pool in self.machine.pools:
            self._finish(pool)
            for zspage in pool.zspages:
                zspage.read = False
            pool.run_deferred()
