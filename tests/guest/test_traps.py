"""The traps of zsmalloc, met on a kernel: handled, and missed by probes that lack the handling.

A witness of the tests' own counts how often each trap was met, so nothing passes because
nothing happened. docs/traps.md lists them all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import random
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.comparison import Check, compare_health, compare_pool, equal, pool_named
from lab.witness import Witness
from lab.workload import Churn, ZramDevice
from tests import traps
from tests.traps import Hold, Mutant, TrapWitness
from zpobs.kernel import plan
from zpobs.kernel.plan import AttachForm
from zpobs.loaders import core
from zpobs.session import Session, open_session
from zpobs.sources import bpfmap
from zpobs.wishes import Wishes

BLKDISCARD = 0x1277
DROP_CACHES = Path("/proc/sys/vm/drop_caches")
SOFT_OFFLINE = Path("/sys/devices/system/memory/soft_offline_page")
PROVOKE_S = 60.0
RING_BYTES = 1 << 25

Made = dict[str, int]


@pytest.fixture
def trap_witness() -> Iterator[TrapWitness]:
    with TrapWitness() as witness:
        yield witness


@pytest.fixture
def met(trap_witness: TrapWitness) -> Callable[[], Made]:
    """Return what tells how often each trap was met in this test."""
    return trap_witness.met


@pytest.fixture
def device() -> Iterator[ZramDevice]:
    made = ZramDevice("64M")
    made.reset()
    yield made
    made.remove()


@contextlib.contextmanager
def watching(form: AttachForm, mutant: Mutant | None = None) -> Iterator[Session]:
    """Yield a session fed by probes alone, whole ones or a mutant's."""
    with pytest.MonkeyPatch.context() as patch:
        if mutant is not None:
            patch.setattr(core, "bpf_object", lambda _: mutant.object_file)
        wishes = Wishes(loader="core", attach=form, scan=False, ring_bytes=RING_BYTES)
        with open_session(wishes) as session:
            yield session


def meanwhile(session: Session, work: Callable[[], Any]) -> None:
    """Feed the model while work is done on another thread."""
    error: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as raised:
            error.append(raised)

    thread = threading.Thread(target=guarded)
    thread.start()
    while thread.is_alive():
        session.wait(time.monotonic() + 0.1)
    if error:
        raise error[0]


def wrong(session: Session, witness: Witness, device: ZramDevice, made: Made) -> list[Check]:
    """Return all in which the model, at rest, differs from the kernel."""
    while True:
        before = device.mm_stat()
        # A deferred free may still be on its way.
        time.sleep(0.5)
        frame = session.snapshot(zspages=True).to_json()
        kernel = witness.walk(witness.zram_pool(device.name))
        if before == device.mm_stat():
            break
    pool = pool_named(frame, device.name)
    checks = compare_health(frame) + compare_pool(pool, device.mm_stat(), kernel, made)
    if "migrations" in made:
        checks.append(
            equal("migrations", pool["counters"]["migrations"], made["migrations"], "witness")
        )
    return [check for check in checks if not check.passed]


