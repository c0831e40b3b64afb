"""The true allocator against placements worked out by hand from the kernel's rules."""

from __future__ import annotations

import pytest

from tests.delivery import as_words
from tests.true_allocator import Allocator, Machine, RefusedError
from zpobs import wire

# Class 151: 2448 bytes, five objects in three pages.
SIZE = 2440


def kinds(machine: Machine) -> list[int]:
    return wire.kinds(as_words(machine.records)).tolist()


def fill(pool: Allocator, count: int) -> list[int]:
    return [pool.malloc(SIZE) for _ in range(count)]


def summary(pool: Allocator) -> list[tuple[int, int, int]]:
    return [(birth, inuse, fullness) for birth, _, inuse, fullness, _ in pool.by_birth()]


def test_the_class_of_these_tests_holds_five_objects() -> None:
    """The size used here falls into a class of five objects."""
    pool = Allocator()
    fill(pool, 1)
    ((_, index, inuse, fullness, huge),) = pool.by_birth()
    assert (index, inuse, fullness, huge) == (151, 1, 3, False)
    assert pool.classes[index].objs == 5


def test_objects_go_to_the_fullest_group_that_has_room() -> None:
    """An allocation takes the zspage in the highest group below full, not the newest."""
    pool = Allocator()
    handles = fill(pool, 15)
    pool.free(handles[0])
    pool.free(handles[5])
    pool.free(handles[6])
    assert summary(pool) == [(1, 4, 9), (2, 3, 7), (3, 5, 11)]
    fill(pool, 1)
    assert summary(pool) == [(1, 5, 11), (2, 3, 7), (3, 5, 11)]


def test_within_a_group_the_newest_comes_first() -> None:
    """Of zspages in one group, the one that entered it last is taken first."""
    pool = Allocator()
    handles = fill(pool, 15)
    for first in (5, 0, 10):
        pool.free(handles[first])
    fill(pool, 1)
    assert summary(pool) == [(1, 4, 9), (2, 4, 9), (3, 5, 11)]
    fill(pool, 1)
    assert summary(pool) == [(1, 5, 11), (2, 4, 9), (3, 5, 11)]


def test_compaction_empties_the_thinnest_into_the_fullest() -> None:
    """One round fills the fullest zspage from the thinnest, and frees what gets empty."""
    pool = Allocator()
    handles = fill(pool, 15)
    for at in (0, 5, 6, 10, 11, 12, 13):
        pool.free(handles[at])
    assert summary(pool) == [(1, 4, 9), (2, 3, 7), (3, 1, 3)]
    assert pool.compact() == 3
    assert summary(pool) == [(1, 5, 11), (2, 3, 7)]
    ending = [wire.KIND_STATE, wire.KIND_DEATH, wire.KIND_STATE]
    ending += [wire.KIND_COMPACT_CLASS, wire.KIND_COMPACT_END]
    assert kinds(pool.machine)[-5:] == ending


def test_a_locked_page_defers_the_free_and_the_zspage_can_be_used_again() -> None:
    """An empty zspage with a locked page stays in group 0, and the next allocation takes it."""
    pool = Allocator()
    (handle,) = fill(pool, 1)
    (zspage,) = pool.zspages
    zspage.locked.add(0)
    pool.free(handle)
    assert summary(pool) == [(1, 0, 0)]
    fill(pool, 1)
    assert summary(pool) == [(1, 1, 3)]
    pool.run_deferred()
    assert summary(pool) == [(1, 1, 3)]


def test_a_trace_replays_to_the_same_zspages() -> None:
    """Recorded operations lead to what the same calls led to."""
    pool, again = Allocator(), Allocator()
    handles = fill(pool, 12)
    for at in (1, 2, 7):
        pool.free(handles[at])
    pool.compact()
    trace: list[tuple[object, ...]] = [("malloc", SIZE, f"h{at}") for at in range(12)]
    trace += [("free", f"h{at}") for at in (1, 2, 7)]
    again.replay([*trace, ("compact",)])  # type: ignore[list-item]
    assert list(again.by_birth()) == list(pool.by_birth())


@pytest.mark.parametrize(("size", "code"), [(0, -22), (4097, -28)])
def test_sizes_that_cannot_be_are_refused(size: int, code: int) -> None:
    """A size of 0 is EINVAL, one over a page ENOSPC, as zs_malloc answers."""
    pool = Allocator()
    with pytest.raises(RefusedError) as refused:
        pool.malloc(size)
    assert refused.value.code == code
    assert kinds(pool.machine)[-1] == wire.KIND_ALLOC_FAILURE
