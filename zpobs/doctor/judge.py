"""From facts to a report: pure, so that invented hosts can be judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from zpobs import advice
from zpobs.doctor.facts import Absent, AttachTrial, HostFacts, ScanTrial, T, Unknown
from zpobs.doctor.kernel_checks import (
    chosen_hooks,
    cost_of,
    has_zsmalloc,
    hook_checks,
    member_checks,
    structure_checks,
)
from zpobs.doctor.report import Check, Report
from zpobs.doctor.verdicts import btf_verdicts, host_verdicts
from zpobs.kernel.btf import Btf
from zpobs.kernel.facts import KernelFacts
from zpobs.kernel.layout import COST, WALK_COST
from zpobs.kernel.plan import AttachForm

_LOAD = "no BPF program can be loaded: neither scans nor probes"
_NO_FRAMES = "page frames and lengths of free lists stay unknown"
_NO_PROBES = "no probes: no rates and no events"
_RIGHTS = advice.rights(advice.least_rights(scans=True))
_ROOT_TOLD = {
    "kernel.kptr_restrict": "who may see kernel addresses",
    "kernel.perf_event_paranoid": "who may use perf events, and so kprobes",
    "kernel.unprivileged_bpf_disabled": "who may use BPF; zpobs never asks without CAP_BPF",
    "net.core.bpf_jit_enable": "whether BPF programs are compiled",
}


def judge_host(facts: HostFacts) -> Report:
    """Return everything that there is to say of a host."""
    checks = [
        *_kernel(facts),
        *_btf(facts),
        *_members_and_hooks(facts),
        *_attach(facts),
        *_privilege(facts),
        *_sysctls(facts),
        *_loaders(facts),
        *_scanner(facts),
        *_pools(facts),
        *_memory(facts),
        *_witnesses(facts),
    ]
    return Report(facts.release, tuple(checks), host_verdicts(facts))


def judge_btf(btf: Btf, subject: str) -> Report:
    """Return what a kernel's BTF alone tells; ``subject`` is where it came from."""
    if_none = "its module's BTF as another --btf, if zsmalloc is a module there"
    checks = [
        *structure_checks(btf, if_none=if_none),
        *member_checks(btf, if_none=if_none),
        *hook_checks(btf),
    ]
    return Report(subject, tuple(checks), btf_verdicts(btf))


def _told(
    section: str,
    name: str,
    fact: T | Absent | Unknown,
    text: str = "",
    costs: str = "",
) -> Check:
    """Return a check of something that is there, or is not, or could not be found out."""
    if isinstance(fact, Unknown):
        return Check(section, name, "unknown", fact.reason, costs, fact.hint if costs else "")
    if isinstance(fact, Absent):
        return Check(section, name, "absent", fact.found, costs, fact.hint if costs else "")
    return Check(section, name, "present", text or str(fact))


# ---- the kernel ---------------------------------------------------------------


def _kernel(facts: HostFacts) -> Iterator[Check]:
    yield Check("kernel", "release", "present", facts.release)
    yield Check("kernel", "page size", "present", f"{facts.page_size} bytes")
    if not isinstance(facts.kernel, KernelFacts):
        return
    if facts.kernel.chain_size:
        yield Check("kernel", "chain size", "present", f"{facts.kernel.chain_size} pages")
    else:
        found = "no copy of the kernel's configuration names CONFIG_ZSMALLOC_CHAIN_SIZE"
        costs = "it is shown as ? until a pool tells it"
        hint = f"the configuration of this kernel as /boot/config-{facts.release}"
        yield Check("kernel", "chain size", "unknown", found, costs, hint)
    if facts.kernel.realtime:
        costs = "not counted: allocs, frees, moves"
        yield Check("kernel", "not PREEMPT_RT", "absent", "it is", costs, "another kernel")
    else:
        yield Check("kernel", "not PREEMPT_RT", "present", "spinlocks keep preemption off")
    yield from structure_checks(facts.kernel.btf, if_none=advice.ZSMALLOC)


