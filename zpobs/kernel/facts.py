"""What the running kernel has, gathered once at start: facts, no opinions."""

from __future__ import annotations

import gzip
import os
import re
from dataclasses import dataclass
from pathlib import Path

from zpobs import advice
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.btf import Btf
from zpobs.kernel.hooks import hookable

_VMLINUX_BTF = Path("/sys/kernel/btf/vmlinux")
_KALLSYMS = Path("/proc/kallsyms")
_KPROBE_EVENTS = Path("/sys/bus/event_source/devices/kprobe")
_REALTIME = Path("/sys/kernel/realtime")
# What every pool's shrinker runs, and nothing else.
_SHRINKER = "zs_shrinker_scan"
_BLOCK_BYTES = 1 << 20
_CHAIN_SIZE = re.compile(r"^CONFIG_ZSMALLOC_CHAIN_SIZE=(\d+)$", re.MULTILINE)
_ZSMALLOC = re.compile(r"^CONFIG_ZSMALLOC=[ym]$", re.MULTILINE)
# mm/zsmalloc.c before it could be configured: 1 << ZS_MAX_ZSPAGE_ORDER.
_FIXED_CHAIN_SIZE = 4


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """Facts about one running kernel.

    ``functions`` are the hookable functions of :mod:`zpobs.kernel.hooks` that
    kallsyms lists. ``shrinker_at`` is the address of zs_shrinker_scan(), None if
    kallsyms hides it. ``kprobes`` tells whether kprobes can be made through perf events.
    ``chain_size`` is CONFIG_ZSMALLOC_CHAIN_SIZE, None if no copy of the
    kernel's configuration is at hand. ``realtime`` tells of PREEMPT_RT.
    """

    release: str
    page_size: int
    btf: Btf
    functions: frozenset[str]
    kprobes: bool
    chain_size: int | None
    realtime: bool = False
    shrinker_at: int | None = None


def probe_kernel() -> KernelFacts:
    """Gather facts about the running kernel; needs root to see symbol addresses."""
    release = os.uname().release
    if not _VMLINUX_BTF.exists():
        raise EnvironmentLacksError(
            "kernel structures cannot be located",
            found=f"no {_VMLINUX_BTF} on {release}",
            hint=advice.BTF,
        )
    facts = read_facts(read_btf())
    if "zs_malloc" not in facts.functions:
        raise EnvironmentLacksError(
            "zsmalloc is not in this kernel",
            found=f"no zs_malloc in {_KALLSYMS} on {release}",
            hint=advice.ZSMALLOC,
        )
    return facts


def read_btf() -> Btf:
    """Read the running kernel's BTF, with zsmalloc's if it is a module; raise OSError if none."""
    btf = Btf.read(_VMLINUX_BTF)
    module = _VMLINUX_BTF.with_name("zsmalloc")
    return Btf.read(module, base=btf) if module.exists() else btf


def read_facts(btf: Btf) -> KernelFacts:
    """Gather what there is, however little; raise OSError if /proc/kallsyms cannot be read."""
    release = os.uname().release
    symbols = _symbols(hookable())
    return KernelFacts(
        release=release,
        page_size=os.sysconf("SC_PAGE_SIZE"),
        btf=btf,
        functions=frozenset(symbols),
        kprobes=_KPROBE_EVENTS.exists(),
        chain_size=_chain_size(release),
        realtime=_REALTIME.exists(),
        shrinker_at=symbols.get(_SHRINKER) or None,
    )


def _symbols(wanted: frozenset[str]) -> dict[str, int]:
    """Return the addresses of those symbols that kallsyms lists under exactly these names."""
    found: dict[str, int] = {}
    with _KALLSYMS.open("rb") as listing:
        # Not whole: it has megabytes, and memory once used stays used.
        while block := listing.read(_BLOCK_BYTES) + listing.readline():
            for name in wanted:
                address = _address(block, name.encode())
                if address is not None:
                    found[name] = address
    return found


def _address(block: bytes, name: bytes) -> int | None:
    """Find a symbol in whole lines: ``address type name``, and a tab and a module if it has one."""
    at = block.find(b" " + name)
    while at >= 0:
        end = at + 1 + len(name)
        if block[end : end + 1] in (b"\n", b"\t", b""):
            begin = block.rfind(b"\n", 0, at) + 1
            return int(block[begin:at].split()[0], 16)
        at = block.find(b" " + name, end)
    return None


def _chain_size(release: str) -> int | None:
    """Return CONFIG_ZSMALLOC_CHAIN_SIZE from whichever copy of the configuration is at hand.

    One that has zsmalloc but not this is of a kernel where the size is fixed.
    """
    for path in (
        Path("/proc/config.gz"),
        Path(f"/boot/config-{release}"),
        Path(f"/lib/modules/{release}/config"),
        Path(f"/lib/modules/{release}/build/.config"),
    ):
        try:
            data = path.read_bytes()
        except OSError:
            continue
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        settings = text.decode(errors="replace")
        found = _CHAIN_SIZE.search(settings)
        if found:
            return int(found[1])
        if _ZSMALLOC.search(settings):
            return _FIXED_CHAIN_SIZE
    return None
