"""Scans of pools that change, vanish and come again meanwhile."""

from __future__ import annotations

import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.workload import PAGE_BYTES
from tests.native.device import NativeDevice
from zpobs.session import Session, open_session
from zpobs.wishes import Wishes

pytestmark = pytest.mark.native

PAGES = 20_000


@contextmanager
def in_background(work: Callable[[threading.Event], None]) -> Iterator[threading.Event]:
    """Run ``work`` beside the caller until the end; what it raises is raised here."""
    stop = threading.Event()
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


@pytest.fixture
def session() -> Iterator[Session]:
    with open_session(Wishes(), attach=False) as opened:
        yield opened


def objects_of(device: NativeDevice) -> int:
    stat = device.mm_stat()
    return stat[0] // PAGE_BYTES - stat[5]


def test_a_monotone_writer(device: NativeDevice, session: Session) -> None:
    """While pages are only stored, every figure lies between the readings around its scan."""

    def write(stop: threading.Event) -> None:
        for first in range(0, PAGES * 4, 64):
            if stop.is_set():
                return
            device.fill("mixed", 64, first=first, seed=first)

    checked = 0
    with in_background(write):
        while objects_of(device) < PAGES:
            objects, pages = objects_of(device), device.mm_stat()[2] // PAGE_BYTES
            (pool,) = session.snapshot(pool=device.name).pools
            objects_after, pages_after = objects_of(device), device.mm_stat()[2] // PAGE_BYTES
            # The one page that is being written has its object before zram counts it.
            assert objects <= pool.objects <= objects_after + 1
            assert pages <= pool.pages <= pages_after
            checked += 1
    assert checked >= 2


def test_overwrites_and_discards(device: NativeDevice, session: Session) -> None:
    """Under a mixed load a figure is exact or says that it is not; at rest all are exact."""
    device.fill("mixed", PAGES)

    def churn(stop: threading.Event) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            device.discard(turn * 613 % PAGES, 40)
            device.fill("mixed", 64, first=turn * 997 % (PAGES - 64), seed=turn)

    with in_background(churn):
        for _ in range(60):
            (pool,) = session.snapshot(pool=device.name, zspages=True).pools
            assert pool.status in ("exact", "bounded")
            # The writer has at most 64 objects on the way, and 40 discarded.
            assert abs(pool.objects - objects_of(device)) < PAGES // 10
    (pool,) = session.snapshot(pool=device.name).pools
    assert (pool.status, pool.objects) == ("exact", objects_of(device))


def test_pools_that_come_and_go(make_device: Callable[[], NativeDevice], session: Session) -> None:
    """Resets never fail while scans run, and scans never fail while pools are reset."""
    device, lasting = make_device(), make_device()
    lasting.fill("text", 500)

    def come_and_go(stop: threading.Event) -> None:
        while not stop.is_set():
            device.fill("mixed", 300)
            device.reset()
            device.set_up("1G")

    with in_background(come_and_go):
        for _ in range(300):
            snapshot = session.snapshot(zspages=True)
            assert lasting.name in {pool.name for pool in snapshot.pools}
    snapshot = session.snapshot()
    assert {device.name, lasting.name} <= {pool.name for pool in snapshot.pools}
    assert snapshot.health.status == "exact"


def test_devices_that_are_removed(
    make_device: Callable[[], NativeDevice], session: Session
) -> None:
    """A device may be added, used and removed while scans run; its pool is gone then."""

    def add_and_remove(stop: threading.Event) -> None:
        while not stop.is_set():
            device = NativeDevice("64M")
            device.fill("mixed", 100)
            device.remove()

    lasting = make_device()
    with in_background(add_and_remove):
        for _ in range(200):
            session.snapshot()
    names = {pool.name for pool in session.snapshot().pools}
    assert lasting.name in names
    present = {path.name for path in Path("/sys/block").glob("zram*")}
    assert names <= present


def test_a_thousand_scans_leak_nothing(device: NativeDevice, session: Session) -> None:
    """Descriptors, mappings and memory are as before after a thousand scans."""
    device.fill("mixed", 2000)

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), len(
            Path("/proc/self/maps").read_text(encoding="ascii").splitlines()
        )

    for _ in range(100):
        session.snapshot()
    before, rss_before = held(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(1000):
        session.snapshot()
    assert held()[0] == before[0]
    assert held()[1] <= before[1] + 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss_before < 4096


def test_opened_and_closed_many_times(device: NativeDevice) -> None:
    """Every session gives back its descriptors, its maps and its programs."""
    device.fill("text", 100)

    def open_and_close() -> int:
        with open_session(Wishes(), attach=False) as session:
            session.snapshot()
        return len(list(Path("/proc/self/fd").iterdir()))

    first = open_and_close()
    assert [open_and_close() for _ in range(20)] == [first] * 20
