"""The scanner's programs, and those that read pageblocks: loaded, run by nobody yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from zpobs.bpf_files import bpf_object
from zpobs.errors import EnvironmentLacksError
from zpobs.host import scanner_hint
from zpobs.loaders.libbpf import BpfObject, LibbpfError, check_libbpf
from zpobs.shortage import shortage

_PROGRAMS = ("scan_pool", "find_pools", "find_descriptor", "find_direct_map")
_MAPS = (".bss.control", ".bss.records")
_BLOCK_PROGRAMS = ("read_blocks", "read_words")
_BLOCK_MAPS = (".bss.control", ".bss.blocks")


@dataclass(frozen=True, slots=True)
class LoadedScan:
    """File descriptors of one object: programs and mapped arrays by name."""

    program_fds: Mapping[str, int]
    map_fds: Mapping[str, int]
    close: Callable[[], None] = field(repr=False)


def load_scan() -> LoadedScan:
    """Load the scanner; raise EnvironmentLacksError with the kernel's reason if it cannot be."""
    return _load("scan.bpf.o", _PROGRAMS, _MAPS)


def load_pageblocks() -> LoadedScan:
    """Load what reads pageblocks; raise EnvironmentLacksError as :func:`load_scan` does."""
    return _load("pageblocks.bpf.o", _BLOCK_PROGRAMS, _BLOCK_MAPS)


def _load(name: str, programs: Sequence[str], maps: Sequence[str]) -> LoadedScan:
    check_libbpf()
    try:
        loaded = BpfObject(bpf_object(name))
    except LibbpfError as error:
        raise _refused(error) from error
    try:
        loaded.load()
        return LoadedScan(
            program_fds={name: loaded.program_fd(name) for name in programs},
            map_fds={name: loaded.map_fd(name) for name in maps},
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
