"""A thin binding to the system's libbpf: open an object file, choose, load, attach.

What libbpf and the kernel have to say about a failure is in :class:`LibbpfError`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NewType

from zpobs.closing import Closing
from zpobs.errors import EnvironmentLacksError
from zpobs.loaders.verifier import last_useful_line, refusal
from zpobs.shortage import told_of

# Of a log, a verifier's within it, as much of both ends is in an error's text.
_TEXT_KEPT = 4096
_LOG_LINES_TOLD = 40
_LEVEL_DEBUG = 2
_VERIFIER_LOG = re.compile(
    r"prog '([^']*)': -- BEGIN PROG LOAD LOG --\n(.*?)-- END PROG LOAD LOG --", re.DOTALL
)

Link = NewType("Link", int)


class LibbpfError(OSError):
    """libbpf or the kernel refused something; ``log`` is all that was told about it.

    ``program`` and ``verifier_log`` are the program that the kernel's verifier
    refused and what it said, both empty if it was not the verifier.
    """

    def __init__(self, doing: str, code: int, log: str) -> None:
        # What libbpf only tried first, as BTF of modules, has its number in the log alone.
        code = told_of(log) or code
        told = log
        if len(log) > 2 * _TEXT_KEPT:
            told = f"{log[:_TEXT_KEPT]}\n[...]\n{log[-_TEXT_KEPT:]}"
        super().__init__(code, f"{doing}: {os.strerror(code)}" + (f"\n{told}" if told else ""))
        self.log = log
        refused = _VERIFIER_LOG.findall(log)
        self.program: str = refused[-1][0] if refused else ""
        self.verifier_log: str = refused[-1][1] if refused else ""

    @property
    def verifier(self) -> str:
        """The verifier's line that says why, empty if it was not the verifier that refused."""
        return last_useful_line(self.verifier_log)

    @property
    def reason(self) -> str:
        """One line that says most: the verifier's, else the first that was logged."""
        first = next(iter(self.log.splitlines()), "") or str(self.strerror).splitlines()[0]
        return self.verifier or first.removeprefix("libbpf: ")

    def explained(self) -> str:
        """Return the reason; if it is the verifier's, say of what, and keep its log in a file."""
        if not self.verifier_log.strip():
            return self.reason
        return refusal(self.program, self.verifier_log) or self.reason


class _Libbpf:
    """The functions of libbpf.so.1 that are used here, and the lines it logged."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libbpf.so.1", use_errno=True)
        except OSError as error:
            raise LibbpfError("loading libbpf.so.1", errno.ENOENT, str(error)) from None
        self.lines: list[str] = []
        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        c_library = ctypes.CDLL(None)
        self._format = _function(c_library, "vasprintf", number, pointer, text, pointer)
        self._free = _function(c_library, "free", None, pointer)

        def bind(name: str, result: Any, *arguments: Any) -> Any:
            return _function(library, name, result, *arguments)

        self.version = bind("libbpf_version_string", text)
        self.open_file = bind("bpf_object__open_file", pointer, text, pointer)
        self.load = bind("bpf_object__load", number, pointer)
        self.close = bind("bpf_object__close", None, pointer)
        self.find_map = bind("bpf_object__find_map_by_name", pointer, pointer, text)
        self.find_program = bind("bpf_object__find_program_by_name", pointer, pointer, text)
        self.set_max_entries = bind("bpf_map__set_max_entries", number, pointer, ctypes.c_uint32)
        self.set_initial_value = bind(
            "bpf_map__set_initial_value", number, pointer, text, ctypes.c_size_t
        )
        self.reuse_fd = bind("bpf_map__reuse_fd", number, pointer, number)
        self.map_fd = bind("bpf_map__fd", number, pointer)
        self.program_fd = bind("bpf_program__fd", number, pointer)
        self.set_autoload = bind("bpf_program__set_autoload", number, pointer, ctypes.c_bool)
        self.attach = bind("bpf_program__attach", pointer, pointer)
        self.attach_kprobe = bind(
            "bpf_program__attach_kprobe", pointer, pointer, ctypes.c_bool, text
        )
        self.link_destroy = bind("bpf_link__destroy", number, pointer)
        # A va_list crosses as a pointer on the architectures that libbpf serves here.
        signature = ctypes.CFUNCTYPE(number, number, text, pointer)
        # Kept: libbpf calls it as long as the process lives.
        self._printer = signature(self._print)
        bind("libbpf_set_print", pointer, signature)(self._printer)

    def _print(self, level: int, form: bytes, arguments: int) -> int:
        if level < _LEVEL_DEBUG:
            made = ctypes.c_void_p()
            length = self._format(ctypes.byref(made), form, arguments)
            if length >= 0:
                line = ctypes.string_at(made, length)
                self._free(made)
                self.lines.append(line.decode("utf-8", "replace").rstrip())
        return 0

    def failure(self, doing: str, code: int) -> LibbpfError:
        """Return the error to raise: what failed and what libbpf logged about it."""
        return LibbpfError(doing, code, "\n".join(self.lines[-_LOG_LINES_TOLD:]))


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments
    return function


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep an interruption for afterwards: one that met libbpf's call-back would be lost there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if came:
            signal.raise_signal(signal.SIGINT)


_loaded: list[_Libbpf] = []


def _libbpf() -> _Libbpf:
    """Return the library, opened at the first use."""
    if not _loaded:
        _loaded.append(_Libbpf())
    return _loaded[0]


def check_libbpf() -> str:
    """Return the version of the system's libbpf; raise EnvironmentLacksError if it has none."""
    try:
        version: bytes = _libbpf().version()
    except LibbpfError as error:
        raise EnvironmentLacksError(
            "prebuilt BPF objects are loaded by libbpf.so.1",
            found=error.reason,
            hint="apt install libbpf1",
        ) from error
    return version.decode(errors="replace").removeprefix("v")


