"""The scanner's programs: loaded, run by nobody yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from zpobs.bpf_files import bpf_object
from zpobs.errors import EnvironmentLacksError
from zpobs.host import scanner_hint
from zpobs.loaders.libbpf import BpfObject, LibbpfError, check_libbpf
from zpobs.shortage import shortage

_PROGRAMS = ("scan_pool", "find_pools", "find_descriptor", "find_direct_map")
_MAPS = (".bss.control", ".bss.records")


@dataclass(frozen=True, slots=True)
class LoadedScan:
    """File descriptors of ``bpf/scan.bpf.c``: programs and mapped arrays by name."""

    program_fds: Mapping[str, int]
    map_fds: Mapping[str, int]
    close: Callable[[], None] = field(repr=False)


def load_scan() -> LoadedScan:
    """Load the scanner; raise EnvironmentLacksError with the kernel's reason if it cannot be."""
    check_libbpf()
    try:
        loaded = BpfObject(bpf_object("scan.bpf.o"))
    except LibbpfError as error:
        raise _refused(error) from error
    try:
        loaded.load()
        return LoadedScan(
            program_fds={name: loaded.program_fd(name) for name in _PROGRAMS},
            map_fds={name: loaded.map_fd(name) for name in _MAPS},
            close=loaded.close,
        )
    except LibbpfError as error:
        loaded.close()
        raise _refused(error) from error


def _refused(error: LibbpfError) -> EnvironmentLacksError:
    return shortage(error) or EnvironmentLacksError(
        "the scanner cannot be loaded",
        found=error.explained(),
        hint=scanner_hint(),
    )
