"""The address index and the frame arena against dicts and lists."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.true_allocator import size_classes
from zpobs.model.arrays import FreeList
from zpobs.model.frames import FrameArena
from zpobs.model.index import AddressIndex, granules


def words(numbers: list[int]) -> np.ndarray:
    return np.array(numbers, dtype=np.uint64)


@pytest.mark.parametrize("seed", range(4))
def test_the_index_is_a_dict(seed: int) -> None:
    """Random inserts and removals anywhere in the kernel's half agree with a dict by granule."""
    rng = random.Random(seed)
    bases = [0xFF00_0000_0000_0000, 0xFFFF_8880_0000_0000, 0xFFFF_FFFF_FFE0_0000]
    bases += [0xFFFF_0000_0000_0000 + (rng.getrandbits(47) & ~0xFFF) for _ in range(20)]
    index, right = AddressIndex(), {}
    for _ in range(60):
        some = {rng.choice(bases) + 32 * rng.randrange(2000) for _ in range(100)}
        new = [address for address in some if address not in right]
        rows = [rng.randrange(1, 1 << 31) for _ in new]
        index.insert(words(new), np.array(rows, dtype=np.uint32))
        right.update(zip(new, rows, strict=True))
        gone = rng.sample(sorted(right), len(right) // 3)
        index.remove(words(gone))
        for address in gone:
            del right[address]
        asked = sorted(right) + gone + [rng.getrandbits(64) & ~31 for _ in range(50)]
        assert index.find(words(asked)).tolist() == [right.get(address, 0) for address in asked]


def test_leaves_are_used_again() -> None:
    """Addresses that wander over pages do not make the index grow."""
    index = AddressIndex()
    base = 0xFFFF_8881_0000_0000
    sizes = []
    for page in range(500):
        address = words([base + page * 4096 + at * 56 for at in range(73)])
        index.insert(address, np.arange(1, 74, dtype=np.uint32))
        index.remove(address)
        sizes.append(index.nbytes)
    assert sizes[0] == sizes[-1]


def test_addresses_in_one_granule_share_it_and_zspages_never_do() -> None:
    """32 bytes are one granule; slab neighbours of 56 bytes are always two."""
    base = 0xFFFF_8881_0000_0000
    assert granules(words([base]))[0] == granules(words([base + 31]))[0]
    slab = granules(words([base + at * 56 for at in range(1000)]))
    assert len(set(slab.tolist())) == 1000


def test_spans_never_overlap_and_are_used_again() -> None:
    """Live spans of all lengths hold what was put in; freed ones keep the arena small."""
    rng = np.random.default_rng(5)
    arena = FrameArena()
    live: list[tuple[int, int, list[int]]] = []
    largest = 0
    for turn in range(200):
        pages = rng.integers(1, 17, 20).astype(np.uint8)
        for span, length in zip(arena.take(pages).tolist(), pages.tolist(), strict=True):
            content = rng.integers(1, 1 << 40, length).tolist()
            arena.frames[span : span + length] = content
            live.append((span, length, content))
        rng.shuffle(live)
        gone, live = live[:20], live[20:] if turn > 5 else live
        if turn > 5:
            arena.give(
                np.array([span for span, _, _ in gone], dtype=np.uint32),
                np.array([length for _, length, _ in gone], dtype=np.uint8),
            )
        for span, length, content in live:
            assert arena.frames[span : span + length].tolist() == content
        largest = max(largest, sum(length for _, length, _ in live))
    assert len(arena.frames) < 4 * largest


def test_gather_lays_spans_end_to_end() -> None:
    """gather returns the frames of all spans in order, leaving out those of length 0."""
    arena = FrameArena()
    spans = arena.take(np.array([3, 1, 2], dtype=np.uint8))
    arena.frames[:6] = np.arange(6)
    first, second, third = (arena.frames[s : s + 3].tolist() for s in spans.tolist())
    got = arena.gather(spans[[2, 1, 0]], np.array([2, 0, 3]))
    assert got.tolist() == third[:2] + first
    assert second


def test_a_free_list_gives_each_number_once() -> None:
    """Numbers are distinct while out, and come back before new ones are made."""
    free = FreeList(start=1)
    out = free.take(100)
    assert sorted(out.tolist()) == list(range(1, 101))
    free.give(out[:40])
    again = free.take(50)
    assert set(again.tolist()) == set(out[:40].tolist()) | set(range(101, 111))
    assert free.end == 111


def test_the_allocators_size_classes_are_the_kernels() -> None:
    """Own classes and first huge slot for chains of 4, 8 and 16 pages are those kernels have."""
    found = {}
    for chain in (4, 8, 16):
        steps = size_classes(4096, chain)
        own = [each for at, each in enumerate(steps) if each.index == at]
        huge = next(at for at, each in enumerate(steps) if each.objs == each.pages == 1)
        found[chain] = (len(steps), len(own), huge)
    assert found == {4: (255, 69, 203), 8: (255, 119, 226), 16: (255, 192, 239)}
