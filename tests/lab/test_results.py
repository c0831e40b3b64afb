"""What counts as a success of a run, and the table and the page made of results."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.archive import Kernel
from lab.features import LACKING, NO_HEADERS, may_lack
from lab.matrix import (
    ABSENT,
    CHECKOUT,
    KERNELS,
    Matrix,
    Plan,
    missed,
    plan,
    runs_of,
    shortcomings,
    source_files,
    sources_digest,
)
from lab.results import TOLD, Result, Run, judge, load, save, table, zpdesc_kernels
from lab.support import DATA, PAGE, mixtures, page, publishable

RUN = Run("7.2", "core", "fentry", ("tests/guest",))
ALL = {
    "release": "7.2.12+deb13-amd64",
    "descriptor": "zpdesc",
    "passed": 40,
    "failed": [],
    "skipped": {"tests/guest/test_a.py::test_a": "headers: none"},
    "lacking": {"headers": "none", "zpdesc": "too old"},
}
WARNING = "[  121.1] WARNING: CPU: 1 PID: 77 at mm/zsmalloc.c:1466 zs_free+0x1a/0x1d0"
CUT = "[  121.1] ------------[ cut here ]------------"


def output(**told: object) -> str:
    return f"lab: booted\n===\nPASSED\n{TOLD}{json.dumps({**ALL, **told})}\n=== 1 s ===\n"


def made(said: str = "", status: int = 0, warnings: tuple[str, ...] = ()) -> Result:
    return judge(RUN, said or output(), status, warnings=warnings, seconds=9)


def test_a_run_whose_tests_all_passed_is_a_success() -> None:
    """All that the guest told is kept."""
    result = made()
    assert result.problem == ""
    assert (result.release, result.descriptor) == ("7.2.12+deb13-amd64", "zpdesc")
    assert (result.passed, result.failed) == (40, ())
    assert [result.skipped, result.lacking] == [ALL["skipped"], ALL["lacking"]]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (made(output(failed=["test_b"]), 1), "1 failed, such as test_b"),
        (made(warnings=(WARNING,)), "the kernel warned: "),
        (made(warnings=(CUT, WARNING)), "the kernel warned: [  121.1] WARNING: "),
        (made(warnings=(CUT,)), "the kernel warned: [  121.1] -----"),
        (made(status=6), "status 6"),
        (made(output(passed=0)), "no test ran"),
        (made(output(skipped={"test_a": "no wish"})), "skipped for no listed reason: test_a (no "),
        (made(output(skipped={"test_a": "headers: lost"})), "skipped for no listed reason: test_a"),
        (made(output(uncollected=["test_a.py"])), "not collected: test_a.py"),
        (made(output(marked=["test_a"])), "marked to fail: test_a"),
        (
            made("lab: x booted in 5 s\nlab: the guest panicked\n| more\n", 5),
            "status 5; lab: the guest ",
        ),
        (made("lab: x booted in 5 s\nend\n", 143), "status 143; end"),
        (made("\n", 1), "status 1; nothing was said"),
    ],
)
def test_anything_else_is_none(result: Result, words: str) -> None:
    """The reason is told, and in the table too."""
    assert result.problem.startswith(words)
    assert f"FAILED: {words}" in table([result])[-1]


def test_boots_that_were_lost_are_told() -> None:
    """In the table, of a success and of a failure."""
    results = [replace(made(), lost_boots=2), replace(made(status=6), lost_boots=1)]
    rows = table(results)[1:]
    assert [row.rpartition("  ")[2] for row in rows] == [
        "ok (boots lost before: 2)",
        "FAILED: status 6 (boots lost before: 1)",
    ]


def test_results_are_kept(tmp_path: Path) -> None:
    """What is loaded is what was saved; another format is no results."""
    results = [made(), made(output(failed=["test_b"]), 1, (WARNING,))]
    save(tmp_path / "results.json", results)
    assert load(tmp_path / "results.json") == results
    (tmp_path / "results.json").write_text('{"format": 0}')
    assert load(tmp_path / "results.json") == []
    assert load(tmp_path / "nothing.json") == []


def test_only_kernels_on_which_tests_ran_count() -> None:
    """Each kernel once, with struct zpdesc, and something passed."""
    results = [
        made(),
        made(output(passed=3)),
        replace(made(), run=replace(RUN, kernel="6.12"), descriptor="page"),
        replace(made(), run=replace(RUN, kernel="6.16"), passed=0),
        replace(made(), run=replace(RUN, kernel="6.17")),
    ]
    assert zpdesc_kernels(results) == ["7.2", "6.17"]


def test_bcc_runs_where_there_are_headers() -> None:
    """Without headers bcc is left out, and their lack is listed."""
    bare, with_headers = Kernel("7.2.1-amd64"), Kernel("7.2.1-amd64", headers=["a=1"])
    ways = [[(run.loader, run.form) for run in runs_of(each)] for each in (bare, with_headers)]
    assert ways[0] == [("core", "fentry"), ("core", "kprobe"), ("core", "auto")]
    assert ways[1] == [*ways[0], ("bcc", "fentry"), ("bcc", "kprobe")]
    assert may_lack(bare) == {**LACKING["7.2"], "headers": NO_HEADERS}
    assert may_lack(with_headers) == LACKING["7.2"]


def test_a_kernel_that_the_archive_has_not_is_told() -> None:
    """The others run."""
    planned = plan([Kernel("7.2.1-amd64"), Kernel("6.1.0-9-amd64", missing=["x"])], KERNELS)
    assert {run.kernel for run in planned.runs} == {"7.2"}
    assert planned.releases == {"7.2": "7.2.1-amd64"}
    assert set(planned.absent) == set(KERNELS) - {"7.2"}
    assert "the archive lacks x" in planned.absent["6.1"]
    only = plan([Kernel("7.2.1-amd64")], ["7.2"], ["core-kprobe"])
    assert [run.name for run in only.runs] == ["7.2-core-kprobe"]


def test_an_absent_kernel_is_a_failure_unless_listed(tmp_path: Path) -> None:
    """It is a result of its own, named on the page, until the kernel is there again."""
    path = tmp_path / "results.json"
    absent = {"6.1": "kernel 6.1 is not in the archive", "6.12": "kernel 6.12 cannot boot"}
    planned = Plan([], {}, absent)
    results = Matrix(path, planned, resume=False).run(1)
    problems = shortcomings(results, planned, partial=True)
    assert problems == [f"{name}-none-none: {reason}" for name, reason in absent.items()]
    text = page([made(), *results])
    assert all(f"\n- {reason}\n" in text for reason in absent.values())
    assert "| 6.1" not in text
    listed = missed("6.1", absent["6.1"], {"6.1": "gone from bookworm"})
    assert shortcomings([listed], Plan([], {}, absent), partial=True) == []
    assert "- kernel 6.1 is not in the archive (gone from bookworm)" in page([made(), listed])
    assert set(ABSENT) <= set(KERNELS)


def test_a_run_without_a_result_and_too_few_kernels_are_failures() -> None:
    """The latter only where all kernels were asked for."""
    planned = Plan([RUN], {"7.2": "x"}, {})
    assert shortcomings([made()], planned, partial=True) == []
    assert shortcomings([], planned, partial=True) == ["7.2-core-fentry: no result"]
    (few,) = shortcomings([made()], planned, partial=False)
    assert few.startswith("fewer than 4 kernels")


def test_only_the_same_of_everything_need_not_run_again(tmp_path: Path) -> None:
    """Tests, sources and the kernel's release; and only a success, when asked to resume."""
    path = tmp_path / "results.json"
    same = replace(made(), sources=sources_digest())
    planned = Plan([RUN], {"7.2": same.release}, {})
    others = [
        replace(same, sources="other"),
        replace(same, release="7.2.11+deb13-amd64"),
        replace(same, problem="1 failed"),
        replace(same, run=replace(RUN, tests=("tests/other",))),
    ]
    for before, stays in [(same, True), *((other, False) for other in others)]:
        save(path, [before])
        assert (Matrix(path, planned, resume=True).may_stay(RUN) == before) is stays
    save(path, [same])
    assert Matrix(path, planned, resume=False).may_stay(RUN) is None


