"""``zpobs doctor``: options, statuses, and what goes where."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.doctor.support import make_host, whole_builder
from tests.doctor.test_judge import LACKING
from tests.factories import FUNCTIONS
from zpobs import cli
from zpobs.doctor import gather
from zpobs.doctor.facts import HostFacts
from zpobs.errors import EXIT_BAD_INPUT, EXIT_FINDING, EXIT_USAGE

Run = Callable[..., int]


class Host:
    """The host that is found."""

    def __init__(self) -> None:
        self.facts: HostFacts = make_host()

    def gather(self, **_: Any) -> HostFacts:
        return self.facts


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host()
    monkeypatch.setattr(gather, "gather", made.gather)
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a runner of ``zpobs doctor`` in this process, which returns its status."""

    def runner(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["zpobs", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return runner


@pytest.mark.parametrize("name", [None, *LACKING])
def test_strict_is_status_1_where_something_is_lacking(host: Host, run: Run, name: str) -> None:
    """Without --strict the status is 0 whatever was found."""
    if name:
        host.facts = make_host(**LACKING[name][0])
    assert run() == 0
    assert run("--strict") == (EXIT_FINDING if name else 0)
    assert run("--strict", "--json") == (EXIT_FINDING if name else 0)


@pytest.mark.usefixtures("host")
def test_text_goes_to_standard_output(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The text ends with the verdict where nothing is lacking."""
    assert run() == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "zpobs doctor  7.3.0-invented"
    assert out.splitlines()[-2:] == [
        "  zpobs scan: works",
        "  probes: core fentry, 11 of 11 hooks",
    ]


@pytest.mark.usefixtures("host")
def test_json_is_one_object(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """--json writes one line and nothing else."""
    assert run("--json") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    assert json.loads(out)["schema"] == 1


@pytest.fixture
def kernels(tmp_path: Path) -> dict[str, Path]:
    """Return files: a whole kernel's BTF, one that lacks a hook, and one that is none."""
    functions = FUNCTIONS["7.3"]
    contents = {
        "whole": whole_builder(functions).data(),
        "lacking": whole_builder(functions - {"zs_malloc"}).data(),
        "none": b"this is a text file, and nothing else at all",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_another_kernel_is_judged_by_its_btf_alone(
    monkeypatch: pytest.MonkeyPatch,
    kernels: dict[str, Path],
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """This host is not asked, and nothing of it is told."""

    def asked(**_: Any) -> None:
        raise AssertionError("the host was asked")

    monkeypatch.setattr(gather, "gather", asked)
    assert run("--json", "--strict", "--btf", str(kernels["whole"])) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["subject"] == str(kernels["whole"])
    sections = {check["section"] for check in made["checks"]}
    assert sections == {"kernel", "members", "hooks", "hook sets"}
    assert run("--btf", str(kernels["lacking"])) == 0
    assert "fentry could attach to 10 of 11 hooks" in capsys.readouterr().out
    assert run("--strict", "--btf", str(kernels["lacking"])) == EXIT_FINDING


@pytest.mark.parametrize("name", ["none", "not there"])
def test_what_is_no_btf_is_status_4(
    kernels: dict[str, Path], run: Run, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """One clear line, and nothing on standard output."""
    path = kernels.get(name, Path("/nowhere/at/all"))
    assert run("--btf", str(path)) == EXIT_BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("zpobs: ")
    assert str(path) in line
    assert "; found: " in line
    assert "; try: " in line


def test_wrong_options_are_usage_errors(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """An option that is unknown gives status 2 and names it."""
    assert run("--cure") == EXIT_USAGE
    assert "--cure" in capsys.readouterr().err


def test_help_has_examples(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """``zpobs doctor --help`` tells of each option with words and gives examples."""
    assert run("--help") == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith("  --")]
    command = typer.main.get_command(cli.app).commands["doctor"]  # type: ignore[attr-defined]
    names = [name for each in command.params for name in each.opts]
    assert [words[0] for words in lines] == [*names, "--help"]
    assert all(len(words) > 2 for words in lines)
    assert out.count("zpobs doctor") >= 5
    assert not re.search(r"\s{100}", out)
