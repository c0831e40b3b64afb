"""What the shadow model is told beside records: coverage and counter readings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

CounterWords = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the attached hooks can and cannot see.

    ``hooks`` counts the attached ones and ``missed_hooks`` names the others.
    ``uncounted`` holds the names of :class:`zpobs.snapshot.Counters` fields that
    no attached hook counts; they are published as None. ``unseen`` holds
    sentences, each naming state that a missing hook hides. With any of them, or
    without hooks, only scans know: figures are those of the last scan.
    ``why_no_hooks`` says why ``hooks`` is 0. ``untold`` holds what else is not known.
    """

    hooks: int
    missed_hooks: tuple[str, ...] = ()
    uncounted: frozenset[str] = frozenset()
    unseen: tuple[str, ...] = ()
    why_no_hooks: str = ""
    untold: tuple[str, ...] = ()

    @property
    def follows(self) -> bool:
        """Whether the hooks tell of everything that happens."""
        return self.hooks > 0 and not self.unseen


@dataclass(frozen=True, slots=True)
class PoolReading:
    """Counters of one live pool, summed over CPUs, the geometry word as it is.

    ``class_counters`` has shape (classes, CLASS_WORDS), ``pool_counters``
    (POOL_WORDS,); both are None when the pool found no counter slot or is known
    from scans alone.
    ``created`` tells that the pool's creation was witnessed; ``since_mono_ns``
    is when, or else when the pool was first met.
    """

    serial: int
    address: int
    name: str
    since_mono_ns: int
    created: bool
    class_counters: CounterWords | None = None
    pool_counters: CounterWords | None = None


@dataclass(frozen=True, slots=True)
class CountersReading:
    """Every counter at one instant: absolute and complete.

    A pool that is not in ``pools`` and whose life began before ``mono_ns`` is
    gone. ``untracked_pools`` exist now but found no place in the probes' table.
    ``ring_full``, ``unpaired`` and ``missed_runs`` are totals since the probes
    were attached. ``missed_runs`` are probe runs
    that the kernel skipped and that can have cost an observation of a zspage;
    ``missed_counting_runs`` those of hooks that do nothing but count, and
    ``missed_counts`` says what they count: fields of
    :class:`zpobs.snapshot.Counters`, each with how much these may hide of it.
    """

    mono_ns: int
    ring_full: int
    unpaired: int
    missed_runs: int
    untracked_pools: int
    pools: tuple[PoolReading, ...] = ()
    missed_counting_runs: int = 0
    missed_counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def loss(self) -> int:
        """Observations of zspages that can have been lost."""
        return self.ring_full + self.unpaired + self.missed_runs

    @property
    def missed(self) -> int:
        """Probe runs that did not happen or told nothing."""
        return self.missed_runs + self.missed_counting_runs + self.unpaired
