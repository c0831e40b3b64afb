"""A page as a file for node_exporter's textfile collector: there as a whole or not at all.

The collector serves whatever is there, however old. So a file is only there while it is true: a
thread of its own writes what the board says, that nothing is fresh among it, whatever becomes of
the thread that makes pages; what cannot be written anew is removed, and so is all at the end.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from zpobs.errors import EnvironmentLacksError, UsageError, warn
from zpobs.views.metrics.board import Board
from zpobs.views.metrics.pages import Page

# The collector reads no others.
SUFFIX = ".prom"
# What a file may be called of which a folder alone is told.
_NAME = f"zpobs{SUFFIX}"
_MODE = 0o644
# How long after a failure to write the next try is made, unless a new page comes before.
_RETRY_S = 2.0
# How long the end waits for what is being written.
_GRACE_S = 2.0


def check_textfile(path: Path) -> None:
    """Raise UsageError for a name that is not read, EnvironmentLacksError where none can be."""
    if path.suffix != SUFFIX:
        raise UsageError(
            f"--textfile {path} would not be read",
            found=f"a name that does not end in {SUFFIX}",
            hint=f"{path.with_suffix(SUFFIX) if path.name else path / _NAME}",
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


@contextlib.contextmanager
def textfile_kept(path: Path, board: Board) -> Iterator[None]:
    """Have a file say what a board says meanwhile; before and after there is none."""
    writer = _Writer(path, board)
    writer.start()
    try:
        yield
    finally:
        writer.close()


@contextlib.contextmanager
def textfile_or_none(path: Path) -> Iterator[None]:
    """Remove a file if what is to renew it fails: what it says is of an earlier run."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise


class _Writer:
    """Writes each page of a board to a file; what goes wrong is told once, until it is well."""

    def __init__(self, path: Path, board: Board) -> None:
        self._path = path
        self._board = board
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="zpobs-textfile", daemon=True)

    def start(self) -> None:
        # Of one that was killed, and could not remove it.
        self._remove()
        self._thread.start()

    def close(self) -> None:
        self._board.end()
        # A disk that hangs must not keep the exporter; nothing could remove the file then.
        self._thread.join(_GRACE_S)

    def _run(self) -> None:
        written: Page | None = None
        while not self._board.ended:
            page = self._board.other_than(written, _RETRY_S if self._trouble else None)
            if page is not None and not self._board.ended:
                written = page if self._write(page.body("text")) else None
        self._remove()

    def _write(self, body: bytes) -> bool:
        """Return whether the file is this now; if not it is removed."""
        try:
            write_textfile(self._path, body)
        except OSError:
            try:
                # On a disk that is full there may be room for one page, not for two.
                self._path.unlink(missing_ok=True)
                write_textfile(self._path, body)
            except OSError as error:
                self._tell(f"cannot write {self._path}: {error.strerror or error}")
                return False
        self._trouble = ""
        return True

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._tell(f"cannot remove {self._path}: {error.strerror or error}")

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            warn(trouble)
        self._trouble = trouble


def _temporary(path: Path) -> tuple[int, str]:
    # In the same folder, since only there it can be renamed; with a name that is not read.
    return tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
