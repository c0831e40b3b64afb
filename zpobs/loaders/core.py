"""The CO-RE loader: the prebuilt ``probes.bpf.o`` through the system's libbpf.

It needs neither compiler nor headers: libbpf fits the object to this kernel
with the kernel's own BTF, its modules' included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zpobs.bpf_files import bpf_object
from zpobs.host import probes_hint
from zpobs.kernel.hooks import Hook
from zpobs.kernel.plan import AttachForm, AttachWish, ProbePlan
from zpobs.loaders import MAPS, Attached, ProbesRefusedError, ring_too_large
from zpobs.loaders.libbpf import BpfObject, LibbpfError, check_libbpf
from zpobs.loaders.programs import attach_programs, load_programs, setup_value
from zpobs.shortage import check_files
from zpobs.wire import POOLS_MAX


class CoreLoader:
    """Loads and attaches the prebuilt object; raise EnvironmentLacksError if it cannot here."""

    def __init__(self) -> None:
        self._path = bpf_object("probes.bpf.o")
        check_libbpf()

    def attach(
        self,
        plan: ProbePlan,
        *,
        wish: AttachWish,
        ring_bytes: int,
        prepare: Callable[[Mapping[str, int]], None],
    ) -> Attached:
        """Attach every hook of the plan; see :class:`zpobs.loaders.Loader`."""
        check_files()
        refused: list[str] = []
        candidates = plan.forms(wish)
        for form in candidates:
            if form == "kprobe" and not plan.kprobes:
                refused.append("kprobe: this kernel has no kprobes")
                continue
            last = form == candidates[-1]
            loaded, failed = self._load(plan, form, ring_bytes, sort_out=last)
            if loaded is not None:
                hooks = [hook for hook in plan.hooks if hook not in failed]
                try:
                    map_fds = {name: loaded.map_fd(name) for name in MAPS}
                    prepare(map_fds)
                    program_fds, refusals = attach_programs(loaded, hooks, form)
                except BaseException:
                    loaded.close()
                    raise
                failed |= refusals
                if program_fds and (last or not failed):
                    return Attached(
                        form=form,
                        ring_bytes=ring_bytes,
                        map_fds=map_fds,
                        program_fds=program_fds,
                        failed=failed,
                        close=loaded.close,
                    )
                loaded.close()
            refused += [f"{form}: {reason}" for reason in list(failed.values())[:1]]
        raise ProbesRefusedError(
            "no probe could be attached",
            found="; ".join(refused) or "no hook in the plan",
            hint=probes_hint(),
        )

    def _load(
        self, plan: ProbePlan, form: AttachForm, ring_bytes: int, *, sort_out: bool
    ) -> tuple[BpfObject | None, dict[Hook, str]]:
        def prepare(loaded: BpfObject) -> None:
            prepare_maps(loaded, plan, ring_bytes)

        try:
            return load_programs(self._path, plan.hooks, form, prepare, sort_out=sort_out)
        except LibbpfError as error:
            raise ring_too_large(ring_bytes) from error


def prepare_maps(loaded: BpfObject, plan: ProbePlan, ring_bytes: int) -> None:
    """Set the sizes of maps and the constants of the opened ``probes.bpf.o``."""
    loaded.resize_map("zs_events", ring_bytes)
    loaded.resize_map("zs_class_counters", POOLS_MAX * plan.size_classes)
    loaded.set_initial_value(".rodata.setup", setup_value(plan, ring_bytes))
