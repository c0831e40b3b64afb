"""What guests said of their tests: kept as JSON, judged, shown as a table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Begins the line by which the tests of a guest tell the host what became of them.
TOLD = "zpobs-guest-results: "
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Run:
    """One guest: a kernel (major.minor), a loader, a form of attaching, and its tests' paths."""

    kernel: str
    loader: str
    form: str
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """The run in a word, good for a file name."""
        return f"{self.kernel}-{self.loader}-{self.form}"


def absence(kernel: str) -> Run:
    """Return the name under which is told that the archive has no such kernel."""
    return Run(kernel, "none", "none", ())


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a run.

    ``release`` and ``descriptor`` are the guest's own words, empty if it told nothing. ``failed``
    are tests, ``skipped`` tests with the reasons listed for them, ``lacking`` features with those
    reasons, ``warnings`` lines of the kernel's console, ``lost_boots`` those that the
    emulator's known fault ended before the tests began. ``problem`` says why this is no success,
    empty if it is one. ``absent`` says why there was no kernel to run. ``sources`` tells
    the tree that was tested from any other.
    """

    run: Run
    release: str = ""
    descriptor: str = ""
    passed: int = 0
    failed: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    lost_boots: int = 0
    seconds: int = 0
    problem: str = ""
    absent: str = ""
    sources: str = ""


def told_by_guest(output: str) -> dict[str, Any]:
    """Return what the tests of a guest told in their last line, nothing if they did not end."""
    lines = [line for line in output.splitlines() if line.startswith(TOLD)]
    told: dict[str, Any] = json.loads(lines[-1].removeprefix(TOLD)) if lines else {}
    return told


def _left_out_wrongly(told: Mapping[str, Any]) -> str:
    """Return what a guest's tests left out for no listed reason, empty if nothing."""
    listed = {f"{feature}: {why}" for feature, why in told.get("lacking", {}).items()}
    skipped: Mapping[str, str] = told.get("skipped", {})
    # Those of a listed reason too: of a file that is not collected nobody knows the tests.
    for name in told.get("uncollected", ()):
        return f"not collected: {name}"
    for name, reason in skipped.items():
        if reason not in listed:
            return f"skipped for no listed reason: {name} ({reason})"
    for name in told.get("marked", ()):
        return f"marked to fail: {name}"
    return ""


def judge(
    run: Run,
    output: str,
    status: int,
    *,
    warnings: Sequence[str],
    seconds: int,
    lost_boots: int = 0,
    sources: str = "",
) -> Result:
    """Return the result of a run from its output, its status and its kernel's complaints."""
    told = told_by_guest(output)
    failed = tuple(told.get("failed", ()))
    passed = int(told.get("passed", 0))
    if warnings:
        # The line that opens a warning says nothing of it; what it is follows.
        telling = [row for row in warnings if "[ cut here ]" not in row]
        problem = f"the kernel warned: {(telling or warnings)[0]}"
    elif not told:
        lines = [line for line in output.splitlines() if line.strip()]
        said = [line for line in lines if line.startswith("lab: ") and " booted in " not in line]
        problem = f"status {status}; {(said or lines or ['nothing was said'])[-1]}"
    elif failed:
        problem = f"{len(failed)} failed, such as {failed[0]}"
    elif status:
        problem = f"status {status}"
    else:
        problem = _left_out_wrongly(told) or ("" if passed else "no test ran")
    return Result(
        run,
        release=told.get("release", ""),
        descriptor=told.get("descriptor", ""),
        passed=passed,
        failed=failed,
        skipped=told.get("skipped", {}),
        lacking=told.get("lacking", {}),
        warnings=tuple(warnings),
        lost_boots=lost_boots,
        seconds=seconds,
        problem=problem,
        sources=sources,
    )


def zpdesc_kernels(results: Sequence[Result]) -> list[str]:
    """Return the kernels with struct zpdesc on which tests really ran."""
    ran = (each for each in results if each.descriptor == "zpdesc" and each.passed)
    return list(dict.fromkeys(each.run.kernel for each in ran))


def verdict_on(result: Result) -> str:
    """Say in a few words what became of a run."""
    verdict = f"FAILED: {result.problem}" if result.problem else "ok"
    return verdict + (f" (boots lost before: {result.lost_boots})" if result.lost_boots else "")


def table(results: Sequence[Result]) -> list[str]:
    """Return lines of text: what became of each run."""
    rows = [("kernel", "descriptor", "loader", "form", "passed", "skipped", "s", "")]
    for each in results:
        run = each.run
        rows.append(
            (
                each.release or run.kernel,
                each.descriptor or "-",
                run.loader,
                run.form,
                str(each.passed),
                str(len(each.skipped)),
                str(each.seconds),
                verdict_on(each),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[7]])
        for row in rows
    ]


def save(path: Path, results: Sequence[Result]) -> None:
    """Write results where :func:`load` finds them, whole or not at all."""
    stored = {"format": FORMAT, "results": [asdict(each) for each in results]}
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    fresh.replace(path)


def load(path: Path) -> list[Result]:
    """Return the results of a file, none if it is not there or of another format."""
    if not path.exists():
        return []
    stored = json.loads(path.read_text(encoding="utf-8"))
    if stored.get("format") != FORMAT:
        return []
    return [_result(row) for row in stored["results"]]


def _result(row: Mapping[str, Any]) -> Result:
    run = Run(**{**row["run"], "tests": tuple(row["run"]["tests"])})
    lists = {name: tuple(row[name]) for name in ("failed", "warnings")}
    return Result(**{**row, **lists, "run": run})
