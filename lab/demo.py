"""The demonstration, inside a guest: watched workloads, then model against kernel.

Starts ``zpobs top``, sets up a zram device and zswap, lets ``churn`` work on
the device and, short of memory, in zswap, moves the pages of both by taking
memory blocks offline, compacts the device's pool, and compares a frame at rest
with the kernel's own figures and with the operations made. Status 0 if all are
equal to the unit, 1 if any differs.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lab.comparison import (
    Check,
    Json,
    about,
    at_least,
    compare_health,
    compare_pool,
    compare_zswap,
    equal,
    frames_that_changed,
    pool_named,
    report,
)
from lab.story import Story
from lab.watcher import Top, WatcherEndedError
from lab.witness import KernelPool, Witness
from lab.workload import Churn, ZramDevice, free_movable_memory, move_pages
from lab.zswap import Zswap, ZswapFigures, ZswapPressure, zswap_at_rest, zswap_figures

_MIGRATION_TRIES = 3
# A pool of zswap is destroyed by a worker, some time after it was given up.
_GONE_FRAMES = 5
_LOG = Path("/tmp/zpobs-demo.jsonl")


@dataclass(frozen=True, slots=True)
class Load:
    """How much is done: operations on zram and how many of them a second; zswap gets a quarter."""

    operations: int
    rate: int
    seed: int

    def on_zram(self, device: ZramDevice) -> Churn:
        """Start it on a zram device."""
        return Churn(device, operations=self.operations, rate=self.rate, seed=self.seed)

    def in_zswap(self) -> ZswapPressure:
        """Start it in zswap: about three times the memory it may use, and half of it swapped."""
        operations = self.operations // 4
        return ZswapPressure(
            "demo",
            pages=max(operations * 2 // 5, 1),
            operations=operations,
            rate=self.rate // 4,
            seed=self.seed,
            memory_high=operations * 600,
            zswap_max=operations * 350,
        )


@dataclass(frozen=True, slots=True)
class Walked:
    """Both pools at rest, as the kernel holds them."""

    zram: KernelPool
    zswap: KernelPool


class Demonstration:
    """Both workloads under a watching ``top``, from setting up to taking down."""

    def __init__(self, top: Top, load: Load, story: Story) -> None:
        self._top = top
        self._load = load
        self._say = story.say
        self._witness = Witness()
        self._before = zswap_figures()
        self._device = ZramDevice("256M")
        self._zswap = Zswap()

    def run(self) -> list[Check]:
        """Let everything happen and return the comparison."""
        pressure, made = self._work()
        self._say("compaction of the zram device")
        self._device.compact()
        before, after = self._move_pages()
        frame, figures = zswap_at_rest(lambda: self._top.frame_after(time.time_ns()))
        checks = [
            *compare_health(frame),
            *self._compare_zram(frame, made, before.zram, after.zram),
            *self._compare_zswap(frame, figures.since(self._before), before.zswap, after.zswap),
        ]
        return [*checks, self._take_down(pressure)]

    def _work(self) -> tuple[ZswapPressure, dict[str, int]]:
        """Run both workloads beside each other; return zswap's, which keeps what it stored.

        The second part is what was done on the zram device.
        """
        load, device = self._load, self._device
        rate = f"{load.rate} a second, seed {load.seed}"
        self._say(f"churn: {load.operations} operations on {device.name}, {rate}")
        self._say(f"churn: {load.operations // 4} operations in memory it has too little of")
        churn, pressure = load.on_zram(device), load.in_zswap()
        made = churn.finish()
        pressure.rest()
        used = zswap_figures().since(self._before)
        self._say(
            f"zswap: {used.stores} pages stored, {used.loads} loaded,"
            f" {used.writebacks} written back, {used.stored} there now"
        )
        return pressure, made

    def _walk(self) -> Walked:
        witness = self._witness
        return Walked(
            zram=witness.walk(witness.zram_pool(self._device.name)),
            zswap=witness.walk(witness.zswap_pools()[0]),
        )

    def _move_pages(self) -> tuple[Walked, Walked]:
        """Move pages of both pools; return how they were before and are now."""
        self._say("taking memory blocks offline, so that pages migrate")
        before = after = self._walk()
        for _ in range(_MIGRATION_TRIES):
            pairs = ((before.zram, after.zram), (before.zswap, after.zswap))
            lying = [now for was, now in pairs if not frames_that_changed(was, now)]
            if not lying:
                break
            self._say(f"{move_pages(*lying)} blocks went offline and came back")
            after = self._walk()
        return before, after

    def _compare_zram(
        self, frame: Json, made: dict[str, int], before: KernelPool, after: KernelPool
    ) -> list[Check]:
        name = self._device.name
        try:
            pool = pool_named(frame, name)
        except LookupError as error:
            return [Check(f"{name} pool", str(error), name, "sysfs", False)]
        counters = pool["counters"]
        checks = [
            *compare_pool(pool, self._device.mm_stat(), after, made),
            equal("compactions", counters["compactions"], 1, "operations made"),
            at_least("objects moved by compaction", counters["moves"], 1, "pages were freed"),
            _compare_migrations(pool, before, after),
        ]
        return about(name, checks)

    def _compare_zswap(
        self, frame: Json, figures: ZswapFigures, before: KernelPool, after: KernelPool
    ) -> list[Check]:
        pools = [pool for pool in frame["pools"] if pool["owner"] == "zswap"]
        moved = [_compare_migrations(pool, before, after) for pool in pools]
        return [*compare_zswap(pools, figures, [after]), *about(after.name, moved)]

    def _take_down(self, pressure: ZswapPressure) -> Check:
        """End everything; of zswap's pools the kernel keeps a new and empty one."""
        pressure.end()
        self._zswap.new_pool()
        self._zswap.close()
        self._device.reset()
        witness = self._witness
        for _ in range(_GONE_FRAMES):
            frame = self._top.frame_after(time.time_ns())
            ours = sorted(pool["name"] for pool in frame["pools"])
            theirs = sorted(witness.walk(pool).name for pool in witness.zswap_pools())
            if ours == theirs:
                break
        return equal("pools after a reset", ours, theirs, "a new one for zswap alone")


