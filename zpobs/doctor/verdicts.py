"""What all facts come to: does ``zpobs scan`` work here, and which probes are there."""

from __future__ import annotations

from zpobs.doctor.facts import Absent, AttachTrial, HostFacts, ScanTrial, Unknown
from zpobs.doctor.kernel_checks import chosen_hooks, has_zsmalloc, structures_lacking
from zpobs.doctor.report import Verdict
from zpobs.kernel.btf import Btf
from zpobs.kernel.facts import KernelFacts

SCAN, PROBES = "zpobs scan", "probes"


def host_verdicts(facts: HostFacts) -> tuple[Verdict, ...]:
    """Return what works on a host."""
    kernel = facts.kernel
    if isinstance(kernel, Absent):
        return _neither(kernel.found)
    if isinstance(kernel, Unknown):
        because = f"cannot be told: {kernel.reason}"
        return Verdict(SCAN, "unknown", because), Verdict(PROBES, "unknown", because)
    why_not = _why_not(kernel.btf, kernel.functions)
    if why_not:
        return _neither(why_not)
    return _scan(facts), _probes(facts, kernel)


def _neither(because: str) -> tuple[Verdict, ...]:
    return (
        Verdict(SCAN, "fails", f"does not work, because {because}"),
        Verdict(PROBES, "fails", f"none, because {because}"),
    )


def _why_not(btf: Btf, functions: frozenset[str]) -> str:
    """Return what makes every kind of observation impossible, if anything does."""
    if "zs_malloc" not in functions:
        return "zsmalloc is not in this kernel"
    if not has_zsmalloc(btf):
        return "zsmalloc's module has no BTF"
    needed, _ = structures_lacking(btf)
    return f"the kernel's structures lack {', '.join(needed)}" if needed else ""


def _scan(facts: HostFacts) -> Verdict:
    trial = facts.scanner
    if isinstance(trial, Unknown):
        return Verdict(SCAN, "unknown", f"cannot be told: {trial.reason}")
    if isinstance(trial, Absent):
        return Verdict(SCAN, "fails", f"does not work, because {trial.found}")
    but = []
    if not trial.frames:
        but.append("page frames stay unknown")
    if not trial.direct_map:
        but.append("lengths of free lists stay unknown")
    but += trial.missing
    if but:
        return Verdict(SCAN, "limited", f"works, but {'; '.join(but)}")
    return Verdict(SCAN, "works", "works")


def _probes(facts: HostFacts, kernel: KernelFacts) -> Verdict:
    wanted = len(chosen_hooks(kernel.btf, kernel.functions))
    used = facts.trials[facts.form] if facts.form else None
    if isinstance(used, AttachTrial):
        text = f"core {facts.form}, {len(used.attached)} of {wanted} hooks"
        return Verdict(PROBES, "works" if len(used.attached) == wanted else "limited", text)
    reasons = {form: _reason(trial) for form, trial in facts.trials.items()}
    told = "; ".join(f"{form}: {reason}" for form, reason in reasons.items())
    if len(set(reasons.values())) == 1:
        told = next(iter(reasons.values()))
    if any(isinstance(trial, Unknown) for trial in facts.trials.values()):
        return Verdict(PROBES, "unknown", f"cannot be told: {told}")
    with_bcc = not isinstance(facts.bcc, Absent) and not isinstance(facts.headers, Absent)
    if _core_lacks(facts) and with_bcc:
        return Verdict(PROBES, "unknown", f"bcc, which was not tried; not core, because {told}")
    alone = ": scans alone" if isinstance(facts.scanner, ScanTrial) else ""
    return Verdict(PROBES, "fails", f"none{alone}, because {told}")


def _reason(trial: AttachTrial | Absent | Unknown) -> str:
    if isinstance(trial, AttachTrial):
        return next(iter(trial.failed.values()), "there is no hook")
    return trial.reason if isinstance(trial, Unknown) else trial.found


def _core_lacks(facts: HostFacts) -> bool:
    return isinstance(facts.libbpf, Absent) or any(
        isinstance(found, Absent) for found in facts.objects.values()
    )


def btf_verdicts(btf: Btf) -> tuple[Verdict, ...]:
    """Return what a kernel's structures and functions allow, whatever its host allows."""
    needed, walked = structures_lacking(btf)
    if not has_zsmalloc(btf):
        return _neither("this BTF describes no zsmalloc")
    if needed:
        return _neither(f"the kernel's structures lack {', '.join(needed)}")
    hooks = chosen_hooks(btf)
    there = sum(btf.has_function(hook.function) for hook in hooks)
    scan = Verdict(SCAN, "works", "all that it reads is there")
    if walked:
        scan = Verdict(
            SCAN,
            "fails",
            f"does not work, because the kernel's structures lack {', '.join(walked)}",
        )
    if not there:
        return scan, Verdict(PROBES, "fails", "none, because no function that zpobs hooks is there")
    text = f"fentry could attach to {there} of {len(hooks)} hooks"
    return scan, Verdict(PROBES, "works" if there == len(hooks) else "limited", text)
