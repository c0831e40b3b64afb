"""docs/kernel-support.md, made of the matrix's results.

``python -m lab.support`` takes ``build/matrix.json``, keeps of it what the page tells as
``docs/kernel-support.json``, and writes the page. ``--page`` writes the page anew from that.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lab.results import Result, Run, load, save, zpdesc_kernels

CHECKOUT = Path(__file__).resolve().parent.parent
FORMS = ("fentry", "kprobe")
DATA = CHECKOUT / "docs/kernel-support.json"
PAGE = CHECKOUT / "docs/kernel-support.md"

# What the matrix's runs are called on the page; the one whose form is auto is that of lockdown.
_WAYS = {
    **{(loader, form): f"{loader}, {form}" for loader in ("core", "bcc") for form in FORMS},
    ("core", "auto"): "core, locked down",
}
_HEAD = """\
# Kernels

What passed where: the tests of `tests/guest`, run by `make matrix` in the [lab](lab.md) on Debian's
kernels as they are. `make support` makes this page of the results; nothing here is written by hand.

A cell is the number of tests that passed, and of those left out because the kernel lacks what they
are about. `core` with fentry runs every test but three files: that of [traps](traps.md), which
`tests/test_guests.py` runs on 7.3 and 6.18, that of a Prometheus server, which it runs on 7.3, and
that of lockdown, which has a guest of its own. The
other cells are tests that depend on how the probes got there. No kernel printed a warning in a run
that is counted as passed, but in boots lost to the emulator, which are counted. `sources` names the
very files that were tested: kernels with the same letters were tested with the same files.
"""
_LACKING_HEAD = """\
## What is lacking, and why

Found by what a kernel has, never by its version; a reason that no longer holds fails the tests.
"""


def _order(result: Result) -> tuple[int, ...]:
    return tuple(int(number) for number in result.run.kernel.split("."))


def _cell(results: Sequence[Result], loader: str, form: str) -> str:
    found = [each for each in results if (each.run.loader, each.run.form) == (loader, form)]
    if not found:
        return "not run"
    one = found[-1]
    if one.problem:
        if not one.release:
            return "**guest lost**"
        count = f": {len(one.failed)} of {one.passed + len(one.failed)}" if one.failed else ""
        return f"**failed**{count}"
    return f"{one.passed} passed" + (f", {len(one.skipped)} left out" if one.skipped else "")


def _failures(results: Sequence[Result]) -> list[str]:
    ran = [each for each in results if not each.absent]
    rows = [f"- {each.run.name}: {each.problem}" for each in ran if each.problem]
    lines = ["", "## What failed", "", *rows] if rows else []
    rows = [f"- {each.absent}" for each in results if each.absent]
    lines += ["", "## Kernels that were not there", "", *rows] if rows else []
    rows = [f"- {each.run.name}: {each.lost_boots}" for each in ran if each.lost_boots]
    return (
        [*lines, "", "## Boots lost to the emulator, and made again", "", *rows] if rows else lines
    )


def _lacking(results: Sequence[Result]) -> list[str]:
    rows = []
    for kernel in dict.fromkeys(each.run.kernel for each in results):
        own = [each for each in results if each.run.kernel == kernel]
        reasons = {feature: why for each in own for feature, why in each.lacking.items()}
        for feature, why in reasons.items():
            left_out = {
                test
                for each in own
                for test, reason in each.skipped.items()
                if reason.startswith(f"{feature}: ")
            }
            rows.append(f"| {kernel} | {feature} | {why} | {len(left_out)} |")
    return ["| kernel | lacks | reason | tests left out |", "| --- | --- | --- | --- |", *rows]


def page(results: Sequence[Result]) -> str:
    """Return the page that tells of these results."""
    ordered = sorted(results, key=_order, reverse=True)
    ran = [each for each in ordered if not each.absent]
    head = " | ".join(("kernel", "sources", "descriptor", *_WAYS.values()))
    rows = [f"| {head} |", "| --- | --- | --- |" + " --- |" * len(_WAYS)]
    for kernel in dict.fromkeys(each.run.kernel for each in ran):
        own = [each for each in ran if each.run.kernel == kernel]
        told = next((each for each in own if each.release), own[0])
        cells = " | ".join(_cell(own, loader, form) for loader, form in _WAYS)
        name = f"{told.release or kernel} | {told.sources[:8] or '?'}"
        rows.append(f"| {name} | struct {told.descriptor or '?'} | {cells} |")
    count = len(zpdesc_kernels(results))
    lines = [_HEAD, *rows, "", f"Kernels with struct zpdesc that ran: {count}."]
    return "\n".join([*lines, *_failures(ordered), "", _LACKING_HEAD, *_lacking(ordered), ""])


def publishable(results: Sequence[Result]) -> list[Result]:
    """Return results as they are kept: without paths of tests that all runs share."""
    return [
        replace(each, run=Run(each.run.kernel, each.run.loader, each.run.form, ()))
        for each in sorted(results, key=lambda each: (_order(each), each.run.name), reverse=True)
    ]


def mixtures(results: Sequence[Result]) -> list[str]:
    """Return the kernels of which there are results of several trees, or several of one run."""
    found = []
    for kernel in dict.fromkeys(each.run.kernel for each in results):
        own = [each for each in results if each.run.kernel == kernel and not each.absent]
        names = {each.run.name for each in own}
        if len({each.sources for each in own}) > 1 or len(names) < len(own):
            found.append(kernel)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, and the data behind it; status 1 if there are no results, or mixed ones."""
    parser = argparse.ArgumentParser(prog="python -m lab.support", description=__doc__)
    parser.add_argument("--results", type=Path, default=CHECKOUT / "build/matrix.json")
    parser.add_argument("--page", action="store_true", help="write the page alone, of its data")
    options = parser.parse_args(argv)
    if not options.page:
        results = load(options.results)
        if not results:
            print(f"support: no results in {options.results}; try: make matrix", file=sys.stderr)
            return 1
        mixed = mixtures(results)
        if mixed:
            reason = f"results of several sources for {', '.join(mixed)}"
            print(f"support: {reason}; try: make matrix MATRIX=--resume", file=sys.stderr)
            return 1
        save(DATA, publishable(results))
    PAGE.write_text(page(load(DATA)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
