"""A page as a file for node_exporter's textfile collector: there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from zpobs.errors import EnvironmentLacksError, UsageError

# The collector reads no others.
SUFFIX = ".prom"
_MODE = 0o644


def check_textfile(path: Path) -> None:
    """Raise UsageError for a name that is not read, EnvironmentLacksError where none can be."""
    if path.suffix != SUFFIX:
        raise UsageError(
            f"--textfile {path} would not be read",
            found=f"a name that does not end in {SUFFIX}",
            hint=f"{path.with_suffix(SUFFIX)}",
        )
    try:
        if path.is_dir():
            raise IsADirectoryError(21, os.strerror(21))
        descriptor, name = _temporary(path)
        os.close(descriptor)
        Path(name).unlink()
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot write {path}", found=error.strerror or str(error), hint="another --textfile"
        ) from error


def write_textfile(path: Path, body: bytes) -> None:
    """Put a page in a file's place; OSError leaves what was there."""
    descriptor, name = _temporary(path)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, _MODE)
            file.write(body)
        Path(name).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _temporary(path: Path) -> tuple[int, str]:
    # In the same folder, since only there it can be renamed; with a name that is not read.
    return tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
