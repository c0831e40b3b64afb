"""A real Prometheus scrapes exporters with probes: every rule and panel answers, troubles are told.

What scans alone can tell is asked natively too, and other alerts are raised there:
tests/native/test_prometheus.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from dashboards.panels import Panel
from lab.prometheus import Job, Prometheus, Setup
from lab.witness import Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages
from lab.zswap import Zswap
from tests import scraped, traps
from tests.guest.test_traps import BLKDISCARD, elsewhere, sparse
from tests.lent import lent
from tests.native.exporter import ZPOBS, Exporter, series_of
from tests.scraped import JOB, PANELS, RULES, well
from tests.traps import Hold, TrapWitness
from zpobs.views.metrics.definitions import METRICS

# All that is served, and with it all that panels ask for.
EVERYTHING = ("--latency", "--objects", "--per-class-fullness", "--bpf-stats", "--verify", "60")
# Records are lost, no scan repairs that, and a hook is lacking.
LOSSY = ("--ring-size", "4K", "--no-scan", "--skip-hook", "zs_shrinker_scan")
# The model goes wrong, and stays so until it is verified.
WRONG = ("--verify", "5", "--rescan", "3600")
WITH_PROBES_OF = """
import sys
from pathlib import Path
from zpobs.cli import main
from zpobs.loaders import core
probes = Path(sys.argv.pop(1))
core.bpf_object = lambda _: probes
main()
"""
# Takes memory that its group has not, until zswap has most of a hundredth of the machine's.
FILL_ZSWAP = """
import os, re, sys, time

def kib(name):
    return int(re.search(rf"^{name}:\\s+(\\d+)", open("/proc/meminfo").read(), re.M)[1])

open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
held = []
while kib("Zswap") < 0.93 * kib("MemTotal") / 100:
    held.append(b"".join(os.urandom(3000) + bytes(1096) for _ in range(64)))
