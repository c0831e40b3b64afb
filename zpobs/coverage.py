"""What attached probes cover of a pool's state and counts, and what they leave unseen."""

from __future__ import annotations

from zpobs.host import why_no_frames
from zpobs.kernel.plan import ProbePlan
from zpobs.loaders import Attached
from zpobs.model.inputs import Coverage


def no_probes(plan: ProbePlan, reason: str) -> Coverage:
    """Return what is covered without any probe, for a reason."""
    return Coverage(
        hooks=0, missed_hooks=tuple(hook.function for hook in plan.hooks), why_no_hooks=reason
    )


def coverage_of(plan: ProbePlan, attached: Attached) -> Coverage:
    """Return what the attached hooks of a plan see and count."""
    lacking = (*plan.missing, *attached.failed)
    unseen = [f"{hook.unseen}: {hook.function} is not attached" for hook in lacking if hook.unseen]
    if plan.vmemmap_base is None:
        unseen.append(f"page frames: {why_no_frames()}")
    uncounted = {name for hook in lacking for name in hook.uncounted}
    if plan.realtime:
        # Spinlocks leave preemption on there, and who called whom on a CPU is not known.
        uncounted |= {"allocs", "frees", "moves"}
    return Coverage(
        hooks=len(plan.hooks) - len(attached.failed),
        missed_hooks=tuple(hook.function for hook in lacking),
        uncounted=frozenset(uncounted),
        unseen=tuple(unseen),
        untold=tuple(
            f"{hook.untold}: {hook.function} is not attached" for hook in lacking if hook.untold
        ),
    )
