"""A thin binding to the system's libbpf: open an object file, size its maps, load it.

What libbpf has to say about a failure is in the text of the :class:`OSError`.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_LOG_LINE_BYTES = 8192
_LOG_LINES_TOLD = 40
_LEVEL_DEBUG = 2


class _Libbpf:
    """The functions of libbpf.so.1 that are used here, and the lines it logged."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise OSError(errno.ENOENT, f"the system has no libbpf.so.1: {error}") from None
        self.lines: list[str] = []
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        self.open_file = _function(library, "bpf_object__open_file", pointer, text, pointer)
        self.load = _function(library, "bpf_object__load", number, pointer)
        self.close = _function(library, "bpf_object__close", None, pointer)
        self.find_map = _function(library, "bpf_object__find_map_by_name", pointer, pointer, text)
        self.find_program = _function(
            library, "bpf_object__find_program_by_name", pointer, pointer, text
        )
        self.set_max_entries = _function(
            library, "bpf_map__set_max_entries", number, pointer, ctypes.c_uint32
        )
        self.map_fd = _function(library, "bpf_map__fd", number, pointer)
        self.program_fd = _function(library, "bpf_program__fd", number, pointer)
        # A va_list crosses as a pointer on the architectures that libbpf serves here.
        signature = ctypes.CFUNCTYPE(number, number, text, pointer)
        self._format = _function(
            ctypes.CDLL(None), "vsnprintf", number, text, ctypes.c_size_t, text, pointer
        )
        # Kept: libbpf calls it as long as the process lives.
        self._printer = signature(self._print)
        _function(library, "libbpf_set_print", pointer, signature)(self._printer)

    def _print(self, level: int, form: bytes, arguments: int) -> int:
        if level < _LEVEL_DEBUG:
            line = ctypes.create_string_buffer(_LOG_LINE_BYTES)
            self._format(line, _LOG_LINE_BYTES, form, arguments)
            self.lines.append(line.value.decode("utf-8", "replace").rstrip())
        return 0

    def failure(self, doing: str, code: int) -> OSError:
        """Return the error to raise: what failed and what libbpf logged about it."""
        told = "\n".join(self.lines[-_LOG_LINES_TOLD:])
        return OSError(code, f"{doing}: {os.strerror(code)}" + (f"\n{told}" if told else ""))


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function


_loaded: list[_Libbpf] = []


def _libbpf() -> _Libbpf:
    """Return the library, opened at the first use."""
    if not _loaded:
        _loaded.append(_Libbpf())
    return _loaded[0]


class BpfObject:
    """A BPF object file: opened here, then loaded once; closing frees maps and programs."""

    def __init__(self, path: Path) -> None:
        self._library = _libbpf()
        self._library.lines.clear()
        self._object: int | None = self._library.open_file(os.fsencode(path), None)
        if not self._object:
            raise self._library.failure(f"opening {path.name}", ctypes.get_errno())

    def resize_map(self, name: str, max_entries: int) -> None:
        """Set the size of a map before loading; of a ring in bytes."""
        result = self._library.set_max_entries(self._map(name), max_entries)
        if result < 0:
            raise self._library.failure(f"sizing map {name}", -result)

    def load(self) -> None:
        """Create the maps and load all programs into the kernel."""
        self._library.lines.clear()
        result = self._library.load(self._object)
        if result < 0:
            raise self._library.failure("loading BPF programs", -result)

    def map_fd(self, name: str) -> int:
        """Return the descriptor of a map; it lives as long as this object."""
        return self._descriptor(self._library.map_fd(self._map(name)), name)

    def program_fd(self, name: str) -> int:
        """Return the descriptor of a program; it lives as long as this object."""
        program = self._library.find_program(self._object, name.encode())
        if not program:
            raise self._library.failure(f"finding program {name}", errno.ENOENT)
        return self._descriptor(self._library.program_fd(program), name)

    def close(self) -> None:
        """Free everything that no one else holds."""
        if self._object:
            self._library.close(self._object)
            self._object = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _map(self, name: str) -> int:
        found = self._library.find_map(self._object, name.encode())
        if not found:
            raise self._library.failure(f"finding map {name}", errno.ENOENT)
        return int(found)

    def _descriptor(self, fd: int, name: str) -> int:
        if fd < 0:
            raise self._library.failure(f"{name} is not loaded", -fd)
        return fd
