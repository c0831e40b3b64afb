"""What a long run in a guest tells of its steps."""

from __future__ import annotations

import sys
import time


class Story:
    """Tells each step on standard error, so that it never lies between the lines of a frame.

    On a terminal the live view has the whole screen: there the steps are kept until it is over.
    """

    def __init__(self, teller: str) -> None:
        self._teller = teller
        self._kept: list[str] | None = None
        self._begin_s = time.monotonic()

    def hold(self) -> None:
        """Keep what is said from now on."""
        self._kept = []

    def release(self) -> None:
        """Tell what was kept; what is said from now on is told at once."""
        for line in self._kept or []:
            sys.stderr.write(line)
        sys.stderr.flush()
        self._kept = None

    def say(self, text: str) -> None:
        """Tell a step, and when it was taken."""
        line = f"{self._teller}: {time.monotonic() - self._begin_s:3.0f} s: {text}\n"
        if self._kept is None:
            sys.stderr.write(line)
            sys.stderr.flush()
        else:
            self._kept.append(line)
