"""The demonstration, inside a guest: a watched workload, then model against kernel.

Starts ``zpobs top``, sets up a zram device of its own, lets ``churn`` work on
it, compacts it, moves its pages by taking memory blocks offline, and compares
a frame at rest with the kernel's own figures and with the operations made.
Status 0 if all are equal to the unit, 1 if any differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from lab.comparison import (
    Check,
    at_least,
    compare_health,
    compare_pool,
    equal,
    frames_that_changed,
    pool_named,
    report,
)
from lab.watcher import Top, WatcherEndedError
from lab.witness import Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages

_MIGRATION_TRIES = 3
_LOG = Path("/tmp/zpobs-demo.jsonl")


def say(text: str) -> None:
    """Tell a step on standard error, so that it never lies between the lines of a frame."""
    sys.stderr.write(f"demo: {text}\n")
    sys.stderr.flush()


def demonstrate(top: Top, operations: int, rate: int, seed: int) -> list[Check]:
    """Run the workload under a watching ``top`` and return the comparison."""
    top.await_first(say)
    free_movable_memory()
    device = ZramDevice("256M")
    say(f"churn: {operations} operations on {device.name}, {rate} a second, seed {seed}")
    made = Churn(device, operations=operations, rate=rate, seed=seed).finish()
    say("compaction")
    device.compact()
    witness = Witness()
    before = witness.walk(witness.zram_pool(device.name))
    say("taking memory blocks offline, so that pages migrate")
    after = before
    for _ in range(_MIGRATION_TRIES):
        say(f"{move_pages(after)} blocks went offline and came back")
        after = witness.walk(witness.zram_pool(device.name))
        if frames_that_changed(before, after):
            break
    frame = top.frame_after(time.time_ns())
    after = witness.walk(witness.zram_pool(device.name))
    checks = compare_health(frame)
    try:
        pool = pool_named(frame, device.name)
    except LookupError as error:
        return [*checks, Check("pool", str(error), device.name, "sysfs", False)]
    checks += compare_pool(pool, device.mm_stat(), after, made)
    counters = pool["counters"]
    moved = frames_that_changed(before, after)
    checks += [
        equal("compactions", counters["compactions"], 1, "operations made"),
        at_least("objects moved by compaction", counters["moves"], 1, "pages were freed"),
        at_least("page migrations", counters["migrations"], moved, "frames that changed"),
    ]
    device.reset()
    frame = top.frame_after(time.time_ns())
    names = [pool["name"] for pool in frame["pools"]]
    return [*checks, equal("pools after a reset", names, [], "operations made")]


def main() -> int:
    """Run the demonstration; see the module's text."""
    parser = argparse.ArgumentParser(description="zpobs top under a workload, then a comparison")
    parser.add_argument("--operations", type=int, default=40_000)
    parser.add_argument("--rate", type=int, default=2_500, help="operations a second")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--interval", type=float, default=2.0)
    parser.add_argument("top", nargs="*", help="further arguments of zpobs top, after --")
    options = parser.parse_args()
    say("starting zpobs top")
    # No scan but the first, which finds no pool yet: what follows is the probes' alone.
    top = Top(_LOG, ["--rescan", "0", *options.top], interval_s=options.interval)
    try:
        checks = demonstrate(top, options.operations, options.rate, options.seed)
    except WatcherEndedError as error:
        say(f"{error}; nothing was compared")
        return error.status or 1
    checks.append(equal("status of zpobs top", top.stop(), 0, "ended by SIGINT"))
    return 0 if report(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
