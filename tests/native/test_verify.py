"""``verify`` on this very kernel: equal at rest, planted errors found, quiet under a writer."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab.workload import PAGE_BYTES
from tests.native.device import NativeDevice
from tests.native.test_scan_under_load import in_background
from zpobs.scans import ScanResult
from zpobs.session import Session, open_session
from zpobs.snapshot import Snapshot, ZspageTable
from zpobs.sources.witnesses import read_witnesses
from zpobs.verify.rounds import Report, Verifier
from zpobs.wishes import Wishes

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = 4096
Plant = Callable[[ZspageTable], ZspageTable]

pytestmark = pytest.mark.native


class PlantedSession:
    """A session whose model is spoilt as it is frozen, and in nothing else."""

    def __init__(self, session: Session, plant: Plant) -> None:
        self._session = session
        self._plant = plant
        self.zswap_lags = session.zswap_lags

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        return self._session.wait(deadline_s, watch)

    def scan_kernel(self, **asked: Any) -> ScanResult:
        return self._session.scan_kernel(**asked)

    def snapshot(self, *, zspages: bool = False, pool: str | None = None) -> Snapshot:
        shot = self._session.snapshot(zspages=zspages, pool=pool)
        if not zspages:
            return shot
        (view,) = shot.pools
        assert view.zspage_list is not None
        spoilt = replace(view, zspage_list=self._plant(view.zspage_list))
        return replace(shot, pools=(spoilt,))


@pytest.fixture
def full(device: NativeDevice) -> NativeDevice:
    """Return a device that holds something of everything, with holes."""
    device.fill("random", PAGES)
    device.fill("incompressible", 256, first=PAGES)
    device.discard(100, 500)
    return device


@pytest.fixture
def session(full: NativeDevice) -> Iterator[Session]:
    with open_session(Wishes(pool=full.name)) as opened:
        yield opened


def verified(source: Session | PlantedSession, pool: str, **options: Any) -> Report:
    return Verifier(source, read_witnesses, pool=pool, **options).round(5)


def test_a_pool_at_rest_is_equal(full: NativeDevice, session: Session) -> None:
    """Every zspage, every frame, every witness, every invariant."""
    report = verified(session, full.name, invariants=True)
    assert report.verdict == "equal"
    (pool,) = report.comparison.pools
    assert (pool.name, pool.busy) == (full.name, ())
    assert pool.frames == full.mm_stat()[2] // PAGE_BYTES
    assert report.resting == {pool.id}
    exact = {each.name for each in report.witnesses if each.verdict == "equal"}
    assert exact >= {"mm_stat mem_used_total", "mm_stat pages stored", "mm_stat huge_pages"}
    assert report.invariants
    assert all(check.broken == 0 for each in report.invariants for check in each.findings.checks)


def victim(table: ZspageTable) -> int:
    """Return the row of a zspage of several pages that is partly in use."""
    lengths = np.diff(table.frame_start)
    return int(np.flatnonzero((lengths > 1) & (table.inuse > 1) & (table.fullness < 11))[3])


def changed(column: str, by: int) -> Plant:
    def plant(table: ZspageTable) -> ZspageTable:
        values = getattr(table, column).copy()
        values[victim(table)] += by
        return replace(table, **{column: values})

    return plant


def one_frame(table: ZspageTable) -> ZspageTable:
    frames = table.frames.copy()
    frames[table.frame_start[victim(table)] + 1] += np.uint64(1)
    return replace(table, frames=frames)


def missing(table: ZspageTable) -> ZspageTable:
    return table.take(np.delete(np.arange(len(table.address)), victim(table)))


def extra(table: ZspageTable) -> ZspageTable:
    row = victim(table)
    twice = table.take(np.insert(np.arange(len(table.address)), row, row))
    address = twice.address.copy()
    address[row] -= np.uint64(8)
    return replace(twice, address=address)


@pytest.mark.parametrize(
    ("field", "plant"),
    [
        ("inuse", changed("inuse", 1)),
        ("fullness", changed("fullness", 1)),
        ("frames", one_frame),
        ("zspage", missing),
        ("zspage", extra),
    ],
    ids=["one object", "fullness group", "one frame", "too few", "too many"],
)
def test_a_planted_error_is_found(
    full: NativeDevice, session: Session, field: str, plant: Plant
) -> None:
    """One wrong value in one zspage among thousands is found, and nothing beside it."""
    report = verified(PlantedSession(session, plant), full.name)
    assert report.verdict == "differs"
    (pool,) = report.comparison.pools
    (difference,) = pool.differences
    assert difference.field == field
    assert difference.zspage is not None
    assert difference.standing == "exact"
    if field == "inuse":
        assert isinstance(difference.kernel, int)
        assert difference.shadow == difference.kernel + 1


def test_a_writer_makes_no_difference(full: NativeDevice, session: Session) -> None:
    """While the pool is written to nothing is called a difference, whatever was compared."""

    def write(stop: threading.Event) -> None:
        seed = 2
        while not stop.is_set():
            full.fill("random", 512, first=seed * 512 % PAGES, seed=seed)
            seed += 1

    resting = []
    with in_background(write):
        for _ in range(5):
            report = Verifier(session, read_witnesses, pool=full.name).round(0.3)
            assert not report.differs, report.to_json()
            resting.append(bool(report.resting))
    assert not all(resting)
    assert verified(session, full.name).verdict == "equal"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zpobs", "verify", *arguments],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command_says_equal(full: NativeDevice) -> None:
    """Text with the verdict first, status 0."""
    done = run("--pool", full.name, "--invariants")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{full.name}: ")
    assert " equal (scans applied to the model: " in done.stdout.splitlines()[0]


def test_the_command_is_live(full: NativeDevice) -> None:
    """One JSON object a round until the duration is over."""
    done = run("--pool", full.name, "--json", "--interval", "0.2", "--duration", "1")
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert 2 <= len(rounds) <= 6
    assert {each["verdict"] for each in rounds} == {"equal"}


def test_pools_that_come_and_go_make_no_difference(
    make_device: Callable[[str], NativeDevice],
) -> None:
    """Two devices are filled, reset and set up again, faster than a round: nothing differs."""
    made = []

    def remake(device: NativeDevice, pages: int) -> Callable[[threading.Event], None]:
        def work(stop: threading.Event) -> None:
            while not stop.is_set():
                device.fill("random", pages)
                device.reset()
                device.set_up("64M")
                made.append(device.name)

        return work

    small, large = (in_background(remake(make_device("64M"), pages)) for pages in (64, 320))
    with small, large:
        # Until one was caught in the act, which on a busy machine takes longer.
        for _ in range(20):
            done = run("--json", "--interval", "0.1", "--duration", "3")
            rounds = [json.loads(line) for line in done.stdout.splitlines()]
            assert [each for each in rounds if each["verdict"] == "differs"] == []
            # So slow that every pool came or went during every round: nothing was verified.
            well = done.returncode == 0
            if well and any(each["meanwhile"] for each in rounds) and len(made) > 50:
                break
        else:
            raise AssertionError(f"no round met any of {len(made)} new pools")


def test_a_pool_that_is_not_there_is_not_well(device: NativeDevice) -> None:
    """Nothing was verified: status 1 and a line that says so; an unknown name is status 2."""
    device.reset()
    done = run("--pool", device.name)
    assert done.returncode == 1
    assert done.stdout.splitlines()[:2] == [
        f"{device.name}: there is no such pool now",
        "nothing could be verified",
    ]
    assert run("--pool", "zram4711").returncode == 2