def test_a_result_replaces_that_of_a_run_with_other_tests(tmp_path: Path) -> None:
    """One result for each kernel, loader and form, and none of a kernel's absence when it is there.

    The two runs are resumed, so no guest is booted.
    """
    path = tmp_path / "results.json"
    fresh = replace(made(), sources=sources_digest())
    stale = replace(made(output(failed=["x"]), 1), run=replace(RUN, tests=("tests/other",)))
    save(path, [stale, missed("7.2", "gone"), missed("6.1", "gone"), fresh])
    planned = Plan([RUN], {"7.2": fresh.release}, {})
    assert Matrix(path, planned, resume=True).run(1) == [fresh]
    assert load(path) == [fresh, missed("6.1", "gone")]


def modules_of(path: Path) -> list[Path]:
    """Return the checkout's files that a module imports."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    places = [CHECKOUT / name.replace(".", "/") for name in names]
    files = [[place.with_suffix(".py"), place / "__init__.py"] for place in places]
    return [file for pair in files for file in pair if file.exists()]


def test_sources_are_all_that_guests_import() -> None:
    """From the tests on, whatever is of this checkout; and what configures pytest."""
    begin = [*(CHECKOUT / "tests/guest").glob("*.py"), CHECKOUT / "tests/conftest.py"]
    seen, queue = set[Path](), [*begin, CHECKOUT / "tests/__init__.py"]
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            queue += modules_of(path)
    assert CHECKOUT / "tests/true_allocator.py" in seen
    assert seen - set(source_files()) == set()
    assert CHECKOUT / "pyproject.toml" in source_files()
    assert CHECKOUT / "bpf/scan.bpf.c" in source_files()


def test_every_kernel_of_the_matrix_is_known() -> None:
    """What each may lack is listed, and of nothing else."""
    assert set(LACKING) == set(KERNELS)


def test_a_hook_that_is_lacking_was_inlined() -> None:
    """No kernel of the matrix is without such a function: the compiler took its symbol."""
    reasons = {
        (series, lack): why
        for series, lacks in LACKING.items()
        for lack, why in lacks.items()
        if lack.startswith("hook ")
    }
    assert {each for each, why in reasons.items() if not why.startswith("inlined")} == set()


def test_the_page_tells_what_passed_and_what_did_not() -> None:
    """A cell for each loader and form; failures by name; reasons with what they leave out."""
    skipped = {"test_a": "zpdesc: too old", "test_b": "zpdesc: too old"}
    results = [
        replace(made(), sources="0123456789abcdef"),
        replace(made(output(failed=["test_b"]), 1), run=replace(RUN, form="kprobe")),
        replace(made("lab: the guest panicked", 5), run=replace(RUN, loader="bcc")),
        replace(made(status=6), run=Run("7.2", "bcc", "kprobe", ()), lost_boots=2),
        replace(made(), run=Run("6.12", "core", "fentry", ()), descriptor="page", skipped=skipped),
    ]
    text = page(results)
    cells = "40 passed, 1 left out | **failed**: 1 of 41 | **guest lost** | **failed** | not run |"
    assert f"| 7.2.12+deb13-amd64 | 01234567 | struct zpdesc | {cells}" in text
    assert "Boots lost to the emulator, and made again\n\n- 7.2-bcc-kprobe: 2\n" in text
    assert "- 7.2-core-kprobe: 1 failed, such as test_b" in text
    assert "| 6.12 | zpdesc | too old | 2 |" in text
    assert "| 6.12 | headers | none | 0 |" in text
    assert "| 7.2 | headers | none | 1 |" in text
    assert "Kernels with struct zpdesc that ran: 1." in text


def test_the_run_of_lockdown_has_a_column() -> None:
    """Every run of a kernel has one."""
    kernel = Kernel("7.2.1-amd64", headers=["a=1"])
    text = page([replace(made(), run=run) for run in runs_of(kernel)])
    assert "not run" not in text
    assert "core, locked down" in text


def test_results_of_several_sources_are_no_page() -> None:
    """Of one kernel; a kernel that is absent has none."""
    other = replace(made(), run=replace(RUN, form="kprobe"))
    assert mixtures([made(), other, missed("7.2", "gone")]) == []
    assert mixtures([made(), replace(other, sources="other")]) == ["7.2"]
    assert mixtures([made(), made()]) == ["7.2"]
    elsewhere = replace(other, run=replace(RUN, kernel="6.1"), sources="other")
    assert mixtures([made(), elsewhere]) == []


def test_the_page_is_made_of_its_data() -> None:
    """docs/kernel-support.md is what the generator makes of docs/kernel-support.json."""
    results = load(DATA)
    assert results == publishable(results)
    assert PAGE.read_text(encoding="utf-8") == page(results)
