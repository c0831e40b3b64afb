"""docs/troubleshooting.md tells of the lines that there are, with their statuses."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from zpobs import errors

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in TEXT.splitlines()
    if line.startswith("| ") and not line.startswith(("| line", "| ---"))
]
# What is raised for a host's lacks, by the statuses of their kinds.
STATUSES = {"EnvironmentLacksError": 3, "ShortageError": 3, "UsageError": 2, "BadInputError": 4}
# Told elsewhere, or by what is no host's fault: bugs, and kernels that zpobs does not know.
ELSEWHERE = {
    "a pool cannot be walked",
    # Told below the pageblocks, which are shown all the same: docs/scan.md.
    "migratetypes of pageblocks cannot be read",
    # Told on screens of a replay, of what is in no capture: docs/top.md.
    "... cannot be shown",
    "zsmalloc's structures are not as zpobs knows them",
    "BPF objects are compiled by clang",
    "clang cannot compile bpf/...",
    "bcc cannot compile the probes",
}


def literal(node: ast.expr) -> str:
    """Return a string as written, with ... for what differs."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "..." for part in node.values
        )
    return "..."


def raised() -> Iterator[tuple[str, str]]:
    """Yield the kind and the problem of each error that is made anywhere."""
    for path in sorted((ROOT / "zpobs").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                yield node.func.id, literal(node.args[0])


PROBLEMS = sorted({(kind, problem) for kind, problem in raised() if kind in STATUSES})


def problem_of(line: str) -> str:
    return line.partition(";")[0]


def alike(problem: str, line: str) -> bool:
    """Tell whether a line of the table can be that of a problem."""
    parts = [re.escape(part) for part in problem.split("...")]
    return re.fullmatch(".*".join(parts), problem_of(line)) is not None


def test_the_table_is_a_table() -> None:
    """Four cells in each row, the last a status."""
    assert len(ROWS) >= 20
    assert {len(row) for row in ROWS} == {4}
    assert {row[-1] for row in ROWS} <= {"2", "3", "4"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:40])
def test_every_line_is_one_that_is_told(row: list[str]) -> None:
    """Some error is made with these words, and has this status; so no row outlives its cause."""
    line, _, _, status = row
    if problem_of(line) == "...":
        words = line.partition("try: ")[2]
        assert words in (ROOT / "zpobs" / "advice.py").read_text(encoding="utf-8")
        return
    kinds = {kind for kind, problem in PROBLEMS if problem == problem_of(line)} or {
        kind for kind, problem in PROBLEMS if problem != "..." and alike(problem, line)
    }
    kinds |= {"EnvironmentLacksError"} if "is out of date" in line else set()
    kinds |= {"EnvironmentLacksError"} if "no probe could be attached" in line else set()
    assert {STATUSES[kind] for kind in kinds} == {int(status)}


@pytest.mark.parametrize(("kind", "problem"), PROBLEMS)
def test_every_lack_of_a_host_is_in_the_table(kind: str, problem: str) -> None:
    """What a user can be told at a start, and is the environment's lack, has a row."""
    if kind != "EnvironmentLacksError" or problem == "..." or problem in ELSEWHERE:
        return
    assert [row for row in ROWS if alike(problem, row[0])]


def test_the_statuses_are_those_of_the_errors() -> None:
    """As the classes have them."""
    assert {name: getattr(errors, name).exit_status for name in STATUSES} == STATUSES


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([\w./#-]+)\)", TEXT))))
def test_its_links_lead_somewhere(link: str) -> None:
    """To a file that is there, and a heading in it."""
    name, _, anchor = link.partition("#")
    text = (ROOT / "docs" / name).read_text(encoding="utf-8") if name else TEXT
    headings = {
        re.sub(r"[^\w -]", "", each).lower().replace(" ", "-")
        for each in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }
    assert not anchor or anchor in headings
