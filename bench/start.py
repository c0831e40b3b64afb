"""The start of ``zpobs top`` and its memory, beside Python's own and NumPy's.

    python -m bench.start [--rounds N] [--json]

Each command's time is from its start as a process to its first line of output,
its memory the peak of its resident memory while it runs: of ``top`` until its
second frame, for which the probes were attached, or refused. All take turns, and
the medians are told. The memory grows with the zspages on the host, which are
told as well. Needs root.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.budget import judged

BUDGET_BEYOND_NUMPY_MS = 500.0
BUDGET_PEAK_MB = 80.0
_WAIT_FOR_ME = "print(flush=True); input()"
_BESIDE = {"python": _WAIT_FOR_ME, "numpy": f"import numpy; {_WAIT_FOR_ME}"}
_LOADERS = ("core", "bcc")
Figures = dict[str, float]


class FailedError(Exception):
    """A command ended before its time; the text is what it said last."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a command: its time, its peak of memory, and its last line of output."""

    first_line_ms: float
    peak_mb: float
    line: str


def peak_mb(pid: int) -> float:
    """Return the peak of a process's resident memory so far, in millions of bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (kib,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(kib) * 1024 / 1e6


def start(command: Sequence[str], *, lines: int = 1) -> Start:
    """Start a command, end it after so many lines of output."""
    begin_ns = time.perf_counter_ns()
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            line = process.stdout.readline()
            taken_ms = (time.perf_counter_ns() - begin_ns) / 1e6
            for _ in range(lines - 1):
                line = process.stdout.readline()
            if not line:
                said = process.stderr.read().strip().splitlines()
                raise FailedError(said[-1] if said else "it ended and said nothing")
            return Start(taken_ms, peak_mb(process.pid), line)
        finally:
            process.terminate()


def top(loader: str) -> list[str]:
    """Return the command that is measured."""
    return ["-m", "zpobs", "top", "--json", "--interval", "0.1", "--loader", loader]


def measure(rounds: int) -> tuple[Figures, dict[str, str]]:
    """Return medians by name, and why a loader could not be measured."""
    taken: dict[str, list[Start]] = {}
    lacking: dict[str, str] = {}
    for _ in range(rounds):
        for name, code in _BESIDE.items():
            taken.setdefault(name, []).append(start(["-c", code]))
        for loader in _LOADERS:
            if loader not in lacking:
                try:
                    taken.setdefault(loader, []).append(start(top(loader), lines=2))
                except FailedError as error:
                    lacking[loader] = str(error)
    figures: Figures = {}
    for name, starts in taken.items():
        if not starts or name in lacking:
            continue
        figures[f"{name}_ms"] = statistics.median(each.first_line_ms for each in starts)
        figures[f"{name}_peak_mb"] = statistics.median(each.peak_mb for each in starts)
        if name in _LOADERS:
            frame = json.loads(starts[-1].line)
            figures[f"{name}_hooks"] = frame["health"]["hooks"]
            figures[f"{name}_zspages"] = sum(pool["zspages"] for pool in frame["pools"])
            figures[f"{name}_beyond_numpy_ms"] = figures[f"{name}_ms"] - figures["numpy_ms"]
    return figures, lacking


def print_report(figures: Figures, lacking: dict[str, str]) -> None:
    """Print the figures for people."""
    names = {"python": "python", "numpy": "python, NumPy imported"}
    names |= {loader: f"zpobs top --loader {loader}" for loader in _LOADERS}
    print(f"{'':26}{'FIRST LINE':>12}{'PEAK':>12}")
    for name, what in names.items():
        if name in lacking:
            print(f"{what:26}  not measured: {lacking[name]}")
            continue
        line = f"{what:26}{figures[f'{name}_ms']:9.0f} ms{figures[f'{name}_peak_mb']:9.1f} MB"
        if name in _LOADERS:
            hooks, zspages = figures[f"{name}_hooks"], figures[f"{name}_zspages"]
            line += f"  ({hooks:.0f} hooks attached, {zspages:,.0f} zspages)"
        print(line)
    for loader in _LOADERS:
        if loader in lacking:
            continue
        beyond, peak = figures[f"{loader}_beyond_numpy_ms"], figures[f"{loader}_peak_mb"]
        print(
            f"budget, {loader}: {beyond:.0f} ms beyond NumPy, at most {BUDGET_BEYOND_NUMPY_MS:.0f}:"
            f" {judged(beyond, BUDGET_BEYOND_NUMPY_MS)}; {peak:.1f} MB, at most "
            f"{BUDGET_PEAK_MB:.0f}: {judged(peak, BUDGET_PEAK_MB)}"
        )


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures, lacking = measure(max(options.rounds, 1))
    if options.json:
        print(json.dumps({**figures, "not_measured": lacking}))
    else:
        print_report(figures, lacking)
    if "core" in lacking:
        print(f"bench.start: {lacking['core']}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
