"""Add-ons: BPF objects beside the probes, which use the probes' maps and add programs of their own.

They are prebuilt and need libbpf, whichever loader attached the probes, and take
the form that those took. Nothing of an add-on is ever needed: what the kernel
refuses is told, and the rest goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from zpobs.bpf_files import bpf_object
from zpobs.errors import EnvironmentLacksError
from zpobs.host import probes_hint
from zpobs.kernel.hooks import Hook
from zpobs.kernel.plan import ProbePlan
from zpobs.loaders import MAPS, Attached, ProbesRefusedError
from zpobs.loaders.libbpf import BpfObject, LibbpfError, check_libbpf
from zpobs.loaders.programs import attach_programs, load_programs, setup_value
from zpobs.shortage import check_files, shortage


@dataclass(frozen=True, slots=True)
class AddOn:
    """An object file and what it wants.

    ``hooks`` are those of its functions that the kernel has. ``maps`` are the names
    of its own maps, ``sizes`` the number of elements of those that are not as the
    object has them, ``values`` the contents of its variables (``.rodata.x``).
    """

    object_name: str
    hooks: tuple[Hook, ...]
    maps: tuple[str, ...]
    sizes: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttachedAddOn:
    """Its attached programs (``function/moment``) and own maps, as file descriptors."""

    map_fds: Mapping[str, int]
    program_fds: Mapping[str, int]
    failed: Mapping[Hook, str]
    close: Callable[[], None] = field(repr=False)


def attach_addon(addon: AddOn, plan: ProbePlan, probes: Attached) -> AttachedAddOn:
    """Attach an add-on beside attached probes.

    Raise ProbesRefusedError if the kernel refuses all of it, another
    EnvironmentLacksError if there is no libbpf, or no room.
    """
    check_libbpf()
    check_files()

    def prepare(loaded: BpfObject) -> None:
        for name in MAPS:
            loaded.share_map(name, probes.map_fds[name])
        for name, elements in addon.sizes.items():
            loaded.resize_map(name, elements)
        loaded.set_initial_value(".rodata.setup", setup_value(plan, probes.ring_bytes))
        for name, value in addon.values.items():
            loaded.set_initial_value(name, value)

    path = bpf_object(addon.object_name)
    try:
        loaded, failed = load_programs(path, addon.hooks, probes.form, prepare, sort_out=True)
    except LibbpfError as error:
        raise shortage(error) or _refused(error.explained()) from error
    if loaded is None:
        raise _refused(next(iter(failed.values()), "none of its functions is there"))
    try:
        map_fds = {name: loaded.map_fd(name) for name in addon.maps}
        hooks = [hook for hook in addon.hooks if hook not in failed]
        program_fds, refusals = attach_programs(loaded, hooks, probes.form)
    except BaseException:
        loaded.close()
        raise
    if not program_fds:
        loaded.close()
        raise _refused(next(iter(refusals.values()), "nothing attached"))
    return AttachedAddOn(map_fds, program_fds, failed | refusals, loaded.close)


def _refused(found: str) -> EnvironmentLacksError:
    return ProbesRefusedError("an add-on could not be attached", found=found, hint=probes_hint())
