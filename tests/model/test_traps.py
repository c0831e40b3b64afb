"""The traps, with their handling taken away: what the properties are held by, they fail without.

Each mutation undoes what the model, or a probe as the true allocator tells it, does about one
trap of zsmalloc; docs/traps.md lists them. The probes' own mutations are tried on a kernel, in
tests/guest/test_traps.py.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import pytest

from tests.model.observer import Observer
from tests.true_allocator import Allocator, Zspage
from zpobs import wire
from zpobs.bpf_files import bpf_text
from zpobs.model import CountersReading, ShadowModel, shadow
from zpobs.model.pools import PoolDirectory

SEEDS = 12
LOOKS = 40


def check(seed: int, *, loss: float = 0, skipped: float = 0, reach: int = 0) -> None:
    """Look at a model at many moments, and at rest, while all goes on; and after a scan."""
    observer = Observer(seed, loss=loss, skipped=skipped, reach=reach)
    rng = random.Random(seed)
    for _ in range(LOOKS):
        observer.warm_up(rng.randint(1, 30))
        observer.check_exact_classes()
        if not (loss or skipped) and rng.random() < 0.2:
            observer.rest()
            observer.check_all_exact()
    observer.rest()
    # From here on nothing is lost that a scan could not mend.
    observer.loss = observer.machine.skipping = 0
    observer.scan([])
    observer.check_all_exact()


def fails(*, runs: int = SEEDS, **how: Any) -> bool:
    """Tell whether any of many runs finds something wrong."""
    for seed in range(runs):
        try:
            check(seed, **how)
        except AssertionError:
            return True
    return False


@pytest.mark.parametrize("how", [{}, {"reach": 20}, {"loss": 0.02}, {"skipped": 0.02}], ids=str)
def test_nothing_is_wrong_as_it_is(how: dict[str, Any]) -> None:
    """The same runs find nothing if no handling is taken away."""
    assert not fails(**how)


Patch = Callable[[pytest.MonkeyPatch], None]
MUTATIONS: dict[str, tuple[Patch, dict[str, Any]]] = {}


def mutation(name: str, **how: Any) -> Callable[[Patch], Patch]:
    """Enter a mutation; ``how`` is what it takes, besides operations, to meet the trap."""

    def enter(patch: Patch) -> Patch:
        MUTATIONS[name] = patch, how
        return patch

    return enter


# -- the model's part -----------------------------------------------------------------


@mutation("deferred free: what a worker frees without a word of each is not taken for gone")
def _no_deferred_deaths(patch: pytest.MonkeyPatch) -> None:
    take = ShadowModel._take_control

    def without(self: ShadowModel, record: wire.Words) -> None:
        if int(record[0]) & 0xFF != wire.KIND_DEFERRED_FREE:
            take(self, record)

    patch.setattr(ShadowModel, "_take_control", without)


@mutation("deferred free: whatever is empty when the worker ends is taken for gone")
def _deferred_takes_all(patch: pytest.MonkeyPatch) -> None:
    take = ShadowModel._take_control

    def with_later(self: ShadowModel, record: wire.Words) -> None:
        if int(record[0]) & 0xFF == wire.KIND_DEFERRED_FREE:
            record = record.copy()
            record[3] = record[1]
        take(self, record)

    patch.setattr(ShadowModel, "_take_control", with_later)


@mutation("a group-0 zspage picked again: an empty zspage is taken for dead")
def _empty_is_dead(patch: pytest.MonkeyPatch) -> None:
    pack = shadow.pack_states

    def without_empty(head: Any, slots: Any, word3: Any, word4: Any) -> Any:
        state = pack(head, slots, word3, word4)
        state[(word3 & np.uint64(0xFFFFFFFF)) == 0] &= ~shadow.LIVE
        return state

    patch.setattr(shadow, "pack_states", without_empty)


@mutation("deferred free: an empty zspage that is told of behind it is taken for alive", reach=20)
def _late_word_revives(patch: pytest.MonkeyPatch) -> None:
    revoked = ShadowModel._revoked

    def whoever_was_freed(self: ShadowModel, *columns: Any) -> Any:
        pools = self._pools
        kept, pools.deferred_ns = pools.deferred_ns, np.zeros_like(pools.deferred_ns)
        try:
            return revoked(self, *columns)
        finally:
            pools.deferred_ns = kept

    patch.setattr(ShadowModel, "_revoked", whoever_was_freed)


@mutation("an address reused: of two states the one that arrives later counts", reach=20)
def _last_arrival_wins(patch: pytest.MonkeyPatch) -> None:
    take = ShadowModel._take_states
    newest_ns: WeakKeyDictionary[ShadowModel, int] = WeakKeyDictionary()

    def in_order_of_arrival(self: ShadowModel, columns: Any) -> None:
        # None is older than any that came before it, in this batch or in others.
        columns = columns.copy()
        columns[1] = np.maximum.accumulate(np.maximum(columns[1], newest_ns.get(self, 0)))
        newest_ns[self] = int(columns[1, -1])
        take(self, columns)

    patch.setattr(ShadowModel, "_take_states", in_order_of_arrival)


@mutation("a pool's address reused: a pool is known by its address")
def _pool_by_address(patch: pytest.MonkeyPatch) -> None:
    absent = PoolDirectory.absent
    destroy = PoolDirectory.destroy

    def kept(self: PoolDirectory, reading: CountersReading) -> Any:
        present = {pool.address for pool in reading.pools}
        return [pool for pool in absent(self, reading) if pool.address not in present]

    def spared(self: PoolDirectory, pool: Any) -> None:
        if sum(each.address == pool.address for each in self.live()) < 2:
            destroy(self, pool)

    patch.setattr(PoolDirectory, "absent", kept)
    patch.setattr(PoolDirectory, "destroy", spared)


def without_term(patch: pytest.MonkeyPatch, term: str) -> None:
    loss = CountersReading.loss.fget
    assert loss is not None
    patch.setattr(
        CountersReading, "loss", property(lambda self: loss(self) - int(getattr(self, term)))
    )


@mutation("probe recursion: runs that the kernel skipped are not taken for loss", skipped=0.02)
def _skipped_untold(patch: pytest.MonkeyPatch) -> None:
    without_term(patch, "missed_runs")


@mutation("loss beside the traps: records that found the ring full are not taken for it", loss=0.02)
def _ring_full_untold(patch: pytest.MonkeyPatch) -> None:
    without_term(patch, "ring_full")


# -- the probes' part, as the true allocator tells it ----------------------------------


@mutation("deferred free: its end is not told")
def _deferred_untold(patch: pytest.MonkeyPatch) -> None:
    deferring = Allocator.deferring

    def unseen(self: Allocator) -> Iterator[None]:
        for _ in deferring(self):
            self.deferred_begin_ns = 0
            yield

    patch.setattr(Allocator, "deferring", unseen)


@mutation("a group-0 zspage picked again: a first object is taken for a birth")
def _first_object_is_birth(patch: pytest.MonkeyPatch) -> None:
    tell = Allocator._tell_state

    def as_newborn(self: Allocator, zspage: Zspage, *, newborn: bool = False) -> int:
        return tell(self, zspage, newborn=newborn or zspage.inuse == 1)

    patch.setattr(Allocator, "_tell_state", as_newborn)


@mutation("migration of a dying zspage: success is taken for a move")
def _dead_moves(patch: pytest.MonkeyPatch) -> None:
    migrating = Allocator.migrating

    def whatever_lives(
        self: Allocator, zspage: Zspage, page: int, *, busy: bool = False
    ) -> Iterator[None]:
        yield
        if zspage in self.zspages:
            yield from migrating(self, zspage, page, busy=busy)
        else:
            yield from self._tell_frames(zspage, self.machine.tick())

    patch.setattr(Allocator, "migrating", whatever_lives)


@mutation("an address reused: a death is told when the address is free again")
def _death_told_late(patch: pytest.MonkeyPatch) -> None:
    pending: list[Callable[[], None]] = []
    forget, malloc, drain = Allocator._forget, Allocator.malloc, Observer.drain

    def tell() -> None:
        while pending:
            pending.pop()()

    def bury(self: Allocator, zspage: Zspage) -> None:
        zspage.size_class.remove(zspage)
        forget(self, zspage)
        pending.append(lambda: tell_death(self, zspage))

    def malloc_first(self: Allocator, size: int, *, no_pages: bool = False) -> int:
        try:
            return malloc(self, size, no_pages=no_pages)
        finally:
            tell()

    def tell_and_drain(self: Observer, *, late: int = 0) -> None:
        tell()
        drain(self, late=late)

    patch.setattr(Allocator, "_bury", bury)
    patch.setattr(Allocator, "malloc", malloc_first)
    patch.setattr(Observer, "drain", tell_and_drain)


def tell_death(pool: Allocator, zspage: Zspage) -> None:
    head = wire.head(wire.KIND_DEATH, serial=pool.serial)
    index = zspage.size_class.index
    pool.machine.emit(head, pool.machine.tick(), zspage.address, 0, index)


@mutation("7.3's free path: a death is told when its page locks are refused")
def _refusal_is_death(patch: pytest.MonkeyPatch) -> None:
    fix = Allocator._fix_fullness

    def tell_refusal(self: Allocator, zspage: Zspage) -> None:
        fix(self, zspage)
        if zspage.inuse == 0 and (zspage.locked or zspage.moving):
            tell_death(self, zspage)

    patch.setattr(Allocator, "_fix_fullness", tell_refusal)


@mutation("7.3's free path: deaths are told nowhere")
def _no_deaths(patch: pytest.MonkeyPatch) -> None:
    forget = Allocator._forget

    def silent(self: Allocator, zspage: Zspage) -> None:
        zspage.size_class.remove(zspage)
        forget(self, zspage)

    patch.setattr(Allocator, "_bury", silent)


@mutation("shrinker compaction: what it leaves in zspages is not told")
def _compaction_untold(patch: pytest.MonkeyPatch) -> None:
    def silent(_: Allocator, zspage: Zspage) -> None:
        zspage.size_class.insert(zspage)

    patch.setattr(Allocator, "_putback", silent)


@pytest.mark.parametrize("name", MUTATIONS)
def test_something_is_wrong_without(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one handling taken away, a run finds the model wrong."""
    patch, how = MUTATIONS[name]
    patch(monkeypatch)
    assert fails(**how)


def test_no_probe_uses_a_handle() -> None:
    """A handle's address is used again at once; so no probe may tell of one, or go by one."""
    code = re.sub(r"/\*.*?\*/", "", bpf_text("probes.bpf.c"), flags=re.DOTALL)
    # It is a parameter of what is hooked, and no more.
    assert re.findall(r"[^;{}]*\bhandle\b[^;{}]*", code) == re.findall(
        r"[^;{}]*obj_malloc_done\([^{]*\bhandle\b[^{]*\)\s", code
    )


@pytest.mark.parametrize("name", [name for name, (_, how) in MUTATIONS.items() if how])
def test_it_is_the_trap_that_makes_it_wrong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is overtaken, skipped or lost, its handling is not missed."""
    patch, _ = MUTATIONS[name]
    patch(monkeypatch)
    assert not fails(runs=3)