class BpfObject(Closing):
    """A BPF object file: opened, set up and loaded once; closing detaches and frees all of it.

    Every method raises :class:`LibbpfError` when libbpf or the kernel refuses.
    """

    def __init__(self, path: Path) -> None:
        self._library = _libbpf()
        self._library.lines.clear()
        self._links: list[Link] = []
        with _undisturbed():
            self._object: int | None = self._library.open_file(os.fsencode(path), None)
        if not self._object:
            raise self._library.failure(f"opening {path.name}", ctypes.get_errno())

    # -- before loading ---------------------------------------------------------

    def resize_map(self, name: str, max_entries: int) -> None:
        """Set the size of a map before loading; of a ring in bytes."""
        self._checked(
            self._library.set_max_entries(self._map(name), max_entries), f"sizing map {name}"
        )

    def share_map(self, name: str, fd: int) -> None:
        """Have programs use a map that is there already, before loading; it stays its owner's."""
        self._checked(self._library.reuse_fd(self._map(name), fd), f"sharing map {name}")

    def set_initial_value(self, name: str, value: bytes) -> None:
        """Set the content of a map of variables, such as ``.rodata.setup``, before loading."""
        result = self._library.set_initial_value(self._map(name), value, len(value))
        self._checked(result, f"setting {name}")

    def enable(self, program: str, wanted: bool = True) -> None:
        """Have a program loaded with the object, or not."""
        result = self._library.set_autoload(self._program(program), wanted)
        self._checked(result, f"choosing program {program}")

    def load(self) -> None:
        """Create the maps and load the programs that are wanted; after a refusal only close it."""
        self._library.lines.clear()
        with _undisturbed():
            result = self._library.load(self._object)
        self._checked(result, "loading BPF programs")

    # -- afterwards -------------------------------------------------------------

    def attach(self, program: str) -> Link:
        """Attach a program as its section says."""
        self._library.lines.clear()
        with _undisturbed():
            made = self._library.attach(self._program(program))
        return self._linked(made, program)

    def attach_kprobe(self, program: str, function: str, *, at_return: bool) -> Link:
        """Attach a program to a kernel function, found by its symbol."""
        self._library.lines.clear()
        with _undisturbed():
            made = self._library.attach_kprobe(self._program(program), at_return, function.encode())
        return self._linked(made, program)

    def detach(self, link: Link) -> None:
        """Undo an attachment; closing does it for all that are left."""
        self._links.remove(link)
        self._library.link_destroy(link)

    def map_fd(self, name: str) -> int:
        """Return the descriptor of a map; it lives as long as this object."""
        return self._descriptor(self._library.map_fd(self._map(name)), name)

    def program_fd(self, name: str) -> int:
        """Return the descriptor of a program; it lives as long as this object."""
        return self._descriptor(self._library.program_fd(self._program(name)), name)

    def close(self) -> None:
        """Detach, and free everything that no one else holds."""
        # The last first: what pairs calls with returns is attached the other way round.
        for link in reversed(list(self._links)):
            self.detach(link)
        if self._object:
            self._library.close(self._object)
            self._object = None

    def _map(self, name: str) -> int:
        found = self._library.find_map(self._object, name.encode())
        if not found:
            raise self._library.failure(f"finding map {name}", errno.ENOENT)
        return int(found)

    def _program(self, name: str) -> int:
        found = self._library.find_program(self._object, name.encode())
        if not found:
            raise self._library.failure(f"finding program {name}", errno.ENOENT)
        return int(found)

    def _linked(self, made: int | None, program: str) -> Link:
        if not made:
            raise self._library.failure(f"attaching {program}", ctypes.get_errno())
        self._links.append(Link(made))
        return Link(made)

    def _checked(self, result: int, doing: str) -> None:
        if result < 0:
            raise self._library.failure(doing, -result)

    def _descriptor(self, fd: int, name: str) -> int:
        if fd < 0:
            raise self._library.failure(f"{name} is not loaded", -fd)
        return fd
