"""The exporter's unit: as systemd reads it, and with the rights that it gives."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.device import NativeDevice
from tests.native.exporter import NO_PROBES, series_of
from tests.native.test_bad_start import ROOT, run

pytestmark = pytest.mark.native

UNIT = ROOT / "systemd" / "zpobs-exporter.service"
TEXT = UNIT.read_text(encoding="utf-8")
EXPOSURE_MAX = 2.5
# PR_SET_MDWE with PR_MDWE_REFUSE_EXEC_GAIN, as MemoryDenyWriteExecute= sets where there is it.
REFUSE_EXEC = (
    "import ctypes, os, sys; "
    "assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0; "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


def setting(name: str) -> list[str]:
    (value,) = re.findall(rf"^{name}=(.*)$", TEXT, re.MULTILINE)
    return str(value).split()


def installed(folder: Path, text: str = TEXT) -> Path:
    """Return the unit as it is once it names a program that is there."""
    path = folder / UNIT.name
    path.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/usr/bin/true", text, flags=re.MULTILINE))
    return path


def verified(unit: Path) -> str:
    """Return what ``systemd-analyze verify`` has to say, which needs no systemd that runs."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout + done.stderr


def test_systemd_has_nothing_against_it(tmp_path: Path) -> None:
    """Every setting is one, with a value that it can have; and what is wrong would be told."""
    assert verified(installed(tmp_path)) == ""
    wrong = TEXT.replace("ProtectHome=yes", "ProtectHouse=yes")
    assert "ProtectHouse" in verified(installed(tmp_path, wrong))


def test_little_is_exposed(tmp_path: Path) -> None:
    """By systemd's own reckoning, from 0 to 10."""
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", installed(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found
    assert float(found[1]) <= EXPOSURE_MAX


def test_nothing_is_given_that_would_be_taken_away() -> None:
    """Settings that hide what zpobs reads, or take a capability away, are not there."""
    for name, value in (
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProcSubset", "pid"),
        ("PrivateUsers", "yes"),
    ):
        assert f"\n{name}={value}" not in TEXT
    assert setting("AmbientCapabilities") == setting("CapabilityBoundingSet")


def test_its_rights_suffice(device: NativeDevice) -> None:
    """The capabilities and no others, and no memory that is both writable and executable."""
    device.fill("mixed", 100)
    names = [name.removeprefix("CAP_").lower() for name in setting("AmbientCapabilities")]
    some = ",".join(["-all", *(f"+{name}" for name in names)])
    line = f"setpriv --bounding-set={some} --inh-caps={some} --no-new-privs {sys.executable}"
    done = run(f"{line} -c '{REFUSE_EXEC}' -m zpobs exporter --once")
    assert done.returncode == 0
    assert re.fullmatch(NO_PROBES, done.stderr)
    served = series_of(done.stdout)
    key = "zpobs_pool_bytes", frozenset({("pool", device.name)})
    assert served[key] == device.mm_stat()[2]
    assert setting("MemoryDenyWriteExecute") == ["yes"]
