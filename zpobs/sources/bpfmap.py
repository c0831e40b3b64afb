"""The bpf(2) system call: map elements, program statistics, test runs.

Every failure is an :class:`OSError` with the kernel's errno. Keys and values
are bytes in the machine's order; a value of a per-CPU map holds one value for
each possible CPU, end to end, each a multiple of 8 bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.uint64]

_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_MAP_GET_NEXT_KEY = 4
_PROG_TEST_RUN = 10
_OBJ_GET_INFO_BY_FD = 15
_MAP_LOOKUP_AND_DELETE_ELEM = 21
_MAP_LOOKUP_BATCH = 24
_ENABLE_STATS = 32

_ANY, _NOEXIST = 0, 1

# What the kernel answers for an operation that a map type lacks; not in errno.h.
_ENOTSUPP = 524
# The system call has another number on each architecture.
_SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_CPUS_POSSIBLE = "/sys/devices/system/cpu/possible"

_libc = ctypes.CDLL(None, use_errno=True)


class _Element(ctypes.Structure):
    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value_or_next_key", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _TestRun(ctypes.Structure):
    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
    )


class _EnableStats(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint32),)


class _InfoQuery(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_uint32),
        ("info_len", ctypes.c_uint32),
        ("info", ctypes.c_uint64),
    )


# Offsets of run_time_ns, which run_cnt follows, and of recursion_misses in struct
# bpf_prog_info, in bytes.
_RUN_TIME_OFFSET, _RECURSION_MISSES_OFFSET = 192, 208
_PROGRAM_INFO_BYTES = 256


def _bpf(command: int, attributes: ctypes.Structure) -> int:
    machine = platform.machine()
    number = _SYSCALL_NUMBERS.get(machine)
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) is not known on {machine}")
    size = ctypes.sizeof(attributes)
    result = int(_libc.syscall(number, command, ctypes.byref(attributes), size))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf(2) command {command}: {os.strerror(code)}")
    return result


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, len(content))


def possible_cpus() -> int:
    """Return the number of CPUs that per-CPU values have a place for."""
    ranges = Path(_CPUS_POSSIBLE).read_text(encoding="ascii").split(",")
    return 1 + max(int(part.split("-")[-1]) for part in ranges)


def lookup(map_fd: int, key: bytes, value_bytes: int) -> bytes:
    """Return the value of one element; of a per-CPU map the values of all possible CPUs."""
    held, value = _buffer(key), ctypes.create_string_buffer(value_bytes)
    place = _Element(map_fd, ctypes.addressof(held), ctypes.addressof(value), 0)
    _bpf(_MAP_LOOKUP_ELEM, place)
    return value.raw


def peek(map_fd: int, value_bytes: int) -> bytes:
    """Return the front of a queue or the top of a stack; OSError ENOENT if it is empty."""
    value = ctypes.create_string_buffer(value_bytes)
    _bpf(_MAP_LOOKUP_ELEM, _Element(map_fd, 0, ctypes.addressof(value), 0))
    return value.raw


def lookup_batch(map_fd: int, start_index: int, count: int, value_words: int, cpus: int) -> Values:
    """Return ``count`` elements of a per-CPU array, shape (count, cpus, value_words).

    One system call where the kernel has batches for such maps, else one an element.
    """
    values = np.zeros((count, cpus, value_words), dtype=np.uint64)
    keys = np.zeros(count, dtype=np.uint32)
    # The kernel begins behind the key that in_batch points to, or at 0 without one.
    begin = ctypes.c_uint32(max(start_index - 1, 0))
    end = ctypes.c_uint32()
    batch = _Batch(
        in_batch=ctypes.addressof(begin) if start_index else 0,
        out_batch=ctypes.addressof(end),
        keys=keys.ctypes.data,
        values=values.ctypes.data,
        count=count,
        map_fd=map_fd,
    )
    try:
        _bpf(_MAP_LOOKUP_BATCH, batch)
    except OSError as error:
        # ENOENT tells that the map ended with the batch, the others that it has no batches.
        if error.errno not in {errno.ENOENT, errno.EINVAL, errno.ENOTSUP, _ENOTSUPP}:
            raise
    if batch.count == count and np.array_equal(keys, np.arange(count) + start_index):
        return values
    for row in range(count):
        key = (start_index + row).to_bytes(4, sys.byteorder)
        value = lookup(map_fd, key, cpus * value_words * 8)
        values[row] = np.frombuffer(value, dtype=np.uint64).reshape(cpus, value_words)
    return values


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Set one element; of a per-CPU map ``value`` holds those of all possible CPUs."""
    held, data = _buffer(key), _buffer(value)
    place = _Element(map_fd, ctypes.addressof(held), ctypes.addressof(data), _ANY)
    _bpf(_MAP_UPDATE_ELEM, place)


