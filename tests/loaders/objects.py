"""What is in an opened object file, asked of libbpf itself."""

from __future__ import annotations

import ctypes

from zpobs.loaders.libbpf import BpfObject


def program_names(opened: BpfObject) -> list[str]:
    """Return the names of all programs, loaded or not."""
    library = ctypes.CDLL("libbpf.so.1")
    following, name_of = library.bpf_object__next_program, library.bpf_program__name
    following.restype, name_of.restype = ctypes.c_void_p, ctypes.c_char_p
    following.argtypes, name_of.argtypes = [ctypes.c_void_p] * 2, [ctypes.c_void_p]
    names = []
    program = following(opened._object, None)
    while program:
        names.append(name_of(program).decode())
        program = following(opened._object, program)
    return names
