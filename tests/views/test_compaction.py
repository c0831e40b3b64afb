"""Compactions as text: the last runs, and the forecast of each beside them."""

from __future__ import annotations

from dataclasses import replace

from tests.factories import make_forecast, make_pool, make_runs, make_snapshot
from zpobs.runs import PoolRuns
from zpobs.views.compaction import runs_lines
from zpobs.views.text import render


def test_a_block() -> None:
    assert runs_lines("zram0", make_runs()) == [
        "zram0: compaction runs, exact",
        "  by sysfs: 2 runs, moved 100 (166.0 KiB), freed 50 pages, 60 ms",
        "  by shrinker: 1 run, moved 70 (126.6 KiB), freed 42 pages, 41.5 ms",
        "  BEGUN (UTC)  BY           MOVED     COPIED   PAGES      TOOK",
        "  03:04:05.000 sysfs           88  149.5 KiB      46     50 ms",
        "    as forecast 1.2 s before",
        "  03:04:08.000 shrinker        70  126.6 KiB      42   41.5 ms",
        "    forecast 1 s before: 46 pages, 88 moves; up to 1,234 allocations and frees",
        "      since the forecast",
        "  (1 earlier)",
        "  the last run by class, with the forecast before it:",
        "  CLASS  SIZE    MOVED  FORECAST   PAGES  FORECAST      TOOK",
        "    202  3264        5         4       4         4    900 ns",
        "    107  1744       65        75      38        39         ?",
        "     62  1024        0         9       0         3         ?",
    ]


def test_what_is_not_known_is_said() -> None:
    """No run, one without a forecast, one of which not all was told, one under way."""
    none = PoolRuns("unknown", ("no attached probe tells of runs",), {}, (), 0, None)
    assert runs_lines("zram0", none) == [
        "zram0: compaction runs, unknown",
        "  no attached probe tells of runs",
        "  none has ended yet",
    ]
    run = make_runs().recent[0]
    lost = replace(
        run, expected=None, duration_ns=None, classes=(), reasons=("its end was not told",)
    )
    lines = runs_lines("zram0", replace(none, recent=(lost,), under_way_ns=run.begin_ns))
    assert lines[2:] == [
        "  one has been under way since 03:04:05 UTC",
        "  BEGUN (UTC)  BY           MOVED     COPIED   PAGES      TOOK",
        "  03:04:05.000 sysfs           88          ?      46         ?",
        "    no forecast was made before it",
        "    its end was not told",
    ]


def test_frames_have_it_where_there_is_a_forecast() -> None:
    pool = make_pool(compaction=make_forecast(), runs=make_runs())
    lines = render(make_snapshot(pool), {})
    assert "zram0: a compaction would free 46 pages (184.0 KiB) and copy 149.5 KiB (exact)" in lines
    assert "zram0: compaction runs, exact" in lines
    lines = render(make_snapshot(make_pool(runs=make_runs())), {})
    assert not [line for line in lines if "compaction runs" in line]
