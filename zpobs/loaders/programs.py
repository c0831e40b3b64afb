"""The programs of a probe object: which a hook has, loading what the kernel takes, attaching."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from zpobs.kernel.hooks import Hook
from zpobs.kernel.plan import AttachForm, ProbePlan
from zpobs.loaders.libbpf import BpfObject, LibbpfError
from zpobs.shortage import raise_shortage

# The helper that every program uses.
_READS = "bpf_probe_read_kernel"
# struct zs_setup of bpf/dialect_core.h: ring_bytes, vmemmap_base, births_on_insert.
_SETUP = struct.Struct("=QQQ")


def setup_value(plan: ProbePlan, ring_bytes: int) -> bytes:
    """Return the constants that every probe object has (``.rodata.setup``)."""
    return _SETUP.pack(ring_bytes, plan.vmemmap_base or 0, plan.births_on_insert)


def load_programs(
    path: Path,
    hooks: Iterable[Hook],
    form: AttachForm,
    prepare: Callable[[BpfObject], None],
    *,
    sort_out: bool,
) -> tuple[BpfObject | None, dict[Hook, str]]:
    """Load the programs of all hooks, or, if one is refused, of those that are not.

    ``prepare`` sets maps and constants of the opened object. An object is loaded
    whole or not at all, so with ``sort_out`` each hook is tried alone. Return
    what was loaded, if anything, and the reasons of the hooks that were refused.
    Raise LibbpfError if it was the ring that there was no memory for.
    """
    hooks = tuple(hooks)
    try:
        return load_all(path, hooks, form, prepare), {}
    except LibbpfError as error:
        if error.errno in (errno.ENOMEM, errno.E2BIG) and "map 'zs_events'" in error.log:
            raise
        raise_shortage(error)
        # Not this or that program: the kernel wants none of the kind.
        of_the_kind = (error.errno == errno.EPERM and not error.verifier) or (
            # As under lockdown: no program may read what all of them do.
            f"cannot use helper {_READS}" in error.verifier
        )
        if of_the_kind or not sort_out:
            return None, dict.fromkeys(hooks, error.explained())
    failed: dict[Hook, str] = {}
    for hook in hooks:
        try:
            load_all(path, [hook], form, prepare).close()
        except LibbpfError as error:
            raise_shortage(error)
            failed[hook] = f"{hook.function}: {error.explained()}"
    good = [hook for hook in hooks if hook not in failed]
    return (load_all(path, good, form, prepare) if good else None), failed


def load_all(
    path: Path, hooks: Iterable[Hook], form: AttachForm, prepare: Callable[[BpfObject], None]
) -> BpfObject:
    """Load the programs of all hooks; raise LibbpfError if one is refused."""
    loaded = BpfObject(path)
    try:
        prepare(loaded)
        for hook in hooks:
            for program, _ in programs_of(hook, form):
                loaded.enable(program)
        loaded.load()
    except LibbpfError:
        loaded.close()
        raise
    return loaded


def programs_of(hook: Hook, form: AttachForm) -> Iterator[tuple[str, str]]:
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


def attach_programs(
    loaded: BpfObject, hooks: Iterable[Hook], form: AttachForm
) -> tuple[dict[str, int], dict[Hook, str]]:
    """Attach hook by hook; return program descriptors by ``function/moment``, and refusals."""
    fds: dict[str, int] = {}
    failed: dict[Hook, str] = {}
    for hook in hooks:
        made = []
        try:
            for program, moment in programs_of(hook, form):
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
                for program, moment in programs_of(hook, form)
            }
    return fds, failed
