"""The text of ``zpobs verify``: whole reports compared with those in ``tests/golden/verify``.

``ZPOBS_UPDATE_GOLDEN=1 pytest tests/views`` writes them anew; read the
difference before you commit it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.factories import KERNEL, MONO_NS, TIME_NS, make_health
from tests.scan_records import FLAGS, find, healthy
from zpobs import wire
from zpobs.descriptors import descriptor_dump
from zpobs.invariants import Findings, check
from zpobs.verify.findings import (
    BusyClass,
    ComparedClass,
    Comparison,
    Difference,
    PoolComparison,
)
from zpobs.verify.rounds import CheckedPool, Report
from zpobs.verify.witnesses import Witness
from zpobs.views.verify import render

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "verify"
AT = 0xFFFF888000001000
WITNESSES = (
    Witness("zram0", "mm_stat mem_used_total", "pages", "exact", 58_111, 58_111, 58_111),
    Witness(
        "zram0", "mm_stat huge_pages", "huge objects", "absent", 7, why="pages were written back"
    ),
    Witness(
        *("all pools", "vmstat nr_zspages", "pages", "bounded", 58_111, 57_999, 58_223),
        why="CPUs hold back up to 112 pages",
    ),
    Witness(
        *("zram0", "slabinfo zs_handle-zram0", "objects", "bounded", 90_001, None, 90_112),
        why="at most: free objects that CPUs hold are counted too",
    ),
    Witness("zram0", "debugfs classes", "pages", "absent", 58_111, why="debugfs is not mounted"),
)


def compared(zspages: int, *differences: Difference) -> ComparedClass:
    return ComparedClass(zspages, 3 * zspages, 7 * zspages, 7 * zspages, differences)


def pool(**changed: Any) -> PoolComparison:
    values: dict[str, Any] = {
        "id": 1,
        "name": "zram0",
        "status": "exact",
        "classes": {62: compared(20_000), 107: compared(855)},
    }
    return PoolComparison(**(values | changed))


def report(*pools: PoolComparison, **changed: Any) -> Report:
    values: dict[str, Any] = {
        "time_ns": TIME_NS,
        "mono_ns": MONO_NS,
        "kernel": KERNEL,
        "health": make_health(),
        "tries": 1,
        "comparison": Comparison(pools, changed.pop("meanwhile", ())),
        "resting": frozenset({1}),
        "witnesses": WITNESSES if pools else (),
    }
    return Report(**(values | changed))


def equal() -> Report:
    """All equal, probes alone, sound descriptors."""
    return report(pool(), invariants=(CheckedPool("zram0", findings(), ()),))


def findings(*, broken: bool = False) -> Findings:
    words = healthy()
    if broken:
        at = find(words, wire.DETAIL_LINKS, 4)
        words[at, 3] = int(words[at, 3]) ^ 1
    return check(descriptor_dump(words, FLAGS), KERNEL, FLAGS, pool="zram0")


DIFFERENCES = (
    Difference(107, None, "objects", 5_984, 5_985, "exact"),
    Difference(107, None, "fullness", (0, 1, 2, 0), (0, 2, 1, 0), "exact"),
    Difference(107, AT, "inuse", 6, 7, "exact"),
    Difference(107, AT, "huge", False, True, "exact"),
    Difference(107, AT + 64, "zspage", 3, None, "bounded"),
    Difference(107, AT + 128, "zspage", None, 4, "bounded"),
    Difference(107, AT + 192, "frames", (4097, 4098), (4097, 4242), "exact"),
    Difference(107, AT + 256, "frames", (), (4099, 5000), "unknown"),
    Difference(107, AT + 320, "class", 62, 107, "exact"),
)


def differs() -> Report:
    """Differences of every kind, cut; a witness and an invariant that say so too."""
    wrong = pool(
        status="bounded",
        classes={62: compared(20_000), 107: compared(855, *DIFFERENCES)},
        busy=(
            BusyClass(202, "it changed while the kernel was scanned", 90, 95, "exact", 80, 99),
            BusyClass(208, "it changed in the model meanwhile", 90, 105, "bounded", 80, 99),
            BusyClass(254, "it changed while the kernel was scanned", 1_000, 1_001, "exact"),
        ),
        sums=(Difference(None, None, "pages", 58_111, 58_112, "exact"),),
    )
    contradicting = Witness("zram0", "pages_allocated", "pages", "exact", 58_111, 58_112, 58_112)
    spoilt = findings(broken=True)
    return report(
        wrong,
        witnesses=(*WITNESSES, contradicting),
        invariants=(CheckedPool("zram0", spoilt, spoilt.findings),),
        health=make_health("bounded", lost=17, reasons=("17 records found the ring full",)),
    )


def without_probes() -> Report:
    """A kernel that refuses probes: the model is a scan of its own."""
    reason = "no probe is attached (refused); figures are those of the last scan"
    health = make_health(hooks=0, missed_hooks=("obj_malloc",), scans=3, reasons=(reason,))
    return report(pool(), health=health, witnesses=WITNESSES[:1])


def in_use() -> Report:
    """Some classes busy to the end, figures between two readings."""
    used = replace(
        WITNESSES[0],
        standing="not at rest",
        lowest=58_000,
        highest=58_200,
        why="between two readings",
    )
    busy = BusyClass(202, "it changed while the kernel was scanned", 90, 95, "exact", 80, 99)
    return report(
        pool(busy=(busy,)),
        tries=9,
        resting=frozenset(),
        witnesses=(used,),
        meanwhile=("zram1 was created or destroyed meanwhile: not compared",),
    )


def nothing_verified() -> Report:
    """Everything busy, and a pool that the scan did not find."""
    busy = BusyClass(202, "it changed while the kernel was scanned", 90, 95, "exact")
    return report(
        pool(classes={}, busy=(busy,)),
        tries=14,
        witnesses=(),
        missing=("zswap is in use, but no pool of it was found",),
    )


def lonely_pools() -> Report:
    """A pool too many and one too few."""
    one = Difference(None, None, "pool", 12, None, "exact")
    other = Difference(None, None, "pool", None, 12, "unknown")
    return report(
        pool(classes={}, sums=(one,)),
        pool(id=2, name="zram1", classes={}, sums=(other,)),
        witnesses=(),
    )


def no_pools() -> Report:
    """Nothing on either side."""
    return report()


def wanted_pool_is_not_there() -> Report:
    """The one that was asked for is not there."""
    return report(pool="zram7")


REPORTS: dict[str, Callable[[], Report]] = {
    each.__name__.replace("_", "-"): each
    for each in (
        equal,
        differs,
        without_probes,
        in_use,
        nothing_verified,
        lonely_pools,
        no_pools,
        wanted_pool_is_not_there,
    )
}


@pytest.mark.parametrize("name", REPORTS)
def test_the_report_is_as_it_was(name: str) -> None:
    """The text equals the golden one, character by character."""
    text = "\n".join(render(REPORTS[name](), limit=9)) + "\n"
    golden = GOLDEN / f"{name}.txt"
    if os.environ.get("ZPOBS_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_golden_report_is_left_over() -> None:
    """Every file of golden reports belongs to a test."""
    assert {path.stem for path in GOLDEN.iterdir()} == set(REPORTS)


@pytest.mark.parametrize(
    ("limit", "shown", "more"), [(0, 0, 10), (3, 3, 7), (10, 10, 0), (20, 10, 0)]
)
def test_differences_are_listed_up_to_the_limit(limit: int, shown: int, more: int) -> None:
    """The rest is counted, so that nothing is left out silently."""
    lines = render(differs(), limit=limit)
    assert sum("(model: " in line and "busy" not in line for line in lines) == shown
    left = [line for line in lines if "more difference" in line]
    assert [line.split()[0] for line in left] == ([str(more)] if more else [])


def test_busy_classes_are_listed_up_to_the_limit() -> None:
    """Those outside their bounds come first."""
    busy = [line for line in render(differs(), limit=1) if "busy" in line]
    assert [line.split()[:3] for line in busy] == [["class", "208", "busy:"], ["2", "more", "busy"]]


def test_the_verdict_comes_first() -> None:
    """The first line names the pool and says what came out."""
    assert render(equal(), limit=1)[0].startswith("zram0: 20,855 zspages and 62,565 page frames")
    assert [line.partition(" (")[0] for line in render(differs(), limit=1)[:3]] == [
        "zram0: 11 differences in 20,855 zspages",
        "zram0: contradicted by 1 witness",
        "zram0: 1 violation of invariants",
    ]
