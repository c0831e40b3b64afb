"""What can be known of a host, or not: the facts that are judged, and nothing that touches one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from zpobs.kernel.btf import Btf
from zpobs.kernel.facts import KernelFacts
from zpobs.kernel.plan import AttachForm

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Absent:
    """Something that is not there: what was found instead, and what to try."""

    found: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that could not be found out: why, and what to try."""

    reason: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class AttachTrial:
    """What became of attaching every hook for a moment: functions, and refusals by function."""

    attached: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScanTrial:
    """What the loaded scanner found.

    ``frames`` and ``direct_map`` tell whether page frames and the content of
    pages can be located. ``missing`` holds sentences about pools that are in
    use and were not found.
    """

    frames: bool
    direct_map: bool
    pools: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Everything that a host's report is made of.

    ``kernel`` is known as soon as there is BTF. ``module_btf`` names those of
    zsmalloc and zram that have BTF of their own; ``zram`` maps the devices to
    whether they have a pool, ``zswap`` is its backend where it is enabled.
    ``files_left`` is how many files could still be opened, of ``files_wanted`` that a
    session takes at most; ``files_limit`` is the limit on all. ``trials`` are
    attempts of the core loader. ``available_bytes`` is of memory, ``ring_bytes``
    what a session takes of it.
    """

    release: str
    page_size: int
    kernel: KernelFacts | Absent | Unknown
    module_btf: frozenset[str]
    zram: Mapping[str, bool] | Absent
    zswap: str | Absent | Unknown
    user: int
    capabilities: frozenset[str]
    lockdown: str | Absent | Unknown
    files_limit: int
    files_left: int
    files_wanted: int
    sysctls: Mapping[str, str | Absent | Unknown]
    libbpf: str | Absent
    objects: Mapping[str, str | Absent]
    bcc: str | Absent
    headers: str | Absent
    trials: Mapping[AttachForm, AttachTrial | Absent | Unknown]
    scanner: ScanTrial | Absent | Unknown
    available_bytes: int | Unknown
    ring_bytes: int
    witnesses: Mapping[str, str | Absent | Unknown]

    @property
    def form(self) -> AttachForm | None:
        """The form in which a session would attach its probes; None if in neither.

        As the loaders choose: fentry if it takes every hook, or if there are no
        kprobes; else kprobes, if they take any.
        """
        fentry, kprobe = self.trials["fentry"], self.trials["kprobe"]
        kprobes = isinstance(self.kernel, KernelFacts) and self.kernel.kprobes
        complete = isinstance(fentry, AttachTrial) and not fentry.failed
        if isinstance(fentry, AttachTrial) and fentry.attached and (complete or not kprobes):
            return "fentry"
        if isinstance(kprobe, AttachTrial) and kprobe.attached:
            return "kprobe"
        return None

    @property
    def btf(self) -> Btf | None:
        """The kernel's BTF, None if there is none or it could not be read."""
        return self.kernel.btf if isinstance(self.kernel, KernelFacts) else None
