"""Errors that users see: what failed, what was found, what to try, exit status."""

from __future__ import annotations

import contextlib
import sys

EXIT_OK = 0
EXIT_FINDING = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3
EXIT_BAD_INPUT = 4
EXIT_LOST_GUEST = 5
EXIT_BUG = 70


class ZpobsError(Exception):
    """An expected failure, told to the user in one line and by an exit status."""

    exit_status = EXIT_BUG

    def __init__(self, problem: str, *, found: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.found = found
        self.hint = hint

    def __str__(self) -> str:
        line = self.problem
        if self.found:
            line += f"; found: {self.found}"
        if self.hint:
            line += f"; try: {self.hint}"
        return _escaped(line)


def warn(words: str) -> None:
    """Write a line to standard error, if that takes any: nothing ends because it does not."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"zpobs: {words}\n")


def _escaped(text: str) -> str:
    """Return text in which what would move a terminal's cursor or colours is written out."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


class UsageError(ZpobsError):
    """The command line asks for something that cannot be."""

    exit_status = EXIT_USAGE


class EnvironmentLacksError(ZpobsError):
    """The host lacks something that the command needs."""

    exit_status = EXIT_ENVIRONMENT


class ShortageError(EnvironmentLacksError):
    """Something ran out that any part needs, such as memory: no reason to go on without a part."""


class BadInputError(ZpobsError):
    """A file that was given is not what it should be."""

    exit_status = EXIT_BAD_INPUT


class StateError(BadInputError):
    """The state of a model, which a file gave, is none that a model can have."""


class RecordError(ZpobsError):
    """Bytes that should be records of ours are not: a bug, never bad luck."""
