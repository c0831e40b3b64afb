"""``zpobs record`` on this very machine: real zram, files that read back, and what ends it."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.device import NativeDevice
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player
from zpobs.capture.steps import Ended
from zpobs.errors import EXIT_BAD_INPUT, EXIT_ENVIRONMENT, EXIT_FINDING, EXIT_OK, EXIT_USAGE
from zpobs.single_scan import scan_once

pytestmark = pytest.mark.native

PAGES = 1500
LONG_S = 60.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zpobs", *arguments]


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, **options
    )


def started(file: Path, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        command("record", str(file), *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end_s = time.monotonic() + LONG_S
    while not recording(file, arguments):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.05)
    return process


def recording(file: Path, arguments: tuple[str, ...]) -> bool:
    if "--last" in arguments:
        # Nothing tells it from outside: it has loaded what it needs after a while.
        time.sleep(4)
        return True
    return any(each.stat().st_size for each in file.parent.glob(f"{file.stem}*"))


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=LONG_S)
    assert process.returncode == EXIT_OK, err
    return out, err


@pytest.fixture
def used(device: NativeDevice) -> NativeDevice:
    device.fill("mixed", PAGES)
    return device


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.zpcap"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a disk of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def listed(pool: Any) -> set[tuple[Any, ...]]:
    return {
        (each["address"], each["class"], each["inuse"], each["fullness"], *each["pfns"])
        for each in pool["zspage_list"]
    }


def pool_of(shot: Any, name: str) -> Any:
    (found,) = [pool for pool in shot["pools"] if pool["name"] == name]
    return found


def test_the_end_of_a_replay_is_the_kernel(used: NativeDevice, file: Path) -> None:
    """Zspage by zspage; the middle is as it was then; and everything tells of one file."""
    process = started(file, "--pool", used.name, "--interval", "0.3", "--json")
    time.sleep(1)
    middle_ns = time.time_ns()
    middle = scan_once(pool=used.name, zspages=True).snapshot.to_json()
    time.sleep(1)
    used.discard(0, PAGES // 2)
    used.compact()
    told = json.loads(ended(process)[0])
    now = scan_once(pool=used.name, zspages=True).snapshot.to_json()
    assert told["files"] == [str(file)]
    assert told["ended"] == "signal"
    assert told["bytes"] == file.stat().st_size
    assert file.stat().st_mode & 0o777 == 0o600
    for at, live in (([], now), (["--at", str(middle_ns)], middle)):
        out = run("scan", "--replay", str(file), "--json", "--zspages", *at).stdout
        replayed = json.loads(out)
        theirs, ours = pool_of(live, used.name), pool_of(replayed, used.name)
        assert listed(ours) == listed(theirs)
        assert ours["status"] == theirs["status"] == "exact"
        assert ours["classes"] == theirs["classes"]
    info = json.loads(run("info", "--json", "--check", str(file)).stdout)
    assert info["record_count"] == told["records"] == sum(info["records"].values())
    assert info["environment"]["kernel"]["release"] == os.uname().release
    assert info["pools"] == [used.name]
    assert info["damage"] == []


def test_rotated_files_are_captures_each(used: NativeDevice, file: Path) -> None:
    """Each begins with a key; the oldest go; together they tell all of the time that is left."""
    told = json.loads(
        run(
            *("record", str(file), "--duration", "5", "--rotate-time", "1s", "--keep", "2"),
            *("--pool", used.name, "--interval", "0.3", "--json"),
        ).stdout
    )
    files = sorted(file.parent.iterdir())
    assert [str(each) for each in files] == told["files"]
    assert len(files) == 2
    live = listed(pool_of(scan_once(pool=used.name, zspages=True).snapshot.to_json(), used.name))
    for each in files:
        with CaptureReader(each) as reader:
            assert len(reader.index.keys) == 1
            assert isinstance(reader.ended(), Ended)
            player = Player(reader)
            # From its first moment on.
            player.advance(reader.index.first_ns)
            shot = player.snapshot(zspages=True).to_json()
            assert listed(pool_of(shot, used.name)) == live


def test_a_size_ends_it(used: NativeDevice, file: Path) -> None:
    """With what was asked for, and a little."""
    out = run("record", str(file), "--max-size", "64K", "--pool", used.name, "--json").stdout
    told = json.loads(out)
    assert told["ended"] == "size"
    assert told["bytes"] == file.stat().st_size >= 64 << 10


def test_a_full_disk_is_one_line_and_what_was_written_reads_back(
    used: NativeDevice, small_disk: Path
) -> None:
    """The file ends behind a whole block."""
    file = small_disk / "full.zpcap"
    done = run("record", str(file), "--pool", used.name, "--interval", "0.2", "--quiet")
    assert done.returncode == EXIT_ENVIRONMENT
    told, line = done.stderr.splitlines()
    assert told.startswith("zpobs: no probe is attached")
    assert line.startswith(f"zpobs: cannot write {file}; found: No space left on device")
    with CaptureReader(file) as reader:
        assert reader.index.damage == []
        assert reader.index.records > PAGES
        assert reader.ended() is None
    info = run("info", str(file))
    assert "not ended" in info.stdout
    assert info.returncode == EXIT_OK


def test_a_pool_that_vanishes_ends_nothing(used: NativeDevice, file: Path) -> None:
    """It is told, and the recording goes on."""
    process = started(file, "--interval", "0.3", "--json")
    time.sleep(1)
    used.reset()
    time.sleep(1.5)
    ended(process)
    with CaptureReader(file) as reader:
        player = Player(reader)
        player.advance(reader.index.first_ns + 10**9 // 2)
        assert used.name in [pool.name for pool in player.snapshot().pools]
        player.advance(reader.index.last_ns)
        assert used.name not in [pool.name for pool in player.snapshot().pools]
    used.set_up("64M")


def test_a_flight_recorder_writes_at_a_signal_and_at_the_end(
    used: NativeDevice, file: Path
) -> None:
    """Nothing is written before; then a capture each."""
    process = started(file, "--last", "2s", "--pool", used.name, "--interval", "0.3", "--json")
    assert not file.exists()
    process.send_signal(signal.SIGUSR1)
    time.sleep(2)
    out, err = ended(process)
    told = json.loads(out)
    assert told["files"] == [str(file), str(file.with_stem("run-2"))]
    assert f"zpobs: wrote {file}: signal" in err
    for each in told["files"]:
        with CaptureReader(Path(each)) as reader:
            assert reader.index.damage == []
            assert reader.ended() is not None
            player = Player(reader)
            player.advance(reader.index.last_ns)
            assert [pool.objects for pool in player.snapshot().pools] == [used_objects(used)]


def used_objects(used: NativeDevice) -> int:
    (pool,) = scan_once(pool=used.name).snapshot.pools
    return pool.objects


def test_a_flight_recorder_writes_when_a_condition_is_met(used: NativeDevice, file: Path) -> None:
    """Once, and says why."""
    arguments = ("--last", "60s", "--when", "objects<10", "--pool", used.name)
    process = started(file, *arguments, "--interval", "0.3")
    assert not file.exists()
    used.discard(0, PAGES)
    end_s = time.monotonic() + LONG_S
    while not file.exists():
        assert time.monotonic() < end_s
        time.sleep(0.1)
    _, err = ended(process)
    assert f"zpobs: wrote {file}: objects of {used.name} 0 < 10" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--keep", "2"], "--keep keeps nothing"),
        (["--when", "waste>3"], "--when writes nothing"),
        (["--last", "60s", "--when", "wast>3"], "--when 'wast>3' is no condition"),
        (["--last", "60s", "--max-size", "1M"], "--last writes what it holds"),
        (["--last", "soon"], "--last soon is no time"),
        (["--max-size", "many"], "--max-size many is no size"),
        (["--memory", "1M"], "--memory holds nothing"),
        (["--no-objects", "--objects-rate", "4"], "--objects-rate chooses nothing"),
    ],
)
def test_what_cannot_be_asked_for(file: Path, arguments: list[str], told: str) -> None:
    """One line, status 2, nothing written."""
    done = run("record", str(file), *arguments)
    assert done.returncode == EXIT_USAGE
    (line,) = done.stderr.splitlines()
    assert told in line
    assert not file.exists()


def test_what_only_probes_count_is_not_waited_for(file: Path) -> None:
    """Here none can be attached: it would never come."""
    done = run("record", str(file), "--last", "60s", "--when", "failures>0")
    assert done.returncode == EXIT_ENVIRONMENT
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "zpobs: --when failures can never come true; found: no probe is attached"
    )
    assert not file.exists()


def test_a_file_that_is_there_stays(file: Path) -> None:
    """Unless it is to be written over."""
    file.write_text("mine")
    done = run("record", str(file))
    assert done.returncode == EXIT_USAGE
    assert f"{file} exists" in done.stderr
    assert file.read_text() == "mine"
    done = run("record", str(file), "--overwrite", "--duration", "0", "--quiet")
    assert done.returncode == EXIT_OK
    with CaptureReader(file) as reader:
        assert reader.ended() is not None


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """One line, status 3."""
    done = run("record", str(tmp_path / "no" / "run.zpcap"))
    assert done.returncode == EXIT_ENVIRONMENT
    assert "No such file or directory" in done.stderr


@pytest.mark.parametrize("name", ["info", "scan", "verify"])
def test_what_is_no_capture_is_status_4(tmp_path: Path, name: str) -> None:
    """Each command tells it in one line."""
    (tmp_path / "text").write_text("hello\n")
    arguments = {"info": [], "scan": ["--replay"], "verify": ["--replay"]}[name]
    for file in ("text", "missing"):
        done = run(name, *arguments, str(tmp_path / file))
        assert done.returncode == EXIT_BAD_INPUT
        assert len(done.stderr.splitlines()) == 1


def test_nothing_can_be_verified_of_scans_alone(used: NativeDevice, file: Path) -> None:
    """Status 1, and why."""
    run("record", str(file), "--duration", "1", "--pool", used.name, "--quiet")
    done = run("verify", "--replay", str(file))
    assert done.returncode == EXIT_FINDING
    assert "no scan that probes led up to" in done.stderr


GOLDEN = sorted((Path(__file__).resolve().parents[1] / "data/captures").glob("*.zpcap"))
READERS = (
    ("info", "--json", "--check"),
    ("scan", "--json", "--replay"),
    ("top", "--once", "--json", "--replay"),
    ("exporter", "--once", "--replay"),
)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
@pytest.mark.parametrize("name", [file.name for file in GOLDEN])
@pytest.mark.parametrize("arguments", READERS, ids=lambda arguments: arguments[0])
def test_captures_open_where_there_is_no_bpf_and_no_right(
    name: str, arguments: tuple[str, ...]
) -> None:
    """No capability, nothing in /sys, no libbpf, no bcc: the kernel that made it is elsewhere."""
    file = GOLDEN[0].with_name(name)
    hidden = (
        "import sys, ctypes.util, runpy; sys.modules['bcc'] = None; "
        "ctypes.util.find_library = lambda name: None; sys.argv[0] = 'zpobs'; "
        "runpy.run_module('zpobs', run_name='__main__')"
    )
    inner = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", hidden]
    script = f"mount -t tmpfs none /sys && exec {shlex.join([*inner, *arguments, str(file)])}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    # What made a figure less than exact is told there as well.
    assert done.returncode == EXIT_OK, done.stderr
    assert done.stdout
