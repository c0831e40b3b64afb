"""What becomes of a test whose kernel lacks what it needs, by the conftest of guests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab.features import LACKING_VARIABLE
from lab.results import told_by_guest

TOP = Path(__file__).resolve().parents[2]
CONFTEST = """
from tests.guest.conftest import *
from tests.guest.conftest import FEATURES

def pytest_configure(config):
    config.stash[FEATURES] = frozenset({"zpdesc", "hook obj_malloc"})
"""
TESTS = """
import pytest

@pytest.mark.needs("zpdesc")
def test_there(): pass

@pytest.mark.needs("zpdesc", "headers")
def test_listed(): assert False

@pytest.mark.needs("percent groups")
def test_unlisted(): pass

def test_other_skip(): pytest.skip("no wish")

@pytest.mark.parametrize("hook", ["obj_malloc", "zs_malloc"])
def test_hook(hook): pass

@pytest.mark.parametrize("loader", ["core", "bcc"])
def test_loader(loader): pass

def test_wrong(): assert False

@pytest.mark.xfail
def test_xfail(): assert False

@pytest.mark.xfail(run=False)
def test_not_run(): pass

@pytest.mark.xfail(strict=False)
def test_xpass(): pass

def test_xfail_inside(): pytest.xfail("no wish")

@pytest.mark.skip(reason="headers: none")
def test_skip_in_disguise(): pass
"""
UNCOLLECTED = """
import pytest

pytest.skip("headers: none", allow_module_level=True)

def test_unseen(): pass
"""
LISTED = {"headers": "none", "hook zs_malloc": "inlined"}


def outcome_of(folder: Path, **files: str) -> subprocess.CompletedProcess[str]:
    """Run tests as a guest does, on a kernel that has little."""
    (folder / "conftest.py").write_text(CONFTEST)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    paths = f"{TOP}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *map("{}.py".format, files),
        ],
        check=False,
        cwd=folder,
        env={**os.environ, LACKING_VARIABLE: json.dumps(LISTED), "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )


def test_only_what_is_listed_is_left_out(tmp_path: Path) -> None:
    """Listed lacks skip, with the reason; an unlisted one fails, as does any other skip."""
    done = outcome_of(tmp_path, test_some=TESTS)
    assert done.returncode == 1
    told = told_by_guest(done.stdout)
    short = {each.partition("::")[2] for each in told["failed"]}
    marked = {"test_xfail", "test_not_run", "test_xpass", "test_xfail_inside"}
    skipped = {"test_other_skip", "test_skip_in_disguise"}
    assert short == {"test_unlisted", "test_wrong", *marked, *skipped}
    left_out = {name.partition("::")[2]: reason for name, reason in told["skipped"].items()}
    assert left_out == {
        "test_listed": "headers: none",
        "test_hook[zs_malloc]": "hook zs_malloc: inlined",
        "test_loader[bcc]": "headers: none",
    }
    assert (told["passed"], told["descriptor"], told["lacking"]) == (3, "zpdesc", LISTED)
    assert (told["marked"], told["uncollected"]) == ([], [])
    assert "lacks percent groups, and that is listed nowhere" in done.stdout


def test_a_file_that_skips_itself_fails(tmp_path: Path) -> None:
    """Whatever the reason: its tests are not known, so nobody could miss them."""
    done = outcome_of(tmp_path, test_unseen=UNCOLLECTED)
    assert done.returncode not in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert told_by_guest(done.stdout)["failed"] == ["test_unseen.py"]
    assert "not collected in a guest" in done.stdout
