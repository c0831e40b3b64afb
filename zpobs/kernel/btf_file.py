"""Another kernel's BTF, from a file: raw as in /sys/kernel/btf, or in an ELF file's section .BTF.

Such a file may be anything: whatever is wrong with it becomes a BadInputError.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from zpobs.errors import BadInputError, EnvironmentLacksError
from zpobs.kernel.btf import Btf
from zpobs.kernel.layout import members, resolve, walk_members
from zpobs.kernel.pageflags import page_flags

_ELF = b"\x7fELF"
_BOOT_IMAGE, _BOOT_IMAGE_AT = b"HdrS", 0x202
_ELF_64_LITTLE = b"\x02\x01"
_SECTION_TABLE = struct.Struct("<40xQ10xHHH")
_SECTION = struct.Struct("<II16xQQ")
_HEADER = struct.Struct("<HBBIIIII")
_MAGIC = 0xEB9F
_HINT = "a copy of /sys/kernel/btf/vmlinux, or a vmlinux with a section .BTF"


def read_btf_files(paths: Sequence[Path]) -> Btf:
    """Return a kernel's BTF, with its modules' in the files after the first.

    Raise BadInputError if a file cannot be read or is no BTF.
    """
    btf = None
    for path in paths:
        try:
            data = _raw(path.read_bytes())
            _check(data, module=btf is not None)
            btf = Btf(data, base=btf)
            _touch(btf)
        except OSError as error:
            raise BadInputError(
                f"cannot read {path}", found=error.strerror or str(error), hint=_HINT
            ) from error
        except EnvironmentLacksError as error:
            raise _bad(path, error.found) from error
        except _WrongError as error:
            raise _bad(path, str(error)) from error
        except (struct.error, ValueError, IndexError, RecursionError) as error:
            raise _bad(path, "BTF that is damaged") from error
    if btf is None:
        raise BadInputError("no file with BTF was given", hint=_HINT)
    return btf


class _WrongError(Exception):
    """What a file has instead of BTF."""


def _bad(path: Path, found: str) -> BadInputError:
    return BadInputError(f"{path} is no kernel's BTF", found=found, hint=_HINT)


def _raw(data: bytes) -> bytes:
    """Return the BTF in a file's bytes: all of them, or the section .BTF."""
    if data.startswith(_BOOT_IMAGE, _BOOT_IMAGE_AT):
        raise _WrongError("a packed image (scripts/extract-vmlinux of the kernel unpacks it)")
    if not data.startswith(_ELF):
        return data
    sections = _sections(data)
    if ".BTF" not in sections:
        raise _WrongError("an ELF file without a section .BTF")
    if ".BTF.base" in sections:
        raise _WrongError("a module with a base of its own; take it from /sys/kernel/btf")
    at, size = sections[".BTF"]
    return data[at : at + size]


def _sections(data: bytes) -> dict[str, tuple[int, int]]:
    """Return where an ELF file's sections stand: byte offset and size by name."""
    if data[4:6] != _ELF_64_LITTLE:
        raise _WrongError("an ELF file that is not 64-bit and little-endian")
    table, each, count, names_at = _SECTION_TABLE.unpack_from(data)
    if table > len(data) or each < _SECTION.size:
        raise _WrongError("an ELF file without a table of sections")
    heads = [_SECTION.unpack_from(data, table + each * number) for number in range(count)]
    _, _, at, size = heads[names_at]
    names = data[at : at + size]
    return {
        names[name : names.index(b"\0", name)].decode(): (at, size) for name, _, at, size in heads
    }


def _check(data: bytes, *, module: bool) -> None:
    """Raise _WrongError for what the reader itself would take, and take wrongly."""
    if len(data) < _HEADER.size:
        raise _WrongError(f"{len(data)} bytes")
    magic, _, _, header, type_off, type_len, str_off, str_len = _HEADER.unpack_from(data)
    if magic == int.from_bytes(_MAGIC.to_bytes(2, "little"), "big"):
        raise _WrongError("BTF of the other byte order")
    if magic != _MAGIC:
        raise _WrongError(f"magic {magic:#06x} where BTF has {_MAGIC:#06x}")
    if header + max(type_off + type_len, str_off + str_len) > len(data):
        raise _WrongError(f"BTF that is cut off after {len(data):,} bytes")
    strings = header + str_off
    # A kernel's strings begin with the empty one; a module's go on where the kernel's end.
    whole = str_len > 0 and data[strings] == 0
    if not whole and not module:
        raise _WrongError("a module's BTF; give its kernel's first")
    if whole and module:
        raise _WrongError("a kernel's BTF where a module's is wanted")


def _touch(btf: Btf) -> None:
    """Ask for what a damaged file most likely gets wrong."""
    for member in (*members(), *walk_members()):
        resolve(btf, member)
    for name in ("zspage", "page"):
        btf.size(name)
    btf.array_length("zs_pool", "size_class")
    btf.array_length("size_class", "fullness_list")
    page_flags(btf)
