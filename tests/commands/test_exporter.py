"""``zpobs exporter``: options that cannot be, and what other commands need not wait for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.captures import written_capture
from tests.native.exporter import series_of
from tests.test_cli import one_line, run
from zpobs.errors import EXIT_ENVIRONMENT, EXIT_OK, EXIT_USAGE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--listen", "nowhere"], "--listen nowhere is no address"),
        (["--tls-key", "key.pem"], "TLS needs a certificate"),
        (["--tls-client-ca", "ca.pem"], "TLS needs a certificate"),
        (["--once", "--listen", "127.0.0.1:1"], "--once serves nothing"),
        (["--once", "--tls-cert", "x.pem"], "--tls-cert serves nothing"),
        (["--textfile", "x.txt"], "--textfile x.txt would not be read"),
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
