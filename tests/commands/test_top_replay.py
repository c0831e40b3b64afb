"""``zpobs top --replay`` without a terminal: frames, ends, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.captures import FIRST_NS, OFFSET_NS, written_capture
from zpobs import cli
from zpobs.capture.replay import ReplaySource
from zpobs.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_USAGE

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 20


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_capture(tmp_path_factory.mktemp("captures") / "one.zpcap", SECONDS)


class Command:
    """The command line in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Path
    ) -> None:
        self._monkeypatch, self._capsys, self.path = monkeypatch, capsys, path

    def run(self, *arguments: str, path: Path | None = None) -> tuple[int, str, str]:
        """Return status, output and errors of ``zpobs top --replay``."""
        command = ["zpobs", "top", "--replay", str(path or self.path), *arguments]
        self._monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err

    def frames(self, *arguments: str, path: Path | None = None) -> list[dict[str, Any]]:
        """Return the frames as JSON; all must have gone well."""
        status, out, err = self.run("--json", *arguments, path=path)
        assert (status, err) == (EXIT_OK, "")
        return [json.loads(line) for line in out.splitlines()]

    def refused(self, *arguments: str, path: Path | None = None) -> tuple[int, str]:
        """Return the status, and the one line that tells why."""
        status, out, err = self.run(*arguments, path=path)
        assert out == ""
        (line,) = err.splitlines()
        assert line.startswith("zpobs: ")
        return status, line


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], capture: Path
) -> Command:
    return Command(monkeypatch, capsys, capture)


def at_s(frames: list[dict[str, Any]]) -> list[float]:
    """Return when frames are, seconds from the beginning of the capture."""
    return [(frame["mono_ns"] - FIRST_NS) / 1e9 for frame in frames]


def test_at_once_frames_are_an_interval_apart_and_end_with_the_capture(command: Command) -> None:
    """The last one is of the end, even where no interval ends; times are the capture's."""
    frames = command.frames("--speed", "max", "--interval", "3")
    assert at_s(frames) == [0, 3, 6, 9, 12, 15, 18, 20]
    assert {frame["time_ns"] - frame["mono_ns"] for frame in frames} == {OFFSET_NS}
    assert [frame["health"]["status"] for frame in frames[1:]] == ["exact"] * 7
    objects = [frame["pools"][0]["objects"] for frame in frames[1:]]
    assert len(set(objects)) > 4


def test_at_once_the_same_capture_gives_the_same_bytes(command: Command) -> None:
    """Zspages, lives and all."""
    arguments = ("--json", "--speed", "max", "--interval", "1", "--zspages", "--life")
    first, second = command.run(*arguments), command.run(*arguments)
    assert first == second
    assert len(first[1].splitlines()) == SECONDS + 1
    assert '"life":{' in first[1].splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "times"),
    [
        (("--duration", "5"), [0, 2, 4, 5]),
        (("--duration", "0"), [0]),
        (("--at", "16"), [16, 18, 20]),
        (("--at", "-3"), [17, 19, 20]),
        (("--at", "03:04:20", "--duration", "3"), [14, 16, 17]),
        (("--at", "-0"), [20]),
        (("--at", "19", "--duration", "60"), [19, 20]),
    ],
)
def test_at_once_a_duration_is_of_the_capture(
    command: Command, arguments: tuple[str, ...], times: list[float]
) -> None:
    """Counted from where it begins."""
    assert at_s(command.frames("--speed", "max", *arguments)) == times


def test_at_a_speed_it_ends_by_itself(command: Command) -> None:
    """With a frame of the very end."""
    frames = command.frames("--speed", "100", "--interval", "0.1")
    assert at_s(frames)[0] == 0
    assert at_s(frames)[-1] == SECONDS
    assert at_s(frames) == sorted(at_s(frames))


def test_at_a_speed_a_duration_is_the_reader_s(command: Command) -> None:
    """Far from the end of the capture."""
    frames = command.frames("--speed", "0.01", "--interval", "0.1", "--duration", "0.2")
    assert len(frames) >= 2
    assert 0 < at_s(frames)[-1] < SECONDS


