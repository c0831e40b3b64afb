"""Keeps account of what a session does for its figures: probes, losses, the time of scans."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from zpobs.errors import EnvironmentLacksError
from zpobs.footing import Footing, Program
from zpobs.kernel.plan import ProbePlan
from zpobs.loaders import Attached
from zpobs.model.inputs import CountersReading
from zpobs.sources import bpfmap


class Upkeep:
    """One session's account.

    With ``timed`` the kernel is asked to time every BPF program as long as this is open.
    """

    def __init__(self, plan: ProbePlan, *, timed: bool = False) -> None:
        self._hooks = {hook.function: False for hook in (*plan.hooks, *plan.missing)}
        self._attached: Attached | None = None
        self._last: CountersReading | None = None
        self._scan_ns = self._last_scan_ns = 0
        self._programs: dict[str, int] = {}
        self._timing = _timing() if timed else None

    def attached(self, attached: Attached, plan: ProbePlan) -> None:
        """Take what was attached of a plan."""
        self._attached = attached
        self.watch(attached.program_fds)
        for hook in plan.hooks:
            self._hooks[hook.function] = hook not in attached.failed

    def watch(self, program_fds: Mapping[str, int]) -> None:
        """Take programs into the account, by name."""
        self._programs.update(program_fds)

    def read(self, reading: CountersReading) -> None:
        """Take a reading of the kernel-side counters."""
        self._last = reading

    def scanned(self, took_ns: int) -> None:
        """Take the time of a scan of all pools."""
        self._scan_ns += took_ns
        self._last_scan_ns = took_ns

    def footing(self) -> Footing:
        """Return the account as of now."""
        last, attached = self._last, self._attached
        lost: dict[str, int] = {}
        if last is not None and attached is not None:
            lost = {
                "ring": last.ring_full,
                "unpaired": last.unpaired,
                "skipped": last.missed_runs,
                "skipped_counting": last.missed_counting_runs,
            }
        return Footing(
            hooks=dict(self._hooks),
            form=attached.form if attached else None,
            lost=lost,
            untracked_pools=last.untracked_pools if last else 0,
            scan_ns=self._scan_ns,
            last_scan_ns=self._last_scan_ns,
            programs=self._told(),
        )

    def _told(self) -> tuple[Program, ...]:
        found = []
        for name, descriptor in self._programs.items():
            told = bpfmap.program_runs(descriptor)
            kept = bool(told.runs) or self._timing is not None
            found.append(
                Program(
                    name,
                    told.skipped,
                    told.runs if kept else None,
                    told.run_ns if kept else None,
                )
            )
        return tuple(found)

    def close(self) -> None:
        """Let the kernel time programs no more."""
        if self._timing is not None:
            with contextlib.suppress(OSError):
                os.close(self._timing)
            self._timing = None


def _timing() -> int:
    try:
        return bpfmap.enable_run_stats()
    except OSError as error:
        raise EnvironmentLacksError(
            "BPF programs cannot be timed",
            found=os.strerror(error.errno or 0),
            hint="CAP_SYS_ADMIN, or no --bpf-stats",
        ) from error
