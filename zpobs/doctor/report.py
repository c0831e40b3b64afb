"""What a doctor says: checks, verdicts, and their JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

SCHEMA = 1

Answer = Literal["present", "absent", "unknown"]
Standing = Literal["works", "limited", "fails", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked for.

    ``found`` says what there is, or why it could not be found out. ``costs``
    is what zpobs cannot do for it, empty if it can do all; ``hint`` what to
    try then.
    """

    section: str
    name: str
    answer: Answer
    found: str = ""
    costs: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the check as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one part of zpobs stands here: in one word, and in words."""

    about: str
    standing: Standing
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Report:
    """All checks, in the order in which to read them, and what they come to.

    ``subject`` says what was judged: a release, or the name of a file.
    """

    subject: str
    checks: tuple[Check, ...]
    verdicts: tuple[Verdict, ...]

    @property
    def lacking(self) -> tuple[Check, ...]:
        """The checks that cost something."""
        return tuple(check for check in self.checks if check.costs)

    @property
    def hints(self) -> tuple[str, ...]:
        """What to try, once each."""
        return tuple(dict.fromkeys(check.hint for check in self.lacking if check.hint))

    def to_json(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return {
            "schema": SCHEMA,
            "subject": self.subject,
            "checks": [check.to_json() for check in self.checks],
            "verdicts": [verdict.to_json() for verdict in self.verdicts],
            "try": list(self.hints),
        }
