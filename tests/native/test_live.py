"""The interactive view in a real terminal on this very kernel, where scans alone feed it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.native.device import NativeDevice
from tests.terminal import Terminal
from zpobs.views.live.keys import KEYS, Action

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[2]
TOP = [sys.executable, "-m", "zpobs", "top", "--interval", "0.5"]
# Keys as tmux names them, where that is not as Textual does.
_TMUX_KEYS = {
    "pageup": "PPage",
    "pagedown": "NPage",
    "backspace": "BSpace",
    "escape": "Escape",
    "enter": "Enter",
    "space": "Space",
    "tab": "Tab",
    "shift+tab": "BTab",
    "slash": "/",
    "question_mark": "?",
    "less_than_sign": "<",
    "greater_than_sign": ">",
    "plus": "+",
    "minus": "-",
    "equals_sign": "=",
    "full_stop": ".",
    "comma": ",",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "left_curly_bracket": "{",
    "right_curly_bracket": "}",
    "ctrl+b": "C-b",
    "ctrl+f": "C-f",
    "ctrl+c": "C-c",
    "ctrl+h": "C-h",
    "ctrl+u": "C-u",
    "ctrl+z": "C-z",
    "f1": "F1",
}
SIZES = [(80, 24), (60, 20), (200, 50)]


@pytest.fixture
def used(device: NativeDevice) -> NativeDevice:
    """Return a device with some hundred zspages of many classes."""
    device.fill("mixed", 2000)
    device.fill("incompressible", 100, first=2000, seed=2)
    return device


def top(device: NativeDevice, *arguments: str) -> list[str]:
    return [*TOP, "--pool", device.name, *arguments]


def scanned(device: NativeDevice, *arguments: str) -> dict[str, Any]:
    """Return the pool as ``zpobs scan`` tells of it."""
    command = [sys.executable, "-m", "zpobs", "scan", "--json", "--pool", device.name, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    (pool,) = json.loads(done.stdout)["pools"]
    return dict(pool)


def named(key: str) -> str:
    return _TMUX_KEYS.get(key, key.capitalize() if len(key) > 1 else key)


def row_under_cursor(lines: list[str]) -> str:
    """Return the first row of the table, where the cursor is after Home."""
    at = next(row for row, line in enumerate(lines) if "pools >" in line)
    return next(line for line in lines[at + 1 :] if re.match(r"\s*(0x|\d)", line))


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_every_screen_tells_what_a_scan_tells(used: NativeDevice, columns: int, rows: int) -> None:
    """Drilled in from the pool to one zspage's descriptors, at every size."""
    truth = scanned(used, "--descriptors")
    with Terminal(top(used), columns=columns, rows=rows, cwd=ROOT) as terminal:
        lines = terminal.shows(f"pools > {used.name}", "CLASS", "q")
        assert sum(line.startswith("zpobs") for line in lines) == 1
        row = row_under_cursor(lines)
        index = int(row.split()[0])
        (wanted,) = [each for each in truth["classes"] if each["index"] == index]
        size, zspages = (int(word.replace(",", "")) for word in row.split()[1:3])
        assert (size, zspages) == (wanted["size"], wanted["zspages"])
        terminal.press("Enter")
        lines = terminal.shows(f"class {index} (", "ADDRESS", "0xffff")
        address = row_under_cursor(lines).split()[0]
        (zspage,) = [each for each in truth["zspage_list"] if each["address"] == address]
        assert zspage["class"] == index
        assert f"{zspage['inuse']}/{wanted['objs_per_zspage']}" in row_under_cursor(lines)
        terminal.press("Enter")
        lines = terminal.shows("magic", "PFN", str(zspage["pfns"][0]))
        terminal.press("e")
        terminal.shows("no probes are attached")
        terminal.press("?")
        terminal.shows("KEYS")
        # Back out of all of it.
        for what in ("no probes are attached", "magic", "ADDRESS", "CLASS", "POOL "):
            terminal.press("Escape")
            lines = terminal.shows(what)
        terminal.press("q")
        left = terminal.ends(0)
        assert used.name in left
        assert "CLASS" not in left
        assert terminal.stderr() == ""


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_no_key_does_harm_on_any_screen(
    used: NativeDevice, columns: int, rows: int, tmp_path: Path
) -> None:
    """No key on no screen breaks the view; files that were copied are whole."""
    # Ctrl+Z has a test of its own, and what is typed is no matter of a screen.
    left_out = (Action.QUIT, Action.SUSPEND)
    entries = [each for each in KEYS if each.screens and each.action not in left_out]
    keys = [key for entry in entries for key in entry.keys]
    command = [sys.executable, "-m", "zpobs", "top", "--pool", used.name]
    environment = {"PYTHONPATH": str(ROOT)}
    with Terminal(
        command, columns=columns, rows=rows, cwd=tmp_path, environment=environment
    ) as terminal:
        terminal.shows("pools >")
        for deep in range(4):
            for key in keys:
                terminal.press(named(key))
                # Out of what that key may have opened, and in again as far as before.
                terminal.press("Escape", *["Escape"] * 5)
                terminal.press(*["Enter"] * deep)
            terminal.until(
                lambda lines: lines[0].startswith("zpobs") and "health" in lines[1], "header"
            )
        terminal.press("C-c")
        terminal.ends(0)
        assert terminal.stderr() == ""
    copied = list(tmp_path.glob("zpobs-*"))
    assert {path.suffix for path in copied} == {".json", ".csv"}
    assert {path.stat().st_mode & 0o777 for path in copied} == {0o600}
    for path in copied:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            assert json.loads(text)["schema"] == 1, path
        else:
            assert text.startswith("snapshot_time_ns,"), path


