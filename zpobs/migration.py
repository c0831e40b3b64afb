"""Page migrations that failed: with which errors, and which zspages refuse.

Frozen values that hang on a :class:`zpobs.snapshot.PoolView`.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Refusal:
    """A zspage of which a page could not be migrated: how often, why last, and when, wall-clock."""

    zspage: int
    class_index: int
    times: int
    error: int
    last_ns: int

    def to_json(self) -> dict[str, Any]:
        """Return one element of ``refusing``."""
        return {
            "zspage": f"{self.zspage:#x}",
            "class": self.class_index,
            "times": self.times,
            "error": error_name(self.error),
            "last_ns": self.last_ns,
        }


@dataclass(frozen=True, slots=True)
class PoolMigration:
    """The failures of a pool, by errno, negative; ``refusing`` are live zspages, the worst first.

    ``status`` is exact if the errors sum up to the failures that were counted. ``forgotten``
    failures are of zspages for which there was no place in the list, or that are no more.
    """

    status: Literal["exact", "bounded", "unknown"]
    errors: Mapping[int, int]
    refusing: tuple[Refusal, ...]
    forgotten: int

    def to_json(self, *, addresses: bool) -> dict[str, Any]:
        """Return the ``migration`` object of a pool; the zspages only with ``addresses``."""
        told: dict[str, Any] = {
            "status": self.status,
            "errors": {error_name(error): count for error, count in sorted(self.errors.items())},
        }
        if addresses:
            told["refusing"] = [each.to_json() for each in self.refusing]
            told["forgotten"] = self.forgotten
        return told


def error_name(error: int) -> str:
    """Return the name of a negative errno value, or the number where it has none."""
    return errno.errorcode.get(-error, str(error))
