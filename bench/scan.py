"""A scan of a pool, from the kernel to the model, beside a walk that only counts.

    python -m bench.scan [--zspages N] [--rounds N] [--json]

A zram device of its own is filled until its pool has that many zspages. The
walk that only counts (bench/count.bpf.c) follows the same pointers in the
kernel and tells nothing. The scan tells every zspage with all its page frames
and is applied to the shadow model: into an empty one, and again into one that
knows them already. The budget is for both. All take turns. Needs root, clang and
libbpf.
"""

from __future__ import annotations

import argparse
import json
import mmap
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.budget import judged
from tests.native.device import NativeDevice
from tests.ring_producer import why_not
from zpobs.bpf_build import compile_object
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.plan import make_plan
from zpobs.loaders.libbpf import BpfObject
from zpobs.model import Coverage, ShadowModel
from zpobs.scans import open_scanner
from zpobs.sources import bpfmap
from zpobs.sources.pools import reading_of
from zpobs.sources.scanner import FoundPool, Scanner
from zpobs.wire import Words

BUDGET_RATIO = 3.0
_PROGRAM = Path(__file__).with_name("count.bpf.c")
_FILL_PAGES = 4096
Figures = dict[str, float]


class CountingWalk:
    """The least that a walk of a pool can be."""

    def __init__(self, object_file: Path, pool: int) -> None:
        self._loaded = BpfObject(object_file)
        self._loaded.load()
        self._run = self._loaded.program_fd("count_pool")
        memory = mmap.mmap(self._loaded.map_fd(".bss.count"), mmap.PAGESIZE)
        self._words: Words = np.frombuffer(memory, dtype=np.uint64, count=3)
        self._words[0] = pool

    def walk(self) -> None:
        """Walk the pool once."""
        bpfmap.test_run(self._run)

    @property
    def counted(self) -> tuple[int, int]:
        """Zspages and descriptors of the last walk."""
        return int(self._words[1]), int(self._words[2])


def fill(device: NativeDevice, zspages: int, scanner: Scanner) -> FoundPool:
    """Fill the device until its pool has so many zspages; return the pool."""
    pool = next(pool for pool in scanner.find_pools().pools if pool.name == device.name)
    first = 0
    while True:
        model = ShadowModel(make_plan(probe_kernel()).kernel, Coverage(hooks=0))
        apply_scan(scanner, pool, model)
        have = model.rows_held
        if have >= zspages:
            return pool
        # About three in ten pages of mixed content begin a zspage.
        pages = max((zspages - have) * 3, _FILL_PAGES)
        device.fill("mixed", pages, first=first, seed=first)
        first += pages
        print(f"bench.scan: {have:,} zspages, storing {pages:,} pages more", file=sys.stderr)


def apply_scan(scanner: Scanner, pool: FoundPool, model: ShadowModel) -> None:
    """Scan a pool into a model."""
    begin_ns = time.monotonic_ns()
    model.apply_counters(reading_of({pool: 1}, begin_ns))
    scanner.scan(pool.address, 1, model.apply)
    model.note_scan(begin_ns, time.monotonic_ns(), ())


def measure(scanner: Scanner, pool: FoundPool, counting: CountingWalk, rounds: int) -> Figures:
    """Return medians in ns per zspage, taking turns."""
    kernel = make_plan(probe_kernel()).kernel
    known = ShadowModel(kernel, Coverage(hooks=0))
    apply_scan(scanner, pool, known)
    runs: dict[str, Callable[[], None]] = {
        "count": counting.walk,
        "scan": lambda: scanner.scan(pool.address, 1, lambda _: None),
        "scan_to_empty_model": lambda: apply_scan(
            scanner, pool, ShadowModel(kernel, Coverage(hooks=0))
        ),
        "scan_to_model": lambda: apply_scan(scanner, pool, known),
    }
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            begin_ns = time.perf_counter_ns()
            run()
            taken[name].append(time.perf_counter_ns() - begin_ns)
    zspages, descriptors = counting.counted
    if known.rows_held != zspages:
        raise SystemExit(f"bench.scan: {known.rows_held} zspages scanned, {zspages} counted")
    figures: Figures = {"zspages": zspages, "descriptors": descriptors}
    for name, times in taken.items():
        figures[f"{name}_ns"] = statistics.median(times) / zspages
        figures[f"{name}_ns_best"] = min(times) / zspages
    figures["ratio"] = figures["scan_to_model_ns"] / figures["count_ns"]
    figures["ratio_empty"] = figures["scan_to_empty_model_ns"] / figures["count_ns"]
    return figures


def print_report(figures: Figures) -> None:
    """Print the figures for people."""
    names = {
        "count": "walk that only counts",
        "scan": "scan to columns",
        "scan_to_model": "scan to the model",
        "scan_to_empty_model": "scan to an empty model",
    }
    print(f"{figures['zspages']:,.0f} zspages, {figures['descriptors']:,.0f} descriptors")
    for name, what in names.items():
        median, best = figures[f"{name}_ns"], figures[f"{name}_ns_best"]
        ratio = median / figures["count_ns"]
        print(f"  {what:24}{median:8.0f} ns a zspage (best {best:.0f})  {ratio:5.2f} x")
    for name in ("scan_to_model", "scan_to_empty_model"):
        ratio = figures[f"{name}_ns"] / figures["count_ns"]
        kept = judged(ratio, BUDGET_RATIO)
        print(
            f"budget, {names[name]}: {ratio:.2f} x of the walk that only counts, "
            f"at most {BUDGET_RATIO:.1f}: {kept}"
        )


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.scan", description=__doc__)
    parser.add_argument("--zspages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    lacking = why_not()
    if lacking:
        print(f"bench.scan: {lacking}", file=sys.stderr)
        return 3
    facts = probe_kernel()
    device = NativeDevice("16G")
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_scanner(facts, make_plan(facts).size_classes) as scanner,
        ):
            program = Path(folder) / "count.bpf.o"
            compile_object(_PROGRAM, program)
            pool = fill(device, options.zspages, scanner)
            figures = measure(scanner, pool, CountingWalk(program, pool.address), options.rounds)
    finally:
        device.remove()
    if options.json:
        print(json.dumps(figures))
    else:
        print_report(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
