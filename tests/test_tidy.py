"""What no linter of ours checks: sizes, licences, no kernel versions, documented options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

from zpobs.cli import app

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sorted(
    path
    for folder in ("zpobs", "lab", "bench", "dashboards")
    for path in (ROOT / folder).rglob("*.py")
)
C_FILES = sorted([*(ROOT / "bpf").iterdir(), *ROOT.glob("lab/*.c"), *ROOT.glob("tests/*/*.c")])
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500

_VERSION_IN_C = re.compile(r"LINUX_VERSION_CODE|KERNEL_VERSION\s*\(|LINUX_KERNEL_VERSION")
_TARGET = re.compile(r"^([\w-]+):(?!=)(.*)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def functions(node: ast.AST) -> Iterator[ast.FunctionDef]:
    yield from (each for each in ast.walk(node) if isinstance(each, ast.FunctionDef))


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_files_and_functions_are_short(path: Path) -> None:
    """No file has more than 500 lines, no function more than 70."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES_MAX
    long = [
        function.name
        for function in functions(tree(path))
        if (function.end_lineno or 0) - function.lineno + 1 > FUNCTION_LINES_MAX
    ]
    assert long == []


@pytest.mark.parametrize("path", C_FILES, ids=name_of)
def test_c_files_name_their_licence(path: Path) -> None:
    """The first line of every C file is its SPDX line."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert re.fullmatch(r"(/\*|//) SPDX-License-Identifier: [\w.() -]+?( \*/)?", first)


def release_misuses(node: ast.AST) -> Iterator[int]:
    """Yield the lines that do anything with a kernel release but pass it on or print it."""

    def is_release(each: ast.AST) -> bool:
        named = each.attr if isinstance(each, ast.Attribute) else getattr(each, "id", "")
        return named in ("release", "version_info", "kernel_version")

    for each in ast.walk(node):
        taken: list[ast.AST] = []
        if isinstance(each, ast.Attribute | ast.Subscript):
            taken = [each.value]
        elif isinstance(each, ast.Compare):
            taken = [each.left, *each.comparators]
        elif isinstance(each, ast.Call) and ast.unparse(each.func).split(".")[0] in ("re", "int"):
            taken = list(each.args)
        yield from (part.lineno for part in taken if is_release(part))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        "release.split('.')",
        "facts.release[0]",
        "os.uname().release >= '6.1'",
        "re.match(r'(\\d+)', kernel.release)",
        "'6.12' in facts.release",
    ],
)
def test_the_search_for_versions_finds_them(text: str) -> None:
    """The search below finds every usual way to tell kernels apart by their release."""
    assert list(release_misuses(ast.parse(text))) == [1]


@pytest.mark.parametrize("path", sorted((ROOT / "zpobs").rglob("*.py")), ids=name_of)
def test_nothing_is_decided_by_kernel_version(path: Path) -> None:
    """A release is only passed on or shown: what a kernel has decides, not its name."""
    assert list(release_misuses(tree(path))) == []


@pytest.mark.parametrize("path", sorted((ROOT / "bpf").iterdir()), ids=name_of)
def test_no_probe_asks_for_the_kernel_version(path: Path) -> None:
    """The C of the probes compiles alike for every kernel version."""
    assert not _VERSION_IN_C.search(path.read_text(encoding="utf-8"))


def options(command: str) -> list[str]:
    """Return all long options of a command."""
    group = typer.main.get_command(app)
    found = group.commands[command].params  # type: ignore[attr-defined]
    return [
        name
        for each in found
        for name in (*each.opts, *each.secondary_opts)
        if name.startswith("--")
    ]


COMMANDS = ("top", "scan", "verify", "doctor", "exporter")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_documented(command: str) -> None:
    """A command's page tells of every option that it has."""
    text = (ROOT / "docs" / f"{command}.md").read_text(encoding="utf-8")
    assert len(options(command)) >= 3
    assert [name for name in options(command) if not re.search(rf"`{name}\b", text)] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_documented_that_is_not_there(command: str) -> None:
    """A command's page tells of no option that it lacks."""
    text = (ROOT / "docs" / f"{command}.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    told = set(re.findall(r"`(--[\w-]+)", table))
    assert told - {*options(command), "--help"} == set()


def test_every_target_of_make_says_what_it_does() -> None:
    """Each target has a ## comment, which ``make help`` lists, and is phony."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = dict(_TARGET.findall(text))
    assert len(targets) >= 10
    assert [name for name, rest in targets.items() if not re.search(r"## \w", rest)] == []
    assert set(re.findall(r"^\.PHONY: ([\w-]+)$", text, re.MULTILINE)) == set(targets)