def _compare_migrations(pool: Json, before: KernelPool, after: KernelPool) -> Check:
    moved = frames_that_changed(before, after)
    return at_least("page migrations", pool["counters"]["migrations"], moved, "frames that changed")


def main() -> int:
    """Run the demonstration; see the module's text."""
    parser = argparse.ArgumentParser(description="zpobs top under workloads, then a comparison")
    parser.add_argument(
        "--operations", type=int, default=40_000, help="on zram; a quarter in zswap"
    )
    parser.add_argument("--rate", type=int, default=2_500, help="operations on zram a second")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--interval", type=float, default=2.0)
    parser.add_argument("top", nargs="*", help="further arguments of zpobs top, after --")
    options = parser.parse_args()
    story = Story("demo")
    story.say("starting zpobs top")
    # No scan but the first, which finds no pool yet: what follows is the probes' alone.
    arguments = ["--rescan", "0"]
    if sys.stdout.isatty() and sys.stdin.isatty():
        story.hold()
        # Emulation makes frames some twenty times dearer.
        arguments += ["--budget", "50"]
    else:
        arguments += ["--limit", "8"]
    top = Top(_LOG, [*arguments, *options.top], interval_s=options.interval)
    try:
        top.await_first(story.say)
        free_movable_memory()
        load = Load(options.operations, options.rate, options.seed)
        checks = Demonstration(top, load, story).run()
    except WatcherEndedError as error:
        story.say(f"{error}; nothing was compared")
        return error.status or 1
    finally:
        # Whatever happened, the terminal is given back before anything is printed there.
        status = top.stop()
        story.release()
    checks.append(equal("status of zpobs top", status, 0, "ended by SIGINT"))
    story.say("zpobs top has ended")
    return 0 if report(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
