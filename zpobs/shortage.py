"""What can run out anywhere, recognised wherever it was noticed, and told in one line."""

from __future__ import annotations

import errno
import os
import resource

from zpobs import advice
from zpobs.errors import ShortageError

# What a scan takes at most: its maps and programs, what libbpf opens to try what the kernel
# can do, and files that are read one at a time. Probes take more, and are told by libbpf.
FILES_FOR_A_SCAN = 24
# What a session takes at most: probes in their dearest form, and BTF of some dozens of modules.
FILES_FOR_A_SESSION = 192

_LACKING = {
    errno.EMFILE: advice.MORE_FILES,
    errno.ENFILE: advice.MORE_FILES_IN_ALL,
    errno.ENOMEM: advice.MORE_MEMORY,
}
# The text of the second begins with that of the first.
_FILES = (errno.ENFILE, errno.EMFILE)


def told_of(text: str) -> int:
    """Return the number of the shortage of files that a text tells of, 0 if it tells of none.

    For what hands its errors on as text alone, as libraries do that lose the number.
    """
    return next((number for number in _FILES if os.strerror(number) in text), 0)


def shortage(error: BaseException) -> ShortageError | None:
    """Return what to raise for an error that some shortage made, None if it is another error."""
    number = _number(error)
    # An error of ours that was made of one tells less; that memory was short it may know better.
    if not number and error.__cause__ is not None:
        number = _number(error.__cause__)
        number = number if number in _FILES else 0
    return _short_of(number) if number else None


def raise_shortage(error: BaseException) -> None:
    """Raise ShortageError if some shortage made this error, else do nothing."""
    if found := shortage(error):
        raise found from error


def _number(error: BaseException) -> int:
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno in _LACKING:
        return error.errno
    return told_of(str(error))


def _short_of(number: int) -> ShortageError:
    return ShortageError(
        "the host has not enough for this", found=os.strerror(number), hint=_LACKING[number]
    )


def files_limit() -> int:
    """Return how many files this process may have open: the soft limit."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def files_left(wanted: int) -> int:
    """Return how many more files can be opened, ``wanted`` at most: by opening them."""
    return _opened(wanted)[0]


def check_files(wanted: int = FILES_FOR_A_SCAN) -> None:
    """Raise ShortageError unless so many more files can be opened.

    Asked beforehand: what libbpf cannot open while it finds out about a kernel it takes
    for what that kernel cannot do.
    """
    _, number = _opened(wanted)
    if number:
        raise _short_of(number)


def _opened(wanted: int) -> tuple[int, int]:
    """Open so many files and close them; return how many there were, and what ended it if any."""
    opened: list[int] = []
    try:
        while len(opened) < wanted:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno not in _FILES:
            raise
        return len(opened), error.errno
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return wanted, 0
