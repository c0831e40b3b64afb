"""What is stale is not served, by no way: a pump that hangs, a disk that is full, a failed start.

All of it is real: the kernel itself holds the exporter's reading of a file of sysfs up (a
permission event of fanotify, which nobody answers), and the disk is a small one.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.native.device import NativeDevice
from tests.native.exporter import NO_PROBES, PATIENCE_S, ROOT, Exporter, command, series_of
from tests.native.test_bad_start import the_line, without

pytestmark = pytest.mark.native

# Of linux/fanotify.h.
FAN_CLASS_CONTENT, FAN_MARK_ADD, FAN_OPEN_PERM = 0x4, 0x1, 0x10000
AT_FDCWD = -100
DOWN = {("zpobs_up", frozenset[tuple[str, str]]()): 0.0}
DISK_BYTES = 256 << 10


@contextlib.contextmanager
def held_up(path: Path) -> Iterator[None]:
    """Let nobody open a file meanwhile: whoever tries waits in the kernel."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.fanotify_init(FAN_CLASS_CONTENT, os.O_RDONLY)
    assert events >= 0, os.strerror(ctypes.get_errno())
    try:
        kind = ctypes.c_uint64(FAN_OPEN_PERM)
        marked = libc.fanotify_mark(events, FAN_MARK_ADD, kind, AT_FDCWD, os.fsencode(path))
        assert marked == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        # Lets all of them go on.
        os.close(events)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that is a file system of its own, with room for a few pages."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "zpobs-test", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def filled(path: Path) -> None:
    """Write a file as long as there is room."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def health(exporter: Exporter) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{exporter.url}/healthz", timeout=PATIENCE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def text_of(path: Path) -> str:
    """Return what is in a file, nothing if it is not there: it may go at any moment."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def test_a_pump_that_hangs_is_down_everywhere(device: NativeDevice, tmp_path: Path) -> None:
    """Page, health and textfile say so, to a hundred scrapers as well; then all comes back."""
    device.fill("mixed", 100)
    path = tmp_path / "zpobs.prom"
    mm_stat = Path("/sys/block") / device.name / "mm_stat"
    with Exporter("--textfile", str(path)) as exporter:
        until(lambda: device.name in text_of(path))
        assert health(exporter)[0] == 200
        with held_up(mm_stat):
            until(lambda: health(exporter) == (503, "no fresh figures\n"))
            with ThreadPoolExecutor(100) as pool:
                pages = set(pool.map(lambda _: exporter.page(), range(100)))
            assert [series_of(page) for page in pages] == [DOWN]
            until(lambda: text_of(path) in pages)
        exporter.until(lambda found: ("pool", device.name) in {x for _, y in found for x in y})
        until(lambda: device.name in text_of(path))
        assert health(exporter)[0] == 200
    assert not list(tmp_path.iterdir())


def test_on_a_full_disk_a_file_is_new_or_not_there(device: NativeDevice, disk: Path) -> None:
    """With room for one page it is renewed; with none it goes, and comes again with the room."""
    device.fill("mixed", 100)
    path = disk / "zpobs.prom"
    with Exporter("--textfile", str(path)) as exporter:
        until(lambda: device.name in text_of(path))
        filled(disk / "filler")
        before = text_of(path)
        until(lambda: text_of(path) not in ("", before))
        # What is linked elsewhere too makes no room when it goes.
        until(lambda: linked(path, disk / "kept"))
        until(lambda: not path.exists())
        for _ in range(20):
            time.sleep(0.1)
            assert not path.exists()
        assert device.name in exporter.page()
        (disk / "kept").unlink()
        (disk / "filler").unlink()
        until(lambda: device.name in text_of(path))
        exporter.process.terminate()
        assert exporter.process.wait(PATIENCE_S) == 0
        assert exporter.process.stderr is not None
        told = exporter.process.stderr.read()
        line = f"zpobs: cannot write {path}: No space left on device\n"
        assert told.count(line) == 1
        assert re.fullmatch(NO_PROBES, told.replace(line, ""))
        exporter.process.stderr = open(os.devnull)  # noqa: PTH123, SIM115 - closed with the block
    assert not path.exists()


def linked(path: Path, other: Path) -> bool:
    try:
        os.link(path, other)
    except FileNotFoundError:
        return False
    return True


def test_a_pump_that_hangs_on_a_full_disk_leaves_no_file(device: NativeDevice, disk: Path) -> None:
    """Not even that it is down can be written: then there is nothing."""
    device.fill("mixed", 100)
    path = disk / "zpobs.prom"
    mm_stat = Path("/sys/block") / device.name / "mm_stat"
    line = command("--textfile", str(path), "--interval", "0.3")
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        until(lambda: device.name in text_of(path))
        with held_up(mm_stat):
            # Before it is stale, and long after the last page was written.
            time.sleep(1.0)
            os.link(path, disk / "kept")
            filled(disk / "filler")
            until(lambda: not path.exists())
        running.terminate()
        assert running.wait(PATIENCE_S) == 0
    assert not path.exists()


NO_HEADERS = (
    "test ! -e /lib/modules || mount -t tmpfs none /lib/modules; "
    "test ! -e /sys/kernel/kheaders.tar.xz || mount -t tmpfs none /sys/kernel"
)


def test_a_failed_start_leaves_no_file(device: NativeDevice, tmp_path: Path) -> None:
    """A loader that was asked for and fails, after the first page: neither this one nor an old."""
    path = tmp_path / "zpobs.prom"
    for options in ("", "--once"):
        path.write_text("zpobs_up 1 # of an earlier run\n")
        done = without(NO_HEADERS, f"exporter --loader bcc --textfile {path} {options}")
        assert "the bcc loader needs" in the_line(done)
        assert not list(tmp_path.iterdir())
    assert device.mm_stat()


def test_a_refused_attach_is_said_in_one_line(device: NativeDevice) -> None:
    """On standard error, and in health; on the page as hooks that are not attached."""
    done = subprocess.run(command("--once"), check=True, cwd=ROOT, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("zpobs: no probe is attached")
    found = series_of(done.stdout)
    hooks = {value for (name, _), value in found.items() if name == "zpobs_probe_attached"}
    assert hooks == {0.0}
    with Exporter() as exporter:
        until(lambda: health(exporter) == (200, f"ok\n{line.removeprefix('zpobs: ')}\n"))
    assert device.mm_stat()
