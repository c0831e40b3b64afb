"""The scanner's programs on this very kernel, called directly."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.native.device import NativeDevice
from tests.ring_producer import why_not
from zpobs import wire
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.plan import make_plan
from zpobs.scans import open_scanner
from zpobs.sources.scanner import FoundPool, Scanner
from zpobs.wire import Words

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def scanner() -> Iterator[Scanner]:
    if lacking := why_not():
        pytest.skip(lacking)
    facts = probe_kernel()
    with open_scanner(facts, make_plan(facts).size_classes) as opened:
        yield opened


@pytest.fixture(scope="module")
def device() -> Iterator[NativeDevice]:
    if lacking := why_not():
        pytest.skip(lacking)
    made = NativeDevice("256M")
    made.fill("mixed", 3000)
    yield made
    made.remove()


@pytest.fixture
def pool(scanner: Scanner, device: NativeDevice) -> FoundPool:
    found = scanner.find_pools()
    assert found.complete
    (own,) = [pool for pool in found.pools if pool.name == device.name]
    return own


def records(scanner: Scanner, pool: FoundPool, **how: object) -> Words:
    batches: list[Words] = []
    scanner.scan(pool.address, 9, batches.append, **how)  # type: ignore[arg-type]
    return np.concatenate(batches)


def of_kind(words: Words, kind: int) -> Words:
    return words[wire.kinds(words) == kind]


def test_both_bases_are_found(scanner: Scanner) -> None:
    """Addresses of the kernel's half, the direct map at a whole GiB."""
    assert scanner.vmemmap_base is not None
    assert scanner.direct_map is not None
    assert scanner.vmemmap_base >> 63 == 1
    assert scanner.direct_map >> 63 == 1
    assert scanner.direct_map % (1 << 30) == 0


def test_a_scan_is_marks_around_every_class(scanner: Scanner, pool: FoundPool) -> None:
    """SCAN_BEGIN and SCAN_END for each class in turn, SCANNED at the end, all of one serial."""
    words = records(scanner, pool)
    wire.check(words)
    begins, ends = of_kind(words, wire.KIND_SCAN_BEGIN), of_kind(words, wire.KIND_SCAN_END)
    assert begins[:, 3].tolist() == ends[:, 3].tolist() == sorted(set(begins[:, 3].tolist()))
    assert (ends[:, 4] == begins[:, 1]).all()
    assert (ends[:, 0] >> np.uint64(8) & np.uint64(1) == wire.FLAG_STEADY).all()
    assert wire.kinds(words)[-1] == wire.KIND_SCANNED
    assert (words[:, 0] >> np.uint64(32) == 9).all()
    states = of_kind(words, wire.KIND_STATE)
    assert set(states[:, 1].tolist()) <= set(begins[:, 1].tolist())


def test_one_class_can_be_walked_alone(scanner: Scanner, pool: FoundPool) -> None:
    """With the pool's totals behind it, as behind a walk of all."""
    words = records(scanner, pool, classes=range(254, 255))
    assert of_kind(words, wire.KIND_SCAN_BEGIN)[:, 3].tolist() == [254]
    assert of_kind(words, wire.KIND_SCANNED).shape[0] == 1
    assert (of_kind(words, wire.KIND_STATE)[:, 4] == 254).all()


def test_details_follow_their_zspage(scanner: Scanner, pool: FoundPool) -> None:
    """One LINKS a zspage, one DESCRIPTOR a page, each pointing back."""
    words = records(scanner, pool, detail=True)
    states = of_kind(words, wire.KIND_STATE)
    links = of_kind(words, wire.DETAIL_LINKS)
    descriptors = of_kind(words, wire.DETAIL_DESCRIPTOR)
    assert links[:, 2].tolist() == states[:, 2].tolist()
    assert (descriptors[:, 1] == descriptors[:, 2]).all()
    pages = (states[:, 0] >> np.uint64(24)) & np.uint64(0xFF)
    assert len(descriptors) == int(pages.sum())


def test_a_pool_that_is_none_ends_at_once(scanner: Scanner) -> None:
    """Any address may be walked: what is not a pool has no class of its own."""
    words = records(scanner, FoundPool(0xFFFF_8880_0000_0000, "none", 0))
    assert of_kind(words, wire.KIND_STATE).shape[0] == 0
