"""``zpobs top`` and ``zpobs verify`` as child processes whose frames and rounds can be awaited."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ATTACH_TIMEOUT_S = 240.0
FRAME_TIMEOUT_S = 60.0


class Top:
    """A running ``zpobs top``: frames on its standard output, and with every zspage in a log."""

    def __init__(
        self, log: Path, arguments: Sequence[str], *, interval_s: float = 1.0, shown: bool = True
    ) -> None:
        log.unlink(missing_ok=True)
        self._log = log
        self._read_to = 0
        self._last: dict[str, Any] | None = None
        command = [sys.executable, "-m", "zpobs", "top", "--zspages", "--log", str(log)]
        self.process = subprocess.Popen(
            [*command, "--interval", str(interval_s), *arguments],
            stdout=None if shown else subprocess.DEVNULL,
        )

    def _lines(self, offset: int = 0) -> list[bytes]:
        """Return the lines that the log holds whole from an offset on."""
        if not self._log.exists():
            return []
        with self._log.open("rb") as file:
            file.seek(offset)
            return file.read().split(b"\n")[:-1]

    def frames(self) -> list[dict[str, Any]]:
        """Return the frames that the log holds whole, the oldest first."""
        return [json.loads(line) for line in self._lines()]

    def last_frame(self) -> dict[str, Any] | None:
        """Return the newest frame that the log holds whole, None if there is none yet."""
        # Asked often, of a log that grows long: each line is read once.
        lines = self._lines(self._read_to)
        if lines:
            self._read_to += sum(len(line) + 1 for line in lines)
            self._last = json.loads(lines[-1])
        return self._last

    def await_first(self, told: Callable[[str], None] = lambda _: None) -> None:
        """Wait until the probes are attached and a frame shows it."""

        def attached() -> bool:
            last = self.last_frame()
            return last is not None and last["health"]["hooks"] > 0

        self._await("the probes", ATTACH_TIMEOUT_S, attached, told)

    def frame_after(self, time_ns: int) -> dict[str, Any]:
        """Return the first frame whose state was read after a wall-clock time."""
        found: list[dict[str, Any]] = []

        def ready() -> bool:
            last = self.last_frame()
            if last and last["time_ns"] > time_ns:
                found.append(last)
            return bool(found)

        self._await("a frame", FRAME_TIMEOUT_S, ready, lambda _: None)
        return found[0]

    def _await(
        self, what: str, timeout_s: float, ready: Callable[[], bool], told: Callable[[str], None]
    ) -> None:
        begin_s = told_s = time.monotonic()
        while not ready():
            if self.process.poll() is not None:
                raise WatcherEndedError(f"zpobs top ended before {what}", self.process.returncode)
            now_s = time.monotonic()
            if now_s - begin_s > timeout_s:
                self.process.kill()
                raise WatcherEndedError(f"no {what} from zpobs top in {timeout_s:.0f} s", 1)
            if now_s - told_s > 10:
                told_s = now_s
                told(f"waiting for {what}, {now_s - begin_s:.0f} s")
            time.sleep(0.2)

    def stop(self) -> int:
        """End it as Ctrl-C would and return its status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(FRAME_TIMEOUT_S)


class Verify:
    """A running ``zpobs verify --json``, live; its rounds are kept in a log."""

    def __init__(self, log: Path, *arguments: str, interval_s: float = 1.0) -> None:
        self._log = log
        command = [sys.executable, "-m", "zpobs", "verify", "--json"]
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [*command, "--interval", str(interval_s), *arguments], stdout=out
            )

    def rounds(self) -> list[dict[str, Any]]:
        """Return all rounds until now, the oldest first."""
        return [json.loads(line) for line in self._log.read_text().split("\n")[:-1]]

    def await_round(self, time_ns: int, timeout_s: float) -> dict[str, Any]:
        """Return the first round whose model was frozen after a wall-clock time."""
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if self.process.poll() is not None:
                raise WatcherEndedError("zpobs verify ended", self.process.returncode)
            for each in self.rounds():
                if each["time_ns"] > time_ns:
                    return each
            time.sleep(0.2)
        raise WatcherEndedError(f"no round of zpobs verify in {timeout_s:.0f} s", 1)

    def stop(self) -> int:
        """End it and return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(FRAME_TIMEOUT_S)


@contextmanager
def paused(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Stop a process meanwhile, wherever it is."""
    process.send_signal(signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    while stat.read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


class WatcherEndedError(Exception):
    """``zpobs top`` did not give what it was watched for; ``status`` is what it ended with."""

    def __init__(self, problem: str, status: int) -> None:
        super().__init__(problem)
        self.status = status
