"""The dashboard for the person on call."""

from __future__ import annotations

from dashboards.common import AT, by_pool, rates, total
from dashboards.panels import Dashboard, Panel, Query, Row, of_fleet, of_host, of_pool

_EXACT = ', status="exact"'
_SHARES = ((0.0, "green"), (0.2, "yellow"), (0.4, "red"))

ON_CALL = Dashboard(
    "zpobs-on-call",
    "zpobs: compressed memory, on call",
    "Is anything wrong with zram and zswap on these hosts, and can the figures be trusted?",
    (
        Row(
            "Now",
            (
                Panel(
                    "stat",
                    "Exporters",
                    "1 where figures are fresh; 0 where there are none, or none any more since a "
                    "day at most.",
                    (
                        # Not what up tells: that is there of other jobs, too.
                        Query(
                            f"min by (instance) ({of_host('zpobs_up')} or 0 * "
                            f"max_over_time({of_host('zpobs_up')}[1d]))",
                            "{{instance}}",
                        ),
                    ),
                    unit="short",
                    width=6,
                    height=4,
                    steps=((0.0, "red"), (1.0, "green")),
                ),
                Panel(
                    "stat",
                    "Pools whose figures are exact",
                    "Share of the pools; the others are bounded or unknown.",
                    (
                        Query(
                            f"avg by (instance) ({of_pool('zpobs_pool_status', _EXACT)})",
                            "{{instance}}",
                        ),
                    ),
                    unit="percentunit",
                    width=6,
                    height=4,
                    steps=((0.0, "red"), (1.0, "green")),
                ),
                Panel(
                    "stat",
                    "Memory in pools",
                    "Of all pools, pages alone.",
                    (Query(f"sum by (instance) ({of_pool('zpobs_pool_bytes')})", "{{instance}}"),),
                    width=6,
                    height=4,
                ),
                Panel(
                    "stat",
                    "Share that a compaction would free",
                    "Of all pools together; much of it is fragmentation that can be cured.",
                    (
                        Query(
                            f"sum by (instance) ({of_pool('zpobs_pool_freeable_bytes')}) / "
                            f"(sum by (instance) ({of_pool('zpobs_pool_bytes')}) > 0)",
                            "{{instance}}",
                        ),
                    ),
                    unit="percentunit",
                    width=6,
                    height=4,
                    steps=_SHARES,
                ),
            ),
        ),
        Row(
            "Memory",
            (
                by_pool(
                    "Memory of each pool",
                    "Pages that the pool has; what the host gave up for it.",
                    "zpobs_pool_bytes",
                ),
                Panel(
                    "timeseries",
                    "Stored for each byte of the pool",
                    "Of zram, which tells what it stored: how much compression gains, waste and "
                    "all.",
                    (
                        Query(
                            f"{of_pool('zpobs_zram_original_bytes')} / "
                            f"({of_pool('zpobs_pool_bytes')} > 0)",
                            AT,
                        ),
                    ),
                    unit="short",
                ),
                Panel(
                    "timeseries",
                    "Free slots, by whether a compaction could free them",
                    "Memory without objects. What is stuck lies in zspages that are too few to be "
                    "emptied.",
                    (
                        Query(total("zpobs_pool_freeable_bytes"), f"{AT} freeable"),
                        Query(
                            f"clamp_min({total('zpobs_pool_free_slot_bytes')} - "
                            f"{total('zpobs_pool_freeable_bytes')}, 0)",
                            f"{AT} stuck",
                        ),
                    ),
                ),
                Panel(
                    "timeseries",
                    "Memory of the host",
                    "What could still be given, and the swap space in use.",
                    (
                        Query(of_host("zpobs_host_memory_available_bytes"), "{{instance}} memory"),
                        Query(of_host("zpobs_host_swap_used_bytes"), "{{instance}} swap used"),
                    ),
                ),
            ),
        ),
        Row(
            "Troubles",
            (
                rates(
                    "Allocations that fail",
                    "Pages that cannot be stored.",
                    ("zpobs_pool_allocation_failures_total", ""),
                ),
                rates(
                    "Migrations that fail",
                    "Pages that stand in the way of memory compaction.",
                    ("zpobs_pool_page_migration_failures_total", ""),
                ),
                Panel(
                    "timeseries",
                    "Share of the limit in use",
                    "Of zswap: max_pool_percent, beyond which pages go to the swap device. Of "
                    "zram devices that have one: mem_limit, beyond which writes fail.",
                    (
                        Query(
                            f"{of_pool('zpobs_pool_bytes')} / "
                            f"({of_pool('zpobs_zram_limit_bytes')} > 0)",
                            AT,
                        ),
                        Query(
                            f"{of_host('zpobs_zswap_pool_bytes')} / "
                            f"({of_host('zpobs_zswap_limit_bytes')} > 0)",
                            "{{instance}}",
                        ),
                    ),
                    unit="percentunit",
                ),
                Panel(
                    "timeseries",
                    "Age of the figures",
                    "Seconds since the snapshot that is served was taken.",
                    (
                        Query(
                            f"time() - {of_host('zpobs_snapshot_timestamp_seconds')}",
                            "{{instance}}",
                        ),
                    ),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Fleet",
            (
                Panel(
                    "stat",
                    "Hosts",
                    "Of all hosts of a job: those with fresh figures, and those that cannot be "
                    "scraped or have none. What is chosen of hosts and pools is no matter here.",
                    (
                        Query(f"sum by (job) ({of_fleet('job:zpobs_up:sum')})", "{{job}} fresh"),
                        Query(
                            f"sum by (job) ({of_fleet('job:zpobs_up:missing')})", "{{job}} missing"
                        ),
                    ),
                    unit="short",
                    width=6,
                ),
                Panel(
                    "timeseries",
                    "Memory of all hosts' pools, by owner",
                    "Pages of zram's and of zswap's pools.",
                    (
                        Query(
                            f"sum by (job, owner) ({of_fleet('job_owner:zpobs_pool_bytes:sum')})",
                            "{{job}} {{owner}}",
                        ),
                    ),
                    unit="bytes",
                    width=6,
                ),
                Panel(
                    "timeseries",
                    "Share that a compaction would free, of all hosts",
                    "By owner; of all pools together.",
                    (
                        Query(
                            "sum by (job, owner) "
                            f"({of_fleet('job_owner:zpobs_pool_freeable_bytes:sum')}) / "
                            "(sum by (job, owner) "
                            f"({of_fleet('job_owner:zpobs_pool_bytes:sum')}) > 0)",
                            "{{job}} {{owner}}",
                        ),
                    ),
                    unit="percentunit",
                    width=6,
                ),
                Panel(
                    "bargauge",
                    "Size classes with the most free memory, of all hosts",
                    "What a compaction of each would free; the first sixteen. Needs --per-class.",
                    (
                        Query(
                            "topk(16, sum by (class) "
                            f"({of_fleet('job_owner_class:zpobs_class_freeable_bytes:sum')}))",
                            "{{class}}",
                        ),
                    ),
                    unit="bytes",
                    width=6,
                ),
            ),
        ),
    ),
)
