"""A doctor's report as text; whole screens are those in ``tests/golden/doctor``.

``ZPOBS_UPDATE_GOLDEN=1 pytest tests/views`` writes the screens anew; read the
difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.doctor.support import make_host, whole_btf
from tests.doctor.test_judge import LACKING, NOBODY, judged
from zpobs.doctor.judge import judge_btf, judge_host
from zpobs.doctor.report import Check, Report, Verdict
from zpobs.views.doctor import COLUMNS, render

SCREENS = Path(__file__).resolve().parents[1] / "golden" / "doctor"

GOLDEN: dict[str, Report] = {
    "all-works": judge_host(make_host()),
    "before-zpdesc": judge_host(make_host("6.12")),
    "nobody": judged(**NOBODY),
    "scans-alone": judged(**LACKING["no probes at all"][0]),
    "lockdown": judged(**LACKING["lockdown"][0]),
    "no-btf": judged(**LACKING["no BTF"][0]),
    "no-libbpf": judged(**LACKING["no libbpf"][0]),
    "a-file-without-zsmalloc": judge_btf(
        whole_btf(
            without=["zs_pool", "zspage", "zpdesc", "size_class", "zspage_lock"], functions=()
        ),
        "vmlinux-6.1",
    ),
    "a-file": judge_btf(whole_btf(), "vmlinux-7.3"),
    "a-file-that-lacks-members": judge_btf(
        whole_btf(without=["zspage.inuse", "zspage.list", "zspage.magic", "shrinker.list"]),
        "vmlinux-9.9",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_screen_is_as_it_was(name: str) -> None:
    """The text equals the golden screen, character by character."""
    text = "\n".join(render(GOLDEN[name])) + "\n"
    golden = SCREENS / f"{name}.txt"
    if os.environ.get("ZPOBS_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_no_golden_screen_is_left_over() -> None:
    """Every file of golden screens belongs to a test."""
    assert {path.stem for path in SCREENS.iterdir()} == set(GOLDEN)


@pytest.mark.parametrize("name", LACKING)
def test_no_line_is_longer_than_a_terminal(name: str) -> None:
    """Whatever is lacking, 80 columns do."""
    assert max(map(len, render(judged(**LACKING[name][0])))) <= COLUMNS == 80


@pytest.mark.parametrize("name", LACKING)
def test_everything_that_costs_is_on_the_screen(name: str) -> None:
    """Costs, hints and verdicts are all there, however they are wrapped."""
    report = judged(**LACKING[name][0])
    text = " ".join(" ".join(render(report)).split())
    for check in report.lacking:
        assert f"costs: {check.costs}" in text
        assert check.hint in text
    for verdict in report.verdicts:
        assert f"{verdict.about}: {verdict.text}" in text


def test_a_long_name_has_a_line_of_its_own() -> None:
    """What is found begins in its column all the same."""
    name = "a name that is longer than its column"
    report = Report("x", (Check("hooks", name, "present", "yes"),), (Verdict("a", "works", "b"),))
    lines = render(report)
    at = lines.index(f"  present {name}")
    assert lines[at + 1] == " " * 36 + "yes"


def test_a_word_that_fits_nowhere_stays_whole() -> None:
    """Paths are not broken, so that they can be copied."""
    path = "/a" * 60
    report = Report("x", (Check("hooks", "n", "absent", path, "c", path),), ())
    assert sum(path in line for line in render(report)) == 3
