"""Churn with known truth, inside a guest: zpobs beside a turmoil, then model against kernel.

Three ways by which the model comes to equal the kernel, each with a turmoil of its own: by probes
alone, attached before any pool was there; by probes attached late, beside a writer, and one scan;
and by one scan after records were lost. ``zpobs top`` tells every figure and every zspage at rest,
which are held against the kernel's own figures, kernel memory, and the operations made; ``zpobs
verify --invariants`` compares all the time. Status 0 if nothing differs anywhere, 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.comparison import (
    Check,
    Json,
    about,
    at_least,
    compare_health,
    compare_pool,
    compare_state,
    compare_zswap,
    compare_zswap_state,
    equal,
    pool_named,
    report,
)
from lab.features import detect
from lab.story import Story
from lab.turmoil import KINDS, MIX, Books, Size, Turmoil
from lab.watcher import Top, Verify, WatcherEndedError, paused
from lab.witness import KernelPool, Witness
from lab.workload import ZramDevice, load_zsmalloc
from lab.zswap import ZswapFigures, zswap_figures

_INTERVAL_S = 3.0
# A round of verify takes a while in a guest, and one may have begun before the rest did.
_ROUND_TIMEOUT_S = 240.0
# 16,384 records: overflows while nobody reads it, and holds a minute of the slow writer's.
_SMALL_RING = "1M"
# Operations a second beside an attach or a repair.
_SLOW_RATE = 100
# With less some of what is to happen may not.
OPERATIONS_MIN = 20_000
_REST_TRIES = 20


@dataclass(frozen=True, slots=True)
class Told:
    """What top and verify, by name, say of themselves: scans applied, records lost, runs missed.

    ``missed`` are those of probes that do more than count.
    """

    scans: dict[str, int]
    lost: dict[str, int]
    missed: dict[str, int]


@dataclass(frozen=True, slots=True)
class Watchers:
    """``zpobs top`` and ``zpobs verify``, both at work."""

    top: Top
    verify: Verify

    def when_exact(self) -> Told:
        """Wait until both say that all is exact; return what they then say."""
        end_s = time.monotonic() + _ROUND_TIMEOUT_S
        while time.monotonic() < end_s:
            frame = self.top.frame_after(time.time_ns())
            told = self.verify.await_round(time.time_ns(), _ROUND_TIMEOUT_S)
            health = {"top": frame["health"], "verify": told["health"]}
            if all(each["status"] == "exact" for each in health.values()):
                return Told(
                    scans={who: each["scans"] for who, each in health.items()},
                    lost={who: each["lost"] for who, each in health.items()},
                    missed={
                        who: each["missed_runs"] - each["missed_counting_runs"]
                        for who, each in health.items()
                    },
                )
        raise WatcherEndedError(f"not exact within {_ROUND_TIMEOUT_S:.0f} s: {health}", 1)

    def scans_before_probes(self) -> int:
        """Return how many scans top had been fed with when it showed its last cold frame."""
        cold = [each["health"] for each in self.top.frames() if not each["health"]["hooks"]]
        return int(cold[-1]["scans"]) if cold else 0

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let nobody read the rings meanwhile."""
        with paused(self.top.process), paused(self.verify.process):
            yield


@dataclass(frozen=True, slots=True)
class Rest:
    """What everybody says at rest: a frame, a round, mm_stat by device, kernel memory by pool."""

    frame: Json
    round: Json
    zswap: ZswapFigures
    mm_stat: dict[str, list[int]]
    zram: dict[str, KernelPool]
    zswap_pools: list[KernelPool]

    def ours_of_zswap(self) -> list[Json]:
        """Return the pools that the frame says are zswap's."""
        return [pool for pool in self.frame["pools"] if pool["owner"] == "zswap"]

    def compare_zram(self, books: Books | None) -> list[Check]:
        """Hold the pools of zram devices against the kernel, and operations against the books."""
        checks = []
        for name, kernel in self.zram.items():
            try:
                pool = pool_named(self.frame, name)
            except LookupError as error:
                checks.append(Check(f"{name} pool", str(error), name, "sysfs", False))
                continue
            if books and pool["last_scan_ns"] is None:
                found = compare_pool(pool, self.mm_stat[name], kernel, books.made[name])
            else:
                found = compare_state(pool, self.mm_stat[name], kernel)
                made = books.made.get(name) if books else None
                found += _since_attached(pool, made) if made else []
            checks += about(name, found)
        return checks


