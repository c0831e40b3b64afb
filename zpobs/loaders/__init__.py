"""Loaders turn the C in ``bpf/`` into attached programs and hand back file descriptors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from zpobs import advice
from zpobs.bpf_files import StaleObjectError
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.hooks import Hook
from zpobs.kernel.plan import AttachForm, AttachWish, ProbePlan

LoaderName = Literal["auto", "core", "bcc"]

# The maps that every loader hands out.
MAPS = (
    "zs_events",
    "zs_pools",
    "zs_free_places",
    "zs_class_counters",
    "zs_pool_counters",
    "zs_loss",
)


class ProbesRefusedError(EnvironmentLacksError):
    """The loader is all there, but the kernel lets it attach no probe; ``found`` says why."""


def ring_too_large(ring_bytes: int) -> EnvironmentLacksError:
    """Return the error for a ring that the kernel has no memory for."""
    return EnvironmentLacksError(
        "the ring of events cannot be made",
        found=f"not enough memory for {ring_bytes >> 10:,} KiB",
        hint=f"{advice.SMALLER_RING}, or any smaller than this",
    )


@dataclass(frozen=True, slots=True)
class Attached:
    """Attached programs: file descriptors and what could not be had.

    ``form`` tells how every function was attached. ``map_fds`` has every map of
    ``MAPS``, ``program_fds`` every program as ``function/moment``. ``failed``
    gives the hooks that the kernel refused, each with its reason.
    """

    form: AttachForm
    ring_bytes: int
    map_fds: Mapping[str, int]
    program_fds: Mapping[str, int]
    failed: Mapping[Hook, str]
    close: Callable[[], None] = field(repr=False)


class Loader(Protocol):
    """Anything that attaches a plan."""

    def attach(
        self,
        plan: ProbePlan,
        *,
        wish: AttachWish,
        ring_bytes: int,
        prepare: Callable[[Mapping[str, int]], None],
    ) -> Attached:
        """Attach what the plan lists.

        ``prepare`` gets the map descriptors before the first probe runs; with
        ``wish="auto"`` it may be called again for the maps of a second form.
        Raise ProbesRefusedError if the kernel refuses every hook, another
        EnvironmentLacksError if the loader itself lacks something.
        """
        ...


def make_loader(name: LoaderName) -> Loader:
    """Return the loader of this name; ``auto`` is core where its parts are there, else bcc.

    Raise EnvironmentLacksError if core is asked for, or bcc is not there
    either, and core lacks something; also if its object is out of date.
    """
    from zpobs.loaders import bcc, core  # noqa: PLC0415 - they build on this module

    if name == "bcc":
        return bcc.BccLoader()
    try:
        return core.CoreLoader()
    except StaleObjectError:
        raise
    except EnvironmentLacksError:
        if name == "core" or not bcc.is_there():
            raise
        return bcc.BccLoader()
