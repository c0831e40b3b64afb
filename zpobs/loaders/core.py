"""The CO-RE loader: the prebuilt ``probes.bpf.o`` through the system's libbpf.

It needs neither compiler nor headers: libbpf fits the object to this kernel
with the kernel's own BTF, its modules' included.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping

from zpobs.bpf_files import bpf_object
from zpobs.host import probes_hint
from zpobs.kernel.hooks import Hook
from zpobs.kernel.plan import AttachForm, AttachWish, ProbePlan
from zpobs.loaders import MAPS, Attached, ProbesRefusedError, ring_too_large
from zpobs.loaders.libbpf import BpfObject, LibbpfError, check_libbpf
from zpobs.shortage import check_files, raise_shortage
from zpobs.wire import POOLS_MAX

# The helper that every program uses.
_READS = "bpf_probe_read_kernel"
# struct zs_setup of bpf/dialect_core.h: ring_bytes, vmemmap_base, births_on_insert.
_SETUP = struct.Struct("=QQQ")


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
                    program_fds, refusals = _attach_all(loaded, hooks, form)
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
        """Load the programs of all hooks, or, if one is refused, of those that are not.

        An object is loaded whole or not at all, so with ``sort_out`` each hook
        is tried alone.
        """
        try:
            return self._load_hooks(plan, plan.hooks, form, ring_bytes), {}
        except LibbpfError as error:
            if _no_ring(error):
                raise ring_too_large(ring_bytes) from error
            raise_shortage(error)
            # Not this or that program: the kernel wants none of the kind.
            of_the_kind = (error.errno == errno.EPERM and not error.verifier) or (
                # As under lockdown: no program may read what all of them do.
                f"cannot use helper {_READS}" in error.verifier
            )
            if of_the_kind or not sort_out:
                return None, dict.fromkeys(plan.hooks, error.explained())
        failed: dict[Hook, str] = {}
        for hook in plan.hooks:
            try:
                self._load_hooks(plan, [hook], form, ring_bytes).close()
            except LibbpfError as error:
                raise_shortage(error)
                failed[hook] = f"{hook.function}: {error.explained()}"
        good = [hook for hook in plan.hooks if hook not in failed]
        return (self._load_hooks(plan, good, form, ring_bytes) if good else None), failed

    def _load_hooks(
        self, plan: ProbePlan, hooks: Iterable[Hook], form: AttachForm, ring_bytes: int
    ) -> BpfObject:
        loaded = BpfObject(self._path)
        try:
            loaded.resize_map("zs_events", ring_bytes)
            loaded.resize_map("zs_class_counters", POOLS_MAX * plan.size_classes)
            setup = _SETUP.pack(ring_bytes, plan.vmemmap_base or 0, plan.births_on_insert)
            loaded.set_initial_value(".rodata.setup", setup)
            for hook in hooks:
                for program, _ in _programs(hook, form):
                    loaded.enable(program)
            loaded.load()
        except LibbpfError:
            loaded.close()
            raise
        return loaded


def _no_ring(error: LibbpfError) -> bool:
    """Tell whether it was memory for the ring that there was none of."""
    return error.errno in (errno.ENOMEM, errno.E2BIG) and "map 'zs_events'" in error.log


def _programs(hook: Hook, form: AttachForm) -> Iterator[tuple[str, str]]:
    """Yield the programs of a hook, in the order in which to attach them, and their moments."""
    for moment in hook.moments:
        if form == "fentry":
            kind = "fentry" if moment == "entry" else "fexit"
            yield f"{kind}__{hook.function}", moment
        elif moment == "entry":
            yield f"entry__{hook.function}", "entry"
        else:
            # The return first: an entry seen alone would be a call that never returns.
            yield f"return__{hook.function}", "return"
            yield f"call__{hook.function}", "call"


def _attach_all(
    loaded: BpfObject, hooks: Iterable[Hook], form: AttachForm
) -> tuple[dict[str, int], dict[Hook, str]]:
    """Attach hook by hook; return program descriptors by ``function/moment``, and refusals."""
    fds: dict[str, int] = {}
    failed: dict[Hook, str] = {}
    for hook in hooks:
        made = []
        try:
            for program, moment in _programs(hook, form):
                if form == "fentry":
                    made.append(loaded.attach(program))
                else:
                    at_return = moment == "return"
                    made.append(loaded.attach_kprobe(program, hook.function, at_return=at_return))
        except LibbpfError as error:
            raise_shortage(error)
            failed[hook] = f"{hook.function}: {error.reason}"
            # Half a hook is worse than none.
            for link in reversed(made):
                loaded.detach(link)
        else:
            fds |= {
                f"{hook.function}/{moment}": loaded.program_fd(program)
                for program, moment in _programs(hook, form)
            }
    return fds, failed