def row_of(lines: list[str]) -> int:
    """Return the number of the cursor's row, 0 if it is not told."""
    found = next(filter(None, (re.search(r"row ([\d,]+) of", line) for line in lines)), None)
    return int(found[1].replace(",", "")) if found else 0


Seen = Callable[[list[str], list[str]], bool]


def told(text: str) -> Seen:
    return lambda before, now: any(text in each for each in now) and now != before


def moved(right: Callable[[int, int], bool]) -> Seen:
    return lambda before, now: row_of(now) > 0 and right(row_of(before), row_of(now))


class Effect(NamedTuple):
    """What a key changes on the screen of size classes, and what is pressed before and after it."""

    seen: Seen
    first: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()


EFFECTS: dict[Action, Effect] = {
    Action.UP: Effect(moved(lambda before, now: now == before - 1), ("End",)),
    Action.DOWN: Effect(moved(lambda before, now: now == before + 1)),
    Action.PAGE_UP: Effect(moved(lambda before, now: now < before - 1), ("End",)),
    Action.PAGE_DOWN: Effect(moved(lambda before, now: now > before + 1)),
    Action.FIRST: Effect(moved(lambda before, now: before > now == 1), ("End",)),
    Action.LAST: Effect(moved(lambda before, now: before == 1 < now)),
    Action.OPEN: Effect(told("ADDRESS"), undo=("Escape",)),
    Action.BACK: Effect(told("POOL "), undo=("Enter",)),
    Action.SORT_NEXT: Effect(told("by freeable"), undo=("S",)),
    Action.SORT_PREVIOUS: Effect(told("by used"), undo=("s",)),
    Action.REVERSE: Effect(told("by waste (reversed)"), undo=("r",)),
    Action.FILTER: Effect(lambda _, now: now[-1].startswith("/_"), undo=("Escape",)),
    Action.PAUSE: Effect(lambda _, now: "PAUSED" in now[0], undo=("Space",)),
    # These are of replays, in test_replay.py.
    **{
        each.action: Effect(told("only in a replay"), undo=("Down",))
        for each in KEYS
        if each.replay
    },
    Action.SLOWER: Effect(told("every 60 s"), undo=("-",)),
    Action.FASTER: Effect(told("every 10 s"), undo=("+",)),
    Action.EVENTS: Effect(told("no probes are attached"), undo=("e",)),
    Action.MIGRATION: Effect(told("migration of"), undo=("v",)),
    Action.LATENCY: Effect(told("latency of"), undo=("l",)),
    Action.LIFE: Effect(told("life of"), undo=("z",)),
    Action.OBJECTS: Effect(told("objects of"), undo=("o",)),
    Action.PINS: Effect(told("pins of"), undo=("p",)),
    Action.COMPACTION: Effect(told("now would free"), undo=("m",)),
    Action.PAGEBLOCKS: Effect(told("blocks of 512"), undo=("b",)),
    Action.COPY_JSON: Effect(told(".json")),
    Action.COPY_CSV: Effect(told(".csv")),
    Action.HELP: Effect(told("KEYS"), undo=("Escape",)),
    Action.KEEP_FILTER: Effect(told("fits the filter"), ("/", "z"), ("/", "Escape")),
    Action.CLEAR_FILTER: Effect(lambda _, now: row_of(now) == 1, ("/", "z")),
    Action.ERASE: Effect(lambda _, now: now[-1].startswith("/z_"), ("/", "z", "y"), ("Escape",)),
    Action.ERASE_ALL: Effect(lambda _, now: now[-1].startswith("/_"), ("/", "z", "y"), ("Escape",)),
}
# These lead back to the shell, and what brings the view back.
TO_THE_SHELL = {Action.SUSPEND: "fg", Action.QUIT: ""}
TO_ANOTHER_POOL = {Action.NEXT_POOL, Action.PREVIOUS_POOL}


