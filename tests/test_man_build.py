"""The manual pages: of the same text as --help, and without a warning."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer.main

from zpobs.cli import STATUSES, app
from zpobs.man_build import build_man_pages, man_pages
from zpobs.views.live.keys import KEYS, shown_keys

GROUP: Any = typer.main.get_command(app)
COMMANDS = dict(GROUP.commands)
PAGES = ["zpobs", *(f"zpobs-{name}" for name in COMMANDS)]
SECTIONS = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "FILES", "SEE ALSO"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the pages' files by name."""
    made = build_man_pages(tmp_path_factory.mktemp("man") / "man1")
    return {path.stem: path for path in made}


def shown(path: Path, width: int = 400) -> str:
    """Return a page as man shows it."""
    if shutil.which("man") is None or shutil.which("groff") is None:
        pytest.skip("needs man-db and groff")
    done = subprocess.run(
        ["man", "--warnings", "-l", str(path)],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"MANWIDTH": str(width), "LC_ALL": "C.UTF-8", "MAN_KEEP_FORMATTING": ""},
    )
    assert done.stderr == ""
    return done.stdout


def test_there_is_a_page_for_every_command(files: dict[str, Path]) -> None:
    """And one for all of them."""
    assert list(files) == PAGES


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [60, 80, 400])
def test_a_page_has_no_warning(files: dict[str, Path], name: str, width: int) -> None:
    """Neither man nor groff has anything to say of it, and its sections are there."""
    text = shown(files[name], width)
    assert [each for each in SECTIONS if not re.search(rf"^{each}$", text, re.MULTILINE)] == []
    done = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8", str(files[name])], capture_output=True, check=True
    )
    assert done.stderr == b""


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_page_says_what_help_says(files: dict[str, Path], name: str) -> None:
    """Every option with its words, every paragraph, and every example, as --help has them."""
    text = " ".join(shown(files[f"zpobs-{name}"]).split())
    command = COMMANDS[name]
    context = command.make_context(name, [], resilient_parsing=True)
    records = [each.get_help_record(context) for each in command.get_params(context)]
    told = [part for record in records if record for part in record]
    assert len(told) >= 4
    told += command.help.split("\n\n") + command.epilog.partition("\b")[2].splitlines()
    assert [each for each in told if " ".join(each.split()) not in text] == []


def test_tops_page_has_the_keys(files: dict[str, Path]) -> None:
    """All of the one table, and no other page has them."""
    text = shown(files["zpobs-top"])
    keys = text.partition("\nKEYS\n")[2].partition("\nEXIT STATUS\n")[0]
    assert len(KEYS) > 10
    assert [entry for entry in KEYS if shown_keys(entry) not in keys] == []
    assert "\nKEYS\n" not in shown(files["zpobs-scan"])


def test_the_statuses_are_those_of_help(files: dict[str, Path]) -> None:
    """Each with what it means."""
    text = shown(files["zpobs"])
    for status, words in STATUSES.items():
        assert re.search(rf"^ +{status} +{words}\.$", text, re.MULTILINE | re.IGNORECASE)
        assert f"{status} {words}" in " ".join(GROUP.epilog.split())


def test_nothing_is_taken_for_a_command_of_mans() -> None:
    """No line of text begins with a dot or a quote, and no hyphen of an option is a mere one."""
    known = {"TH", "SH", "PP", "TP", "B", "BR", "nf", "fi", "nh", "ad"}
    for page in man_pages().values():
        begun = re.findall(r"^[.'](\w*)", page, re.MULTILINE)
        assert set(begun) <= known
        assert not re.search(r"(?<!\\)--", page)
