"""The guests of ``tests/test_guests.py``: which there are, and when they run.

They take longer than everything else together, so they begin with the first test and run beside
the others, one at a time; two at once when nothing else is left. The whole matrix is ``make
matrix``: here is of every way in which kernels differ what shows it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, Semaphore

from lab.matrix import CHECKOUT, GUESTS, MADE_READY, execute
from lab.results import Result, Run
from tests import traps
from tests.lent import lend


def files(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_{name}.py" for name in names)


def some(expression: str, *names: str) -> tuple[str, ...]:
    return (*files(*names), "-k", expression)


# The ways by which a model comes to equal a pool: by probes alone, or attached late.
WAYS = "features or two_devices or attached_late"
AROUND = ("features", "exact", "scan")
# The longest first: what ends last should be short.
RUNS: Mapping[str, Run] = {
    "state and movement, on 7.3": Run(
        "7.3",
        "core",
        "auto",
        files(
            *("features", "exact", "scan", "verify", "frames", "trace"),
            *("compaction", "pageblocks", "latency", "life"),
        ),
    ),
    "views and owners, on 7.3": Run(
        "7.3",
        "core",
        "auto",
        files("loaders", "top", "zswap", "zswap_pressure", "exporter", "prometheus"),
    ),
    # Of zswap's pool from its beginning.
    "objects and captures, on 7.3": Run("7.3", "core", "auto", files("objects", "record")),
    "another descriptor, on 6.12": Run(
        "6.12",
        "core",
        "auto",
        some(f"{WAYS} or old_pool or forecast", *AROUND, "verify", "compaction"),
    ),
    "zsmalloc as a module, on 6.1": Run(
        "6.1", "core", "auto", some(f"{WAYS} or frames", *AROUND, "frames")
    ),
    "traps, on 7.3": Run("7.3", "core", "fentry", files("traps")),
    # Those that the path of zspage death matters to.
    "traps, on 6.18": Run("6.18", "core", "fentry", some("die or missed or shrinker", "traps")),
    "bcc, on 7.3": Run("7.3", "bcc", "auto", some("two_devices", "exact")),
    "kprobes, on 7.3": Run("7.3", "core", "kprobe", some("two_devices or huge", "exact")),
    "locked down, on 7.3": Run("7.3", "core", "auto", files("lockdown")),
}


def folder(name: str) -> Path:
    """Return where the output and the console of a run are kept."""
    return CHECKOUT / "build/guests" / "-".join(name.replace(",", "").split())


class Guests:
    """Runs under way: one at a time, as many as is good once :meth:`alone` was called."""

    def __init__(self, names: Iterable[str]) -> None:
        names = list(names)
        self._places = Semaphore(1)
        self._is_alone = Event()
        self._ended = Event()
        if any(set(MADE_READY) & set(RUNS[name].tests) for name in names):
            # Guests have no compiler, and no Prometheus.
            traps.build()
            lend()
        self._workers = ThreadPoolExecutor(GUESTS)
        self._results: dict[str, Future[Result]] = {
            name: self._workers.submit(self._one, name) for name in names
        }

    def _one(self, name: str) -> Result:
        with self._places:
            if self._ended.is_set():
                return Result(RUNS[name], problem="not run: the tests had ended")
            return execute(RUNS[name], folder(name))

    def alone(self) -> None:
        """Note that nothing else runs any more."""
        if not self._is_alone.is_set():
            self._is_alone.set()
            for _ in range(GUESTS - 1):
                self._places.release()

    def result(self, name: str) -> Result:
        """Wait for a run."""
        return self._results[name].result()

    def end(self) -> None:
        """Begin no other run, and wait for those that run."""
        self._ended.set()
        self._workers.shutdown(cancel_futures=True)
