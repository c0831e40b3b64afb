"""What to try, for each thing that can be in the way: one advice, wherever it is told."""

from __future__ import annotations

from collections.abc import Iterable

NO_LOCKDOWN = "a boot with lockdown=integrity, or without lockdown"
SHOW_ADDRESSES = "sysctl kernel.kptr_restrict=1"
COMPILE_PROGRAMS = "sysctl net.core.bpf_jit_enable=1"
ALLOW_KPROBES = "sudo, or CAP_SYS_ADMIN too, or sysctl kernel.perf_event_paranoid=2"
OTHER_KERNEL = "a kernel that permits fentry programs, or one with CONFIG_KPROBES=y"
BTF = "a kernel built with CONFIG_DEBUG_INFO_BTF=y"
ZSMALLOC = "modprobe zsmalloc, or a kernel with CONFIG_ZSMALLOC"
SMALLER_RING = "--ring-size 1M"
MORE_FILES = "ulimit -n 1024"
MORE_FILES_IN_ALL = "sysctl fs.file-max, and a higher one"
MORE_MEMORY = "more memory, or a higher limit of the cgroup's"
DOCTOR = "zpobs doctor, which looks for the reason"
REPORT = "please report this kernel, with the verifier's log if there is one"

# What suffices, as docs/doctor.md has it measured.
_LOADING = ("CAP_BPF", "CAP_PERFMON")
_FRAMES = "CAP_SYS_ADMIN for page frames"


def least_rights(*, scans: bool, kprobes_restricted: bool = False) -> tuple[str, ...]:
    """Return the capabilities that suffice: to load programs, to scan, to attach kprobes."""
    loading = ("CAP_SYS_ADMIN",) if kprobes_restricted else _LOADING
    return (*loading, *(("CAP_SYSLOG",) if scans else ()))


def rights(least: Iterable[str]) -> str:
    """Return what to try where these capabilities, or some of them, are lacking."""
    names = list(least)
    frames = f" ({_FRAMES})" if {"CAP_SYSLOG", "CAP_BPF"} <= set(names) else ""
    return f"sudo, or {'' if len(names) == 1 else 'all of '}{joined(names)}{frames}"


def joined(names: Iterable[str]) -> str:
    """Return names as words: ``A``, ``A and B``, ``A, B and C``."""
    *before, last = names
    return f"{', '.join(before)} and {last}" if before else last
