"""The add-on that tells of objects one by one, for a session that asked for it.

Whatever it cannot do is told in its own part of a snapshot; the rest goes on.
"""

from __future__ import annotations

import time
from dataclasses import replace

from zpobs.addons import AddOnView, MapFill
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.hooks import OBJECT_HOOKS, Hook, object_hooks
from zpobs.kernel.plan import ProbePlan
from zpobs.loaders import Attached
from zpobs.loaders.addon import AddOn, AttachedAddOn, attach_addon
from zpobs.model.objects import ObjectLedger
from zpobs.objects import Sampling
from zpobs.snapshot import Snapshot, Status
from zpobs.sources.objects import MAPS, ObjectSource

_NAME = "objects"
_BLOCKS = ("slot_free", "zram_free_page")
# Sets of functions of which a kernel has one at most -> whose pools, what nothing tells without.
_NEEDED = (
    (("zswap_store", "zswap_frontswap_store"), "zswap", "swap slots and cgroups"),
    (_BLOCKS, "zram", "blocks"),
    (("zram_submit_bio",), "zram", "cgroups of pages (the storing task's are told)"),
)


class ObjectProbes:
    """The ledger of told objects and what fills it."""

    def __init__(self, sampling: Sampling, *, timed: bool = False) -> None:
        self.ledger = ObjectLedger(sampling)
        self._timed = timed
        self._attached: AttachedAddOn | None = None
        self._source: ObjectSource | None = None
        self._hooks: tuple[Hook, ...] = ()
        self._missed: tuple[str, ...] = ()
        self._view: AddOnView | None = None

    def attach(self, plan: ProbePlan, probes: Attached) -> None:
        """Attach beside attached probes."""
        hooks = object_hooks(timed=self._timed)
        wanted = [hook for hook in hooks if hook.function in plan.functions]
        if not plan.births_on_insert:
            wanted = [hook for hook in wanted if hook.function != "insert_zspage"]
        blocks = not {hook.function for hook in wanted}.isdisjoint(_BLOCKS)
        values = {".rodata.sampling": self.ledger.sampling.setup(blocks=blocks, timed=self._timed)}
        try:
            attached = attach_addon(
                AddOn("objects.bpf.o", tuple(wanted), MAPS, values=values), plan, probes
            )
        except EnvironmentLacksError as error:
            self.refuse(error.found or error.problem)
            return
        self._attached = attached
        self._hooks = tuple(hook for hook in wanted if hook not in attached.failed)
        self._source = ObjectSource(
            attached.map_fds, attached.program_fds, probes.map_fds["zs_loss"]
        )
        hooked = {hook.function for hook in self._hooks}
        essential = [hook.function for hook in OBJECT_HOOKS if hook.unseen]
        lacking = [name for name in essential if name not in hooked]
        partly = []
        for functions, owner, what in _NEEDED:
            if hooked.isdisjoint(functions):
                partly.append((owner, f"{what} are unknown: no {' or '.join(functions)} to hook"))
        self._missed = (*lacking, *(hook.function for hook in attached.failed))
        why_not = f"not hooked: {', '.join(lacking)}" if lacking else ""
        self.ledger.begin(time.monotonic_ns(), why_not, tuple(partly))

    def refuse(self, reason: str) -> None:
        """Note that no probe is attached, for a reason."""
        self.ledger.begin(0, f"no probe tells of objects: {reason}")

    def read(self) -> None:
        """Read what was lost, so that the model knows before it says what it has."""
        maps: tuple[MapFill, ...] = ()
        if self._source:
            reading = self._source.read()
            self.ledger.losses = reading.losses
            maps = reading.maps
        held = self.ledger.fill()
        reasons = self.ledger.losses
        status: Status = "bounded" if reasons or held.refused else "exact"
        if self.ledger.no_programs:
            status, reasons = "unknown", (self.ledger.no_programs,)
        self._view = AddOnView(
            _NAME, status, reasons, len(self._hooks), self._missed, (*maps, held)
        )

    def added_to(self, snapshot: Snapshot) -> Snapshot:
        """Return a snapshot that tells how it goes."""
        if self._view is None:
            return snapshot
        health = snapshot.health
        return replace(snapshot, health=replace(health, addons=(*health.addons, self._view)))

    def close(self) -> None:
        """Detach it."""
        if self._attached:
            self._attached.close()