print("there", flush=True)
time.sleep(3600)
"""
# Pages are served for three of these, on a busy machine too.
INTERVAL_S = 10.0
# A scrape may take as long: on a busy machine that is more than it looks.
SCRAPE_S = 10
RATE_S = 6 * SCRAPE_S
PATIENCE_S = 600.0
# More than ZpobsMigrationFailures wants, whatever of it is there before the first scrape.
REFUSED_MIN = 120
MAX_POOL_PERCENT = Path("/sys/module/zswap/parameters/max_pool_percent")


def discard(device: ZramDevice, pages: int) -> None:
    """Give the first pages of a device back."""
    fd = os.open(f"/dev/{device.name}", os.O_RDWR)
    try:
        fcntl.ioctl(fd, BLKDISCARD, struct.pack("QQ", 0, pages * mmap.PAGESIZE))
    finally:
        os.close(fd)


class Work:
    """Writes, discards, compacts and moves pages all the while, so that there is what to rate."""

    def __init__(self, device: ZramDevice, witness: Witness) -> None:
        self._device = device
        self._witness = witness
        self._over = threading.Event()
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        device, seed = self._device, 0
        try:
            while not self._over.is_set():
                seed += 1
                Churn(device, operations=800, seed=seed, pages=1000).finish()
                device.compact()
                move_pages(self._witness.walk(self._witness.zram_pool(device.name)))
                # Churn wants pages that are empty, and zspages are to die.
                discard(device, 1000)
        except BaseException as error:
            self._failed.append(error)

    def end(self) -> None:
        """Wait for its last round."""
        self._over.set()
        self._thread.join()
        assert not self._failed, self._failed


@dataclass
class Looked:
    """The server and what it looks at."""

    server: Prometheus
    whole: Exporter
    lossy: Exporter
    wrong: Exporter
    work: Work
    busy: ZramDevice
    refusing: ZramDevice
    diverging: ZramDevice


@pytest.fixture(scope="module")
def looked(
    loader: str, attach_form: str, witness: Witness, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Looked]:
    form = ("--loader", loader, "--attach", attach_form)
    program = (sys.executable, "-c", WITH_PROBES_OF, str(traps.PUTBACK_UNTOLD.object_file))
    with ExitStack() as stack:
        free_movable_memory()
        devices = [ZramDevice("512M") for _ in range(3)]
        for device in devices:
            stack.callback(device.remove)
        busy, refusing, diverging = devices
        (Path("/sys/block") / busy.name / "mem_limit").write_text("256M")
        whole, lossy, wrong = (
            stack.enter_context(Exporter(*form, *options, interval_s=INTERVAL_S, program=by))
            for options, by in (
                (EVERYTHING, ZPOBS),
                (LOSSY, ZPOBS),
                (WRONG, program),
            )
        )
        setup = Setup(
            jobs=[Job(JOB, (whole.target,)), Job("troubled", (lossy.target, wrong.target))],
            rules=scraped.shortened(RULES.read_text()),
            interval_s=SCRAPE_S,
        )
        server = Prometheus(
            tmp_path_factory.mktemp("prometheus"),
            setup,
            program=lent("prometheus"),
            patience_s=PATIENCE_S,
        )
        stack.callback(server.close)
        attached = "zpobs_probe_attached", frozenset({("function", "obj_malloc")})
        for exporter in (whole, lossy, wrong):
            exporter.until(lambda found: found.get(attached) == 1)
        work = Work(busy, witness)
        stack.callback(work.end)
        well(server, f'count_over_time(zpobs_pools{{job="{JOB}"}}[10m]) >= 4')
        yield Looked(server, whole, lossy, wrong, work, busy, refusing, diverging)


def test_a_page_with_everything_on_it_is_well_formed(looked: Looked) -> None:
    """As promtool checks it; every metric there is comes to be on it."""
    page, lacking, end_s = "", {metric.name for metric in METRICS}, time.monotonic() + PATIENCE_S
    # Some are there once something happened, such as a compaction.
    while lacking:
        assert time.monotonic() < end_s, lacking
        # On a busy machine this may take longer than the exporter lets a request take.
        with contextlib.suppress(ConnectionError):
            page = looked.whole.page()
            served = {name.removesuffix("_bucket") for name, _ in series_of(page)}
            lacking = {metric.name for metric in METRICS} - served
    done = subprocess.run(
        [lent("promtool"), "check", "metrics"],
        check=False,
        input=page,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "panel", [pytest.param(panel, id=f"{uid}: {panel.title}") for uid, panel in PANELS]
)
def test_every_panel_shows_something(looked: Looked, panel: Panel) -> None:
    """Each query of both dashboards, of real figures."""
    scraped.shows(looked.server, panel, RATE_S)


def test_every_recording_rule_records(looked: Looked) -> None:
    """Numbers alone."""
    names = scraped.kinds(looked.server)["recording"]
    assert len(names) >= 28
    for name in names:
        scraped.records(looked.server, name)


def test_every_alert_has_what_it_judges(looked: Looked) -> None:
    """Each metric that is in it is there."""
    names = scraped.kinds(looked.server)["alerting"]
    assert len(names) == 12
    for name in names:
        scraped.judges(looked.server, name)


def test_lost_records_raise_their_alert(looked: Looked) -> None:
    """Of the exporter whose ring is too small, and of no other."""
    scraped.fires(looked.server, "ZpobsRecordsLost", instance=looked.lossy.target)


def test_a_hook_that_is_lacking_raises_its_alert(looked: Looked) -> None:
    """It says how many are."""
    scraped.fires(looked.server, "ZpobsProbesMissing", instance=looked.lossy.target)


def test_figures_that_no_scan_makes_exact_raise_their_alert(looked: Looked) -> None:
    """Those of a pool that is older than the probes, without scans."""
    scraped.fires(
        looked.server,
        "ZpobsFiguresInexact",
        instance=looked.lossy.target,
        pool=looked.busy.name,
    )


def test_a_model_that_goes_wrong_raises_its_alert(looked: Looked) -> None:
    """Probes that do not tell what compaction left behind, verified against a scan."""
    sparse(looked.diverging)
    looked.diverging.compact()
    scraped.fires(looked.server, "ZpobsDivergence", instance=looked.wrong.target, what="model")


def refuse(device: ZramDevice, witness: Witness, trap_witness: TrapWitness, times: int) -> None:
    """Have migrations of the one page of a device fail so often: it is being read meanwhile."""
    disk = os.open(f"/dev/{device.name}", os.O_RDWR | os.O_DIRECT)
    processors = os.sched_getaffinity(0)
    # The mover is held up on the other processor.
    os.sched_setaffinity(0, {1})
    try:
        with mmap.mmap(-1, mmap.PAGESIZE) as page:
            page[:] = Random(1).randbytes(mmap.PAGESIZE)
            os.pwritev(disk, [page], 0)
            end_s, seen, pfn = time.monotonic() + PATIENCE_S, 0, None
            while seen < times and time.monotonic() < end_s:
                if pfn is None:
                    (zspage,) = witness.walk(witness.zram_pool(device.name)).zspages
                    pfn = zspage.pfns[0]

                def move(pfn: int = pfn) -> None:
                    elsewhere(pfn)
                    trap_witness.let_go()

                # As in test_traps: the migration first, which goes on once there is a reader.
                with trap_witness.held_up(Hold.ISOLATED | Hold.READING) as await_it:
                    mover = threading.Thread(target=move)
                    mover.start()
                    if await_it():
                        os.preadv(disk, [page], 0)
                    mover.join()
                before, seen = seen, trap_witness.refused()[0]
                # Where none was refused it has moved.
                pfn = pfn if seen > before else None
    finally:
        os.sched_setaffinity(0, processors)
        os.close(disk)
    assert seen >= times


@pytest.mark.needs("readers may sleep")
def test_pages_that_do_not_migrate_raise_their_alert(looked: Looked, witness: Witness) -> None:
    """A zspage that is being read refuses, over and over."""
    # Whoever moves pages meanwhile would be held up in its place.
    looked.work.end()
    with TrapWitness() as trap_witness:
        refuse(looked.refusing, witness, trap_witness, REFUSED_MIN)
    scraped.fires(
        looked.server,
        "ZpobsMigrationFailures",
        instance=looked.whole.target,
        pool=looked.refusing.name,
    )


def test_zswap_near_its_limit_raises_its_alert(looked: Looked) -> None:
    """One percent of the memory, nearly all of it in use."""
    zswap = Zswap(128)
    MAX_POOL_PERCENT.write_text("1")
    group = Path("/sys/fs/cgroup/limit")
    group.mkdir()
    (group / "memory.max").write_text(str(20 << 20))
    with subprocess.Popen(
        [sys.executable, "-c", FILL_ZSWAP, str(group)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "there\n"
        scraped.fires(looked.server, "ZpobsZswapNearLimit", instance=looked.whole.target)
        process.kill()
    zswap.close()


def test_nothing_is_raised_that_is_not_so(looked: Looked) -> None:
    """Of the exporter with which nothing is wrong."""
    raised = {
        each["labels"]["alertname"]
        for each in scraped.alerts(looked.server)
        if each["labels"]["instance"] == looked.whole.target
    }
    assert not raised & {
        "ZpobsAllocationFailures",
        "ZpobsDivergence",
        "ZpobsExporterDown",
        "ZpobsExporterStale",
        "ZpobsProbesMissing",
        "ZpobsRecordsLost",
    }
