"""The dashboard for the kernel developer."""

from __future__ import annotations

from dashboards.common import AT, by_pool, rates
from dashboards.panels import Dashboard, Panel, Query, Row, of_host, of_pool, rate

DEVELOPER = Dashboard(
    "zpobs-developer",
    "zpobs: zsmalloc, for kernel developers",
    "Size classes, fullness, waste, compaction and migration of each pool, and what zpobs costs.",
    (
        Row(
            "Where the bytes go",
            (
                Panel(
                    "timeseries",
                    "Waste, by what it is",
                    "Handles in front of objects, ends of zspages, slots without an object, and "
                    "descriptors beside the pages; what slots are larger than was asked for, of "
                    "pools whose owner tells that.",
                    tuple(
                        Query(f"sum by (instance) ({of_pool(f'zpobs_pool_{part}_bytes')})", words)
                        for part, words in (
                            ("header", "{{instance}} headers"),
                            ("tail", "{{instance}} tails"),
                            ("free_slot", "{{instance}} free slots"),
                            ("descriptor", "{{instance}} descriptors"),
                            ("rounding", "{{instance}} rounding"),
                        )
                    ),
                    stacked=True,
                ),
                Panel(
                    "timeseries",
                    "What was asked for, at least and at most",
                    "Bounded by the spacing of the size classes.",
                    (
                        Query(
                            f"sum by (instance) ({of_pool('zpobs_pool_requested_min_bytes')})",
                            "{{instance}} at least",
                        ),
                        Query(
                            f"sum by (instance) ({of_pool('zpobs_pool_requested_max_bytes')})",
                            "{{instance}} at most",
                        ),
                    ),
                ),
                Panel(
                    "bargauge",
                    "Memory, by size of the slots",
                    "Size classes in sixteen bands, by the largest slot of each.",
                    (
                        Query(
                            f"sum by (size_max) ({of_pool('zpobs_pool_band_bytes')})",
                            "{{size_max}}",
                        ),
                    ),
                ),
                Panel(
                    "bargauge",
                    "Free slots, by their size",
                    "Which sizes the fragmentation is in.",
                    (
                        Query(
                            f"sum by (size_max) ({of_pool('zpobs_pool_band_free_slot_bytes')})",
                            "{{size_max}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Fullness",
            (
                Panel(
                    "heatmap",
                    "Zspages by fullness group",
                    "Percentage of the slots in use that the zspages of a group are not above.",
                    (
                        Query(
                            f"sum by (fullness) ({of_pool('zpobs_pool_fullness_zspages')})",
                            "{{fullness}}",
                        ),
                    ),
                    unit="short",
                ),
                Panel(
                    "matrix",
                    "Zspages by size class and fullness group",
                    "Needs --per-class-fullness. A row for each size class, a column for each "
                    "group.",
                    (
                        Query(
                            f"sum by (class, fullness) ({of_pool('zpobs_class_fullness_zspages')})",
                            "",
                        ),
                    ),
                    unit="short",
                ),
                by_pool(
                    "Zspages of each pool",
                    "However full they are.",
                    "zpobs_pool_zspages",
                ),
                Panel(
                    "timeseries",
                    "Ages of live zspages",
                    "Below so much and not in the kind before; of an unknown age are those that "
                    "are older than the probes.",
                    (
                        Query(
                            f"sum by (age) ({of_pool('zpobs_pool_age_zspages')})",
                            "{{age}}",
                        ),
                    ),
                    stacked=True,
                ),
            ),
        ),
        Row(
            "Work",
            (
                rates(
                    "Allocations and frees",
                    "Objects, moves by compaction not among them.",
                    ("zpobs_pool_allocations_total", "allocated"),
                    ("zpobs_pool_frees_total", "freed"),
                ),
                Panel(
                    "timeseries",
                    "Slots in use",
                    "Objects by what the zspages have slots for.",
                    (
                        Query(
                            f"{of_pool('zpobs_pool_objects')} / "
                            f"({of_pool('zpobs_pool_object_capacity')} > 0)",
                            AT,
                        ),
                    ),
                    unit="percentunit",
                ),
                rates(
                    "Births and deaths of zspages",
                    "Those that were seen.",
                    ("zpobs_pool_zspage_births_total", "born"),
                    ("zpobs_pool_zspage_deaths_total", "died"),
                ),
                Panel(
                    "timeseries",
                    "How long calls take",
                    "Needs --latency. What nine in ten allocations, frees and migrations take at "
                    "most.",
                    (
                        Query(
                            "histogram_quantile(0.9, sum by (le, call) "
                            f"({rate(of_pool('zpobs_pool_call_seconds_bucket'))}))",
                            "{{call}}",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    "timeseries",
                    "How long zspages live",
                    "Quantiles of those whose birth and death were seen.",
                    tuple(
                        Query(
                            f"histogram_quantile({quantile}, sum by (le) "
                            f"({rate(of_pool('zpobs_pool_zspage_lifetime_seconds_bucket'))}))",
                            f"{words}",
                        )
                        for quantile, words in ((0.5, "half"), (0.9, "nine in ten"))
                    ),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Compaction",
            (
                by_pool(
                    "What a compaction would free now",
                    "As the kernel reckons it (zs_can_compact).",
                    "zpobs_pool_freeable_bytes",
                ),
                Panel(
                    "timeseries",
                    "Memory freed by compactions",
                    "As the kernel counts it since the pool was made.",
                    (
                        Query(
                            rate(of_pool("zpobs_pool_kernel_compacted_bytes_total")),
                            AT,
                        ),
                    ),
                ),
                rates(
                    "Compactions, and objects that they moved",
                    "What compaction costs.",
                    ("zpobs_pool_compactions_total", "compactions"),
                    ("zpobs_pool_compaction_moved_objects_total", "objects moved"),
                ),
                Panel(
                    "timeseries",
                    "Time in compaction, by what began it",
                    "Share of a processor: a file of sysfs, memory pressure, or another.",
                    (
                        Query(
                            "sum by (trigger) "
                            f"({rate(of_pool('zpobs_pool_compaction_run_seconds_total'))})",
                            "{{trigger}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "timeseries",
                    "Memory freed for each object moved",
                    "What compaction is worth: a page or more is much, some bytes are little.",
                    (
                        Query(
                            f"{rate(of_pool('zpobs_pool_compaction_freed_bytes_total'))} / ("
                            f"{rate(of_pool('zpobs_pool_compaction_moved_objects_total'))} > 0)",
                            AT,
                        ),
                    ),
                    unit="bytes",
                ),
            ),
        ),
        Row(
            "Migration",
            (
                rates(
                    "Pages migrated, and failures",
                    "By memory compaction and whoever else moves pages.",
                    ("zpobs_pool_page_migrations_total", "migrated"),
                    ("zpobs_pool_page_migration_failures_total", "failed"),
                ),
                Panel(
                    "timeseries",
                    "Failures by error",
                    "EAGAIN: the zspage could not be locked, or was in use.",
                    (
                        Query(
                            "sum by (error) "
                            f"({rate(of_pool('zpobs_pool_page_migration_errors_total'))})",
                            "{{error}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "zpobs itself",
            (
                Panel(
                    "timeseries",
                    "Share of a processor",
                    "Of the exporter, its scans among it.",
                    (
                        Query(rate(of_host("zpobs_process_cpu_seconds_total")), "{{instance}}"),
                        Query(rate(of_host("zpobs_scan_seconds_total")), "{{instance}} scans"),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "timeseries",
                    "Memory of the exporter",
                    "Resident.",
                    (Query(of_host("zpobs_process_resident_memory_bytes"), "{{instance}}"),),
                ),
                Panel(
                    "timeseries",
                    "How long a snapshot and a scan take",
                    "A snapshot has a scan in it where one was needed.",
                    (
                        Query(of_host("zpobs_snapshot_duration_seconds"), "{{instance}} snapshot"),
                        Query(of_host("zpobs_scan_last_duration_seconds"), "{{instance}} scan"),
                    ),
                ),
                Panel(
                    "timeseries",
                    "Differences between model and kernel",
                    "Any at all is a bug in zpobs.",
                    (
                        Query(
                            f"sum by (instance, what) ({rate(of_host('zpobs_divergences_total'))})",
                            "{{instance}} {{what}}",
                        ),
                    ),
                ),
                Panel(
                    "timeseries",
                    "Observations lost and runs skipped",
                    "Figures are bounded from then on until a scan.",
                    (
                        Query(
                            rate(of_host("zpobs_records_lost_total")),
                            "{{instance}} lost: {{stage}}",
                        ),
                        Query(
                            rate(of_host("zpobs_probe_runs_skipped_total")),
                            "{{instance}} skipped: {{kind}}",
                        ),
                    ),
                ),
                Panel(
                    "timeseries",
                    "Time in BPF programs",
                    "Needs --bpf-stats. Share of a processor, by program.",
                    (
                        Query(
                            f"sum by (program) ({rate(of_host('zpobs_bpf_run_seconds_total'))})",
                            "{{program}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "stat",
                    "Exact beside the pools' state",
                    "1 where it is so of all pools: lives of zspages, runs of compaction, errors "
                    "of migrations and, with --latency, latencies. 0 where something was missed.",
                    (Query(f"min by (part) ({of_pool('zpobs_pool_part_exact')})", "{{part}}"),),
                    unit="short",
                    width=24,
                    height=4,
                    steps=((0.0, "orange"), (1.0, "green")),
                ),
                Panel(
                    "stat",
                    "Probes attached",
                    "1 for each kernel function that is hooked.",
                    (
                        Query(
                            f"min by (function) ({of_host('zpobs_probe_attached')})",
                            "{{function}}",
                        ),
                    ),
                    unit="short",
                    width=24,
                    steps=((0.0, "orange"), (1.0, "green")),
                ),
            ),
        ),
    ),
)