def _btf(facts: HostFacts) -> Iterator[Check]:
    kernel = facts.kernel
    if not isinstance(kernel, KernelFacts):
        yield _told("btf", "vmlinux", kernel, costs=COST)
        return
    yield Check("btf", "vmlinux", "present", "/sys/kernel/btf/vmlinux")
    if "zs_malloc" not in kernel.functions:
        found = "zsmalloc is neither built in nor loaded"
        yield Check("btf", "zsmalloc", "absent", found, COST, advice.ZSMALLOC)
    elif "zsmalloc" in facts.module_btf:
        yield Check("btf", "zsmalloc", "present", "a module, /sys/kernel/btf/zsmalloc")
    elif has_zsmalloc(kernel.btf):
        yield Check("btf", "zsmalloc", "present", "built in")
    else:
        found = "zsmalloc is loaded, but its module has no BTF"
        hint = "a kernel built with CONFIG_DEBUG_INFO_BTF_MODULES=y"
        yield Check("btf", "zsmalloc", "absent", found, COST, hint)
    if "zram" in facts.module_btf:
        yield Check("btf", "zram", "present", "a module, /sys/kernel/btf/zram")
    elif kernel.btf.has_struct("zram"):
        yield Check("btf", "zram", "present", "built in")
    else:
        yield Check("btf", "zram", "absent", "not needed: its files tell what zpobs asks")


def _members_and_hooks(facts: HostFacts) -> Iterator[Check]:
    if isinstance(facts.kernel, KernelFacts):
        yield from member_checks(facts.kernel.btf, if_none=advice.ZSMALLOC)
        yield from hook_checks(facts.kernel.btf, facts.kernel.functions)


# ---- probes -------------------------------------------------------------------


def _attach(facts: HostFacts) -> Iterator[Check]:
    kernel = facts.kernel
    if not isinstance(kernel, KernelFacts):
        return
    costs = _NO_PROBES
    if any(isinstance(trial, Unknown) for trial in facts.trials.values()):
        costs = "it cannot be told whether there are probes"
    elif facts.form == "kprobe":
        costs = "kprobes do, but cost more"
    elif facts.form == "fentry":
        costs = ""
    for form, trial in facts.trials.items():
        hint = _attach_hint(facts, form)
        if not isinstance(trial, AttachTrial):
            yield _told(
                "attach", form, trial if trial.hint else replace(trial, hint=hint), costs=costs
            )
            continue
        found = f"{len(trial.attached)} of {len(trial.attached) + len(trial.failed)} hooks"
        if not trial.failed or form == facts.form:
            yield Check("attach", form, "present", f"{found} attached and detached again")
        else:
            found = f"{found}; {next(iter(trial.failed.values()))}"
            yield Check("attach", form, "absent", found, costs, hint if costs else "")
    used = facts.trials[facts.form] if facts.form else None
    for hook in chosen_hooks(kernel.btf, kernel.functions):
        if isinstance(used, AttachTrial) and hook.function in used.failed:
            reason = used.failed[hook.function].removeprefix(f"{hook.function}: ")
            name = f"{hook.function} by {facts.form}"
            yield Check("attach", name, "absent", reason, cost_of(hook))


def _attach_hint(facts: HostFacts, form: AttachForm) -> str:
    """Return what to try where the kernel refuses a probe."""
    if facts.lockdown == "confidentiality":
        return advice.NO_LOCKDOWN
    if form == "kprobe" and "CAP_SYS_ADMIN" not in facts.capabilities:
        # Some kernels let no one else make perf events.
        return advice.ALLOW_KPROBES
    return advice.OTHER_KERNEL


# ---- what is allowed ----------------------------------------------------------


def _address_seen(facts: HostFacts) -> bool:
    return isinstance(facts.kernel, KernelFacts) and bool(facts.kernel.shrinker_at)


