"""The only part of the doctor that touches the host: every fact, or why it is not known."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from zpobs import advice
from zpobs.bpf_files import bpf_object
from zpobs.doctor.facts import Absent, AttachTrial, HostFacts, ScanTrial, Unknown
from zpobs.errors import EnvironmentLacksError, ShortageError
from zpobs.host import capabilities
from zpobs.kernel.facts import KernelFacts, read_btf, read_facts
from zpobs.kernel.plan import AttachForm, ProbePlan, make_plan
from zpobs.loaders import ProbesRefusedError
from zpobs.loaders.bcc import check_bcc, check_headers
from zpobs.loaders.core import CoreLoader
from zpobs.loaders.libbpf import check_libbpf
from zpobs.scans import find_pools, open_scanner
from zpobs.shortage import FILES_FOR_A_SESSION, files_left, files_limit
from zpobs.sources import witnesses
from zpobs.sources.pools import zram_devices
from zpobs.wishes import Wishes

_SYSCTLS = (
    "kernel.kptr_restrict",
    "kernel.perf_event_paranoid",
    "kernel.unprivileged_bpf_disabled",
    "net.core.bpf_jit_enable",
)
_OBJECTS = ("scan.bpf.o", "probes.bpf.o")
_ROOT_HINT = "sudo zpobs doctor"
_FORMS: tuple[AttachForm, ...] = ("fentry", "kprobe")
_TRIAL_RING_BYTES = 1 << 20


def gather(root: Path = Path("/"), progress: Callable[[str], None] = lambda _: None) -> HostFacts:
    """Find out what there is to know of this host, as far as this process is allowed to.

    Loads the scanner and attaches every hook for a moment, where it may.
    ``root`` is where the host's files are.
    """
    progress("reading the kernel's type information")
    kernel = _kernel()
    held = capabilities()
    plan = _plan(kernel)
    lacking = _lacking(held)
    progress("trying the scanner")
    scanner = _scanner(kernel, plan, lacking)
    progress("trying probes")
    trials = {form: _attach_trial(plan, form, lacking) for form in _FORMS}
    release = os.uname().release
    return HostFacts(
        release=release,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        kernel=kernel,
        module_btf=frozenset(
            name for name in ("zsmalloc", "zram") if (root / "sys/kernel/btf" / name).exists()
        ),
        zram=_zram(root),
        zswap=_zswap(root / "sys/module/zswap"),
        user=os.geteuid(),
        capabilities=held,
        lockdown=_lockdown(root / "sys/kernel/security"),
        files_limit=files_limit(),
        files_left=files_left(FILES_FOR_A_SESSION),
        files_wanted=FILES_FOR_A_SESSION,
        sysctls={name: _sysctl(root / "proc/sys", name) for name in _SYSCTLS},
        libbpf=_there(lambda: f"version {check_libbpf()}"),
        objects={name: _there(partial(_object, name)) for name in _OBJECTS},
        bcc=_there(lambda: f"version {check_bcc()}"),
        headers=_there(lambda: str(check_headers(release))),
        trials=trials,
        scanner=scanner,
        available_bytes=_available(root / "proc/meminfo"),
        ring_bytes=Wishes().ring_bytes,
        witnesses=_witnesses(root),
    )


def _there(ask: Callable[[], str]) -> str | Absent:
    try:
        return ask()
    except EnvironmentLacksError as error:
        return Absent(error.found or error.problem, error.hint)


def _object(name: str) -> str:
    return bpf_object(name).name


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()


# ---- the kernel ---------------------------------------------------------------


def _kernel() -> KernelFacts | Absent | Unknown:
    try:
        return read_facts(read_btf())
    except FileNotFoundError as error:
        return Absent(f"no {error.filename}", advice.BTF)
    except OSError as error:
        return Unknown(f"{error.filename}: {error.strerror}", _ROOT_HINT)
    except EnvironmentLacksError as error:
        return Absent(error.found, error.hint)


def _plan(kernel: KernelFacts | Absent | Unknown) -> ProbePlan | Absent | Unknown:
    """Return what a session would attach, or why there can be none."""
    if not isinstance(kernel, KernelFacts):
        return kernel
    if "zs_malloc" not in kernel.functions:
        return Absent("zsmalloc is not in this kernel", advice.ZSMALLOC)
    try:
        return make_plan(kernel)
    except EnvironmentLacksError as error:
        return Absent(error.found, error.hint)


def _lacking(held: frozenset[str]) -> Unknown | None:
    """Return why nothing can be loaded by this process, None if it may."""
    lacking = [name for name in ("CAP_BPF", "CAP_PERFMON") if name not in held]
    if not lacking or "CAP_SYS_ADMIN" in held:
        return None
    return Unknown(f"not tried without {' and '.join(lacking)}", _ROOT_HINT)


# ---- trials -------------------------------------------------------------------


def _scanner(
    kernel: KernelFacts | Absent | Unknown,
    plan: ProbePlan | Absent | Unknown,
    lacking: Unknown | None,
) -> ScanTrial | Absent | Unknown:
    if not isinstance(plan, ProbePlan) or not isinstance(kernel, KernelFacts):
        return plan if isinstance(plan, Absent | Unknown) else Absent("no kernel")
    if lacking:
        return lacking
    try:
        with open_scanner(kernel, plan.size_classes) as scanner:
            found = find_pools(
                scanner, lambda found: {pool: at for at, pool in enumerate(found.pools, start=1)}
            )
            return ScanTrial(
                frames=scanner.vmemmap_base is not None,
                direct_map=scanner.direct_map is not None,
                pools=tuple(sorted(pool.name for pool in found.serials)),
                missing=found.missing,
            )
    except ShortageError as error:
        return _not_tried(error)
    except EnvironmentLacksError as error:
        # Who asks a doctor is not to be sent to one.
        hint = advice.REPORT if error.hint == advice.DOCTOR else error.hint
        return Absent(f"{error.problem}: {error.found}", hint)
    except OSError as error:
        return Absent(f"the scanner cannot be run: {error.strerror}", advice.REPORT)


def _not_tried(error: ShortageError) -> Unknown:
    """Return that something could not be tried for a lack that says nothing of the kernel."""
    return Unknown(f"not tried to the end: {error.found}", error.hint)


def _attach_trial(
    plan: ProbePlan | Absent | Unknown, form: AttachForm, lacking: Unknown | None
) -> AttachTrial | Absent | Unknown:
    """Attach every hook in one form, as a session does, and detach them at once."""
    if not isinstance(plan, ProbePlan):
        return plan
    if form == "kprobe" and not plan.kprobes:
        return Absent("no kprobes in this kernel", "a kernel with CONFIG_KPROBES=y")
    if form == "fentry" and not plan.trampolines:
        return Absent("a hook is not in BTF", "a kernel whose BTF has all hooks")
    return lacking or _attach(plan, form)


def _attach(plan: ProbePlan, form: AttachForm) -> AttachTrial | Absent | Unknown:
    try:
        attached = CoreLoader().attach(
            replace(plan, vmemmap_base=None),
            wish=form,
            ring_bytes=_TRIAL_RING_BYTES,
            prepare=lambda _: None,
        )
    except ProbesRefusedError as error:
        # What to try depends on what else is lacking.
        return Absent(f"refused: {error.found.removeprefix(f'{form}: ')}")
    except ShortageError as error:
        return _not_tried(error)
    except EnvironmentLacksError as error:
        return Absent(f"{error.problem}: {error.found}", error.hint)
    except OSError as error:
        return Absent(f"refused: {str(error.strerror).splitlines()[0]}")
    functions = dict.fromkeys(name.partition("/")[0] for name in attached.program_fds)
    failed = {hook.function: reason for hook, reason in attached.failed.items()}
    attached.close()
    return AttachTrial(tuple(functions), failed)


# ---- the host's files -----------------------------------------------------------


def _sysctl(folder: Path, name: str) -> str | Absent | Unknown:
    path = folder / name.replace(".", "/")
    try:
        return _text(path)
    except FileNotFoundError:
        return Absent("this kernel has none")
    except OSError as error:
        return Unknown(f"{path}: {error.strerror}", _ROOT_HINT)


def _lockdown(folder: Path) -> str | Absent | Unknown:
    try:
        chosen = re.search(r"\[(\w+)\]", _text(folder / "lockdown"))
    except FileNotFoundError:
        if _mounted(folder):
            return Absent("this kernel has no lockdown")
        hint = f"mount -t securityfs securityfs {folder}"
        return Unknown("securityfs is not mounted", hint)
    except OSError as error:
        return Unknown(f"{folder}: {error.strerror}", _ROOT_HINT)
    return chosen[1] if chosen else Unknown(f"{folder}/lockdown names no state")


def _mounted(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except OSError:
        return False


def _zram(root: Path) -> Mapping[str, bool] | Absent:
    if (root / "sys/class/zram-control").exists() or (root / "sys/module/zram").exists():
        return zram_devices(root / "sys/block")
    return Absent("zram is neither built in nor loaded")


def _zswap(module: Path) -> str | Absent | Unknown:
    parameters = module / "parameters"
    try:
        if _text(parameters / "enabled") != "Y":
            return Absent("off")
    except FileNotFoundError:
        return Absent("this kernel has none")
    except OSError as error:
        return Unknown(f"{parameters}: {error.strerror}", _ROOT_HINT)
    try:
        return _text(parameters / "zpool")
    except OSError:
        # Kernels without a choice of pools have zsmalloc.
        return "zsmalloc"


def _available(meminfo: Path) -> int | Unknown:
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", _text(meminfo), re.MULTILINE)
    except OSError as error:
        return Unknown(f"{meminfo}: {error.strerror}")
    return 1024 * int(found[1]) if found else Unknown(f"no MemAvailable in {meminfo}")


def _witnesses(root: Path) -> dict[str, str | Absent | Unknown]:
    read = witnesses.read_witnesses(root)
    found: dict[str, str | Absent | Unknown] = {
        "debugfs zsmalloc": _witness(read.classes, "classes of each pool"),
        "vmstat nr_zspages": _witness(read.vmstat, "pages of all pools"),
        "meminfo Zswap": _witness(read.zswap, "bytes of zswap's pools"),
        "slabinfo": _witness(read.slabs, "slab caches of zspages and handles"),
    }
    devices = sorted(read.zram)
    none = Absent("no zram device is set up")
    return {"zram mm_stat": ", ".join(devices) if devices else none, **found}


def _witness(read: object, text: str) -> str | Absent | Unknown:
    if not isinstance(read, witnesses.Absent):
        return text
    if os.strerror(errno.EACCES) in read.reason:
        return Unknown(read.reason, _ROOT_HINT)
    return Absent(read.reason)
