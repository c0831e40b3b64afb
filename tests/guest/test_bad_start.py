"""Every bad start gives one clear line, the documented status and no traceback."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RELEASE = os.uname().release
ZPOBS = f"{sys.executable} -m zpobs"
ONCE = f"{ZPOBS} top --once"
JIT = Path("/proc/sys/net/core/bpf_jit_enable")

# What is taken away (by mounts in a namespace of its own), the options that ask for it
# alone, and what the line must name.
BAD_STARTS = {
    "no BTF": ("mount --bind /tmp/empty /sys/kernel/btf", "", ["/sys/kernel/btf/vmlinux", "BTF"]),
    "no bcc": (
        "mount --bind /tmp/empty /usr/lib/python3/dist-packages/bcc",
        "--no-scan --loader bcc",
        ["bcc", "python3-bpfcc"],
    ),
    "no headers": (
        f"mount --bind /tmp/empty $(readlink -f /lib/modules/{RELEASE}/build)",
        "--no-scan --loader bcc",
        ["headers", f"linux-headers-{RELEASE}"],
    ),
    "no libbpf": (
        "mount --bind /dev/null $(readlink -f /usr/lib/*/libbpf.so.1)",
        "--no-scan --loader core",
        ["libbpf.so.1", "apt install libbpf1"],
    ),
    "an object out of date": (
        "cp bpf/zs_core.h /tmp; echo >> /tmp/zs_core.h; mount --bind /tmp/zs_core.h bpf/zs_core.h",
        "--no-scan",
        ["is out of date", "make setup"],
    ),
    "no zsmalloc": (
        "grep -v zs_ /proc/kallsyms > /tmp/symbols; mount --bind /tmp/symbols /proc/kallsyms",
        "",
        ["zsmalloc", "modprobe zsmalloc"],
    ),
}


def assert_one_clear_line(done: subprocess.CompletedProcess[str], status: int) -> str:
    (line,) = done.stderr.splitlines()
    assert done.stdout == ""
    assert line.startswith("zpobs: ")
    assert "; found: " in line
    assert "; try: " in line
    assert done.returncode == status
    return line


def run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", script], check=False, capture_output=True, text=True)


@pytest.mark.parametrize("name", BAD_STARTS)
def test_something_is_missing(name: str) -> None:
    """What failed, what was found and what to try stand in one line."""
    taken, options, words = BAD_STARTS[name]
    Path("/tmp/empty").mkdir(exist_ok=True)
    line = assert_one_clear_line(run(f"unshare -m sh -c '{taken}; exec {ONCE} {options}'"), 3)
    assert [word for word in words if word not in line] == []


def test_no_root() -> None:
    """A user without capabilities is told which ones are missing."""
    line = assert_one_clear_line(run(f"setpriv --reuid=65534 --clear-groups {ONCE}"), 3)
    assert "CAP_BPF" in line


@pytest.mark.needs("zsmalloc built in")
def test_probes_alone_verify_nothing() -> None:
    """Where probes attach and no address shows, top goes on, and verify says what hinders it."""
    some = "-all,+bpf,+perfmon"
    held = f"setpriv --bounding-set={some} --inh-caps={some}"
    line = assert_one_clear_line(run(f"{held} {ZPOBS} verify --attach fentry"), 3)
    assert line.startswith("zpobs: the kernel cannot be scanned; found: pools cannot be found: ")
    assert "without CAP_SYSLOG (try: CAP_SYSLOG too); try: " in line
    top = run(f"{held} {ONCE} --interval 0.1 --attach fentry")
    assert (top.returncode, top.stderr) == (0, "")
    assert "CAP_SYSLOG too" in " ".join(top.stdout.split())


@pytest.mark.parametrize("limit", [32, 48, 64])
def test_files_that_do_not_suffice_for_probes(limit: int) -> None:
    """Whatever could not be opened while they attach: one line, or all of them are there."""
    done = run(f"ulimit -n {limit}; {ONCE} --json --interval 0.1")
    if done.returncode:
        line = assert_one_clear_line(done, 3)
        assert line.endswith("; found: Too many open files; try: ulimit -n 1024")
    else:
        health = json.loads(done.stdout)["health"]
        assert (health["hooks"] > 0, health["missed_hooks"]) == (True, [])


@pytest.fixture
def uncompiled() -> Iterator[None]:
    """Have BPF programs interpreted."""
    JIT.write_text("0")
    yield
    JIT.write_text("1")


@pytest.mark.usefixtures("uncompiled")
def test_programs_that_are_not_compiled(tmp_path: Path) -> None:
    """The verifier's reason, the file with its whole log, and the sysctl, which then cures."""
    state = f"XDG_STATE_HOME={tmp_path}"
    line = assert_one_clear_line(run(f"{state} {ZPOBS} scan"), 3)
    log = tmp_path / "zpobs" / "verifier-scan_pool.log"
    reason = "scan_pool: callbacks are not allowed in non-JITed programs"
    assert f"found: {reason} (whole log in {log});" in line
    assert reason.partition(": ")[2] in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    # With the probes alone top goes on, and says the same.
    top = run(f"{state} {ONCE} --interval 0.1")
    assert (top.returncode, top.stderr) == (0, "")
    told = " ".join(top.stdout.split())
    assert f"no scans: the scanner cannot be loaded: {reason}" in told
    advice = line.partition("; try: ")[2]
    assert f"(try: {advice})" in told
    assert run(advice).returncode == 0
    assert run(f"{ZPOBS} scan").returncode == 0