def _since_attached(pool: Json, made: Mapping[str, int]) -> list[Check]:
    counters = pool["counters"]
    return [
        equal("allocations", counters["allocs"], made["zs_malloc"], "operations since attached"),
        equal("frees", counters["frees"], made["zs_free"], "operations since attached"),
        equal("failures", counters["failures"], 0, "operations since attached"),
    ]


class Trial:
    """Turmoils of one size under probes that options of ``zpobs top`` choose."""

    def __init__(
        self, size: Size, *, probes: Sequence[str], folder: Path, say: Callable[[str], None]
    ) -> None:
        self._size = size
        self._probes = probes
        self._folder = folder
        self._say = say
        self._witness = Witness()
        self._features = detect()

    def alone(self) -> list[Check]:
        """Probes alone, since before the first pool: no scan is ever applied."""
        with self._watchers("--no-scan") as watchers, self._turmoil() as turmoil:
            turmoil.run(1.0, salt=1)
            rest = self._rest(turmoil, watchers)
            used = turmoil.zswap_used()
            since = [pool_named(rest.frame, each.name)["since_ns"] for each in turmoil.zram]
            return [
                *compare_health(rest.frame),
                equal(
                    "the pool that was made again",
                    since.index(max(since)),
                    len(since) - 1,
                    "newest",
                ),
                equal("scans applied to top", rest.frame["health"]["scans"], 0, "probes alone"),
                equal("scans applied to verify", rest.round["health"]["scans"], 0, "probes alone"),
                *rest.compare_zram(turmoil.books),
                *compare_zswap(rest.ours_of_zswap(), used, rest.zswap_pools),
                *_classes_hit(rest),
                *self._happened(turmoil, rest),
                *_verified(watchers.verify, rest),
            ]

    def late(self) -> list[Check]:
        """Attach beside a writer, to pools that are there: one scan, and never another."""
        with self._turmoil() as turmoil:
            turmoil.run(0.4, salt=2)
            books, before = turmoil.books.copy(), turmoil.zswap_used()
            slow = turmoil.write_slowly(_SLOW_RATE)
            with self._watchers() as watchers:
                first = watchers.when_exact()
                turmoil.run(0.6, salt=3)
                turmoil.stop(slow)
                rest = self._rest(turmoil, watchers)
                last, used = watchers.when_exact(), turmoil.zswap_used()
                cold = watchers.scans_before_probes()
                since = turmoil.books.since(books)
                # What the slow writer did before the probes were there is not known.
                del since.made[turmoil.restless.name]
                return [
                    # Kprobes are skipped while their CPU is inside bpf(2), as it is to attach;
                    # that is before the scan, which makes it good.
                    *(c for c in compare_health(rest.frame) if c.figure != "missed runs"),
                    equal("missed runs since", last.missed, first.missed, "the first exact frame"),
                    equal("scans by top", last.scans["top"] - cold, 1, "since the probes attached"),
                    equal("scans by verify", last.scans["verify"], 2, "before probes, behind them"),
                    *rest.compare_zram(since),
                    *_compare_zswap_operations(rest, before, used),
                    *compare_zswap_state(rest.ours_of_zswap(), rest.zswap, rest.zswap_pools),
                    *self._happened(turmoil, rest),
                    *_verified(watchers.verify, rest),
                ]

    def loss(self) -> list[Check]:
        """Let rings overflow in the middle of it; one scan then, beside a writer."""
        with self._watchers("--ring-size", _SMALL_RING) as watchers, self._turmoil() as turmoil:
            before = turmoil.zswap_used()
            turmoil.run(0.4, salt=4)
            whole = watchers.when_exact()
            slow = turmoil.write_slowly(_SLOW_RATE)
            with watchers.paused():
                turmoil.run(0.6, salt=5)
            healed = watchers.when_exact()
            turmoil.stop(slow)
            rest = self._rest(turmoil, watchers)
            last, used = watchers.when_exact(), turmoil.zswap_used()
            told = []
            for who in ("top", "verify"):
                lost = healed.lost[who] - whole.lost[who]
                scans = healed.scans[who] - whole.scans[who]
                told += [
                    at_least(f"records lost by {who}", lost, 1, "nobody read"),
                    equal(f"scans by {who} since", scans, 1, "one is enough"),
                    equal(f"lost by {who} later", last.lost[who] - healed.lost[who], 0, "read"),
                    equal(f"scans by {who} later", last.scans[who] - healed.scans[who], 0, "none"),
                ]
            return [
                *told,
                equal("health", rest.frame["health"]["status"], "exact", "at rest"),
                # No full ring loses what is counted.
                *rest.compare_zram(turmoil.books),
                *_compare_zswap_operations(rest, before, used),
                *compare_zswap_state(rest.ours_of_zswap(), rest.zswap, rest.zswap_pools),
                *self._happened(turmoil, rest),
                *_verified(watchers.verify, rest, lossy=True),
            ]

    @contextlib.contextmanager
    def _watchers(self, *options: str) -> Iterator[Watchers]:
        self._say(f"zpobs top and zpobs verify {' '.join(options)}".rstrip())
        begun_ns = time.time_ns()
        common = [*self._probes, *options]
        rescan = [] if "--no-scan" in options else ["--rescan", "0"]
        verify = Verify(
            self._folder / "rounds.jsonl", *common, "--invariants", interval_s=_INTERVAL_S
        )
        top = Top(
            self._folder / "frames.jsonl", [*common, *rescan], interval_s=_INTERVAL_S, shown=False
        )
        try:
            top.await_first(self._say)
            verify.await_round(begun_ns, _ROUND_TIMEOUT_S)
            yield Watchers(top, verify)
        finally:
            for each in (top, verify):
                each.stop()

    @contextlib.contextmanager
    def _turmoil(self) -> Iterator[Turmoil]:
        turmoil = Turmoil(self._size, self._say)
        try:
            yield turmoil
        finally:
            turmoil.close()

    def _rest(self, turmoil: Turmoil, watchers: Watchers) -> Rest:
        """Read everything between two equal readings of the kernel's own figures."""
        self._say(f"{turmoil.operations} operations made; comparing at rest")
        for _ in range(_REST_TRIES):
            mm_stat, zswap = _figures(turmoil)
            frame = watchers.top.frame_after(time.time_ns())
            told = watchers.verify.await_round(time.time_ns(), _ROUND_TIMEOUT_S)
            walk = self._witness.walk
            zram = {each.name: walk(self._witness.zram_pool(each.name)) for each in turmoil.zram}
            pools = [walk(pool) for pool in self._witness.zswap_pools()]
            if (mm_stat, zswap) == _figures(turmoil):
                return Rest(frame, told, zswap, mm_stat, zram, pools)
        raise WatcherEndedError(f"never at rest in {_REST_TRIES} tries", 1)

    def _happened(self, turmoil: Turmoil, rest: Rest) -> list[Check]:
        """Check by others' figures that all that moves descriptors did happen."""
        used = turmoil.zswap_used()
        shrunk = [each for each in turmoil.zram if each not in turmoil.compacted]

        def freed(devices: Sequence[ZramDevice]) -> int:
            return sum(rest.mm_stat[each.name][6] for each in devices)

        told = {
            "operations": (turmoil.operations, self._size.operations),
            "zswap loads": (used.loads, 1),
            "zswap pages dropped": (used.stores - used.loads - used.writebacks - used.stored, 1),
            "zswap pages there at rest": (used.stored, 1),
            "same-filled pages": (sum(stat[5] for stat in rest.mm_stat.values()), 1),
            "huge pages": (sum(stat[7] for stat in rest.mm_stat.values()), 1),
            "pages freed by compaction": (freed(turmoil.compacted), 1),
            # Nobody else compacts zswap's pools, and these.
            "pages freed by shrinkers": (
                sum(each.pages_compacted for each in rest.zswap_pools) + freed(shrunk),
                1,
            ),
            "pages migrated": (turmoil.pages_migrated(), 1),
        }
        if self._features["zswap writeback"]:
            told["zswap pages written back"] = used.writebacks, 1
        # What did not happen is the turmoil's fault, not zpobs': it was too small, as a rule.
        return [
            Check(f"turmoil: {what}", count, f">= {least}", "the kernel's figures", count >= least)
            for what, (count, least) in told.items()
        ]


