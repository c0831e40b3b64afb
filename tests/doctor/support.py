"""Invented hosts: one where all works, and what tests take away from it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.factories import FUNCTIONS, BtfBuilder, MemberLine, make_facts
from zpobs.doctor.facts import Absent, AttachTrial, HostFacts, ScanTrial
from zpobs.doctor.kernel_checks import chosen_hooks
from zpobs.doctor.report import Check, Report
from zpobs.kernel.btf import Btf
from zpobs.kernel.layout import members, walk_members

# Members that only some kernels have; where they are not, the others are.
OLDER = {"zspage_lock.cnt", "zspage.zsl", "zspage.first_zpdesc"}


def whole_builder(
    functions: Iterable[str], *, descriptor: str = "zpdesc", without: Iterable[str] = ()
) -> BtfBuilder:
    """Return BTF with every member that is read, but for ``without`` (structures or members)."""
    made = BtfBuilder()
    u64 = made.integer("unsigned long", 8)
    node = made.struct("list_head", 16, [("next", u64, 0), ("prev", u64, 64)])
    arrays = {"fullness_list": made.array(node, 12), "size_class": made.array(u64, 255)}
    fields: dict[str, dict[str, int]] = {"page": {"flags": u64}}
    for member in (*members(), *walk_members()):
        for structure, field in member.candidates:
            is_array = field in arrays and structure != "zspage"
            fields.setdefault(structure, {})[field] = arrays[field] if is_array else u64
    gone = set(without) | (set() if descriptor == "zpdesc" else {"zpdesc", *OLDER})
    for structure, types in fields.items():
        lines: list[MemberLine] = []
        at = 0
        for field, type_id in types.items():
            if f"{structure}.{field}" not in gone:
                lines.append((field, type_id, at))
            at += 64 * 512
        if structure not in gone:
            made.struct(structure, 64, lines)
    if "pageflags" not in gone:
        made.enum("pageflags", {"PG_locked": 0, "PG_isolated": 3, "__NR_PAGEFLAGS": 4})
    if "pagetype" not in gone:
        made.enum("pagetype", {"PGTY_zsmalloc": 0xF6})
    for function in sorted(functions):
        made.function(function)
    return made


def whole_btf(like: str = "7.3", **changed: Any) -> Btf:
    """Return the whole BTF of a kernel like this one."""
    descriptor = "page" if like == "6.12" else "zpdesc"
    functions = changed.pop("functions", FUNCTIONS[like])
    return whole_builder(functions, descriptor=descriptor, **changed).build()


def make_host(like: str = "7.3", **changed: Any) -> HostFacts:
    """Return a host where all works, with some facts changed."""
    kernel = changed.pop("kernel", None)
    if kernel is None:
        kernel = make_facts(like, btf=whole_btf(like), shrinker_at=0xFFFFFFFF81000000)
    trial = None
    if not isinstance(kernel, Absent) and hasattr(kernel, "btf"):
        hooks = chosen_hooks(kernel.btf, kernel.functions)
        trial = AttachTrial(tuple(hook.function for hook in hooks))
    refused = Absent("no kernel")
    facts: dict[str, Any] = {
        "release": f"{like}.0-invented",
        "page_size": 4096,
        "kernel": kernel,
        "module_btf": frozenset({"zram"}),
        "zram": {"zram0": True, "zram1": False},
        "zswap": "zsmalloc",
        "user": 0,
        "capabilities": frozenset({"CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG", "CAP_SYS_ADMIN"}),
        "lockdown": "none",
        "files_limit": 1024,
        "files_left": 192,
        "files_wanted": 192,
        "sysctls": {
            "kernel.kptr_restrict": "0",
            "kernel.perf_event_paranoid": "2",
            "kernel.unprivileged_bpf_disabled": "2",
            "net.core.bpf_jit_enable": "1",
        },
        "libbpf": "version 1.5",
        "objects": {"scan.bpf.o": "scan.bpf.o", "probes.bpf.o": "probes.bpf.o"},
        "bcc": "version 0.31.0",
        "headers": "/usr/src/linux/include",
        "trials": {"fentry": trial or refused, "kprobe": trial or refused},
        "scanner": ScanTrial(frames=True, direct_map=True, pools=("zram0", "zswap1")),
        "available_bytes": 1 << 30,
        "ring_bytes": 1 << 24,
        "witnesses": {
            "zram mm_stat": "zram0",
            "debugfs zsmalloc": Absent("no zsmalloc in debugfs (CONFIG_ZSMALLOC_STAT)"),
            "vmstat nr_zspages": "pages of all pools",
        },
    }
    return HostFacts(**(facts | changed))


def named(report: Report, name: str) -> Check:
    """Return the one check of this name."""
    (check,) = [check for check in report.checks if check.name == name]
    return check


def standings(report: Report) -> list[str]:
    """Return how scan and probes stand."""
    return [verdict.standing for verdict in report.verdicts]
