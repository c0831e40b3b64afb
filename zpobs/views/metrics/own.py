"""Metrics of zpobs itself, of the kernel, of zswap as a whole, and of the host."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from zpobs.footing import Footing, MachineFigures, ZswapFigures
from zpobs.views.metrics.metric import Metric, Moment, Value, one

STATUSES = ("exact", "bounded", "unknown")
VERDICTS = ("equal", "differs", "nothing verified")
# A round that would take so long that pages were stale.
LEFT_OUT = "left out"
DIVERGENT = ("model", "witness")
# Fields of a pool's counters, and the metrics that they are.
COUNTERS = {
    "allocs": "zpobs_pool_allocations_total",
    "frees": "zpobs_pool_frees_total",
    "failures": "zpobs_pool_allocation_failures_total",
    "moves": "zpobs_pool_compaction_moved_objects_total",
    "migrations": "zpobs_pool_page_migrations_total",
    "migration_failures": "zpobs_pool_page_migration_failures_total",
    "compactions": "zpobs_pool_compactions_total",
    "pages_freed": "zpobs_pool_compaction_freed_bytes_total",
}


def _kernel(moment: Moment) -> Iterator[Value]:
    kernel = moment.snapshot.kernel
    yield (
        (
            kernel.release,
            str(kernel.page_size),
            str(kernel.chain_size),
            kernel.descriptor,
            str(kernel.fullness_groups),
        ),
        1,
    )


def _status(moment: Moment) -> Iterator[Value]:
    for status in STATUSES:
        yield (status,), float(moment.snapshot.health.status == status)


def _probes(moment: Moment) -> Iterator[Value]:
    footing = moment.snapshot.footing
    if footing is not None:
        for function, attached in sorted(footing.hooks.items()):
            yield (function,), float(attached)


def _lost(moment: Moment) -> Iterator[Value]:
    footing = moment.snapshot.footing
    for stage in ("ring", "unpaired") if footing and footing.lost else ():
        yield (stage,), footing.lost[stage]  # type: ignore[union-attr]


def _skipped(moment: Moment) -> Iterator[Value]:
    footing = moment.snapshot.footing
    if footing is None or not footing.lost:
        return
    yield ("observing",), footing.lost["skipped"]
    yield ("counting",), footing.lost["skipped_counting"]


def _hidden(moment: Moment) -> Iterator[Value]:
    if moment.snapshot.health.hooks:
        for field, name in COUNTERS.items():
            yield (
                (name,),
                max((pool.missed.get(field, 0) for pool in moment.snapshot.pools), default=0),
            )


def _by_program(get: Callable[[int, int], float]) -> Callable[[Moment], Iterator[Value]]:
    def values(moment: Moment) -> Iterator[Value]:
        footing = moment.snapshot.footing
        for each in footing.programs if footing else ():
            if each.runs is not None and each.run_ns is not None:
                yield (each.name,), get(each.runs, each.run_ns)

    return values


def _of_footing(get: Callable[[Footing], float]) -> Callable[[Moment], Iterator[Value]]:
    def values(moment: Moment) -> Iterator[Value]:
        if moment.snapshot.footing is not None:
            yield (), get(moment.snapshot.footing)

    return values


def _of_zswap(get: Callable[[ZswapFigures], float | None]) -> Callable[[Moment], Iterator[Value]]:
    def values(moment: Moment) -> Iterator[Value]:
        owned = moment.snapshot.owned
        if owned is not None and owned.zswap is not None:
            yield from one(get(owned.zswap))

    return values


def _of_machine(get: Callable[[MachineFigures], float]) -> Callable[[Moment], Iterator[Value]]:
    def values(moment: Moment) -> Iterator[Value]:
        if moment.machine is not None:
            yield (), get(moment.machine)

    return values


def _rounds(moment: Moment) -> Iterable[Value]:
    if moment.checks is None:
        return ()
    told = [((verdict,), moment.checks.rounds.get(verdict, 0)) for verdict in VERDICTS]
    return [*told, ((LEFT_OUT,), moment.checks.left_out)]


def _divergences(moment: Moment) -> Iterable[Value]:
    if moment.checks is None:
        return ()
    return [((what,), moment.checks.divergences.get(what, 0)) for what in DIVERGENT]


def _last_scan(moment: Moment) -> Iterable[Value]:
    last_ns = moment.snapshot.health.last_scan_ns
    return one(None if last_ns is None else last_ns / 1e9)


UP = Metric(
    "zpobs_up",
    "gauge",
    "1 while figures are fresh; 0, and nothing beside it, before the first and once they are stale",
    "the exporter",
    of_moment=lambda _: one(1),
)

OWN: tuple[Metric, ...] = (
    UP,
    Metric(
        "zpobs_build_info",
        "info",
        "The version of zpobs",
        "the package",
        ("version",),
        of_moment=lambda moment: [((moment.version,), 1)],
    ),
    Metric(
        "zpobs_kernel_info",
        "info",
        "The kernel: its release, bytes of a page, most pages of a zspage, kind of descriptor",
        "snapshot.kernel",
        ("release", "page_size", "chain_size", "descriptor", "fullness_groups"),
        of_moment=_kernel,
    ),
    Metric(
        "zpobs_snapshot_timestamp_seconds",
        "gauge",
        "When the figures were taken, which are served until the next are: since 1970",
        "snapshot.time_ns",
        of_moment=lambda moment: one(moment.snapshot.time_ns / 1e9),
    ),
    Metric(
        "zpobs_snapshot_interval_seconds",
        "gauge",
        "Time between snapshots that was asked for; left out with --once",
        "--interval",
        of_moment=lambda moment: one(moment.interval_s),
    ),
    Metric(
        "zpobs_snapshot_duration_seconds",
        "gauge",
        "What taking the figures took, a scan among it where one was needed",
        "the exporter",
        of_moment=lambda moment: one(moment.snapshot_s),
    ),
    Metric(
        "zpobs_health",
        "gauge",
        "1 for the worst status of all pools: exact, bounded or unknown",
        "snapshot.health.status",
        ("status",),
        of_moment=_status,
        series=3,
    ),
    Metric(
        "zpobs_pools",
        "gauge",
        "Pools that are told of",
        "snapshot.pools",
        of_moment=lambda moment: one(len(moment.snapshot.pools)),
    ),
    Metric(
        "zpobs_pools_untracked",
        "gauge",
        "Pools that found no place in the probes' tables",
        "snapshot.footing.untracked_pools",
        of_moment=_of_footing(lambda footing: footing.untracked_pools),
    ),
    Metric(
        "zpobs_probe_attached",
        "gauge",
        "1 for each kernel function whose hook is attached, 0 for the others that are wanted",
        "snapshot.footing.hooks",
        ("function",),
        of_moment=_probes,
        series=24,
    ),
    Metric(
        "zpobs_records_lost_total",
        "counter",
        "Observations lost, by where: the ring was full, or a call had no return",
        "snapshot.footing.lost",
        ("stage",),
        of_moment=_lost,
        needs="probes",
        series=2,
    ),
    Metric(
        "zpobs_probe_runs_skipped_total",
        "counter",
        "Runs of probes that the kernel skipped: of those that observe, of those that only count",
        "snapshot.footing.lost",
        ("kind",),
        of_moment=_skipped,
        needs="probes",
        series=2,
    ),
    Metric(
        "zpobs_counts_hidden",
        "gauge",
        "How many events more each counter of pools may have seen but for skipped runs of probes",
        "pool.missed",
        ("metric",),
        of_moment=_hidden,
        needs="probes",
        series=len(COUNTERS),
    ),
    Metric(
        "zpobs_events_total",
        "counter",
        "Events seen: compactions, migrations, failures, pools that come and go",
        "snapshot.events_seen",
        of_moment=lambda moment: one(
            moment.snapshot.events_seen if moment.snapshot.health.hooks else None
        ),
        needs="probes",
    ),
    Metric(
        "zpobs_scans_total",
        "counter",
        "Rounds of scans over all pools",
        "snapshot.health.scans",
        of_moment=lambda moment: one(moment.snapshot.health.scans),
    ),
    Metric(
        "zpobs_scan_seconds_total",
        "counter",
        "Time that rounds of scans took",
        "snapshot.footing.scan_ns",
        of_moment=_of_footing(lambda footing: footing.scan_ns / 1e9),
    ),
    Metric(
        "zpobs_scan_last_duration_seconds",
        "gauge",
        "Time that the last round of scans took",
        "snapshot.footing.last_scan_ns",
        of_moment=_of_footing(lambda footing: footing.last_scan_ns / 1e9),
    ),
    Metric(
        "zpobs_scan_last_timestamp_seconds",
        "gauge",
        "When the last round of scans ended: since 1970",
        "snapshot.health.last_scan_ns",
        of_moment=_last_scan,
        needs="scans",
    ),
    Metric(
        "zpobs_bpf_run_seconds_total",
        "counter",
        "Time in BPF programs of zpobs, by program",
        "snapshot.footing.programs",
        ("program",),
        of_moment=_by_program(lambda _, run_ns: run_ns / 1e9),
        needs="bpf-stats",
        series=40,
    ),
    Metric(
        "zpobs_bpf_runs_total",
        "counter",
        "Runs of BPF programs of zpobs, by program",
        "snapshot.footing.programs",
        ("program",),
        of_moment=_by_program(lambda runs, _: runs),
        needs="bpf-stats",
        series=40,
    ),
    Metric(
        "zpobs_verifications_total",
        "counter",
        "Rounds of verification of the model against the kernel, by verdict",
        "zpobs.verify",
        ("verdict",),
        of_moment=_rounds,
        needs="verify",
        series=len(VERDICTS) + 1,
    ),
    Metric(
        "zpobs_verification_seconds_total",
        "counter",
        "Time that verifications took, for which pages waited",
        "zpobs.verify",
        of_moment=lambda moment: one(moment.checks.seconds if moment.checks else None),
        needs="verify",
    ),
    Metric(
        "zpobs_divergences_total",
        "counter",
        "Pools whose model differed from a scan, and kernel figures that contradicted one",
        "zpobs.verify",
        ("what",),
        of_moment=_divergences,
        needs="verify",
        series=2,
    ),
    Metric(
        "zpobs_zswap_pool_bytes",
        "gauge",
        "Memory of all pools of zswap",
        "Zswap of /proc/meminfo",
        of_moment=_of_zswap(lambda zswap: zswap.pool_bytes),
        needs="zswap",
    ),
    Metric(
        "zpobs_zswap_stored_bytes",
        "gauge",
        "Memory that is stored in zswap, before compression",
        "Zswapped of /proc/meminfo",
        of_moment=_of_zswap(lambda zswap: zswap.stored_bytes),
        needs="zswap",
    ),
    Metric(
        "zpobs_zswap_limit_bytes",
        "gauge",
        "Memory that the pools of zswap may take",
        "max_pool_percent of MemTotal",
        of_moment=_of_zswap(lambda zswap: zswap.limit_bytes),
        needs="zswap",
    ),
    Metric(
        "zpobs_host_cpus",
        "gauge",
        "CPUs that are on line",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.cpus),
    ),
    Metric(
        "zpobs_host_boot_time_seconds",
        "gauge",
        "When the kernel started: since 1970",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.boot_s),
    ),
    Metric(
        "zpobs_host_memory_bytes",
        "gauge",
        "Memory that the kernel has to give",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.memory_bytes),
    ),
    Metric(
        "zpobs_host_memory_available_bytes",
        "gauge",
        "Memory that could be given without swapping",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.memory_available_bytes),
    ),
    Metric(
        "zpobs_host_swap_bytes",
        "gauge",
        "Swap space",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.swap_bytes),
    ),
    Metric(
        "zpobs_host_swap_used_bytes",
        "gauge",
        "Swap space in use",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.swap_used_bytes),
    ),
    Metric(
        "zpobs_process_start_time_seconds",
        "gauge",
        "When this exporter started, and its counters with it: since 1970",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.process_start_s),
    ),
    Metric(
        "zpobs_process_cpu_seconds_total",
        "counter",
        "Processor time of this exporter, in user and kernel mode",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.process_cpu_s),
    ),
    Metric(
        "zpobs_process_resident_memory_bytes",
        "gauge",
        "Memory of this exporter",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.process_resident_bytes),
    ),
    Metric(
        "zpobs_process_open_fds",
        "gauge",
        "File descriptors of this exporter",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.process_descriptors),
    ),
    Metric(
        "zpobs_process_threads",
        "gauge",
        "Threads of this exporter",
        "psutil",
        of_moment=_of_machine(lambda machine: machine.process_threads),
    ),
)
