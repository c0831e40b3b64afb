"""What is made of the table of metrics is as committed."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboards import __main__ as command
from dashboards.made import made
from zpobs.views.metrics.definitions import METRICS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", made())
def test_files_are_as_made(name: str) -> None:
    """Whoever changes a metric runs ``make dashboards``; whoever changes a file loses it."""
    assert (ROOT / name).read_text(encoding="utf-8") == made()[name], "make dashboards"


def test_the_page_has_every_metric() -> None:
    """Each in one row, with its type and labels."""
    rows = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines()
    for metric in METRICS:
        (row,) = [row for row in rows if row.startswith(f"| `{metric.name}` |")]
        assert f"| {metric.kind} |" in row
        assert all(f"`{label}`" in row for label in metric.all_labels)


def test_a_file_that_differs_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` writes nothing and ends with 1; without it the files are written."""
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert command.main(["--check"]) == 1
    assert not list(tmp_path.iterdir())
    assert "make dashboards" in capsys.readouterr().err
    assert command.main([]) == 0
    assert command.main(["--check"]) == 0
