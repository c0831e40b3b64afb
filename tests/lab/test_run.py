"""Guests that are really booted: statuses, bytes, ends of all kinds. Each boot takes seconds."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from lab import vm
from lab.archive import Archive
from lab.console import LOST_BOOT, all_boots, excused
from lab.host import Progress, cache_folder
from lab.image import Builder
from lab.vm import GuestLost

pytestmark = pytest.mark.lab

TOP = Path(__file__).resolve().parents[2]
KERNEL = "7.3"
# Of an initrd: what the kernel says of a breakpoint that is none of its own, and the end.
LOST_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t proc none /proc
echo '<1>Oops: int3: 0000 [#1] SMP NOPTI' >/dev/kmsg
echo c >/proc/sysrq-trigger
"""


def lab_command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lab", "run", "--quiet", "--kernel", KERNEL, *words]


def run(*words: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        lab_command(*words), cwd=TOP, capture_output=True, timeout=900, check=False
    )


@contextlib.contextmanager
def running(*words: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(lab_command(*words), cwd=TOP, **streams)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def children_of(process: int) -> list[int]:
    return [
        int(each) for each in Path(f"/proc/{process}/task/{process}/children").read_text().split()
    ]


def test_bytes_share_and_checkout(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        """
import hashlib, os, random, sys
from pathlib import Path
noise = random.Random(7)
out, err = noise.randbytes(1 << 20), noise.randbytes((1 << 20) + 1)
for at in range(0, len(err), 65536):
    sys.stdout.buffer.write(out[at : at + 65536])
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(err[at : at + 65536])
    sys.stderr.buffer.flush()
assert Path.cwd() == Path("/checkout") and Path("lab/init.sh").exists()
assert os.environ["HOME"] == "/root"
assert sys.argv[1:] == ["it's", "", "a b", "$HOME", "\\udcff\\n"], sys.argv
try:
    Path("/mnt/share/new").write_text("x")
except OSError as error:
    assert error.errno == 30, error
else:
    raise SystemExit("the share is writable")
Path("written-by-a-guest").write_text("x")
with Path("README.md").open("a") as stream:
    stream.write("by a guest")
raise SystemExit(3)
"""
    )
    words = ["python3", "/mnt/share/program.py", "it's", "", "a b", "$HOME", "\udcff\n"]
    before = sorted(path.name for path in TOP.iterdir())
    done = run("--share", str(tmp_path), "--", *words)
    assert (done.returncode, len(done.stdout), len(done.stderr)) == (3, 1 << 20, (1 << 20) + 1)
    noise = Random(7)
    for received, size in ((done.stdout, 1 << 20), (done.stderr, (1 << 20) + 1)):
        assert hashlib.sha256(received).digest() == hashlib.sha256(noise.randbytes(size)).digest()
    assert sorted(path.name for path in TOP.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["program.py"]


def test_churn_agrees_with_zram() -> None:
    script = """
        modprobe zram && echo 256M >/sys/block/zram0/disksize &&
        churn --device /dev/zram0 --pages 6000 --operations 20000 --seed 5 \
            --mix 50:25:20:5 --verify --json &&
        cat /sys/block/zram0/mm_stat && kill -KILL $$
    """
    done = run("--", "sh", "-c", script)
    assert done.returncode == 128 + signal.SIGKILL, done.stderr
    report, mm_stat = done.stdout.decode().splitlines()
    told = json.loads(report)
    seen = [int(word) for word in mm_stat.split()]
    assert told["operations"] == 20000
    assert seen[0] == told["pages_stored"] * 4096 > 0
    assert seen[5] == told["same_filled_stored"] > 0
    assert told["verified"] == told["pages_stored"]
    assert told["zs_malloc"] - told["zs_free"] == told["live_objects"]
    assert told["writes"] - told["discards"] == told["pages_stored"]


def test_a_kernel_that_warns_spoils_a_success(tmp_path: Path) -> None:
    console = tmp_path / "console"
    script = "echo out; echo '<4>WARNING: made by a test' >/dev/kmsg"
    done = run("--console", str(console), "--", "sh", "-c", script)
    assert (done.returncode, done.stdout) == (6, b"out\n")
    first, *quoted = done.stderr.decode().splitlines()
    assert first.startswith("lab: the command ended with status 0, but the kernel warned; ")
    (line,) = quoted
    assert line.endswith("WARNING: made by a test")
    log = Path(first.rpartition("console: ")[2])
    assert log.read_bytes() == console.read_bytes()
    assert b"Linux version " in console.read_bytes()
    log.unlink()


def test_stalls_and_lockups_are_watched_for() -> None:
    """The kernel looks for both, with more time than a busy host keeps a machine waiting."""
    files = [f"/proc/sys/kernel/{name}" for name in ("soft_watchdog", "watchdog_thresh")]
    files += [f"/sys/module/rcupdate/parameters/rcu_cpu_stall_{n}" for n in ("suppress", "timeout")]
    done = run("--", "cat", *files)
    assert (done.returncode, done.stdout.split()) == (0, [b"1", b"60", b"0", b"120"])


def test_a_success_with_a_process_left_behind() -> None:
    done = run("--", "sh", "-c", "sleep 1000 & echo out; echo err >/dev/stderr")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\n", b"err\n")


def test_a_panic_is_no_failure_of_the_command() -> None:
    done = run("--", "sh", "-c", "echo before; echo c >/proc/sysrq-trigger; sleep 100")
    assert done.returncode == 5
    assert b"the guest panicked: Kernel panic - not syncing: sysrq" in done.stderr
    assert b"console: " in done.stderr


def test_a_guest_switched_off_is_no_success() -> None:
    done = run("--", "sh", "-c", "echo o >/proc/sysrq-trigger; sleep 100")
    assert done.returncode == 5
    assert b"the guest stopped without a status" in done.stderr


def test_a_boot_is_made_again_only_for_the_emulators_fault(tmp_path: Path) -> None:
    """A kernel that finds no init panics, and that is the end."""
    console = tmp_path / "console"
    words = ["--console", str(console), "--append", "rdinit=/nothing", "--", "true"]
    done = run(*words)
    assert done.returncode == 5
    assert b"the guest panicked: Kernel panic" in done.stderr
    # The emulator's own fault may have come first, and then only that.
    *excused_boots, last = console.read_text(errors="replace").split(LOST_BOOT)
    assert all(excused(boot) for boot in excused_boots)
    assert not excused(last)
    assert last.count("Linux version ") == 1


def test_the_console_of_a_lost_boot_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A guest that dies as if of the emulator's fault is booted again; both boots are kept."""
    init = tmp_path / "init.sh"
    init.write_text(LOST_INIT)
    monkeypatch.setattr(vm, "HERE", tmp_path)
    progress, console = Progress(quiet=True), tmp_path / "console"
    images = Builder(cache_folder(), Archive(cache_folder(), progress), progress).images(KERNEL)
    told = []

    def again(lost: GuestLost) -> None:
        told.append(str(lost))
        init.write_text((TOP / "lab/init.sh").read_text())

    status = vm.run_guest(
        images,
        vm.Machine(checkout=TOP, console=console),
        ["echo", "second"],
        logs=tmp_path / "logs",
        timeout=60,
        started=lambda _: None,
        again=again,
    )
    assert (status, capfd.readouterr().out, len(told)) == (0, "second\n", 1)
    assert "the guest panicked: " in told[0]
    assert console.read_text(errors="replace").count("Linux version ") == 2
    assert all_boots(console.read_text(errors="replace")) == ([], 1)


def test_a_command_that_goes_on_too_long() -> None:
    done = run("--timeout", "2", "--", "sleep", "1000")
    assert done.returncode == 5
    assert b"the command is still running after 2 s" in done.stderr


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 5)]
)
def test_ended_from_outside(signum: signal.Signals | None, status: int) -> None:
    words = ("--", "sh", "-c", "echo ready; sleep 1000")
    with running(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        (machine,) = children_of(process.pid)
        os.kill(machine if signum is None else process.pid, signum or signal.SIGKILL)
        _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert not Path(f"/proc/{machine}").exists()
    assert (b"QEMU was killed by signal 9" in err) == (signum is None)


def test_a_terminal() -> None:
    lab, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 111, 0, 0))
    script = "tty; stty size; read line; echo got $line; exit 4"
    with running("--", "sh", "-c", script, stdin=child, stdout=child, stderr=child) as process:
        os.close(child)
        seen = b""
        ends = time.monotonic() + 300
        while time.monotonic() < ends and b"got" not in seen:
            if select.select([lab], [], [], 1.0)[0]:
                typed = b"33 111" in seen
                seen += os.read(lab, 4096)
                if b"33 111" in seen and not typed:
                    os.write(lab, b"some words\r")
        assert process.wait(60) == 4
    while select.select([lab], [], [], 0)[0]:
        try:
            seen += os.read(lab, 4096)
        except OSError:
            break
    os.close(lab)
    assert b"/dev/hvc0" in seen
    assert b"got some words\r\n" in seen