def _compare_zswap_operations(rest: Rest, before: ZswapFigures, after: ZswapFigures) -> list[Check]:
    """Hold what was counted in all of zswap's pools against its own figures from before on."""
    stores = after.stores - before.stores
    counted = [
        sum(pool["counters"][what] or 0 for pool in rest.ours_of_zswap())
        for what in ("allocs", "frees")
    ]
    return [
        equal("zswap allocations", counted[0], stores, "zswpout since"),
        equal(
            "zswap frees",
            counted[1],
            stores - after.debug_stored + before.debug_stored,
            "zswpout - stored_pages since",
        ),
    ]


def _figures(turmoil: Turmoil) -> tuple[dict[str, list[int]], ZswapFigures]:
    return {each.name: each.mm_stat() for each in turmoil.zram}, zswap_figures()


def _classes_hit(rest: Rest) -> list[Check]:
    """Check that the devices together had an object in every size class there is."""
    pools = [pool_named(rest.frame, name) for name in rest.zram]
    there = {each["index"] for pool in pools for each in pool["classes"]}
    missed = there - {
        each["index"] for pool in pools for each in pool["classes"] if each["counters"]["allocs"]
    }
    return [equal("size classes never hit", sorted(missed), [], f"{len(there)} there are")]


def _verified(verify: Verify, rest: Rest, *, lossy: bool = False) -> list[Check]:
    """Check the round at rest, and all those before it.

    A round that is ``lossy`` may differ in what the model does not call exact.
    """
    told, rounds = rest.round["pools"], verify.rounds()
    wrong = [
        f"{place['standing']} {place}"
        for each in rounds
        for pool in each["pools"]
        for place in [*pool["differences"], *(busy for busy in pool["busy"] if busy["outside"])]
        if not lossy or place["standing"] == "exact"
    ]
    violated = [
        (pool["pool"], place)
        for each in rounds
        for pool in each["invariants"]
        for place in pool["violated"]
    ]
    source = f"{len(rounds)} rounds"
    checks = [
        equal("verify", rest.round["verdict"], "equal", "at rest"),
        equal(
            "pools verified",
            sorted(p["name"] for p in told if p["verdict"] == "equal" and not p["busy"]),
            sorted(pool["name"] for pool in rest.frame["pools"]),
            "at rest",
        ),
        equal(
            "pools not exact", [p["name"] for p in told if p["status"] != "exact"], [], "at rest"
        ),
        equal("differences", wrong[:3], [], source),
        equal("invariants violated", violated[:3], [], source),
        equal(
            "pools with invariants checked",
            sorted(
                each["pool"]
                for each in rest.round["invariants"]
                if any(check["checked"] for check in each["checks"])
            ),
            sorted(pool["name"] for pool in rest.frame["pools"]),
            "at rest",
        ),
    ]
    if not lossy:
        differed = sum(each["verdict"] == "differs" for each in rounds)
        checks.append(equal("rounds that differ", differed, 0, source))
    return checks