def at_rest(lines: list[str]) -> bool:
    """Tell whether the screen of classes is as it is at the beginning, by its own keys."""
    return row_of(lines) == 1 and "every 30 s" in lines[0] and any("CLASS" in one for one in lines)


def started(terminal: Terminal, line: str) -> list[str]:
    """Run the view in a shell until probes were tried; return what it shows then."""
    terminal.type(line)
    terminal.press("Enter")
    return terminal.until(lambda lines: at_rest(lines) and "attaching" not in lines[0], "classes")


@pytest.mark.parametrize(("columns", "rows"), SIZES)
def test_every_key_has_its_effect_on_the_screen(
    used: NativeDevice, columns: int, rows: int, tmp_path: Path
) -> None:
    """Each key of the one table does what it says; frames come too seldom to do it instead."""
    command = f"{sys.executable} -m zpobs top --interval 30 --pool {used.name}"
    with Terminal(
        ["bash", "--norc", "-i"],
        columns=columns,
        rows=rows,
        cwd=tmp_path,
        environment={"PYTHONPATH": str(ROOT), "PS1": "ready "},
        errors_apart=False,
    ) as terminal:
        base = started(terminal, command)
        for entry in KEYS:
            for key in entry.keys:
                if entry.action in TO_THE_SHELL:
                    terminal.press(named(key))
                    terminal.until(lambda lines: "ready" in lines[-1] or "ready" in lines, key)
                    started(terminal, TO_THE_SHELL[entry.action] or command)
                elif entry.action not in TO_ANOTHER_POOL:
                    has_its_effect(terminal, key, EFFECTS[entry.action], base)
    copied = {path.suffix for path in tmp_path.glob("zpobs-*")}
    assert copied == {".json", ".csv"}
    assert {entry.action for entry in KEYS} == {*EFFECTS, *TO_THE_SHELL, *TO_ANOTHER_POOL}


def has_its_effect(terminal: Terminal, key: str, effect: Effect, base: list[str]) -> None:
    """Press a key where it can be seen to do something, and what undoes it."""
    terminal.press(*effect.first)
    if effect.first:
        terminal.until(lambda lines: lines[2:] != base[2:], f"{effect.first}")
    before = terminal.lines()
    terminal.press(named(key))
    terminal.until(lambda now: effect.seen(before, now), f"effect of {key}")
    terminal.press(*effect.undo, "Home")
    terminal.until(lambda lines: at_rest(lines) and lines[2:] == base[2:], f"way back from {key}")


