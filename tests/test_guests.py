"""The tests of ``tests/guest``, inside guests: what they check is said there."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from lab.matrix import CHECKOUT
from tests.guest_runs import RUNS, Guests, folder


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


@pytest.mark.lab
@pytest.mark.parametrize("name", RUNS)
def test_in_a_guest(name: str, guests: Guests) -> None:
    """Every test of the run passes, none is left out without a listed reason, no kernel warns."""
    guests.alone()
    result = guests.result(name)
    log = (folder(name) / f"{RUNS[name].name}.log").read_text(errors="replace")
    assert result.problem == "", f"{result.problem}\n{log}"
