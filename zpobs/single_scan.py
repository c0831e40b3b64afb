"""One scan of all pools with no probe at all: a session that lives for a moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from zpobs.blocks import with_pageblocks
from zpobs.host import check_pool, check_privilege
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.plan import make_plan
from zpobs.scans import ScanResult, open_scanner
from zpobs.session import Session
from zpobs.wishes import Wishes


def scan_once(
    *,
    pool: str | None = None,
    zspages: bool = False,
    detail: bool = False,
    keep: bool = False,
    pageblocks: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ScanResult:
    """Scan all pools, or one, with no probe at all; for pageblocks all zspages must be listed."""
    check_privilege()
    facts = probe_kernel()
    if pool is not None:
        check_pool(pool)
    plan = make_plan(facts)
    progress("scanning")
    with open_scanner(facts, plan.size_classes) as scanner:
        session = Session(facts, plan, Wishes(pool=pool), scanner)
        try:
            result = session.scan_kernel(pool=pool, zspages=zspages, detail=detail, keep=keep)
            if pageblocks:
                result = replace(result, snapshot=with_pageblocks(result.snapshot, facts, scanner))
            return result
        finally:
            session.close()