@pytest.mark.parametrize("key", ["tab", "shift+tab"])
def test_other_pools_are_a_key_away(
    used: NativeDevice, make_device: Callable[[str], NativeDevice], key: str
) -> None:
    """Tab and Shift+Tab lead through all pools, and round to the first one."""
    other = make_device("64M")
    other.fill("mixed", 50)
    with Terminal(TOP, cwd=ROOT) as terminal:
        terminal.shows("POOL ", used.name, other.name)
        terminal.press("Enter")
        (first,) = [one for one in terminal.shows("pools > zram") if "pools > " in one]
        name = first.split()[2]
        terminal.press(named(key))
        terminal.until(
            lambda lines: any("pools > " in one and f"> {name} " not in one for one in lines), key
        )
        for _ in range(20):
            terminal.press(named(key))
            time.sleep(0.2)
            if any(f"pools > {name} " in one for one in terminal.lines()):
                return
        raise AssertionError(f"{key} never leads back to {name}")


def test_the_terminal_may_change_its_size_at_any_time(used: NativeDevice) -> None:
    """Drilled in, the screen fits every new size at once, also one that is too small."""
    with Terminal(top(used), cwd=ROOT) as terminal:
        terminal.shows(f"pools > {used.name}")
        terminal.press("Enter")
        terminal.shows("ADDRESS")
        for columns, rows in [(60, 20), (200, 50), (41, 10), (120, 30)]:
            terminal.resize(columns, rows)
            lines = terminal.until(
                lambda lines, rows=rows: len(lines) == rows and "q" in lines[-1], "footer"
            )
            # A line too wide would have gone on in the next one and pushed these away.
            assert lines[0].startswith("zpobs")
            assert lines[1].startswith("health")
            terminal.shows("ADDRESS")
        terminal.press("Enter")
        terminal.shows("magic")
        terminal.resize(38, 8)
        terminal.shows("too small: 38x8")
        terminal.resize(80, 24)
        terminal.shows("magic")
        terminal.press("q")
        terminal.ends(0)


def test_a_terminal_too_small_from_the_start_is_told_so(used: NativeDevice) -> None:
    """One line says what is needed; q ends it all the same."""
    with Terminal(top(used), columns=38, rows=8, cwd=ROOT) as terminal:
        terminal.shows("too small: 38x8")
        terminal.press("q")
        terminal.ends(0)


def test_a_pool_that_vanishes_while_it_is_shown(used: NativeDevice) -> None:
    """The view falls back to the pools and says which one is gone; a new pool is shown."""
    other = NativeDevice("64M")
    other.fill("mixed", 50)
    try:
        with Terminal(TOP, cwd=ROOT) as terminal:
            terminal.shows("POOL ", used.name, other.name)
            terminal.press("/")
            terminal.type(other.name)
            terminal.press("Enter")
            terminal.until(
                lambda lines: not any(each.startswith(used.name) for each in lines), "filter"
            )
            terminal.press("Enter")
            terminal.shows(f"pools > {other.name}")
            terminal.press("Enter")
            terminal.shows("ADDRESS")
            terminal.press("Enter")
            terminal.shows("magic")
            other.reset()
            terminal.shows(f"{other.name} is gone")
            other.set_up("64M")
            other.fill("mixed", 50)
            terminal.until(lambda lines: any(each.startswith(other.name) for each in lines), "pool")
            terminal.press("q")
            terminal.ends(0)
            assert terminal.stderr() == ""
    finally:
        other.remove()


def test_paused_nothing_moves(used: NativeDevice) -> None:
    """It says PAUSED and the time stands still; then it goes on."""
    with Terminal(top(used), cwd=ROOT) as terminal:
        terminal.shows("pools >")
        terminal.until(lambda lines: "attaching" not in lines[0], "probes")
        terminal.press("Space")
        before = terminal.shows("PAUSED")
        time.sleep(2)
        assert terminal.lines() == before
        terminal.press("Space")
        terminal.until(lambda lines: "PAUSED" not in lines[0] and lines[0] != before[0], "time")
        terminal.press("q")
        terminal.ends(0)


