"""A native producer: plays records into a real BPF ring under BPF_PROG_TEST_RUN."""

from __future__ import annotations

import mmap
import os
import shutil
from pathlib import Path

import numpy as np

from zpobs.bpf_build import compile_object
from zpobs.closing import Closing
from zpobs.loaders.libbpf import BpfObject
from zpobs.sources import bpfmap
from zpobs.wire import RECORD_WORDS, Words

_SOURCE = Path(__file__).with_name("producer.bpf.c")
_LINE_WORDS = RECORD_WORDS + 1


def why_not() -> str:
    """Say why native BPF cannot run here; empty if it can be tried."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("clang") is None:
        return "needs clang"
    return ""


def compile_producer(folder: Path) -> Path:
    """Compile the producer into ``folder``; return the object file."""
    target = folder / "producer.bpf.o"
    compile_object(_SOURCE, target)
    return target


class Producer(Closing):
    """The loaded producer: a ring, and a script of up to ``script_lines`` records."""

    def __init__(self, object_file: Path, *, ring_bytes: int, script_lines: int = 1) -> None:
        self.ring_bytes = ring_bytes
        self._object = BpfObject(object_file)
        self._object.resize_map("ring", ring_bytes)
        self._object.resize_map("script", script_lines)
        self._object.load()
        self.ring_fd = self._object.map_fd("ring")
        self._emit_fd = self._object.program_fd("emit")
        length = script_lines * _LINE_WORDS * 8
        length += -length % mmap.PAGESIZE
        self._mapped = mmap.mmap(self._object.map_fd("script"), length)
        self._lines: Words = np.frombuffer(self._mapped, dtype=np.uint64)[
            : script_lines * _LINE_WORDS
        ].reshape(-1, _LINE_WORDS)

    def write(self, words: Words, *, discarded: Words | None = None, at: int = 0) -> None:
        """Write records, shape (N, RECORD_WORDS), into the script from line ``at`` on."""
        lines = self._lines[at : at + len(words)]
        lines[:, :RECORD_WORDS] = words
        lines[:, RECORD_WORDS] = 0 if discarded is None else discarded

    def emit(self, begin: int, count: int) -> tuple[int, int]:
        """Play lines of the script into the ring; return how many went in and were refused."""
        request = np.array([begin, count, 0, 0], dtype=np.uint64)
        bpfmap.test_run(self._emit_fd, context=request)
        return int(request[2]), int(request[3])

    def run(self, program: str) -> int:
        """Run another program of the object once."""
        return bpfmap.test_run(self._object.program_fd(program))

    def map_fd(self, name: str) -> int:
        """Return the descriptor of a map."""
        return self._object.map_fd(name)

    def program_fd(self, name: str) -> int:
        """Return the descriptor of a program."""
        return self._object.program_fd(name)

    def close(self) -> None:
        """Unload everything."""
        del self._lines
        self._mapped.close()
        self._object.close()