@pytest.mark.parametrize("arguments", [(), ("--speed", "max"), ("--speed", "0.001")])
def test_one_frame_of_a_moment_is_there_at_once(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Without waiting, at any speed, as it is where frames lead up to it."""
    (right,) = (frame for frame in command.frames("--speed", "max") if at_s([frame]) == [10])
    monkeypatch.setattr(ReplaySource, "wait", lambda *_: pytest.fail("it waits"))
    assert command.frames("--once", "--at", "10", *arguments) == [right]
    assert at_s(command.frames("--once", *arguments)) == [2]


def test_one_frame_has_the_rates_of_the_interval_before_it(command: Command) -> None:
    """As text tells them."""
    _, whole, _ = command.run("--speed", "max", "--interval", "5")
    _, one, _ = command.run("--once", "--at", "10", "--interval", "5")
    assert one.startswith("zpobs top  2026-01-02 03:04:16 UTC")
    assert one in whole
    (pool,) = (line.split() for line in one.splitlines() if line.startswith("zram0 "))
    assert "-" not in pool


def test_the_log_gets_every_frame(command: Command, tmp_path: Path) -> None:
    """As of a session."""
    log = tmp_path / "log"
    _, out, _ = command.run("--json", "--speed", "max", "--log", str(log))
    assert log.read_text(encoding="utf-8") == out


def test_nothing_of_this_host_is_asked(capture: Path) -> None:
    """Neither /sys nor /proc is looked into, and no loader is there."""
    code = (
        "import sys, zpobs.session, zpobs.views.top, zpobs.capture.replay\n"
        "def note(event, arguments):\n"
        "    path = str(arguments[0]) if arguments else ''\n"
        "    if event in ('open', 'os.listdir') and path.startswith(('/sys', '/proc')):\n"
        "        print(event, path, file=sys.stderr)\n"
        "sys.addaudithook(note)\n"
        f"sys.argv = ['zpobs', 'top', '--replay', {str(capture)!r}, '--speed', 'max']\n"
        "from zpobs.cli import main\n"
        "try: main()\n"
        "finally: print(sorted({'bcc', 'ctypes'} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stderr in ("[]\n", "['ctypes']\n")
    assert done.stdout.count("zpobs top  ") == SECONDS // 2 + 1


# ---- what is refused -------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["--loader", "auto"],
        ["--attach", "kprobe"],
        ["--skip-hook", "obj_malloc"],
        ["--ring-size", "16M"],
        ["--no-scan"],
        ["--rescan", "60"],
        ["--objects"],
        ["--objects-rate", "1"],
        ["--objects-seed", "7"],
        ["--latency"],
        ["--compaction"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_the_capture_decides_is_no_option(command: Command, arguments: list[str]) -> None:
    """Though it be what would be so without it; the line names the option."""
    status, line = command.refused(*arguments)
    assert status == EXIT_USAGE
    assert f"{arguments[0].replace('--no-', '--')} does nothing here; found: --replay" in line


@pytest.mark.parametrize("arguments", [["--speed", "1"], ["--at", "3"]])
def test_what_only_replays_have_is_no_option_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Before anything of this host is looked at."""
    monkeypatch.setattr(sys, "argv", ["zpobs", "top", "--once", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == EXIT_USAGE
    assert f"{arguments[0]} does nothing here; found: no --replay" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--at", "20.1"], "a capture of 20.0 s; try: a number from 0 to 20.0, or a time from"),
        (["--at", "03:04:27"], "a capture of 20.0 s"),
        (["--at", "soon"], "no time"),
        (["--speed", "0"], "not a number above 0"),
        (["--speed", "fast"], "not a number above 0"),
        (["--speed", "-1"], "not a number above 0"),
    ],
)
def test_times_and_speeds_that_are_none(command: Command, arguments: list[str], found: str) -> None:
    """What would do is told."""
    status, line = command.refused("--once", *arguments)
    assert status == EXIT_USAGE
    assert line.startswith(f"zpobs: {' '.join(arguments)} is no")
    assert f"found: {found}" in line


def test_a_pool_that_was_not_recorded_is_refused(command: Command, tmp_path: Path) -> None:
    """Where only one was; else it may come yet, as in a session."""
    path = written_capture(tmp_path / "of.zpcap", 2, pool="zram0")
    status, line = command.refused("--pool", "zram7", path=path)
    assert status == EXIT_USAGE
    assert "no pool is called zram7; found: a capture of zram0 alone" in line
    assert len(command.frames("--pool", "zram0", "--once", path=path)[0]["pools"]) == 1
    _, out, _ = command.run("--once", "--pool", "zram7")
    assert "no pool called zram7 has been used" in out


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "an empty file"),
        (b"hello, world\n" * 100, "1,300 bytes that do not begin as a capture does"),
        (b"\x89ZPC\r\n\x1a\n" + bytes(500), "508 bytes, of which neither"),
    ],
)
def test_a_file_that_is_no_capture(
    command: Command, tmp_path: Path, content: bytes, found: str
) -> None:
    """One line, status 4; so it is where there is no file."""
    path = tmp_path / "file"
    status, line = command.refused(path=path)
    assert (status, f"cannot read {path}" in line) == (EXIT_BAD_INPUT, True)
    path.write_bytes(content)
    status, line = command.refused(path=path)
    assert status == EXIT_BAD_INPUT
    assert f"{path} is no capture that can be read; found: {found}" in line


def test_a_capture_that_was_cut_off(command: Command, capture: Path, tmp_path: Path) -> None:
    """What is whole is shown, and that it is not all; of less than a block nothing can be."""
    whole = capture.read_bytes()
    path = tmp_path / "cut"
    path.write_bytes(whole[:100])
    assert command.refused(path=path)[0] == EXIT_BAD_INPUT
    path.write_bytes(whole[: len(whole) // 2])
    frames = command.frames("--speed", "max", "--interval", "1", path=path)
    assert 5 < at_s(frames)[-1] < 15
    assert [frame["health"]["status"] for frame in frames[1:-1]] == ["exact"] * (len(frames) - 2)
    assert frames[-1]["health"]["status"] == "unknown"
    assert any("the capture is damaged" in each for each in frames[-1]["health"]["reasons"])


def test_a_capture_that_is_damaged(command: Command, capture: Path, tmp_path: Path) -> None:
    """From there on nothing is sure, which the frames say; nothing ends."""
    damaged = bytearray(capture.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 10] = b"\xff" * 10
    path = tmp_path / "damaged"
    path.write_bytes(damaged)
    frames = command.frames("--speed", "max", "--interval", "1", path=path)
    assert at_s(frames)[-1] == SECONDS
    states = [frame["health"]["status"] for frame in frames[1:]]
    assert states[:5] == ["exact"] * 5
    assert states[-5:] == ["unknown"] * 5
    assert any("the capture is damaged" in each for each in frames[-1]["health"]["reasons"])