def test_no_color_leaves_no_colours(used: NativeDevice) -> None:
    """NO_COLOR leaves bold, reverse and the like; without it there are colours."""
    for environment, coloured in [({"NO_COLOR": "1"}, False), ({"NO_COLOR": None}, True)]:
        with Terminal(top(used), cwd=ROOT, environment=environment) as terminal:
            terminal.shows("pools >", "CLASS")
            terminal.press("Down")
            seen = terminal.colours()
            assert bool(seen & set(range(30, 39)) or seen & set(range(90, 98))) == coloured
            assert 7 in seen
            terminal.press("q")
            terminal.ends(0)


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_ascii_where_the_locale_has_no_more(used: NativeDevice, locale: str) -> None:
    """Nothing but ASCII is drawn if the locale is not UTF-8; --no-ascii draws it all the same."""
    environment = {"LC_ALL": locale}
    with Terminal(top(used), cwd=ROOT, environment=environment) as terminal:
        lines = terminal.shows("pools >", "CLASS")
        assert "".join(lines).isascii() == (locale == "POSIX")
        terminal.press("q")
        terminal.ends(0)
    with Terminal(top(used, "--ascii"), cwd=ROOT) as terminal:
        assert "".join(terminal.shows("pools >", "CLASS")).isascii()
        terminal.press("q")
        terminal.ends(0)


@pytest.mark.parametrize("term", ["dumb", None])
def test_a_terminal_that_can_do_nothing_gets_plain_frames(
    used: NativeDevice, term: str | None
) -> None:
    """One line says why, and frames follow each other."""
    command = top(used, "--duration", "1")
    with Terminal(command, cwd=ROOT, environment={"TERM": term}) as terminal:
        left = terminal.ends(0)
        assert left.count("zpobs top  ") >= 2
        (line,) = terminal.stderr().splitlines()
        assert line.startswith("zpobs: plain frames")
        assert "TERM" in line


def test_without_the_library_there_are_plain_frames(used: NativeDevice) -> None:
    """One line says what is missing and how to get it."""
    code = "import sys; sys.modules['textual'] = None; from zpobs.cli import main; main()"
    command = [sys.executable, "-c", code, *top(used, "--duration", "1")[3:]]
    with Terminal(command, cwd=ROOT) as terminal:
        assert terminal.ends(0).count("zpobs top  ") >= 2
        (line,) = terminal.stderr().splitlines()
        assert "needs Textual" in line
        assert "python3-textual" in line


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_last_frame(used: NativeDevice, number: signal.Signals) -> None:
    """The terminal is as before, the pools' figures are on it, and the status is 0."""
    with Terminal(top(used), cwd=ROOT) as terminal:
        terminal.shows("pools >")
        subprocess.run(["kill", f"-{number.value}", str(terminal.pid("zpobs", "top"))], check=True)
        left = terminal.ends(0)
        assert "health exact" in left
        assert used.name in left
        assert terminal.stderr() == ""


def test_a_duration_ends_it(used: NativeDevice) -> None:
    """--duration ends the view by itself, and the log has every frame."""
    log = ROOT / "build" / "test-live.jsonl"
    log.unlink(missing_ok=True)
    command = top(used, "--duration", "2", "--log", str(log))
    with Terminal(command, cwd=ROOT) as terminal:
        terminal.shows("pools >")
        assert used.name in terminal.ends(0)
    frames = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    log.unlink()
    assert len(frames) >= 4
    assert {frame["pools"][0]["name"] for frame in frames} == {used.name}


def test_a_closed_window_ends_it_quietly(used: NativeDevice, tmp_path: Path) -> None:
    """Nobody is left to tell anything: no output, no process, no word of complaint."""
    errors = tmp_path / "errors"
    status = tmp_path / "status"
    script = f"{' '.join(top(used))} 2>{errors}; echo $? >{status}"
    with Terminal(["sh", "-c", f"trap '' HUP; ({script})"], cwd=ROOT) as terminal:
        terminal.shows("pools >")
        pid = terminal.pid("zpobs", "top")
        terminal.close()
        ended(pid)
    until_written(status)
    assert errors.read_text(encoding="utf-8") == ""
    assert status.read_text(encoding="utf-8") == "0\n"


def test_a_closed_window_ends_it_by_its_signal_too(used: NativeDevice, tmp_path: Path) -> None:
    """With SIGHUP as a shell's child has it, it ends as quietly."""
    errors = tmp_path / "errors"
    command = ["sh", "-c", f"exec {' '.join(top(used))} 2>{errors}"]
    with Terminal(command, cwd=ROOT) as terminal:
        terminal.shows("pools >")
        pid = terminal.pid("zpobs", "top")
        terminal.close()
        ended(pid)
    assert errors.read_text(encoding="utf-8") == ""


