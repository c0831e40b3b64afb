"""Loaders turn the C in ``bpf/`` into attached programs and hand back file descriptors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from zpobs.kernel.hooks import Hook
from zpobs.kernel.plan import AttachForm, AttachWish, ProbePlan

LoaderName = Literal["auto", "bcc"]


@dataclass(frozen=True, slots=True)
class Attached:
    """Attached programs: file descriptors and what could not be had.

    ``form`` tells how every function was attached. ``map_fds`` has every map of
    ``bpf/dialect_*.h`` by name, ``program_fds`` every program as
    ``function/moment``. ``failed`` gives the hooks that the kernel refused, each with its reason.
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
        """Attach what the plan lists; raise EnvironmentLacksError if nothing can be.

        ``prepare`` gets the map descriptors before the first probe runs; with
        ``wish="auto"`` it may be called again for the maps of a second form.
        """
        ...


def make_loader(name: LoaderName) -> Loader:
    """Return the loader of this name; ``auto`` takes the best that there is."""
    from zpobs.loaders.bcc import BccLoader  # noqa: PLC0415 - bcc is wanted only here

    assert name in ("auto", "bcc")
    return BccLoader()
