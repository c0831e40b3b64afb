"""A capture of this very kernel, replayed in a real terminal."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.native.device import NativeDevice
from tests.terminal import Terminal

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[2]
ZPOBS = [sys.executable, "-m", "zpobs"]
INTERVAL_S = 0.5
_PLACE = re.compile(r"REPLAY (\d+):(\d\d\.\d) of (\d+):(\d\d\.\d), (\S+)")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a capture of some seconds in which a device of ours grew and shrank."""
    path = tmp_path_factory.mktemp("captures") / "native.zpcap"
    device = NativeDevice("64M")
    try:
        device.fill("mixed", 300)
        what = ["--pool", device.name, "--duration", "6", "--interval", str(INTERVAL_S)]
        recording = subprocess.Popen([*ZPOBS, "record", str(path), "--quiet", *what], cwd=ROOT)
        first = 300
        while recording.poll() is None:
            device.fill("mixed", 60, first=first % 9000, seed=first)
            device.discard(first % 9000 // 2, 20)
            first += 60
            time.sleep(0.1)
        assert recording.returncode == 0
        yield path
    finally:
        device.remove()


def replay(capture: Path, *arguments: str) -> list[str]:
    interval = ["--interval", str(INTERVAL_S)]
    return [*ZPOBS, "top", "--replay", str(capture), *interval, *arguments]


def place(lines: list[str]) -> float:
    """Return where the header says that it stands, -1 if it says nothing."""
    found = _PLACE.search(lines[0])
    return round(int(found[1]) * 60 + float(found[2]), 1) if found else -1.0


def length(lines: list[str]) -> float:
    found = _PLACE.search(lines[0])
    assert found
    return int(found[3]) * 60 + float(found[4])


def test_the_clock_is_held_stepped_and_turned(capture: Path) -> None:
    """Space holds it, steps are an interval each way, jumps end at the ends; END is said."""
    with Terminal(replay(capture, "--speed", "0.5"), cwd=ROOT) as terminal:
        terminal.shows("REPLAY", "POOL ", "zram")
        terminal.until(lambda lines: place(lines) > 0, "time")
        terminal.press("Space")
        terminal.until(lambda lines: "PAUSED" in lines[0], "pause")
        # What was at that very moment is drawn a little later than the word.
        time.sleep(1)
        held = terminal.lines()
        time.sleep(2)
        assert terminal.lines() == held
        at = place(held)
        for key, step in ((".", INTERVAL_S), (".", INTERVAL_S), (",", -INTERVAL_S)):
            at = round(at + step, 1)
            terminal.press(key)
            terminal.until(
                lambda lines, at=at: place(lines) == at and "PAUSED" in lines[0], f"step to {at}"
            )
        terminal.press("]")
        over = terminal.until(lambda lines: "END" in lines[0], "END")
        assert place(over) == length(over)
        terminal.press("Space")
        terminal.shows("the capture is over")
        terminal.press("[")
        terminal.until(lambda lines: place(lines) == 0, "beginning")
        terminal.press("Space")
        terminal.until(lambda lines: place(lines) > 0 and "PAUSED" not in lines[0], "going on")
        terminal.press("}", "}", "}", "}")
        terminal.shows(", 8x")
        terminal.until(lambda lines: "END" in lines[0], "END by itself")
        # It stays there.
        still = terminal.lines()
        time.sleep(1)
        assert terminal.lines() == still
        terminal.press("q")
        assert "zram" in terminal.ends(0)
        assert terminal.stderr() == ""


def test_a_time_that_is_gone_to_is_what_once_shows(capture: Path, tmp_path: Path) -> None:
    """In the middle, from behind and from before: the very moment, and figures of every class."""
    at = "3.1"
    once = subprocess.run(
        replay(capture, "--once", "--json", "--at", at),
        check=True,
        capture_output=True,
        cwd=ROOT,
    )
    right = json.loads(once.stdout)
    with Terminal(
        replay(capture, "--at", "-0"), cwd=tmp_path, environment={"PYTHONPATH": str(ROOT)}
    ) as terminal:
        terminal.shows("REPLAY", "END", "POOL ")
        terminal.press("Enter", "Space")
        terminal.shows("CLASS")
        # At the end a pause is none.
        assert copied(terminal, tmp_path)["mono_ns"] > right["mono_ns"]
        go_to(terminal, "1")
        terminal.until(lambda lines: 1 <= place(lines) < 3, "beginning")
        terminal.press("Space")
        terminal.until(lambda lines: "PAUSED" in lines[0], "pause")
        for elsewhere in ("1.5", "-0", "2"):
            go_to(terminal, elsewhere)
            terminal.until(lambda lines: place(lines) != float(at), elsewhere)
            go_to(terminal, at)
            terminal.until(lambda lines: place(lines) == float(at), at)
            view = copied(terminal, tmp_path)
            assert view["mono_ns"] == right["mono_ns"]
            assert figures(view["rows"]) == figures(right["pools"][0]["classes"])
        terminal.press("t")
        terminal.type("99")
        terminal.press("Enter")
        terminal.shows("not in it: a capture of")
        terminal.press("Escape", "C-c")
        terminal.ends(0)
        assert terminal.stderr() == ""


def go_to(terminal: Terminal, text: str) -> None:
    """Type a time, and go there."""
    terminal.press("t")
    terminal.type(text)
    terminal.shows(f"to {text}_")
    terminal.press("Enter")


def copied(terminal: Terminal, folder: Path) -> dict[str, Any]:
    """Copy the screen, and return what was copied."""
    before = set(folder.glob("zpobs-*.json"))
    terminal.press("c")
    terminal.shows("wrote zpobs-")
    (made,) = set(folder.glob("zpobs-*.json")) - before
    return dict(json.loads(made.read_text(encoding="utf-8")))


def figures(classes: list[dict[str, Any]]) -> dict[int, tuple[Any, ...]]:
    """Return what is known of each class in use."""
    names = ("size", "zspages", "objects", "fullness")
    return {
        each["index"]: tuple(each[name] for name in names) for each in classes if each["zspages"]
    }


def test_at_once_it_is_over_soon_and_can_be_begun_again(capture: Path) -> None:
    """At max speed all is gone through; the keys lead back."""
    with Terminal(replay(capture, "--speed", "max"), cwd=ROOT) as terminal:
        terminal.until(lambda lines: "END" in lines[0] and ", max" in lines[0], "END")
        terminal.press("Space", "{", "[")
        terminal.shows(", 128x")
        terminal.press("q")
        terminal.ends(0)
    with Terminal(replay(capture, "--speed", "max", "--duration", "3"), cwd=ROOT) as terminal:
        assert "zram" in terminal.ends(0)


def test_plain_frames_need_no_root(capture: Path, tmp_path: Path) -> None:
    """Anybody who may read the file can replay it, the same bytes each time."""
    readable = Path("/tmp") / f"{tmp_path.name}-{time.monotonic_ns()}.zpcap"
    readable.write_bytes(capture.read_bytes())
    try:
        readable.chmod(0o644)
        code = (
            "import os, sys, zpobs.session, zpobs.views.top, zpobs.capture.replay\n"
            "from zpobs.cli import main\n"
            "os.setgroups([]); os.setuid(65534)\n"
            f"sys.argv = ['zpobs', 'top', '--replay', {str(readable)!r}, '--json', "
            "'--speed', 'max', '--interval', '0.5']\n"
            "main()\n"
        )
        runs = [
            subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, cwd=ROOT
            ).stdout
            for _ in range(2)
        ]
    finally:
        readable.unlink()
    assert runs[0] == runs[1]
    frames = [json.loads(line) for line in runs[0].splitlines()]
    assert len(frames) > 10
    assert frames[-1]["health"]["status"] == "exact"
    assert frames[-1]["pools"][0]["objects"] > frames[1]["pools"][0]["objects"]