PHASES: dict[str, Callable[[Trial], list[Check]]] = {
    "alone": Trial.alone,
    "late": Trial.late,
    "loss": Trial.loss,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 -m lab.trial", description="Churn with known truth, then a comparison."
    )
    parser.add_argument(
        "--operations", type=int, default=200_000, help=f"of each phase, {OPERATIONS_MIN} or more"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mix", default=MIX, help="as in churn --help")
    parser.add_argument("--kinds", default=KINDS, help="as in churn --help")
    parser.add_argument("--devices", type=int, default=3, help="zram devices that stay")
    parser.add_argument("--writers", type=int, default=2, help="processes on each device")
    parser.add_argument("--phase", action="append", choices=PHASES, help="default: all")
    parser.add_argument("--loader", default="auto")
    parser.add_argument("--attach", default="auto")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the phases asked for; see the module's text."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.operations < OPERATIONS_MIN:
        parser.error(f"--operations: {OPERATIONS_MIN} at least, or too little happens")
    if options.devices < 1 or options.writers < 1:
        parser.error("--devices and --writers: 1 at least")
    story = Story("trial")
    load_zsmalloc()
    size = Size(
        operations=options.operations,
        seed=options.seed,
        mix=options.mix,
        kinds=options.kinds,
        devices=options.devices,
        writers=options.writers,
    )
    probes = ["--loader", options.loader, "--attach", options.attach]
    passed = True
    for phase in options.phase or PHASES:
        story.say(f"{phase}: {(PHASES[phase].__doc__ or '').splitlines()[0]}")
        with tempfile.TemporaryDirectory() as folder:
            trial = Trial(size, probes=probes, folder=Path(folder), say=story.say)
            try:
                passed &= report(PHASES[phase](trial))
            except (WatcherEndedError, LookupError, OSError, RuntimeError) as error:
                story.say(f"{error}; nothing was compared")
                return getattr(error, "status", 1) or 1
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
