"""What is gathered beside the model, by programs of its own: how well that went.

Frozen values that hang on :class:`zpobs.snapshot.Health`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class MapFill:
    """A map of bounded size in the kernel: ``used`` of ``size`` elements, ``refused`` found none.

    ``used`` is None where the kernel does not tell.
    """

    name: str
    used: int | None
    size: int
    refused: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return one element of ``maps``."""
        return {"name": self.name, "used": self.used, "size": self.size, "refused": self.refused}


@dataclass(frozen=True, slots=True)
class AddOnView:
    """One add-on: ``latency`` or another.

    ``status`` is that of what it tells as a whole, ``reasons`` are sentences why it is
    no better; ``hooks`` are its attached ones, ``missed_hooks`` could not be had.
    """

    name: str
    status: Literal["exact", "bounded", "unknown"]
    reasons: tuple[str, ...]
    hooks: int
    missed_hooks: tuple[str, ...]
    maps: tuple[MapFill, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one element of the ``addons`` of ``health``."""
        return {
            "name": self.name,
            "status": self.status,
            "reasons": list(self.reasons),
            "hooks": self.hooks,
            "missed_hooks": list(self.missed_hooks),
            "maps": [each.to_json() for each in self.maps],
        }