@pytest.mark.needs("perf events for root alone")
def test_kprobes_where_perf_events_are_for_root() -> None:
    """What the line says last cures it; and a process with no rights is told the one that does."""
    caps = "setpriv --reuid=65534 --clear-groups --inh-caps +{0} --ambient-caps +{0}"
    command = f"{ONCE} --interval 0.1 --no-scan --attach kprobe"
    able = caps.format("bpf,+perfmon")
    line = assert_one_clear_line(run(f"{able} {command}"), 3)
    *_, advice = line.partition("; try: ")[2].split(", or ")
    assert advice == "sysctl kernel.perf_event_paranoid=2"
    nobody = assert_one_clear_line(run(f"setpriv --reuid=65534 --clear-groups {command}"), 3)
    assert nobody.endswith("try: sudo, or CAP_SYS_ADMIN")
    try:
        assert run(advice).returncode == 0
        assert run(f"{able} {command}").returncode == 0
    finally:
        assert run("sysctl kernel.perf_event_paranoid=3").returncode == 0


@pytest.mark.parametrize("loader", ["core", "bcc"])
def test_a_ring_that_memory_does_not_suffice_for(loader: str) -> None:
    """The kernel's refusal is told as one of memory, by either loader."""
    group = Path("/sys/fs/cgroup/small")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    group.mkdir(exist_ok=True)
    (group / "memory.max").write_text("300M")
    enter = f"echo $$ > {group}/cgroup.procs"
    line = assert_one_clear_line(
        run(f"{enter}; exec {ONCE} --ring-size 512M --no-scan --loader {loader}"), 3
    )
    assert "not enough memory for 524,288 KiB; try: --ring-size 1M" in line


def test_unknown_pool() -> None:
    """A pool name that nothing can have is a usage error that names those there are."""
    line = assert_one_clear_line(run(f"{ONCE} --pool zram77"), 2)
    assert "zram77" in line


def test_unknown_hook() -> None:
    """A hook to skip that does not exist is a usage error that lists the hooks."""
    done = run(f"{ONCE} --skip-hook nothing")
    assert done.returncode == 2
    assert "obj_malloc" in done.stderr


def test_log_that_cannot_be_written() -> None:
    """A log in a folder that does not exist is one line before any probe is compiled."""
    assert_one_clear_line(run(f"{ONCE} --log /nowhere/log"), 3)


def test_full_disk() -> None:
    """A full disk ends the run with one line and status 3, however much was written before."""
    done = run(f"{ONCE} --json > /dev/full")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "No space left" in line


def test_reader_that_goes_away() -> None:
    """A pipe whose reader ends is no error."""
    done = run(f"{{ {sys.executable} -m zpobs top --interval 1; echo $? >&2; }} | head -1")
    assert done.stderr.split() == ["0"]
