"""Bad starts on this very kernel: one clear line and its status, or less, and said so."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.native.device import NativeDevice
from tests.terminal import Terminal

pytestmark = [
    pytest.mark.native,
    pytest.mark.skipif(
        shutil.which("setpriv") is None or shutil.which("unshare") is None,
        reason="needs setpriv and unshare",
    ),
]

ROOT = Path(__file__).resolve().parents[2]
ZPOBS = f"{sys.executable} -m zpobs"
COMMANDS = ["scan", "verify", "top --once --interval 0.1"]
LEAST = "CAP_BPF, CAP_PERFMON and CAP_SYSLOG"


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script], check=False, cwd=ROOT, capture_output=True, text=True
    )


def holding(capabilities: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a root that has these capabilities alone."""
    some = ",".join(["-all", *(f"+{name}" for name in capabilities.split())])
    return run(f"setpriv --bounding-set={some} --inh-caps={some} {ZPOBS} {command}")


def without(taken: str, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command where something was taken away by mounts of its own."""
    return run(f"unshare -m sh -c '{taken}; exec {ZPOBS} {command}'")


def the_line(done: subprocess.CompletedProcess[str], status: int = 3) -> str:
    (line,) = done.stderr.splitlines()
    assert (done.stdout, done.returncode) == ("", status)
    assert line.startswith("zpobs: ")
    assert "; found: " in line
    assert "; try: " in line
    return line


# ---- rights ----------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("held", "lacking"),
    [("", LEAST), ("bpf", "CAP_PERFMON and CAP_SYSLOG"), ("perfmon syslog", "CAP_BPF")],
)
def test_lacking_rights_are_named(command: str, held: str, lacking: str) -> None:
    """Those that are lacking, and all that suffices."""
    line = the_line(holding(held, command))
    assert f"found: root without {lacking}; try: all of {LEAST}" in line


def test_no_more_rights_are_named_than_what_was_asked_takes() -> None:
    """Without scans no addresses are needed, so CAP_SYSLOG is not named."""
    line = the_line(holding("", "top --once --no-scan"))
    assert line.endswith("try: all of CAP_BPF and CAP_PERFMON")


def test_without_addresses_a_scan_names_what_lacks() -> None:
    """Rights to load programs alone find no pool."""
    if Path("/proc/sys/kernel/perf_event_paranoid").read_text().strip() in ("-1", "0", "1"):
        pytest.skip("this host shows addresses to everybody")
    for held in ("bpf perfmon", "sys_admin"):
        line = the_line(holding(held, "scan"))
        assert line.endswith("hidden from root without CAP_SYSLOG; try: CAP_SYSLOG too")
        assert "CAP_SYSLOG too" in the_line(holding(held, "verify"))


def test_neither_scans_nor_probes_are_two_reasons() -> None:
    """Where no address shows and this kernel refuses probes, both are told, each with its own."""
    if run(f"{ZPOBS} top --once --no-scan --interval 0.1").returncode == 0:
        pytest.skip("this kernel permits probes")
    for command in COMMANDS[1:]:
        line = the_line(holding("bpf perfmon", command))
        assert line.startswith("zpobs: there are neither scans nor probes; found: pools cannot be")
        assert "without CAP_SYSLOG (try: CAP_SYSLOG too); fentry: " in line


def test_a_scan_without_frames_says_so(device: NativeDevice) -> None:
    """The named rights suffice, and what they leave out is on the screen and in the JSON."""
    device.fill("mixed", 64)
    why = "page frames are unknown: they need CAP_SYS_ADMIN, which root lacks"
    done = holding("bpf perfmon syslog", "scan")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"  {why}" in done.stdout.splitlines()
    found = json.loads(holding("bpf perfmon syslog", "scan --json").stdout)
    assert why in found["health"]["reasons"]
    (pool,) = [each for each in found["pools"] if each["name"] == device.name]
    assert (pool["status"], pool["objects"] > 0) == ("exact", True)
    assert "page frames are unknown" not in holding("sys_admin syslog", "scan").stdout


# ---- what may be missing ---------------------------------------------------------------

MISSING = {
    "no BTF that is one": (
        "mkdir {empty}.btf; head -c 4096 /dev/zero >{empty}.btf/vmlinux; "
        "mount --bind {empty}.btf /sys/kernel/btf",
        ["cannot read kernel type information", "magic 0x0", "CONFIG_DEBUG_INFO_BTF"],
    ),
    "no BTF": (
        "mount --bind {empty} /sys/kernel/btf",
        ["no /sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF=y"],
    ),
    "no zsmalloc": (
        "grep -v zs_ /proc/kallsyms > {empty}.symbols; mount --bind {empty}.symbols /proc/kallsyms",
        ["zsmalloc is not in this kernel", "modprobe zsmalloc"],
    ),
    "no libbpf": (
        "mount --bind /dev/null $(readlink -f /usr/lib/*/libbpf.so.1)",
        ["libbpf.so.1", "apt install libbpf1"],
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", MISSING)
def test_what_is_missing_is_named(name: str, command: str, tmp_path: Path) -> None:
    """Whatever the command."""
    taken, words = MISSING[name]
    empty = tmp_path / "empty"
    empty.mkdir()
    done = without(taken.format(empty=empty), command)
    line = the_line(done)
    assert [word for word in words if word not in line] == []


def test_a_doctor_ends_well_whatever_is_missing(tmp_path: Path) -> None:
    """It tells each of the three, with what to try, and its status is 0."""
    empty = tmp_path / "empty"
    empty.mkdir()
    for taken, words in MISSING.values():
        done = without(taken.format(empty=empty), "doctor")
        assert (done.returncode, done.stderr) == (0, "")
        assert words[-1] in done.stdout


# ---- the process's own ends ---------------------------------------------------------------


@pytest.mark.parametrize("command", [*COMMANDS, "doctor", "completion bash"])
def test_a_closed_output_is_one_line(command: str) -> None:
    """``zpobs ... >&-`` says so."""
    assert "standard output is closed" in the_line(run(f"{ZPOBS} {command} >&-"))


def test_a_terminal_without_its_input_gets_plain_frames() -> None:
    """``zpobs top <&-``: nobody could press a key; one line says why there is no view."""
    for closed in ("<&-", "</dev/null"):
        script = f"exec {ZPOBS} top --interval 0.1 --duration 0.5 {closed}"
        with Terminal(["sh", "-c", script], cwd=ROOT) as terminal:
            assert terminal.ends(0).count("zpobs top  ") >= 2
            (line,) = terminal.stderr().splitlines()[:1]
            assert line.startswith("zpobs: plain frames, standard input is no terminal")
            assert "Traceback" not in terminal.stderr()


@pytest.mark.parametrize("command", [*COMMANDS, "doctor"])
def test_closed_input_and_error_output_do_no_harm(command: str) -> None:
    """Output and status are as ever."""
    done = run(f"{ZPOBS} {command} <&- 2>&-")
    # Without a pool there is nothing to verify.
    assert done.returncode == 0
    assert done.stdout


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("limit", range(6, 21))
def test_too_few_files_are_named(limit: int, command: str) -> None:
    """It works, or one line says what ran out, whatever it was that could not be opened."""
    done = run(f"ulimit -n {limit}; {ZPOBS} {command}")
    if done.returncode:
        line = the_line(done)
        assert line.endswith("; found: Too many open files; try: ulimit -n 1024")
    else:
        assert (done.stderr, "unknown" in done.stdout) == ("", False)


@pytest.mark.parametrize("limit", [24, 28, 32, 40, 48, 64, 96])
def test_files_that_suffice_for_a_scan_may_not_for_probes(limit: int) -> None:
    """A limit is never taken for a kernel that refuses probes."""
    done = run(f"ulimit -n {limit}; {ZPOBS} top --once --interval 0.1")
    assert "Too many open files" not in done.stdout
    if done.returncode:
        assert the_line(done).endswith("; found: Too many open files; try: ulimit -n 1024")


@pytest.mark.parametrize("limit", [*range(6, 21), 28, 40])
def test_a_doctor_tells_of_too_few_files(limit: int) -> None:
    """It says so, takes nothing of it for the kernel's doing, and sends nobody to itself."""
    done = run(f"ulimit -n {limit}; {ZPOBS} doctor --json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert "ulimit -n 1024" in found["try"]
    assert [hint for hint in found["try"] if "zpobs doctor" in hint or "report" in hint] == []
    for check in found["checks"]:
        if "Too many open files" in check["found"]:
            assert (check["answer"], check["hint"]) == ("unknown", "ulimit -n 1024")
    (files,) = [check for check in found["checks"] if check["name"] == "open files"]
    assert files["answer"] == "absent"
    assert f"the limit is {limit}" in files["found"]
    # What this kernel refuses anyway may have come so far; scans it does not.
    assert found["verdicts"][0]["standing"] in ("unknown", "works")


def test_a_log_that_cannot_be_opened_for_the_limit_says_so(tmp_path: Path) -> None:
    """Another file would not do."""
    done = run(f"ulimit -n 5; {ZPOBS} top --once --log {tmp_path}/log")
    assert the_line(done).endswith("; found: Too many open files; try: ulimit -n 1024")


def test_no_locked_memory_does_no_harm() -> None:
    """Where the kernel charges BPF memory to the cgroup, RLIMIT_MEMLOCK is not asked."""
    assert run(f"ulimit -l 0; {ZPOBS} scan").returncode == 0


# ---- a pool that goes -----------------------------------------------------------------------


def frames(process: subprocess.Popen[str], count: int) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def test_top_goes_on_when_its_pool_goes(device: NativeDevice) -> None:
    """The pool is there, then it is not, then it is there anew, in one run."""
    device.fill("mixed", 64)
    options = f"top --json --interval 0.1 --pool {device.name}"
    with subprocess.Popen(
        [*ZPOBS.split(), *options.split()], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        first = frames(process, 2)[-1]
        assert [pool["name"] for pool in first["pools"]] == [device.name]
        device.reset()
        deadline = time.monotonic() + 60
        while frames(process, 1)[0]["pools"]:
            assert time.monotonic() < deadline
        Path(f"/sys/block/{device.name}/disksize").write_text("16M")
        while not (found := frames(process, 1)[0]["pools"]):
            assert time.monotonic() < deadline
        assert found[0]["name"] == device.name
        assert found[0]["id"] != first["pools"][0]["id"]
        process.terminate()
        process.communicate()
        assert process.returncode == 0


def test_scans_and_rounds_survive_pools_that_go(device: NativeDevice) -> None:
    """Scans one after the other, of a device that is reset meanwhile: no line, status 0."""
    size = Path(f"/sys/block/{device.name}/disksize")
    options = f"verify --json --interval 0.1 --duration 4 --pool {device.name}"
    with subprocess.Popen(
        [*ZPOBS.split(), *options.split()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None:
            device.fill("mixed", 256)
            done = run(f"{ZPOBS} scan --json --zspages --pool {device.name}")
            assert (done.returncode, done.stderr) == (0, "")
            device.reset()
            assert process.stdout is not None
            while select.select([process.stdout], [], [], 0)[0]:
                if not os.read(process.stdout.fileno(), 1 << 16):
                    break
            size.write_text("64M")
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.returncode in (0, 1)
