"""What ran out is recognised wherever it was noticed; what is something else is left alone."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from zpobs.errors import EnvironmentLacksError, ShortageError
from zpobs.loaders.libbpf import LibbpfError
from zpobs.shortage import check_files, files_left, files_limit, shortage

# As libbpf logged it, with EINVAL as the number that it handed on.
LOST_NUMBER = "libbpf: map 'zs_events': failed to create: Too many open files(-24)"


@pytest.fixture
def few_files() -> Iterator[int]:
    """Leave this process so many files to open, and return how many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    # Places below the highest may be free.
    yield files_left(1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("error", "found", "hint"),
    [
        (OSError(errno.EMFILE, "x"), "Too many open files", "ulimit -n 1024"),
        (OSError(errno.ENFILE, "x"), "Too many open files in system", "fs.file-max"),
        (OSError(errno.ENOMEM, "x"), "Cannot allocate memory", "memory"),
        (MemoryError(), "Cannot allocate memory", "memory"),
        (LibbpfError("loading", errno.EINVAL, LOST_NUMBER), "Too many open files", "ulimit"),
        (ImportError("libx.so: cannot open: Too many open files"), "Too many open", "ulimit"),
    ],
)
def test_what_ran_out_is_recognised(error: Exception, found: str, hint: str) -> None:
    """By its number, or by the words of what lost the number."""
    told = shortage(error)
    assert told is not None
    assert told.found.startswith(found)
    assert hint in told.hint


def test_too_many_files_of_a_process_are_not_those_of_the_system() -> None:
    """One text begins as the other does."""
    told = shortage(Exception(f"open: {os.strerror(errno.ENFILE)}"))
    assert told is not None
    assert "fs.file-max" in told.hint


def test_an_error_made_of_one_is_one() -> None:
    """But for memory, of which the error that was made of it may know what took it."""
    for number, recognised in ((errno.EMFILE, True), (errno.ENOMEM, False), (errno.EPERM, False)):
        error = EnvironmentLacksError("cannot write x", found="y", hint="another --log")
        error.__cause__ = OSError(number, "x")
        assert (shortage(error) is not None) == recognised


@pytest.mark.parametrize("error", [OSError(errno.EPERM, "x"), ValueError("x"), OSError("x")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    """They are not what ran out."""
    assert shortage(error) is None


def test_what_can_be_opened_is_counted(few_files: int) -> None:
    """By opening: the count is exact, and nothing stays open."""
    assert files_left(1000) == few_files < files_limit()
    check_files(few_files)
    with pytest.raises(ShortageError, match="Too many open files; try: ulimit -n 1024"):
        check_files(few_files + 1)
    assert files_left(1000) == few_files
