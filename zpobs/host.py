"""What the host allows and what its own files tell, asked before anything is loaded."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from zpobs import advice
from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.snapshot import owner_of
from zpobs.sources.pools import zram_devices

_ZSWAP = Path("/sys/module/zswap/parameters")
_SYSCTL = Path("/proc/sys")
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
# From this kernel.perf_event_paranoid on, Debian's kernels give no perf event to CAP_PERFMON.
_PARANOID = 3


def capabilities() -> frozenset[str]:
    """Return those capabilities of this process that matter to zpobs."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    return frozenset(name for name, bit in _CAPABILITIES.items() if effective >> bit & 1)


def check_privilege(*, scans: bool = True, kprobes: bool = False) -> None:
    """Raise EnvironmentLacksError unless this process may load BPF programs.

    ``scans`` and ``kprobes`` tell what they are for, so that no more rights are
    named than it takes. A lack that costs a part alone is no error here.
    """
    held = capabilities()
    if "CAP_SYS_ADMIN" in held or {"CAP_BPF", "CAP_PERFMON"} <= held:
        return
    least = advice.least_rights(
        scans=scans,
        kprobes_restricted=kprobes and _number("kernel.perf_event_paranoid") >= _PARANOID,
    )
    raise EnvironmentLacksError(
        "BPF programs may not be loaded",
        found=f"{_user()} without {advice.joined(name for name in least if name not in held)}",
        hint=_given(advice.rights(least)),
    )


def hidden_addresses() -> tuple[str, str]:
    """Return why this process sees no kernel addresses, and what to try."""
    if "CAP_SYSLOG" not in capabilities():
        return (
            f"kernel addresses are hidden from {_user()} without CAP_SYSLOG",
            _given("sudo, or CAP_SYSLOG too"),
        )
    if _number("kernel.kptr_restrict") >= 2:
        return "kernel.kptr_restrict=2 hides kernel addresses from root too", advice.SHOW_ADDRESSES
    return "no address of zs_shrinker_scan in /proc/kallsyms", advice.DOCTOR


def why_no_frames() -> str:
    """Return why page frames are not known where the scanner could not locate them."""
    if "CAP_SYS_ADMIN" not in capabilities():
        return f"they need CAP_SYS_ADMIN, which {_user()} lacks"
    return "the base of the kernel's page descriptors was not found"


def scanner_hint() -> str:
    """Return what to try where the kernel refuses the scanner: what is known to hinder it."""
    if _lockdown() == "confidentiality":
        return advice.NO_LOCKDOWN
    if _read(_SYSCTL / "net/core/bpf_jit_enable") == "0":
        return advice.COMPILE_PROGRAMS
    return advice.DOCTOR


def probes_hint() -> str:
    """Return what to try where the kernel refuses every probe: what is known to hinder them."""
    if _lockdown() == "confidentiality":
        return advice.NO_LOCKDOWN
    if _restricted() and "CAP_SYS_ADMIN" not in capabilities():
        return advice.ALLOW_KPROBES
    return f"{advice.OTHER_KERNEL}; zpobs scan needs no probe"


def _restricted() -> bool:
    return _number("kernel.perf_event_paranoid") >= _PARANOID


def _given(hint: str) -> str:
    """Return advice on rights; a root that lacks some, as in a container, needs no sudo."""
    return hint.removeprefix("sudo, or ") if os.geteuid() == 0 else hint


def _user() -> str:
    return "root" if os.geteuid() == 0 else f"user {os.geteuid()}"


def _read(path: Path) -> str:
    """Return what one of the host's files holds, nothing if it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(sysctl: str) -> int:
    """Return a sysctl, -1 if this kernel has none or does not tell."""
    text = _read(_SYSCTL / sysctl.replace(".", "/"))
    return int(text) if re.fullmatch(r"-?\d+", text) else -1


def _lockdown() -> str:
    chosen = re.search(r"\[(\w+)\]", _read(_LOCKDOWN))
    return chosen[1] if chosen else ""


def pools_in_use() -> set[str]:
    """Return the pools that the host's files tell of; zswap's go by the name ``zswap``."""
    names = {name for name, configured in zram_devices().items() if configured}
    return names | ({"zswap"} if _zswap_enabled() else set())


def _zswap_enabled() -> bool:
    """Tell whether zswap is on, and its pages go to zsmalloc."""
    parameters = {}
    for name in ("enabled", "zpool"):
        with contextlib.suppress(OSError):
            parameters[name] = (_ZSWAP / name).read_text(encoding="ascii").strip()
    # Other allocators, and the choice between them, were removed from kernels.
    return parameters.get("enabled") == "Y" and parameters.get("zpool", "zsmalloc") == "zsmalloc"


def check_pool(name: str) -> None:
    """Raise UsageError for a pool name that nothing on this host can ever have."""
    devices = zram_devices()
    if name in devices or (owner_of(name) == "zswap" and _zswap_enabled()):
        return
    found = [f"{device}{'' if used else ' (not set up)'}" for device, used in devices.items()]
    if _zswap_enabled():
        found.append("zswap pools, by names such as zswap1")
    raise UsageError(
        f"no pool is called {name}",
        found=", ".join(found) or "no zram device, and zswap is off",
        hint="one of these names, or no --pool to see all",
    )


@contextlib.contextmanager
def not_preempted() -> Iterator[None]:
    """Keep other tasks off this CPU meanwhile.

    While a task is inside bpf(2) on a map, the kernel skips every kprobe program
    on its CPU (bpf_disable_instrumentation in kernel/bpf/syscall.c), those of a
    task that preempts it among them.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
