"""The support matrix: the tests of ``tests/guest`` on every kernel, with every loader and form.

``python -m lab.matrix`` runs guest after guest, tells each as it ends, goes on after a failure,
keeps results in ``build/matrix.json`` with each guest's output and console beside it, and ends
with a table. Its status is 0 if every run passed and enough kernels with struct zpdesc ran.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import FrameType

from lab.archive import Archive, Kernel, UnknownKernelError, choose
from lab.console import all_boots
from lab.host import EXIT_USAGE, LabError, Progress, cache_folder, locked, need
from lab.results import Result, Run, absence, judge, load, save, table, verdict_on, zpdesc_kernels

CHECKOUT = Path(__file__).resolve().parent.parent
KERNELS = ("7.3", "7.2", "6.18", "6.17", "6.16", "6.12", "6.1")
# Of those the ones that the archive may have no more, each with the reason; any other is a failure.
ABSENT: Mapping[str, str] = {}
ZPDESC_KERNELS_MIN = 4
# At once: the tests of a guest keep about one of this machine's processors busy.
GUESTS = min(2, os.cpu_count() or 1)

# What cannot be undone has a guest of its own.
LOCKDOWN = ("tests/guest/test_lockdown.py",)
# Want what the host makes ready (probes with parts taken away, a Prometheus server):
# tests/test_guests.py does that.
MADE_READY = ("tests/guest/test_traps.py", "tests/guest/test_prometheus.py")
EVERYTHING = ("tests/guest", *(f"--ignore={each}" for each in (*LOCKDOWN, *MADE_READY)))
# What depends on how the probes got there.
PROBES = tuple(f"tests/guest/test_{name}.py" for name in ("exact", "verify"))
CHURN = "tests/guest/test_churn.py"
_TIMEOUT_S = 5400
# What a result is a result of.
_SOURCES = (
    *("bpf", "lab", "pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/guest"),
    *("tests/guest_runs.py", "tests/loaders/objects.py", "tests/native/exporter.py"),
    *("tests/lent.py", "tests/scraped.py", "tests/terminal.py", "tests/traps"),
    *("tests/true_allocator.py", "dashboards", "zpobs"),
)


def runs_of(kernel: Kernel) -> list[Run]:
    """Return the runs that a kernel of the archive allows: bcc wants its headers."""
    runs = [Run(kernel.series, "core", "fentry", EVERYTHING)]
    runs.append(Run(kernel.series, "core", "kprobe", (*PROBES, CHURN)))
    runs.append(Run(kernel.series, "core", "auto", LOCKDOWN))
    if kernel.headers:
        runs += [Run(kernel.series, "bcc", form, PROBES) for form in ("fentry", "kprobe")]
    return runs


def source_files() -> list[Path]:
    """Return all files of which a result is a result, in an order that is always the same."""
    found = []
    for name in _SOURCES:
        place = CHECKOUT / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.suffix in (".py", ".c", ".h", ".sh", ".toml"):
                found.append(path)
    return found


def sources_digest() -> str:
    """Return a name for the very sources that guests would test now."""
    digest = hashlib.sha256()
    for path in source_files():
        digest.update(f"{path.relative_to(CHECKOUT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def execute(run: Run, folder: Path, sources: str = "") -> Result:
    """Run a guest's tests; its output and its console stay in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    log, console = (folder / f"{run.name}.{kind}" for kind in ("log", "console"))
    console.unlink(missing_ok=True)
    # However this program ends, the kernel then ends the guest.
    command = [need("setpriv", "util-linux"), "--pdeathsig", "TERM", "--"]
    command += [sys.executable, "-m", "lab", "run", "--kernel", run.kernel, "--no-tty"]
    # Migration in a guest wants movable memory, in whole blocks.
    command += ["--timeout", str(_TIMEOUT_S), "--append", "movablecore=512M"]
    command += ["--console", str(console), "--", "env", "ZPOBS_GUEST=1"]
    command += [f"ZPOBS_LOADER={run.loader}", f"ZPOBS_ATTACH={run.form}"]
    command += ["python3", "-m", "pytest", "-p", "no:cacheprovider", "--show-capture=no"]
    begin_s = time.monotonic()
    # To be followed while it runs, which takes minutes.
    with log.open("w") as out:
        done = subprocess.run(
            [*command, "-v", "--durations=20", *run.tests],
            check=False,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    said = console.read_text(errors="replace") if console.exists() else ""
    warnings, lost_boots = all_boots(said)
    return judge(
        run,
        log.read_text(errors="replace"),
        done.returncode,
        warnings=warnings,
        lost_boots=lost_boots,
        seconds=round(time.monotonic() - begin_s),
        sources=sources,
    )


def _ended(signum: int, _frame: FrameType | None) -> None:
    """End at once: guests end with this process, and their results are none."""
    print(f"matrix: ended by {signal.Signals(signum).name}", flush=True)
    os._exit(128 + signum)


def _say(text: str) -> None:
    print(f"matrix: {text}", flush=True)


@dataclass(frozen=True)
class Plan:
    """The runs to make, the releases of their kernels, and why wanted kernels are absent."""

    runs: Sequence[Run]
    releases: Mapping[str, str]
    absent: Mapping[str, str]


def plan(kernels: Sequence[Kernel], wanted: Sequence[str], only: Sequence[str] = ()) -> Plan:
    """Plan the runs on those wanted kernels that the archive has; all runs, or only LOADER-FORM."""
    runs: list[Run] = []
    releases, absent = {}, {}
    for name in wanted:
        try:
            kernel = choose(kernels, name)
        except UnknownKernelError as error:
            absent[name] = str(error)
            continue
        releases[kernel.series] = kernel.release
        runs += [run for run in runs_of(kernel) if not only or f"{run.loader}-{run.form}" in only]
    return Plan(runs, releases, absent)


def missed(kernel: str, reason: str, listed: Mapping[str, str] = ABSENT) -> Result:
    """Return what is told of a kernel that is absent: a failure unless that is listed."""
    why = f"{reason} ({listed[kernel]})" if kernel in listed else reason
    return Result(absence(kernel), problem="" if kernel in listed else reason, absent=why)


class Matrix:
    """The runs of one call, and what became of them."""

    def __init__(self, path: Path, plan: Plan, *, resume: bool) -> None:
        self._path = path
        self._folder = path.with_suffix("")
        self._sources = sources_digest()
        self._plan = plan
        # Whatever its tests were then: one result for each kernel, loader and form.
        self._before = {each.run.name: each for each in load(path)}
        for kernel in plan.releases:
            self._before.pop(absence(kernel).name, None)
        self._resume = resume
        self._lock = Lock()
        self._results: dict[str, Result] = {
            absence(kernel).name: missed(kernel, reason) for kernel, reason in plan.absent.items()
        }

    def run(self, jobs: int) -> list[Result]:
        """Make the runs, so many at once; return all results, in the order of the runs."""
        runs = self._plan.runs
        with ThreadPoolExecutor(jobs) as workers:
            started = [workers.submit(self._one, run) for run in runs]
            try:
                for each in started:
                    each.result()
            finally:
                workers.shutdown(cancel_futures=True)
        absent = [absence(kernel) for kernel in self._plan.absent]
        names = [run.name for run in (*runs, *absent)]
        return [self._results[name] for name in names if name in self._results]

    def may_stay(self, run: Run) -> Result | None:
        """Return an earlier success with these tests, these very sources and this very kernel."""
        before = self._before.get(run.name)
        if not self._resume or before is None or before.problem or before.run != run:
            return None
        same = (self._sources, self._plan.releases[run.kernel])
        return before if (before.sources, before.release) == same else None

    def _one(self, run: Run) -> None:
        before = self.may_stay(run)
        if before:
            result, remark = before, ", before"
        else:
            _say(f"{run.name} begins; log: {self._folder / run.name}.log")
            result, remark = execute(run, self._folder, self._sources), ""
        with self._lock:
            self._results[run.name] = result
            done = len(self._results) - len(self._plan.absent)
            verdict = verdict_on(result)
            _say(
                f"{done}/{len(self._plan.runs)} {run.name}: {verdict}; {result.passed} passed,"
                f" {len(result.skipped)} skipped, {result.seconds} s{remark}"
            )
            # Those of other kernels and of earlier calls stay.
            save(self._path, list({**self._before, **self._results}.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab.matrix", description="Run the kernel tests on every kernel."
    )
    parser.add_argument(
        "--kernel", action="append", metavar="X.Y", help=f"only these; default {' '.join(KERNELS)}"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="LOADER-FORM", help="such as core-kprobe"
    )
    parser.add_argument(
        "--jobs", type=int, default=GUESTS, help=f"guests at once, default here {GUESTS}"
    )
    parser.add_argument(
        "--resume", action="store_true", help="leave out what passed with these very sources"
    )
    parser.add_argument("--list", action="store_true", help="list the runs and end")
    parser.add_argument("--results", type=Path, default=CHECKOUT / "build/matrix.json")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the matrix and return its status."""
    options = _parser().parse_args(argv)
    try:
        kernels = Archive(cache_folder(), Progress()).kernels()
    except LabError as error:
        print(f"matrix: {error}", file=sys.stderr)
        return error.status
    planned = plan(kernels, options.kernel or KERNELS, options.only)
    for reason in planned.absent.values():
        _say(reason)
    if not planned.runs or (options.kernel and planned.absent):
        nothing = not planned.runs
        _say("nothing to run" if nothing else "not every kernel that was asked for is there")
        return EXIT_USAGE
    if options.list:
        print("\n".join(run.name for run in planned.runs))
        return os.EX_OK
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _ended)
    waiting = "waiting for another matrix with the same results"
    with locked(options.results.parent, options.results.stem, lambda: _say(waiting)):
        results = Matrix(options.results, planned, resume=options.resume).run(options.jobs)
    print("\n".join(table(results)), flush=True)
    partial = bool(options.kernel or options.only)
    problems = shortcomings(results, planned, partial=partial)
    for problem in problems:
        _say(problem)
    _say("FAILED" if problems else "every run passed")
    return 1 if problems else 0


def shortcomings(results: Sequence[Result], planned: Plan, *, partial: bool) -> list[str]:
    """Return why results are no success of the matrix, nothing if they are one."""
    told = {each.run.name for each in results}
    problems = [f"{each.run.name}: {each.problem}" for each in results if each.problem]
    problems += [f"{run.name}: no result" for run in planned.runs if run.name not in told]
    if not partial and len(zpdesc_kernels(results)) < ZPDESC_KERNELS_MIN:
        problems.append(f"fewer than {ZPDESC_KERNELS_MIN} kernels with struct zpdesc ran")
    return problems


if __name__ == "__main__":
    sys.exit(main())
