"""``zpobs exporter``: options that cannot be, and what other commands need not wait for."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.captures import written_capture
from tests.native.exporter import series_of
from tests.test_cli import one_line, run
from zpobs.errors import EXIT_ENVIRONMENT, EXIT_OK, EXIT_USAGE

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "nowhere"], "--listen nowhere is no address"),
        (["--tls-key", "key.pem"], "TLS needs a certificate"),
        (["--tls-client-ca", "ca.pem"], "TLS needs a certificate"),
        (["--once", "--listen", "127.0.0.1:1"], "--once serves nothing"),
        (["--once", "--tls-cert", "x.pem"], "--tls-cert serves nothing"),
        (["--listen", "a..b:80"], "--listen a..b:80 is no address"),
        (["--listen", f"{'x' * 64}:80"], "is no address"),
        (["--textfile", "x.txt"], "--textfile x.txt would not be read"),
        (["--textfile", "."], "--textfile . would not be read"),
        (["--textfile", "/"], "--textfile / would not be read"),
        (["--textfile", ""], "--textfile . would not be read"),
        (["--ring-size", "7"], "--ring-size 7 cannot be a ring"),
    ],
)
def test_what_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    """As wrong usage, before anything is opened."""
    assert run(monkeypatch, "exporter", *arguments) == EXIT_USAGE
    assert words in one_line(capsys)


def test_a_capture_in_the_kernels_place(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its figures at a moment are those of a scan of it; it ends with the capture."""
    file = written_capture(tmp_path / "run.zpcap")
    for at in ("5", "19"):
        assert run(monkeypatch, "exporter", "--replay", str(file), "--once", "--at", at) == EXIT_OK
        page = capsys.readouterr().out
        assert run(monkeypatch, "scan", "--replay", str(file), "--json", "--at", at) == EXIT_OK
        (pool,) = json.loads(capsys.readouterr().out)["pools"]
        assert series_of(page)["zpobs_pool_zspages", frozenset({("pool", "zram0")})] == sum(
            each["zspages"] for each in pool["classes"]
        )
    options = ("--listen", f"unix:{tmp_path}/socket", "--speed", "max", "--interval", "1")
    assert run(monkeypatch, "exporter", "--replay", str(file), *options) == EXIT_OK
    assert capsys.readouterr().err.endswith("zpobs: the capture is over\n")


def test_what_a_capture_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Damage, and a pool that is not there: a line each on standard error, and the page."""
    file = written_capture(tmp_path / "run.zpcap")
    ask = ("exporter", "--once", "--at", "19", "--replay")
    assert run(monkeypatch, *ask, str(file), "--pool", "zram9") == EXIT_OK
    out, err = capsys.readouterr()
    assert err == "zpobs: no pool is called zram9 now\n"
    assert "zpobs_up 1.0" in out
    damaged = bytearray(file.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 10] = b"\xff" * 10
    file.write_bytes(damaged)
    assert run(monkeypatch, *ask, str(file)) == EXIT_OK
    out, err = capsys.readouterr()
    assert err == "zpobs: the capture is damaged: a block is damaged\n"
    assert 'zpobs_health{status="unknown"} 1.0' in out


def test_a_bad_start_leaves_no_file_of_an_earlier_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A port that is taken, a certificate that is none: what says that all is well goes."""
    capture = written_capture(tmp_path / "run.zpcap")
    path = tmp_path / "zpobs.prom"
    ask = ("exporter", "--replay", str(capture), "--textfile", str(path), "--listen")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for bad in ((f"127.0.0.1:{port}",), ("127.0.0.1:0", "--tls-cert", str(capture))):
            path.write_text("zpobs_up 1\n")
            assert run(monkeypatch, *ask, *bad) == EXIT_ENVIRONMENT
            assert one_line(capsys).startswith("zpobs: cannot ")
            assert not path.exists()


def test_a_hangup_leaves_nothing_behind(tmp_path: Path) -> None:
    """SIGHUP ends it as SIGTERM does, though standard error takes nothing: file and socket go."""
    capture = written_capture(tmp_path / "run.zpcap")
    left = tmp_path / "zpobs.prom", tmp_path / "socket"
    line = [sys.executable, "-m", "zpobs", "exporter", "--replay", str(capture), "--speed", "0.1"]
    line += ["--textfile", str(left[0]), "--listen", f"unix:{left[1]}"]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(line, cwd=ROOT, stderr=full)
    end_s = time.monotonic() + PATIENCE_S
    while not all(each.exists() for each in left):
        assert process.poll() is None
        assert time.monotonic() < end_s
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    assert process.wait(PATIENCE_S) == EXIT_OK
    assert not any(each.exists() for each in left)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--at", "3"], "--at does nothing here; found: no --replay"),
        (["--replay", "x", "--verify", "3"], "--verify does nothing here"),
        (["--replay", "x", "--speed", "0"], "--speed 0 is no speed"),
    ],
)
def test_what_a_replay_cannot_do(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    """Refused, not passed by in silence."""
    assert run(monkeypatch, "exporter", *arguments) == EXIT_USAGE
    assert words in one_line(capsys)


@pytest.mark.parametrize("package", ["prometheus_client", "psutil"])
def test_a_package_that_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], package: str
) -> None:
    """With Debian's name for it."""
    monkeypatch.setitem(sys.modules, package, None)
    assert run(monkeypatch, "exporter", "--once") == EXIT_ENVIRONMENT
    assert f"apt install python3-{package.replace('_', '-')}" in one_line(capsys)


@pytest.mark.parametrize("imports", ["zpobs.cli", "zpobs.cli, zpobs.session, zpobs.views.top"])
def test_no_other_command_waits_for_its_packages(imports: str) -> None:
    """The command line, and all that ``zpobs top`` takes, import neither of them."""
    code = f"import {imports}, sys; print({{'prometheus_client', 'psutil'}} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