def ended(pid: int, timeout_s: float = 20) -> None:
    """Wait for the end of a process that is not our child."""
    end_s = time.monotonic() + timeout_s
    while Path(f"/proc/{pid}/exe").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < end_s, f"process {pid} did not end"
        time.sleep(0.05)


def until_written(path: Path, timeout_s: float = 20) -> None:
    end_s = time.monotonic() + timeout_s
    while not path.exists() or not path.read_bytes():
        assert time.monotonic() < end_s, f"{path} was not written"
        time.sleep(0.05)


def test_it_can_be_stopped_and_continued(used: NativeDevice) -> None:
    """Ctrl+Z gives the shell back and fg the view; where nobody could continue it nothing stops."""
    shell = ["bash", "--norc", "-i"]
    with Terminal(shell, cwd=ROOT, environment={"PS1": "ready "}, errors_apart=False) as terminal:
        terminal.type(" ".join(top(used)))
        terminal.press("Enter")
        terminal.shows("pools >")
        terminal.press("C-z")
        terminal.shows("ready")
        terminal.type("echo here $((6 * 7))")
        terminal.press("Enter")
        terminal.shows("here 42")
        terminal.type("fg")
        terminal.press("Enter")
        terminal.shows(f"pools > {used.name}", "CLASS")
        terminal.press("q")
        terminal.shows("health exact,", "ready")
        terminal.type("exit 0")
        terminal.press("Enter")
        terminal.ends(0)
    with Terminal(top(used), cwd=ROOT) as terminal:
        terminal.shows("pools >")
        terminal.press("C-z", "?")
        terminal.shows("KEYS")
        terminal.press("q")
        terminal.press("q")
        terminal.ends(0)


def test_a_bug_leaves_the_terminal_usable_and_a_traceback(used: NativeDevice) -> None:
    """The screen is given back before the traceback is shown, and the status is 70."""
    code = (
        "import zpobs.views.live.app as app\n"
        "def broken(*_): raise ValueError('broken on purpose')\n"
        "app.render = broken\n"
        "from zpobs.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *top(used)[3:]]
    with Terminal(command, cwd=ROOT) as terminal:
        terminal.ends(70)
        said = terminal.stderr().splitlines()
        assert said[0] == "Traceback (most recent call last):"
        assert said[-2:] == [
            "ValueError: broken on purpose",
            "zpobs: this is a bug in zpobs; please report the lines above",
        ]


@pytest.mark.parametrize("what", ["full", "read-only"])
def test_a_copy_that_cannot_be_written_is_told(used: NativeDevice, what: str) -> None:
    """The view says why and goes on; nothing is left of the file."""
    options = "size=4k" if what == "full" else "ro"
    script = (
        f"mount -t tmpfs -o {options} none /mnt && cd /mnt && "
        f"PYTHONPATH={ROOT} {' '.join(top(used))} && ls /mnt | wc -l"
    )
    with Terminal(["unshare", "--mount", "sh", "-c", script], columns=120, cwd=ROOT) as terminal:
        terminal.shows("pools >")
        terminal.press("c")
        reason = "No space left on device" if what == "full" else "Read-only file system"
        terminal.shows(f"not written: {reason}")
        terminal.press("Enter")
        terminal.shows("ADDRESS")
        terminal.press("q")
        assert "\n0\n" in terminal.ends(0)


def test_a_big_class_is_walked_through_without_delay(
    make_device: Callable[[str], NativeDevice],
) -> None:
    """Every one of many zspages can be reached; the last one is there at once."""
    device = make_device("1G")
    device.fill("incompressible", 100_000)
    with Terminal(top(device), cwd=ROOT) as terminal:
        terminal.shows("pools >", "CLASS")
        terminal.press("Enter")
        terminal.shows("row 1 of 100,000")
        terminal.press("End")
        terminal.shows("row 100,000 of 100,000")
        terminal.press("Home", "NPage")
        terminal.until(
            lambda lines: any(re.search(r"row (?!1 )\d+ of", each) for each in lines), "page"
        )
        terminal.press("q")
        terminal.ends(0)
