"""What a comparison finds: frozen values, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zpobs.snapshot import Status

Value = int | bool | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that the model and the kernel do not share.

    ``class_index`` is None for a sum over the pool, ``zspage`` (an address) None
    for a sum over the class. ``field`` is "zspage" where one of both does not
    have it: the value is then the number of its objects, None where it is not.
    ``frames`` of () are not known. ``standing`` is how far the model itself trusts
    its figure.
    """

    class_index: int | None
    zspage: int | None
    field: str
    shadow: Value
    kernel: Value
    standing: Status

    def to_json(self) -> dict[str, Any]:
        """Return one element of a ``differences`` array."""
        return {
            "class": self.class_index,
            "zspage": None if self.zspage is None else f"{self.zspage:#x}",
            "field": self.field,
            "shadow": list(self.shadow) if isinstance(self.shadow, tuple) else self.shadow,
            "kernel": list(self.kernel) if isinstance(self.kernel, tuple) else self.kernel,
            "standing": self.standing,
        }


@dataclass(frozen=True, slots=True)
class BusyClass:
    """A size class that changed during the scan: its objects, and what they may be.

    ``lowest`` and ``highest`` are None where no probe counts operations.
    ``standing`` is how far the model trusts its own figure.
    """

    index: int
    reason: str
    shadow: int
    kernel: int
    standing: Status
    lowest: int | None = None
    highest: int | None = None

    @property
    def outside(self) -> bool:
        """Whether the counted operations cannot explain the kernel's figure."""
        if self.lowest is None or self.highest is None:
            return False
        return not self.lowest <= self.kernel <= self.highest

    def to_json(self) -> dict[str, Any]:
        """Return one element of a ``busy`` array."""
        return {
            "class": self.index,
            "reason": self.reason,
            "shadow_objects": self.shadow,
            "kernel_objects": self.kernel,
            "lowest": self.lowest,
            "highest": self.highest,
            "outside": self.outside,
            "standing": self.standing,
        }


@dataclass(frozen=True, slots=True)
class ComparedClass:
    """A size class compared zspage by zspage; counts are the kernel's."""

    zspages: int
    frames: int
    objects: int
    shadow_objects: int
    differences: tuple[Difference, ...] = ()

    @property
    def disproved(self) -> bool:
        """Whether the model is wrong in a figure that it calls exact."""
        return any(each.standing == "exact" for each in self.differences)


@dataclass(frozen=True, slots=True)
class PoolComparison:
    """One pool: the classes that were compared, by index, and those that were busy.

    ``sums`` are differences of the whole pool, known only when no class was busy.
    """

    id: int
    name: str
    status: Status
    classes: Mapping[int, ComparedClass]
    busy: tuple[BusyClass, ...] = ()
    sums: tuple[Difference, ...] = ()

    @property
    def zspages(self) -> int:
        """Zspages of the kernel's that were compared."""
        return sum(each.zspages for each in self.classes.values())

    @property
    def frames(self) -> int:
        """Page frames of the kernel's that were compared."""
        return sum(each.frames for each in self.classes.values())

    @property
    def lonely(self) -> bool:
        """Whether only the model, or only the kernel, has this pool."""
        return any(each.field == "pool" for each in self.sums)

    @property
    def differences(self) -> tuple[Difference, ...]:
        """All differences: those of the pool, then by class, field by field."""
        of_classes = (self.classes[index].differences for index in sorted(self.classes))
        return (*self.sums, *(each for some in of_classes for each in some))

    @property
    def differs(self) -> bool:
        """Whether the model is proven wrong in anything."""
        return bool(self.differences) or any(each.outside for each in self.busy)

    @property
    def compared(self) -> bool:
        """Whether anything was verified: a class that holds zspages, or that none does."""
        return bool(self.classes) or not self.busy

    def to_json(self) -> dict[str, Any]:
        """Return one element of the ``pools`` array."""
        differences = self.differences
        return {
            "id": self.id,
            "name": self.name,
            "status": self.status,
            "verdict": "differs" if self.differs else "equal" if self.compared else "busy",
            "zspages": self.zspages,
            "frames": self.frames,
            "classes": len(self.classes),
            "busy": [each.to_json() for each in self.busy],
            "differences": [each.to_json() for each in differences],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """All pools; ``meanwhile`` are sentences on pools that came or went during the comparison."""

    pools: tuple[PoolComparison, ...]
    meanwhile: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """What happened between freezing the model and the end of the scan.

    ``busy`` is by pool id, then by class index; ``pools`` are the ids of those
    created or destroyed.
    """

    busy: Mapping[int, Mapping[int, BusyClass]] = field(default_factory=dict)
    pools: frozenset[int] = frozenset()