class Turns:
    """Whole zspages that die while one of their pages is on its way to another frame.

    Every one of the first pages of the device fills a zspage of its own, so all of those die when
    they are discarded. Others, in longer chains, stay. Done above all other tasks of a CPU, among
    them the worker there that frees what waits for page locks: so an empty zspage can be picked
    again before that.
    """

    PAGES = 64

    def __init__(self, witness: Witness, device: ZramDevice, trap_witness: TrapWitness) -> None:
        self._kernel = witness
        self._device = device
        self._traps = trap_witness
        self._fd = os.open(f"/dev/{device.name}", os.O_RDWR | os.O_DIRECT)
        self._buffer = mmap.mmap(-1, self.PAGES * mmap.PAGESIZE)
        self.made = {"zs_malloc": 0, "zs_free": 0, "live_objects": 0}
        os.sched_setaffinity(0, {1})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        for at in range(0, len(self._buffer), mmap.PAGESIZE):
            self._buffer[at : at + 2400] = os.urandom(2400)
        self._write(len(self._buffer))
        self._buffer[:] = os.urandom(len(self._buffer))

    def fill(self) -> None:
        """Write the pages that fill a zspage each."""
        self._write(0)

    def move(self, pages: int) -> None:
        """Move so many pages, nobody being in the way."""
        frames = [pfn for chain in self._chains() for pfn in chain]
        for pfn in self._random.sample(frames, pages):
            move_away(pfn)

    def die_while_moved(self, where: Hold, *, again: bool = False) -> None:
        """Free them while a page is held up on its way; ``again``: fill before it goes on."""
        victim = self._random.choice([chain[0] for chain in self._chains() if len(chain) == 1])
        with self._traps.held_up(where) as await_it:
            mover = threading.Thread(target=elsewhere, args=(victim,))
            mover.start()
            await_it()
            self._discard(0)
            if again:
                self.fill()
        mover.join()
        # The worker gets its turn.
        time.sleep(0.05)

    _random = random.Random(7)

    def _chains(self) -> list[list[int]]:
        pool = self._kernel.walk(self._kernel.zram_pool(self._device.name))
        return [list(zspage.pfns) for zspage in pool.zspages]

    def _write(self, offset: int) -> None:
        assert os.pwrite(self._fd, self._buffer, offset) == len(self._buffer)
        self._count("zs_malloc", 1)

    def _discard(self, offset: int) -> None:
        fcntl.ioctl(self._fd, BLKDISCARD, struct.pack("QQ", offset, len(self._buffer)))
        self._count("zs_free", -1)

    def _count(self, what: str, change: int) -> None:
        self.made[what] += self.PAGES
        self.made["live_objects"] += self.PAGES * change

    def close(self) -> None:
        """Free the others too, nobody being in the way; nothing is written over what is gone."""
        self._discard(len(self._buffer))
        os.close(self._fd)


def elsewhere(pfn: int) -> None:
    """Have what a page frame holds moved, by this thread on a CPU of its own."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.sched_setaffinity(0, {0})
    move_away(pfn)


def move_away(pfn: int) -> None:
    """Have the kernel move what a page frame holds, as if the frame were no good any more."""
    # It answers with an error, too, if what it held has died meanwhile.
    with contextlib.suppress(OSError):
        SOFT_OFFLINE.write_text(f"{pfn * mmap.PAGESIZE:#x}")


def die_while_pages_move(
    witness: Witness, device: ZramDevice, trap_witness: TrapWitness, wanted: dict[str, int]
) -> Made:
    """Free and write whole zspages while their pages migrate, until the traps were met."""
    device.set_up("64M")
    before = trap_witness.met()

    def so_far() -> Made:
        counts = {trap: count - before[trap] for trap, count in trap_witness.met().items()}
        return counts | {"left to the worker": counts["locks refused"] - counts["empty picked"]}

    turns = Turns(witness, device, trap_witness)
    try:
        end_s = time.monotonic() + PROVOKE_S
        while time.monotonic() < end_s:
            turns.fill()
            turns.move(16)
            turns.die_while_moved(Hold.ISOLATED)
            turns.fill()
            turns.die_while_moved(Hold.LOCKED, again=True)
            turns.die_while_moved(Hold.LOCKED)
            if all(so_far()[trap] >= count for trap, count in wanted.items()):
                break
    finally:
        turns.close()
    print(so_far(), flush=True)
    assert all(so_far()[trap] >= count for trap, count in wanted.items()), "traps were not met"
    return turns.made | {"migrations": so_far()["moved"]}


# Mutants of one hook alone, which not all kernels have.
OF_A_HOOK = {
    traps.DEFERRED_UNTOLD: "trylock_zspage",
    traps.DEATH_UNTOLD: "trylock_zspage",
    traps.FREE_UNTOLD: "__free_zspage",
}


def params(*mutants: Mutant) -> list[Any]:
    """Return parameters; where a mutant's hook is not, it would be the probes as they are."""
    return [
        pytest.param(
            mutant,
            id=mutant.name,
            marks=[pytest.mark.needs(f"hook {OF_A_HOOK[mutant]}")] if mutant in OF_A_HOOK else [],
        )
        for mutant in mutants
    ]


# Mutants, and what must have been met.
MOVING = {
    traps.DEFERRED_UNTOLD: {"left to the worker": 2},
    traps.DEATH_UNTOLD: {},
    traps.FREE_UNTOLD: {},
    traps.FIRST_IS_BIRTH: {"empty picked": 1},
    traps.SUCCESS_IS_MOVE: {"dying migrated": 1},
}
ALL_OF_THEM = {
    "locks refused": 10,
    "left to the worker": 3,
    "empty picked": 3,
    "dying migrated": 3,
    "moved": 50,
    "address reused": 200,
    "handle reused": 200,
}