def insert(map_fd: int, key: bytes, value: bytes) -> None:
    """Add an element; OSError EEXIST if the key has one."""
    held, data = _buffer(key), _buffer(value)
    place = _Element(map_fd, ctypes.addressof(held), ctypes.addressof(data), _NOEXIST)
    _bpf(_MAP_UPDATE_ELEM, place)


def delete(map_fd: int, key: bytes) -> None:
    """Remove an element; OSError ENOENT if there is none."""
    held = _buffer(key)
    _bpf(_MAP_DELETE_ELEM, _Element(map_fd, ctypes.addressof(held), 0, 0))


def pop(map_fd: int, value_bytes: int) -> bytes:
    """Take the front of a queue or the top of a stack; OSError ENOENT if it is empty."""
    value = ctypes.create_string_buffer(value_bytes)
    _bpf(_MAP_LOOKUP_AND_DELETE_ELEM, _Element(map_fd, 0, ctypes.addressof(value), 0))
    return value.raw


def push(map_fd: int, value: bytes) -> None:
    """Push a value onto a queue or stack map; OSError E2BIG if it is full."""
    data = _buffer(value)
    _bpf(_MAP_UPDATE_ELEM, _Element(map_fd, 0, ctypes.addressof(data), 0))


def keys(map_fd: int, key_bytes: int) -> Iterator[bytes]:
    """Yield the keys of a small hash.

    A key deleted while the walk stands on it starts the walk again, as the
    kernel does: a key may come twice.
    """
    key = ctypes.create_string_buffer(key_bytes)
    following = ctypes.create_string_buffer(key_bytes)
    query = _Element(map_fd, 0, ctypes.addressof(following), 0)
    while True:
        try:
            _bpf(_MAP_GET_NEXT_KEY, query)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        yield following.raw
        key.raw = following.raw
        query.key = ctypes.addressof(key)


def items(map_fd: int, key_bytes: int, value_bytes: int) -> list[tuple[bytes, bytes]]:
    """Return the elements of a small hash; those deleted during the walk are left out."""
    found: dict[bytes, bytes] = {}
    for key in keys(map_fd, key_bytes):
        try:
            found[key] = lookup(map_fd, key, value_bytes)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
    return list(found.items())


@dataclass(frozen=True, slots=True)
class ProgramRuns:
    """What the kernel counts of a program; runs and their time only while it keeps statistics."""

    runs: int
    run_ns: int
    skipped: int


def program_runs(prog_fd: int) -> ProgramRuns:
    """Return what struct bpf_prog_info tells of a program's runs."""
    info = ctypes.create_string_buffer(_PROGRAM_INFO_BYTES)
    query = _InfoQuery(prog_fd, _PROGRAM_INFO_BYTES, ctypes.addressof(info))
    _bpf(_OBJ_GET_INFO_BY_FD, query)
    begin, end = _RUN_TIME_OFFSET, _RECURSION_MISSES_OFFSET + 8
    if query.info_len < end:
        raise OSError(errno.ENOTSUP, "the kernel does not tell skipped program runs")
    run_ns, runs, skipped = np.frombuffer(info.raw[begin:end], dtype=np.uint64).tolist()
    return ProgramRuns(runs=runs, run_ns=run_ns, skipped=skipped)


def recursion_misses(prog_fd: int) -> int:
    """Return how many runs of a program the kernel skipped because it was running already."""
    return program_runs(prog_fd).skipped


def enable_run_stats() -> int:
    """Let the kernel time all BPF programs until the descriptor that is returned is closed.

    OSError EPERM without CAP_SYS_ADMIN.
    """
    # BPF_STATS_RUN_TIME is 0, the only kind that there is.
    return _bpf(_ENABLE_STATS, _EnableStats(0))


def test_run(prog_fd: int, *, context: Values | None = None, data: bytes = b"") -> int:
    """Run a program once through BPF_PROG_TEST_RUN and return its result."""
    attributes = _TestRun(prog_fd=prog_fd)
    if context is not None:
        context = np.ascontiguousarray(context, dtype=np.uint64)
        attributes.ctx_in = context.ctypes.data
        attributes.ctx_size_in = context.nbytes
    held = ctypes.create_string_buffer(data, len(data)) if data else None
    if held is not None:
        attributes.data_in = ctypes.addressof(held)
        attributes.data_size_in = len(data)
    _bpf(_PROG_TEST_RUN, attributes)
    return int(attributes.retval)


# pytest must not take it for a test where it is imported by name.
test_run.__test__ = False  # type: ignore[attr-defined]
