"""``zpobs info``: several files, those that are none among them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.captures import written_capture
from tests.test_cli import run
from zpobs.errors import EXIT_BAD_INPUT, EXIT_OK


def test_one_object_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Whatever the others are: what is no capture is told, and ends nothing."""
    first = written_capture(tmp_path / "a.zpcap")
    (tmp_path / "b.zpcap").write_text("hello")
    last = written_capture(tmp_path / "c.zpcap", 5)
    files = [str(first), str(tmp_path / "b.zpcap"), str(last)]
    assert run(monkeypatch, "info", "--json", *files) == EXIT_BAD_INPUT
    out, err = capsys.readouterr()
    told = [json.loads(line) for line in out.splitlines()]
    assert [each["file"] for each in told] == [str(first), str(last)]
    assert err.startswith(f"zpobs: {tmp_path}/b.zpcap is no capture that can be read; found: ")
    assert run(monkeypatch, "info", str(first), str(last)) == EXIT_OK
    assert capsys.readouterr().out.count("file       ") == 2


def test_damage_is_a_status_where_everything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """With --check; without, it is told if headers show it."""
    file = written_capture(tmp_path / "a.zpcap")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert run(monkeypatch, "info", "--check", "--json", str(file)) == EXIT_BAD_INPUT
    (damage,) = json.loads(capsys.readouterr().out)["damage"]
    assert "block" in damage


def test_times_are_of_one_zone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """UTC, as --at understands them and as everything else shows them."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    file = written_capture(tmp_path / "a.zpcap")
    assert run(monkeypatch, "info", str(file)) == EXIT_OK
    assert "begin      2026-01-02 03:04:06 UTC" in capsys.readouterr().out
    assert run(monkeypatch, "scan", "--replay", str(file), "--at", "03:04:10") == EXIT_OK