def _reads(facts: HostFacts) -> bool:
    """Tell whether a BPF program was seen to read kernel memory, or to be let."""
    whole = (isinstance(t, AttachTrial) and not t.failed for t in facts.trials.values())
    return isinstance(facts.scanner, ScanTrial) or any(whole)


def _privilege(facts: HostFacts) -> Iterator[Check]:
    held = facts.capabilities
    admin = "CAP_SYS_ADMIN" in held
    user = "root" if facts.user == 0 else f"user {facts.user}"
    yield Check("privilege", "user", "present", user)
    costs_of = {
        "CAP_BPF": "" if admin else _LOAD,
        "CAP_PERFMON": "" if admin else _LOAD,
        "CAP_SYSLOG": "" if _address_seen(facts) else "kernel addresses are hidden: no scans",
        "CAP_SYS_ADMIN": _NO_FRAMES,
    }
    for name, costs in costs_of.items():
        if name in held:
            yield Check("privilege", name, "present", "held")
        elif not costs:
            found = "CAP_SYS_ADMIN stands in" if name != "CAP_SYSLOG" else "addresses show anyway"
            yield Check("privilege", name, "absent", f"not needed: {found}")
        else:
            yield Check("privilege", name, "absent", "not held", costs, _RIGHTS)
    yield _lockdown(facts)
    yield _files(facts)


def _lockdown(facts: HostFacts) -> Check:
    state = facts.lockdown
    if isinstance(state, Absent):
        return Check("privilege", "lockdown permits BPF", "present", state.found)
    if isinstance(state, Unknown):
        if _reads(facts):
            found = "not confidentiality: programs that read kernel memory were loaded"
            return Check("privilege", "lockdown permits BPF", "present", found)
        # Without rights it is not what hinders.
        costs = "" if _unable(facts) else "it may be what hinders probes or scans"
        return _told("privilege", "lockdown permits BPF", state, costs=costs)
    if state == "confidentiality":
        costs = "BPF may not read kernel memory: neither scans nor probes"
        return Check(
            "privilege", "lockdown permits BPF", "absent", state, costs, advice.NO_LOCKDOWN
        )
    return Check(
        "privilege", "lockdown permits BPF", "present", f"{state}: that hinders nothing here"
    )


def _files(facts: HostFacts) -> Check:
    left, wanted = facts.files_left, facts.files_wanted
    if left >= wanted:
        found = f"{wanted} more can be opened, the limit is {facts.files_limit:,}"
        return Check("privilege", "open files", "present", found)
    found = f"{left} more can be opened of {wanted} at most, the limit is {facts.files_limit:,}"
    costs = "scans or probes may not start"
    return Check("privilege", "open files", "absent", found, costs, advice.MORE_FILES)


def _unable(facts: HostFacts) -> bool:
    """Tell whether this process may load no BPF programs at all."""
    return "CAP_SYS_ADMIN" not in facts.capabilities and not {
        "CAP_BPF",
        "CAP_PERFMON",
    } <= set(facts.capabilities)


def _sysctls(facts: HostFacts) -> Iterator[Check]:
    for name, value in facts.sysctls.items():
        meaning = _ROOT_TOLD[name]
        if name == "kernel.kptr_restrict" and value == "2" and not _address_seen(facts):
            costs = "kernel addresses are hidden from root too: no scans"
            found = "2, which is too high"
            yield Check("sysctls", name, "absent", found, costs, advice.SHOW_ADDRESSES)
        elif name == "net.core.bpf_jit_enable" and value == "0":
            found = "0: the scanner needs compiled programs"
            yield Check("sysctls", name, "absent", found, WALK_COST, advice.COMPILE_PROGRAMS)
        else:
            yield _told("sysctls", name, value, f"{value} ({meaning})")


# ---- what is installed ----------------------------------------------------------