def test_zspages_that_die_while_their_pages_move(
    witness: Witness, device: ZramDevice, trap_witness: TrapWitness, attach_form: AttachForm
) -> None:
    """Refused locks, deferred frees, empty ones used again, dying ones migrated: all is exact."""
    with watching(attach_form) as session:
        made: Made = {}
        meanwhile(
            session,
            lambda: made.update(die_while_pages_move(witness, device, trap_witness, ALL_OF_THEM)),
        )
        assert wrong(session, witness, device, made) == []


@pytest.mark.parametrize("mutant", params(*MOVING))
def test_they_are_missed_without_the_handling(
    mutant: Mutant,
    witness: Witness,
    device: ZramDevice,
    trap_witness: TrapWitness,
    attach_form: AttachForm,
) -> None:
    """Probes without the handling of one trap tell something else than the kernel."""
    with watching(attach_form, mutant) as session:
        made: Made = {}
        meanwhile(
            session,
            lambda: made.update(
                die_while_pages_move(witness, device, trap_witness, MOVING[mutant])
            ),
        )
        found = wrong(session, witness, device, made)
        print(found)
        assert found != []


def sparse(device: ZramDevice) -> Made:
    """Write pages that compress alike, and free three of four."""
    pages, group = 1024, 64
    buffer = mmap.mmap(-1, group * mmap.PAGESIZE)
    fd = os.open(f"/dev/{device.name}", os.O_RDWR | os.O_DIRECT)
    try:
        for first in range(0, pages, group):
            for at in range(0, len(buffer), mmap.PAGESIZE):
                buffer[at : at + 1000] = os.urandom(1000)
            os.pwrite(fd, buffer, first * mmap.PAGESIZE)
        for page in range(pages):
            if page % 4:
                fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", page * mmap.PAGESIZE, mmap.PAGESIZE))
    finally:
        os.close(fd)
    return {"zs_malloc": pages, "zs_free": pages // 4 * 3, "live_objects": pages // 4}


def compact_by_shrinker(device: ZramDevice, met: Callable[[], Made]) -> Made:
    device.set_up("64M")
    made = sparse(device)
    before = met()
    DROP_CACHES.write_text("2")
    now = met()
    print({trap: now[trap] - before[trap] for trap in now})
    assert now["compacted by shrinker"] > before["compacted by shrinker"]
    assert now["compacted by file"] == before["compacted by file"]
    assert device.mm_stat()[6] > 0
    return made


def test_shrinker_compaction(
    witness: Witness, device: ZramDevice, met: Callable[[], Made], attach_form: AttachForm
) -> None:
    """What the shrinker compacts without zs_compact() is moves and freed pages, all exact."""
    with watching(attach_form) as session:
        made = compact_by_shrinker(device, met)
        assert wrong(session, witness, device, made) == []
        assert runs_seen(session, device) > 0


def runs_seen(session: Session, device: ZramDevice) -> int:
    (pool,) = (each for each in session.snapshot().pools if each.name == device.name)
    assert pool.counters.compactions is not None
    return pool.counters.compactions


@pytest.mark.parametrize("mutant", params(traps.MOVE_IS_ALLOCATION, traps.PUTBACK_UNTOLD))
def test_shrinker_compaction_without_its_handling(
    mutant: Mutant,
    witness: Witness,
    device: ZramDevice,
    met: Callable[[], Made],
    attach_form: AttachForm,
) -> None:
    """Moves would be allocations, or zspages be left as they were before."""
    with watching(attach_form, mutant) as session:
        made = compact_by_shrinker(device, met)
        assert wrong(session, witness, device, made) != []


def test_shrinker_compaction_is_not_seen_at_zs_compact(
    witness: Witness,
    device: ZramDevice,
    met: Callable[[], Made],
    attach_form: AttachForm,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With zs_compact() hooked in place of __zs_compact() no run of it would be counted."""
    turned = [
        plan.Choice(each.purpose, each.sets[::-1]) if each.purpose == "compaction" else each
        for each in plan.CHOICES
    ]
    monkeypatch.setattr(plan, "CHOICES", tuple(turned))
    with watching(attach_form) as session:
        made = compact_by_shrinker(device, met)
        # What it moves and frees is told at putback_zspage().
        assert wrong(session, witness, device, made) == []
        assert runs_seen(session, device) == 0


def test_calls_known_by_their_task_alone(device: ZramDevice) -> None:
    """Kprobes that knew a call by its task would lose every call that has another inside."""
    for mutant in (None, traps.CALL_BY_TASK):
        with watching("kprobe", mutant) as session:
            device.set_up("64M")
            Churn(device, operations=500, seed=92).finish()
            health = session.snapshot().health
            lost = health.missed_runs > health.missed_counting_runs
            assert lost == (mutant is not None)
        device.reset()


def hammered(session: Session, device: ZramDevice) -> Made:
    """Churn above a task that is always inside bpf(2): the kernel skips kprobes that run then."""
    device.set_up("64M")
    assert session._attached is not None
    fd = session._attached.map_fds["zs_class_counters"]
    over = threading.Event()

    def hammer() -> None:
        while not over.is_set():
            bpfmap.lookup_batch(fd, 0, 255, 4, bpfmap.possible_cpus())

    os.sched_setaffinity(0, {0})
    thread = threading.Thread(target=hammer)
    thread.start()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(2))
        churn = Churn(device, operations=3_000, seed=93, pages=2_000, rate=1000)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        made = churn.finish()
    finally:
        over.set()
        thread.join()
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
    return made


def test_runs_that_the_kernel_skips_are_loss(witness: Witness, device: ZramDevice) -> None:
    """Skipped runs are told and make figures bounded; so nothing exact is wrong."""
    with watching("kprobe") as session:
        made = hammered(session, device)
        shot = session.snapshot()
        assert shot.health.missed_runs > shot.health.missed_counting_runs
        (pool,) = [each for each in shot.pools if each.name == device.name]
        assert pool.status != "exact"
        assert wrong(session, witness, device, made) != []


def test_skipped_runs_that_nobody_counts(
    witness: Witness, device: ZramDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were they not read, wrong figures would be called exact."""
    monkeypatch.setattr(bpfmap, "recursion_misses", lambda _: 0)
    with watching("kprobe") as session:
        made = hammered(session, device)
        shot = session.snapshot()
        (pool,) = [each for each in shot.pools if each.name == device.name]
        assert pool.status == "exact"
        assert wrong(session, witness, device, made) != []


@pytest.mark.needs("readers may sleep")
def test_a_zspage_that_is_being_read_refuses(
    trap_witness: TrapWitness, device: ZramDevice, witness: Witness
) -> None:
    """Migrations that fail are counted with their error, and the zspage that refused is named."""
    with watching("fentry") as session:
        device.set_up("64M")
        disk = os.open(f"/dev/{device.name}", os.O_RDWR | os.O_DIRECT)
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            page[:] = os.urandom(mmap.PAGESIZE)
            os.pwritev(disk, [page], 0)
            (zspage,) = witness.walk(witness.zram_pool(device.name)).zspages

            def refuse() -> None:
                os.sched_setaffinity(0, {1})
                end_s = time.monotonic() + PROVOKE_S
                # The migration is held up first, as both need what every CPU must do for it, and
                # is let go while the reader is still held.
                while not trap_witness.refused()[0] and time.monotonic() < end_s:
                    (now,) = witness.walk(witness.zram_pool(device.name)).zspages
                    with trap_witness.held_up(Hold.ISOLATED | Hold.READING) as await_it:
                        mover = threading.Thread(target=elsewhere, args=(now.pfns[0],))
                        mover.start()
                        if await_it():
                            time.sleep(0.3)
                            os.preadv(disk, [page], 0)
                        mover.join()

            meanwhile(session, refuse)
        os.close(disk)
        refused, error = trap_witness.refused()
        frame = session.snapshot(zspages=True).to_json()
        pool = pool_named(frame, device.name)
        assert refused > 0
        assert pool["counters"]["migration_failures"] == refused
        migration = pool["migration"]
        assert (migration["status"], migration["errors"]) == (
            "exact",
            {errno.errorcode[-error]: refused},
        )
        (one,) = migration["refusing"]
        assert (one["zspage"], one["times"]) == (f"{zspage.address:#x}", refused)
        assert migration["forgotten"] == 0
