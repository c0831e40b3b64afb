"""What is gathered beside the model while probes are attached: the add-ons that were asked for."""

from __future__ import annotations

from typing import Protocol

from zpobs.kernel.plan import ProbePlan
from zpobs.latency_probes import LatencyProbes
from zpobs.loaders import Attached
from zpobs.model.objects import ObjectLedger
from zpobs.object_probes import ObjectProbes
from zpobs.snapshot import Snapshot
from zpobs.wishes import Wishes


class _AddOn(Protocol):
    """One of them; none is ever needed, and what it cannot do it tells itself."""

    def attach(self, plan: ProbePlan, probes: Attached) -> None: ...

    def refuse(self, reason: str) -> None: ...

    def read(self) -> None: ...

    def added_to(self, snapshot: Snapshot) -> Snapshot: ...

    def close(self) -> None: ...


class Extras:
    """All add-ons of one session; ``ledger`` is what the model keeps of objects, if anything."""

    def __init__(self, wishes: Wishes) -> None:
        self.ledger: ObjectLedger | None = None
        self._addons: list[_AddOn] = [LatencyProbes()] if wishes.latency else []
        if wishes.objects:
            objects = ObjectProbes(wishes.objects, timed=wishes.timed_objects)
            self.ledger = objects.ledger
            self._addons.append(objects)

    def attach(self, plan: ProbePlan, probes: Attached) -> None:
        """Attach them beside attached probes."""
        for each in self._addons:
            each.attach(plan, probes)

    def refuse(self, reason: str) -> None:
        """Note that no probe is attached, for a reason."""
        for each in self._addons:
            each.refuse(reason)

    def read(self) -> None:
        """Read what was lost, so that the model knows before it says what it has."""
        for each in self._addons:
            each.read()

    def added_to(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot with what the add-ons tell."""
        for each in self._addons:
            snapshot = each.added_to(snapshot)
        return snapshot

    def close(self) -> None:
        """Detach them."""
        for each in self._addons:
            each.close()
