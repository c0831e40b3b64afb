"""A kernel that is locked down: what zpobs says of it, and what the doctor does.

Lockdown cannot be undone, so these tests have a guest of their own, and their order matters.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECURITYFS = Path("/sys/kernel/security")
ZPOBS = f"{sys.executable} -m zpobs"
ADVICE = "a boot with lockdown=integrity, or without lockdown"


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)


def report() -> dict[str, Any]:
    done = run(f"{ZPOBS} doctor --json")
    assert (done.returncode, done.stderr) == (0, "")
    return dict(json.loads(done.stdout))


def lock_down(how: str) -> None:
    if not (SECURITYFS / "lockdown").exists():
        assert run(f"mount -t securityfs securityfs {SECURITYFS}").returncode == 0
    state = SECURITYFS / "lockdown"
    # What is chosen already cannot be chosen again.
    if f"[{how}]" not in state.read_text():
        state.write_text(how)


def test_integrity_hinders_nothing() -> None:
    """Scan and probes are as without."""
    assert run("modprobe zram").returncode == 0
    lock_down("integrity")
    found = report()
    assert [verdict["standing"] for verdict in found["verdicts"]] == ["works", "works"]


@pytest.mark.parametrize("command", ["scan", "verify", "top --once", "top --once --no-scan"])
def test_confidentiality_is_named(command: str) -> None:
    """Neither scans nor probes: one line that says what to try, and status 3."""
    lock_down("confidentiality")
    done = run(f"{ZPOBS} {command}")
    (line,) = done.stderr.splitlines()
    assert (done.stdout, done.returncode) == ("", 3)
    assert line.startswith("zpobs: ")
    assert ADVICE in line


def test_the_doctors_advice_leads_there() -> None:
    """Where it cannot see the state it says how to see it; that done, it says what to try."""
    assert run(f"umount {SECURITYFS}").returncode == 0
    found = report()
    assert [verdict["standing"] for verdict in found["verdicts"]] == ["fails", "fails"]
    assert ADVICE not in found["try"]
    (advice,) = [each for each in found["try"] if each.startswith("mount ")]
    assert run(advice).returncode == 0
    found = report()
    assert ADVICE in found["try"]
    (check,) = [each for each in found["checks"] if each["name"] == "lockdown permits BPF"]
    assert (check["answer"], check["found"]) == ("absent", "confidentiality")
