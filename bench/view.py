"""The interactive view at work: what it costs at rest, and how fast it answers keys.

    python -m bench.view [--zspages N] [--seconds S] [--json]

The real `zpobs top` runs in a terminal of its own at 80x24 and 200x50, at its
default interval. At rest: the share of a core that its process takes, first on a
small device, then in the zspages of one class of another that has N of them,
beside the budget of the view. Moving: keys are sent to it one by one, each as
soon as the screen has answered the one before; the time from key to screen
contains tmux, so that of a key in the small device's few rows stands beside it.
Needs root, tmux and zram.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path

from bench.budget import judged
from tests.native.device import NativeDevice
from tests.terminal import Terminal
from zpobs.views.live.feed import DEFAULT_BUDGET

_ROOT = Path(__file__).resolve().parent.parent
_SIZES = ((80, 24), (200, 50))
_SMALL_PAGES = 64
# What is done before a key or a scene could be slow only once.
_SETTLE_S = 5.0
_KEYS = ("Down", "NPage", "End", "PPage", "Home")
_KEY_ROUNDS = 6
_ROW = re.compile(r"row ([\d,]+) of ([\d,]+)")
Figures = dict[str, float]


def cpu_s(pid: int) -> float:
    """Return what a process has used of a core, in seconds, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    # utime and stime are fields 14 and 15; what is split here begins with the third.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def share_at_rest(pid: int, seconds: float) -> float:
    """Return the share of a core that a process takes while nothing is pressed."""
    time.sleep(_SETTLE_S)
    begin_s, used_s = time.monotonic(), cpu_s(pid)
    time.sleep(seconds)
    return (cpu_s(pid) - used_s) / (time.monotonic() - begin_s)


def row_shown(lines: list[str]) -> tuple[int, int]:
    """Return the row of the cursor and the number of rows, (0, 0) if they are not shown."""
    found = next((found for found in map(_ROW.search, lines) if found), None)
    if found is None:
        return 0, 0
    row, rows = (int(text.replace(",", "")) for text in found.groups())
    return row, rows


def key_times_ms(terminal: Terminal) -> list[float]:
    """Return how long each of some keys took until the cursor was seen elsewhere."""
    taken = []
    for _ in range(_KEY_ROUNDS):
        for key in _KEYS:
            before = row_shown(terminal.lines())
            begin_s = time.perf_counter()
            terminal.press(key)
            while row_shown(terminal.lines()) == before:
                if time.perf_counter() - begin_s > 30:
                    raise SystemExit(f"bench.view: {key} moves nothing: {terminal.lines()}")
            taken.append(1000 * (time.perf_counter() - begin_s))
    return taken


def measure(device: NativeDevice, columns: int, rows: int, seconds: float) -> Figures:
    """Return the figures of one device at one size, in the zspages of its first class."""
    command = [sys.executable, "-m", "zpobs", "top", "--pool", device.name]
    with Terminal(command, columns=columns, rows=rows, cwd=_ROOT) as terminal:
        terminal.shows("pools >", "CLASS")
        terminal.until(lambda lines: "attaching" not in lines[0], "probes")
        terminal.press("Enter")
        terminal.shows("ADDRESS")
        lines = terminal.until(lambda lines: row_shown(lines)[1] > 0, "zspages")
        pid = terminal.pid("zpobs", "top")
        share = share_at_rest(pid, seconds)
        times = key_times_ms(terminal)
        pace = terminal.lines()[0]
        terminal.press("q")
        terminal.ends(0)
    slow = re.search(r"really ([\d.]+) s", pace)
    return {
        "columns": columns,
        "rows": rows,
        "zspages": row_shown(lines)[1],
        "share": share,
        "key_ms": statistics.median(times),
        "key_ms_most": max(times),
        "pace_s": float(slow[1]) if slow else 2.0,
    }


def print_report(found: list[Figures]) -> None:
    """Print the figures for people."""
    for each in found:
        kept = judged(each["share"], DEFAULT_BUDGET)
        print(
            f"{each['columns']:.0f}x{each['rows']:.0f}, {each['zspages']:,.0f} zspages, a frame "
            f"every {each['pace_s']:.1f} s: at rest {100 * each['share']:.2f} % of a core, "
            f"at most {100 * DEFAULT_BUDGET:.0f} %: {kept}; "
            f"a key {each['key_ms']:.0f} ms (at most {each['key_ms_most']:.0f})"
        )


def main() -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.view", description=__doc__)
    parser.add_argument("--zspages", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("bench.view: needs root", file=sys.stderr)
        return 3
    found: list[Figures] = []
    for pages in (_SMALL_PAGES, options.zspages):
        device = NativeDevice("4G")
        try:
            # A page that cannot be compressed is a zspage of its own.
            device.fill("incompressible", pages)
            found += [measure(device, *size, options.seconds) for size in _SIZES]
        finally:
            device.remove()
    if options.json:
        print(json.dumps(found))
    else:
        print_report(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
