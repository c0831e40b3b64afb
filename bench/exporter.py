"""The exporter: processor time of a scrape and of a page, for four pools.

    python -m bench.exporter [--scrapes N]

Scrapes are of a real exporter over real zram devices, whose next snapshot is far
away: what its process takes meanwhile is theirs. A page is made of an invented
snapshot with as many size classes as a pool can have on most kernels, in this
process: once for each snapshot, and written once in each form that is asked for.
Needs root and zram.
"""

from __future__ import annotations

import argparse
import time
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack

from bench.budget import judged
from bench.view import cpu_s
from tests.factories import make_classes
from tests.native.device import NativeDevice
from tests.native.exporter import Exporter
from tests.views.metrics.support import full_pool, make_moment
from zpobs.views.metrics.families import make_families, series_of
from zpobs.views.metrics.ledger import Ledger
from zpobs.views.metrics.metric import Choice
from zpobs.views.metrics.pages import Page

_BUDGET_MS = 10.0
_POOLS = 4
_CLASSES = 119
_ROUNDS = 20


def scrape_ms(scrapes: int, *options: str, accept: str = "text/plain") -> float:
    """Return the exporter's processor time for each scrape, in ms."""
    with ExitStack() as held:
        for _ in range(_POOLS):
            device = NativeDevice("1G")
            held.callback(device.remove)
            device.fill("mixed", 500)
        exporter = held.enter_context(Exporter(*options, "--verify", "0", interval_s=600.0))
        exporter.until(lambda found: len(found) > 10)
        time.sleep(2.0)
        headers = {"Accept": accept, "Accept-Encoding": "gzip"}
        request = urllib.request.Request(f"{exporter.url}/metrics", headers=headers)
        before_s = cpu_s(exporter.process.pid)
        for _ in range(scrapes):
            with urllib.request.urlopen(request) as answer:
                answer.read()
        return 1000 * (cpu_s(exporter.process.pid) - before_s) / scrapes


def page_ms(choice: Choice) -> tuple[int, float, float]:
    """Return the series of a page, and the ms to make its families and to write it once."""
    lines = [(index, 32 + 16 * index, 4, 1, 3, 5) for index in range(_CLASSES)]
    pools = [
        full_pool(number, f"zram{number}", classes=make_classes(lines)) for number in range(_POOLS)
    ]
    moment = make_moment(*pools)
    ledger = Ledger()
    families = make_families(moment, ledger, choice)
    making = _least_ms(lambda: make_families(moment, ledger, choice))
    writing = _least_ms(lambda: Page(families, 0.0).body("text", gzipped=True))
    return series_of(families), making, writing


def _least_ms(run: Callable[[], object]) -> float:
    taken = []
    for _ in range(_ROUNDS):
        begin_s = time.process_time()
        run()
        taken.append(1000 * (time.process_time() - begin_s))
    return min(taken)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a scrape and a page cost.")
    parser.add_argument("--scrapes", type=int, default=500)
    scrapes = parser.parse_args().scrapes
    for name, options in (("default", ()), ("per class and fullness", ("--per-class-fullness",))):
        for accept in ("text/plain", "application/openmetrics-text"):
            took = scrape_ms(scrapes, *options, accept=accept)
            print(
                f"scrape, {_POOLS} pools, {name}, {accept}: {took:.2f} ms of CPU, "
                f"budget {_BUDGET_MS:.0f} ms {judged(took, _BUDGET_MS)}"
            )
    for name, choice in (
        ("default", Choice()),
        ("per class", Choice(per_class=True)),
        ("per class and fullness", Choice(per_class_fullness=True)),
    ):
        series, making, writing = page_ms(choice)
        print(f"page, {name}: {series:,} series, made in {making:.1f} ms, written in {writing:.1f}")


if __name__ == "__main__":
    main()
