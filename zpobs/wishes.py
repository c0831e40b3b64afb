"""What the command line asks of a session."""

from __future__ import annotations

from dataclasses import dataclass

from zpobs.kernel.plan import AttachWish
from zpobs.loaders import LoaderName
from zpobs.objects import Sampling

DEFAULT_RESCAN_S = 60.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """How to load and attach, and what to look at.

    ``scan`` False feeds the model by probes alone. ``rescan_s`` is the slow
    clock of scans, 0 for none. ``pool`` is the only one that is looked at. ``life`` keeps books of
    the lives of zspages, ``latency`` measures how long calls take, ``compaction`` makes a
    forecast of one with each snapshot, ``objects`` has those of its handles told one by one,
    ``timed_objects`` each with how long its allocation took; ``timed`` has the kernel time BPF
    programs.
    """

    loader: LoaderName = "auto"
    attach: AttachWish = "auto"
    skip: frozenset[str] = frozenset()
    ring_bytes: int = 1 << 24
    pool: str | None = None
    scan: bool = True
    rescan_s: float = DEFAULT_RESCAN_S
    life: bool = False
    latency: bool = False
    compaction: bool = False
    objects: Sampling | None = None
    timed_objects: bool = False
    timed: bool = False
