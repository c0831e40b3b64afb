"""``zpobs doctor`` tells the truth, and what it advises cures what it names."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DOCTOR = f"{sys.executable} -m zpobs doctor"
NOBODY = "setpriv --reuid=65534 --clear-groups"
JIT = Path("/proc/sys/net/core/bpf_jit_enable")
ZSWAP = Path("/sys/module/zswap/parameters")
BUILT_IN = pytest.mark.needs("zsmalloc built in")
KPTR = Path("/proc/sys/kernel/kptr_restrict")


def run(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)


def report(prefix: str = "", options: str = "") -> dict[str, Any]:
    done = run(f"{prefix} {DOCTOR} --json {options}")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def standings(found: dict[str, Any]) -> list[str]:
    return [verdict["standing"] for verdict in found["verdicts"]]


def check(found: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = [each for each in found["checks"] if each["name"] == name]
    return dict(one)


def advised(found: dict[str, Any], features: frozenset[str]) -> list[str]:
    """Return what is advised, but for the kernel's configuration: headers alone bring that."""
    others = [each for each in found["try"] if "/boot/config-" not in each]
    assert (len(others) == len(found["try"])) == ("headers" in features)
    return others


@pytest.fixture(scope="module", autouse=True)
def _zram() -> None:
    """Have zsmalloc, which is a module on some kernels and then comes with zram."""
    assert run("modprobe zram").returncode == 0


@pytest.fixture
def hidden_addresses() -> Iterator[None]:
    before = KPTR.read_text()
    KPTR.write_text("2")
    yield
    KPTR.write_text(before)


def test_all_works_for_root(features: frozenset[str]) -> None:
    """Scans and every hook, on a stock kernel; nothing is lacking that its packages have."""
    found = report()
    assert standings(found) == ["works", "works"]
    assert advised(found, features) == []
    assert run(f"{DOCTOR} --strict").returncode == ("headers" not in features)


def test_the_probes_are_those_that_top_gets() -> None:
    """The number of hooks is what a session says of itself."""
    done = run(f"{sys.executable} -m zpobs top --once --json --interval 0.1")
    health = json.loads(done.stdout)["health"]
    hooks, missed = health["hooks"], len(health["missed_hooks"])
    text = report()["verdicts"][1]["text"]
    assert text == f"core fentry, {hooks} of {hooks + missed} hooks"


def test_nobody_is_told_what_could_not_be_found_out() -> None:
    """No traceback, status 0, and what would do."""
    found = report(NOBODY)
    assert standings(found) == ["unknown", "unknown"]
    assert check(found, "CAP_BPF")["answer"] == "absent"
    assert "sudo zpobs doctor" in found["try"]
    assert run(f"{NOBODY} {DOCTOR} --strict").returncode == 1


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        pytest.param("+bpf,+perfmon", ["fails", "works"], marks=BUILT_IN),
        pytest.param("+bpf,+perfmon,+syslog", ["limited", "works"], marks=BUILT_IN),
        ("+sys_admin", ["fails", "works"]),
        ("+sys_admin,+syslog", ["works", "works"]),
    ],
)
def test_the_least_rights_are_as_documented(held: str, wanted: list[str]) -> None:
    """With these capabilities alone scan and probes stand so."""
    found = report(f"{NOBODY} --inh-caps {held} --ambient-caps {held}")
    assert standings(found) == wanted


@pytest.mark.usefixtures("hidden_addresses")
def test_what_it_advises_cures(features: frozenset[str]) -> None:
    """Hidden addresses are named, and the advice, followed to the letter, brings scans back."""
    found = report()
    assert standings(found) == ["fails", "works"]
    (advice,) = advised(found, features)
    assert advice == "sysctl kernel.kptr_restrict=1"
    assert run(f"sysctl -w {advice.removeprefix('sysctl ')}").returncode == 0
    assert standings(report()) == ["works", "works"]


def test_it_cures_programs_that_are_not_compiled(features: frozenset[str]) -> None:
    """The setting is named, and the advice, followed to the letter, brings scans back."""
    JIT.write_text("0")
    try:
        found = report()
        assert standings(found) == ["fails", "works"]
        (advice,) = advised(found, features)
        assert run(advice).returncode == 0
        assert standings(report()) == ["works", "works"]
    finally:
        JIT.write_text("1")


# The choice outlived what could be chosen: without zbud there is nothing but zsmalloc.
if (ZSWAP / "zpool").exists() and " zbud_zpool_malloc\n" in Path("/proc/kallsyms").read_text():

    def test_it_cures_a_zswap_that_zsmalloc_does_not_hold(features: frozenset[str]) -> None:
        """What zswap holds is named as not seen, until zsmalloc holds it, as advised."""
        ZSWAP.joinpath("zpool").write_text("zbud")
        ZSWAP.joinpath("enabled").write_text("Y")
        try:
            found = report()
            (advice,) = advised(found, features)
            assert check(found, "zswap")["found"] == "enabled, with zbud"
            assert run(advice).returncode == 0
            assert advised(report(), features) == []
        finally:
            ZSWAP.joinpath("enabled").write_text("N")


def test_without_libbpf_it_names_the_package() -> None:
    """The Debian package that is lacking is among what to try."""
    taken = "mount --bind /dev/null $(readlink -f /usr/lib/*/libbpf.so.1)"
    done = run(f"unshare -m sh -c '{taken}; exec {DOCTOR} --json'")
    found = json.loads(done.stdout)
    assert standings(found) == ["fails", "fails"]
    assert "apt install libbpf1" in found["try"]


def test_without_btf_it_says_so() -> None:
    """Nothing else is judged then, and nothing breaks."""
    done = run(
        f"mkdir -p /tmp/empty; unshare -m sh -c "
        f"'mount --bind /tmp/empty /sys/kernel/btf; exec {DOCTOR} --json'"
    )
    found = json.loads(done.stdout)
    assert standings(found) == ["fails", "fails"]
    assert "no /sys/kernel/btf/vmlinux" in found["verdicts"][0]["text"]


def test_this_kernels_btf_alone_says_the_same() -> None:
    """--btf on the kernel's own files lists the members and hooks that the host's report has."""
    files = ["vmlinux"] + ["zsmalloc"] * Path("/sys/kernel/btf/zsmalloc").exists()
    found = report(options=" ".join(f"--btf /sys/kernel/btf/{name}" for name in files))
    assert standings(found) == ["works", "works"]
    host = report()
    for section in ("members", "hook sets"):
        told = [
            [each for each in made["checks"] if each["section"] == section]
            for made in (found, host)
        ]
        assert told[0] == told[1]
        assert told[0]