def _loaders(facts: HostFacts) -> Iterator[Check]:
    yield _told("loaders", "core: libbpf.so.1", facts.libbpf, costs=_LOAD)
    for name, found in facts.objects.items():
        costs = WALK_COST if name.startswith("scan") else "no probes by the core loader"
        yield _told("loaders", f"core: {name}", found, costs=costs)
    for name, fact in (("bcc: Python package", facts.bcc), ("bcc: kernel headers", facts.headers)):
        # Only where the core loader cannot be had does bcc matter.
        if isinstance(fact, Absent) and not isinstance(facts.libbpf, Absent):
            yield Check("loaders", name, "absent", f"not needed beside core; {fact.hint}")
        else:
            yield _told("loaders", name, fact, costs=_NO_PROBES)


def _scan_hint(facts: HostFacts, trial: Absent | Unknown) -> str:
    """Return what to try for the scanner: what is known to hinder it, if anything is."""
    for check in (*_privilege(facts), *_sysctls(facts)):
        hinders = check.answer == "absent" and check.costs not in ("", _NO_FRAMES)
        if hinders and isinstance(trial, Absent):
            return check.hint
    return trial.hint


def _scanner(facts: HostFacts) -> Iterator[Check]:
    trial = facts.scanner
    if not isinstance(trial, ScanTrial):
        unable = isinstance(trial, Unknown)
        costs = "it cannot be told whether scans work" if unable else WALK_COST
        yield _told(
            "scanner", "scanner", replace(trial, hint=_scan_hint(facts, trial)), costs=costs
        )
        return
    yield Check("scanner", "scanner", "present", "loaded and run")
    hint = "" if "CAP_SYS_ADMIN" in facts.capabilities else _RIGHTS
    for name, there, costs in (
        ("page frames", trial.frames, "page frames stay unknown"),
        ("direct map", trial.direct_map, "lengths of free lists stay unknown"),
    ):
        if there:
            yield Check("scanner", name, "present", "located")
        else:
            yield Check("scanner", name, "absent", "not located", costs, hint)


# ---- what there is to see -------------------------------------------------------


def _pools(facts: HostFacts) -> Iterator[Check]:
    if isinstance(facts.zram, Absent):
        yield _told("pools", "zram", facts.zram)
    else:
        devices = [f"{name}{'' if used else ' (not set up)'}" for name, used in facts.zram.items()]
        yield Check("pools", "zram", "present", ", ".join(devices) or "no device yet")
    zswap = facts.zswap
    if isinstance(zswap, str) and zswap not in ("", "zsmalloc"):
        costs = "what zswap holds is not in zsmalloc, and not seen"
        hint = "echo zsmalloc > /sys/module/zswap/parameters/zpool"
        yield Check("pools", "zswap", "absent", f"enabled, with {zswap}", costs, hint)
    else:
        yield _told("pools", "zswap", zswap, "enabled, with zsmalloc")
    if isinstance(facts.scanner, ScanTrial):
        found = ", ".join(facts.scanner.pools) or "none, and none is in use"
        yield Check("pools", "found by a scan", "present", found)
        for sentence in facts.scanner.missing:
            yield Check("pools", "all of them", "absent", sentence, "what it holds is not seen")


def _memory(facts: HostFacts) -> Iterator[Check]:
    available, ring = facts.available_bytes, facts.ring_bytes
    if isinstance(available, Unknown):
        yield _told("memory", "for the ring", available)
    elif available > 2 * ring:
        found = f"{available >> 20:,} MiB available, the ring takes {ring >> 20} MiB"
        yield Check("memory", "for the ring", "present", found)
    else:
        found = f"{available >> 20:,} MiB available, the ring takes {ring >> 20} MiB"
        costs = "probes may not start"
        yield Check("memory", "for the ring", "absent", found, costs, advice.SMALLER_RING)


def _witnesses(facts: HostFacts) -> Iterator[Check]:
    witnesses: Mapping[str, str | Absent | Unknown] = facts.witnesses
    for name, witness in witnesses.items():
        yield _told("witnesses", name, witness)
