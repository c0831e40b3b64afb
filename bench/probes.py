"""What probes cost, in instructions of a guest: plain ones, and what can be asked besides.

    python -m bench.probes [--kernel 7.3] [--attach fentry|kprobe] [--json]

A page is stored in a zram device and discarded again, so many times. The guest's clock advances a
nanosecond an instruction, so the least of all durations is the number of instructions of the
shortest way through the kernel, and repeats from run to run. Each row is what a store and a discard
take under one ``zpobs top``, all of them in one guest, after what they take without.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROUNDS = 1500
# _IO(0x12, 119), include/uapi/linux/fs.h
_BLKDISCARD = 0x1277
_TIMEOUT_S = 1800
_TOLD = "bench.probes: "
# What is asked for besides plain observations.
ASKED: dict[str, tuple[str, ...]] = {
    "observations": (),
    "with --life": ("--life",),
    "with --latency": ("--latency",),
    "with --objects": ("--objects",),
    "with --objects, 1 in 16": ("--objects", "--objects-rate", "16"),
}
Figures = dict[str, dict[str, int]]


def measure(device: str) -> dict[str, int]:
    """Return the fewest nanoseconds of a store and of a discard of one page."""
    contents = random.Random(1).randbytes(2000)
    least = {"store": 1 << 62, "discard": 1 << 62}
    disk = os.open(f"/dev/{device}", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page[: len(contents)] = contents
        span = struct.pack("QQ", 0, mmap.PAGESIZE)
        for _ in range(ROUNDS):
            begin_ns = time.monotonic_ns()
            os.pwritev(disk, [page], 0)
            stored_ns = time.monotonic_ns()
            fcntl.ioctl(disk, _BLKDISCARD, span)
            end_ns = time.monotonic_ns()
            least["store"] = min(least["store"], stored_ns - begin_ns)
            least["discard"] = min(least["discard"], end_ns - stored_ns)
    os.close(disk)
    return least


def measure_all(attach: str) -> Figures:
    """Measure without probes, then with each thing that can be asked for; inside the guest."""
    from lab.watcher import Top  # noqa: PLC0415 - the guest's part
    from lab.workload import ZramDevice  # noqa: PLC0415

    device = ZramDevice("64M")
    # A neighbour of the page, so that its zspage stays and neither is born or dies with it.
    figures = {"bare": _with_neighbour(device.name)}
    for name, options in ASKED.items():
        with tempfile.TemporaryDirectory() as folder:
            arguments = ["--attach", attach, "--json", "--loader", "core", *options]
            top = Top(Path(folder, "frames"), arguments, interval_s=5.0, shown=False)
            top.await_first()
            figures[name] = measure(device.name)
            top.stop()
    device.remove()
    return figures


def _with_neighbour(device: str) -> dict[str, int]:
    disk = os.open(f"/dev/{device}", os.O_WRONLY | os.O_DIRECT)
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        page[:2000] = random.Random(2).randbytes(2000)
        os.pwritev(disk, [page], mmap.PAGESIZE)
    os.close(disk)
    return measure(device)


def run_guest(kernel: str, attach: str) -> Figures:
    """Boot a guest that measures; raise CalledProcessError if it fails."""
    command = [sys.executable, "-m", "lab", "run", "--kernel", kernel, "--no-tty"]
    command += ["--count-instructions", "--timeout", str(_TIMEOUT_S), "--"]
    command += ["python3", "-m", "bench.probes", "--inside", "--attach", attach]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    (told,) = [line for line in done.stdout.splitlines() if line.startswith(_TOLD)]
    figures: Figures = json.loads(told.removeprefix(_TOLD))
    return figures


def table(figures: Figures) -> list[str]:
    """Return the figures as lines: what the pair takes, what of it the probes, and the ratio."""
    bare = sum(figures["bare"].values())
    plain = sum(figures["observations"].values()) - bare
    lines = [
        f"{'':<26}{'STORE':>8}{'DISCARD':>9}{'PAIR':>8}{'PROBES':>8}{'SHARE':>8}{'OF PLAIN':>9}"
    ]
    for name, each in figures.items():
        pair = sum(each.values())
        added = pair - bare
        of_plain = f"{added / plain:>8.2f}x" if added else f"{'':>9}"
        lines.append(
            f"{name:<26}{each['store']:>8,}{each['discard']:>9,}{pair:>8,}{added:>8,}"
            f"{100 * added / bare:>7.1f}%{of_plain}"
        )
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and return its status."""
    parser = argparse.ArgumentParser(prog="python -m bench.probes", description=__doc__)
    parser.add_argument("--kernel", default="7.3")
    parser.add_argument("--attach", choices=("fentry", "kprobe"), default="fentry")
    parser.add_argument("--json", action="store_true", help="the figures as one JSON object")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        print(f"{_TOLD}{json.dumps(measure_all(options.attach))}", flush=True)
        return 0
    try:
        figures = run_guest(options.kernel, options.attach)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"bench.probes: the guest ended with status {error.returncode}\n")
        return 1
    if options.json:
        made = {"kernel": options.kernel, "attach": options.attach, "instructions": figures}
        print(json.dumps(made))
    else:
        print(f"Instructions on {options.kernel}, {options.attach}: least of {ROUNDS} rounds")
        print("\n".join(table(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
