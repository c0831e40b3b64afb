"""What the model's tests share: a kernel, random operations, and answers to compare."""

from __future__ import annotations

import contextlib
import random

from tests.plain_model import Listed
from tests.true_allocator import Allocator, Machine, Record, RefusedError, as_words
from zpobs.model import Coverage, ShadowModel
from zpobs.snapshot import Kernel, Snapshot

KERNEL = Kernel("7.3", 4096, 8, "zpdesc", 12)
FULL_COVERAGE = Coverage(hooks=12)
# Few sizes, so that zspages fill, thin out and compact; long chains, the huge class.
SIZES = (2000, 2440, 3100, 3400, 4096, 500)


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
    """Random operations on a machine, steered by numbers from outside."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.deferring: Allocator | None = None
        self.stage = 0

    def step(self, operation: int, pick: int) -> None:
        """Do one operation; both numbers can be anything."""
        pools = self.machine.pools
        if not pools:
            Allocator(self.machine, f"zram{pick % 3}")
            return
        pool = pools[pick % len(pools)]
        operation %= 100
        if operation < 40:
            size = SIZES[pick // 7 % len(SIZES)]
            # Now and then many of one size at once, so that there is something to compact.
            for _ in range(20 if operation < 4 else 1):
                with contextlib.suppress(RefusedError):
                    pool.malloc(size, no_pages=pick % 50 == 0)
        elif operation < 82:
            # And now and then every third object, so that zspages thin out.
            step = 3 if operation < 44 else max(len(pool.handles), 1)
            for handle in list(pool.handles)[pick // 3 % step :: step]:
                pool.free(handle)
        elif operation < 92:
            self._move_pages(pool, operation, pick)
        elif operation < 95:
            pool.compact()
        elif operation < 98 or pick % 4 or pool is self.deferring:
            self._defer(pool)
        elif len(pools) < 3 and pick % 8:
            Allocator(self.machine, f"zswap{pick % 16:x}")
        else:
            pool.destroy()

    def _move_pages(self, pool: Allocator, operation: int, pick: int) -> None:
        zspages = [each for each in pool.zspages if each not in pool.spliced]
        if not zspages:
            return
        zspage = zspages[pick // 3 % len(zspages)]
        page = pick // 11 % len(zspage.frames)
        if operation < 86:
            pool.migrate(zspage, page, busy=pick % 5 == 0)
        else:
            zspage.locked ^= {page}

    def _defer(self, pool: Allocator) -> None:
        """Go one stage further in a deferred free, others running in between."""
        worker = self.deferring or pool
        self.deferring = worker
        (worker.splice_deferred, worker.free_deferred, worker.end_deferred)[self.stage]()
        self.stage = (self.stage + 1) % 3
        if self.stage == 0:
            self.deferring = None

    def settle(self) -> None:
        """Let pending deferred frees run, as the kernel's worker does."""
        while self.deferring is not None:
            self._defer(self.deferring)
        for pool in self.machine.pools:
            pool.run_deferred()
