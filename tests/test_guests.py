"""Runs the tests of ``tests/guest`` inside guests: what they check is said there.

The whole matrix is ``make matrix``; here are the newest kernel with struct zpdesc, 6.12 and one
between, where zspages die by another path, and of 6.1, where zsmalloc is a module, what differs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.matrix import CHECKOUT, GUESTS, execute
from lab.results import Result, Run
from tests import traps


def files(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/guest/test_{name}.py" for name in names)


def some(expression: str, *names: str) -> tuple[str, ...]:
    return (*files(*names), "-k", expression)


# Late and probes_alone are the ways by which a model comes to equal a pool.
WAYS = "features or two_devices or reset or huge or attached_late or probes_alone or old_pool"
AROUND = ("features", "exact", "scan", "verify")
ANY_KERNEL = ("loaders", "top", "frames")
NO_BCC = "not bcc and not tell_the_same"
# These have a guest of their own.
OWN = tuple(f"--ignore={each}" for each in files("demo", "lockdown", "traps"))
RUNS = {
    "all on 7.3": Run("7.3", "core", "auto", ("tests/guest", *OWN)),
    "all on 6.18": Run("6.18", "core", "auto", ("tests/guest", *OWN)),
    "all on 6.12": Run("6.12", "core", "auto", ("tests/guest", *OWN)),
    "locked down, on 7.3": Run("7.3", "core", "auto", files("lockdown")),
    "kprobes on 7.3": Run("7.3", "core", "kprobe", files("exact", "verify")),
    "bcc on 7.3": Run("7.3", "bcc", "auto", files("exact", "verify", "top")),
    "each hook taken away on 7.3": Run("7.3", "auto", "auto", files("demo")),
    "traps, on 7.3": Run("7.3", "core", "fentry", files("traps")),
    # Those that the path of zspage death matters to.
    "traps, on 6.18": Run("6.18", "core", "fentry", some("die or missed or shrinker", "traps")),
    "zsmalloc as a module, on 6.1": Run(
        "6.1",
        "core",
        "auto",
        some(f"({WAYS} or {' or '.join(ANY_KERNEL)}) and {NO_BCC}", *AROUND, *ANY_KERNEL),
    ),
}


@pytest.mark.parametrize("name", [name for name, run in RUNS.items() if "-k" in run.tests])
def test_selections_select(name: str) -> None:
    """Every word by which a run names tests, or leaves some out, is part of a name there is."""
    *places, _, expression = RUNS[name].tests
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *places],
        check=True,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env={**os.environ, "ZPOBS_GUEST": "1"},
    )
    names = [line for line in done.stdout.splitlines() if "::" in line]
    words = set(re.findall(r"\w+", expression)) - {"and", "or", "not"}
    assert [word for word in words if not any(word in each for each in names)] == []


def folder(name: str) -> Path:
    return CHECKOUT / "build/guests" / "-".join(name.replace(",", "").split())


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Result]]]:
    """Have the runs that were asked for made, as many at once as is good."""
    asked = [each.callspec.params["name"] for each in request.session.items if is_a_run(each)]
    if any(name.startswith("traps") for name in asked):
        # Guests have no compiler.
        traps.build()
    with ThreadPoolExecutor(GUESTS) as workers:
        yield {name: workers.submit(execute, RUNS[name], folder(name)) for name in asked}
        workers.shutdown(cancel_futures=True)


def is_a_run(item: pytest.Item) -> bool:
    return getattr(item, "function", None) is test_in_a_guest


@pytest.mark.lab
@pytest.mark.parametrize("name", RUNS)
def test_in_a_guest(name: str, started: dict[str, Future[Result]]) -> None:
    """Every test of the run passes, none is left out without a listed reason, no kernel warns."""
    result = started[name].result()
    log = (folder(name) / f"{RUNS[name].name}.log").read_text(errors="replace")
    assert result.problem == "", f"{result.problem}\n{log}"
