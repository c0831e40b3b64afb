"""A terminal to run commands in: tmux on a socket of its own, read as text."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SGR = re.compile(r"\x1b\[([\d;:]*)m")


class Terminal:
    """One window of a tmux server of our own, in which a command runs to its end.

    Below the command's own output the window tells its status; what the settings
    of the terminal were before and after is kept. Standard error goes to a file if
    ``errors_apart``. Usable as a context manager.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        columns: int = 80,
        rows: int = 24,
        environment: Mapping[str, str | None] | None = None,
        cwd: Path | None = None,
        errors_apart: bool = True,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="terminal-")
        self._socket = str(Path(self._folder.name) / "tmux")
        changes = [
            f"-u {name}" if value is None else f"{name}={shlex.quote(value)}"
            for name, value in (environment or {}).items()
        ]
        line = f"env {' '.join(changes)} {shlex.join(command)}"
        if errors_apart:
            line += f" 2>{self._path('stderr')}"
        script = (
            f"stty -g >{self._path('before')}\n"
            f"{line}\n"
            'echo "ended with status $?"\n'
            f"stty -g >{self._path('after')}\n"
            "exec sleep infinity\n"
        )
        Path(self._path("script")).write_text(script, encoding="utf-8")
        place = ["-c", str(cwd)] if cwd else []
        self._tmux("-f", "/dev/null", "new-session", "-d", *place, "-x", str(columns), "-y",
                   str(rows), f"sh {self._path('script')}")  # fmt: skip

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False)
        self._folder.cleanup()

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names or as characters."""
        for key in keys:
            self._tmux("send-keys", key)

    def type(self, text: str) -> None:
        """Type characters as they are."""
        self._tmux("send-keys", "-l", "--", text)

    def resize(self, columns: int, rows: int) -> None:
        """Change the window's size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def close(self) -> None:
        """Close the window, as a person closes one."""
        self._tmux("kill-session")

    def lines(self) -> list[str]:
        """Return what is on the screen, without blanks at the ends of lines."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p").splitlines()]

    def history(self) -> str:
        """Return the normal screen from its first line on."""
        return self._tmux("capture-pane", "-p", "-S", "-")

    def colours(self) -> set[int]:
        """Return the numbers of all colours and attributes on the screen."""
        shown = self._tmux("capture-pane", "-p", "-e")
        return {
            int(number or 0) for found in _SGR.findall(shown) for number in re.split("[;:]", found)
        }

    def shows(self, *texts: str, timeout_s: float = 30) -> list[str]:
        """Wait until the screen shows all texts, and return it."""
        return self.until(
            lambda lines: all(any(text in line for line in lines) for text in texts),
            f"{texts}",
            timeout_s,
        )

    def until(
        self, right: Callable[[list[str]], bool], what: str, timeout_s: float = 30
    ) -> list[str]:
        """Wait until the screen is right, and return it; AssertionError shows what there was."""
        end_s = time.monotonic() + timeout_s
        while True:
            lines = self.lines()
            if right(lines):
                return lines
            assert time.monotonic() < end_s, "\n".join([f"no {what} on", *lines, self.stderr()])
            time.sleep(0.05)

    def ends(self, status: int, timeout_s: float = 30) -> str:
        """Wait for the end, with this status and the terminal as it was; return what is left."""
        self.shows(f"ended with status {status}", timeout_s=timeout_s)
        flags = self._tmux(
            "display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"
        )
        assert flags.split() == ["0", "1", "0"]
        self._written("after")
        assert self._read("after") == self._read("before")
        return self.history()

    def pid(self, *words: str) -> int:
        """Return the process in the window whose command line has these words."""
        top = self._tmux("display-message", "-p", "#{pane_pid}").strip()
        for pid in _descendants(int(top)):
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if all(word.encode() in line for word in words) and b"env" not in line[:1]:
                return pid
        raise AssertionError(f"no process {words} in the window")

    def stderr(self) -> str:
        """Return what the command wrote to standard error."""
        return self._read("stderr")

    def _tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", self._socket, *arguments]
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        done = subprocess.run(command, check=True, capture_output=True, env=environment)
        return done.stdout.decode()

    def _path(self, name: str) -> str:
        return str(Path(self._folder.name) / name)

    def _read(self, name: str) -> str:
        path = Path(self._path(name))
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def _written(self, name: str) -> None:
        end_s = time.monotonic() + 10
        while not self._read(name) and time.monotonic() < end_s:
            time.sleep(0.02)


def _descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(each for child in children for each in _descendants(int(child)))]
