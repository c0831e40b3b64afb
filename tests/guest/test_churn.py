"""Everything that moves descriptors, at once: what zpobs says equals what was done, to the unit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lab.trial import PHASES, Trial
from lab.turmoil import Size


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@pytest.mark.parametrize("phase", PHASES)
def test_churn_with_known_truth(phase: str, loader: str, attach_form: str, tmp_path: Path) -> None:
    """By probes alone; by probes attached late and one scan; and by one scan after loss."""
    probes = ("--loader", loader, "--attach", attach_form)
    trial = Trial(Size(seed=5), probes=probes, folder=tmp_path, say=say)
    assert [check for check in PHASES[phase](trial) if not check.passed] == []


def test_a_trial_fails_if_migrations_are_not_seen(loader: str, tmp_path: Path) -> None:
    """Frames differ then, by the model's own word and by everybody else's."""
    probes = ("--loader", loader, "--skip-hook", "zs_page_migrate")
    trial = Trial(Size(operations=20_000, seed=6), probes=probes, folder=tmp_path, say=say)
    differing = {check.figure for check in trial.alone() if not check.passed}
    assert {"missed hooks", "differences"} <= differing
    assert any(figure.endswith(" zspages") for figure in differing)
