"""Where blocks go: files of mode 0600, or memory until somebody wants the last moments."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from zpobs.capture.blocks import HEADER, BlockEncoder, Header
from zpobs.errors import EnvironmentLacksError, UsageError


class CaptureFile:
    """One file that blocks are appended to; whatever happens, it ends behind a whole block.

    Raise UsageError if it is there already, EnvironmentLacksError if it cannot be written.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path = path
        self.bytes = 0
        if not path.name or (overwrite and path.exists() and not path.is_file()):
            raise UsageError(
                f"{path} cannot be written over", found="no regular file", hint="another name"
            )
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if overwrite else os.O_EXCL)
        self._there = overwrite and path.exists()
        try:
            self._descriptor = os.open(path, flags, 0o600)
        except FileExistsError as error:
            raise UsageError(
                f"{path} exists", found="a file of this name", hint="another name, or --overwrite"
            ) from error
        except OSError as error:
            raise self._failed(error) from error

    def write(self, block: bytes, last_ns: int = 0, *, key: bool = False) -> None:  # noqa: ARG002
        """Append one block, or nothing of it."""
        written = 0
        try:
            if not self.bytes:
                # What is there is kept as long as there is nothing in its place; it may have been
                # everybody's.
                os.ftruncate(self._descriptor, 0)
                os.fchmod(self._descriptor, 0o600)
            # At its place: what failed before has left nothing behind it.
            while written < len(block):
                part = memoryview(block)[written:]
                written += os.pwrite(self._descriptor, part, self.bytes + written)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.bytes)
            raise self._failed(error) from error
        self.bytes += len(block)

    def _failed(self, error: OSError) -> EnvironmentLacksError:
        kept = f"; its first {self.bytes:,} bytes are a capture" if self.bytes else ""
        return EnvironmentLacksError(
            f"cannot write {self.path}",
            found=(error.strerror or str(error)) + kept,
            hint="another disk, or --max-size",
        )

    def discard(self) -> None:
        """Close it; where nothing was written leave no trace."""
        os.close(self._descriptor)
        if not self.bytes and not self._there:
            self.path.unlink(missing_ok=True)

    @property
    def left_bytes(self) -> int:
        """How much more the disk can take."""
        found = os.fstatvfs(self._descriptor)
        return found.f_bavail * found.f_frsize

    def close(self) -> None:
        """Have it on the disk, and close it."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            os.close(self._descriptor)


@dataclass(frozen=True, slots=True)
class _Kept:
    block: bytes
    last_ns: int
    key: bool


class FlightMemory:
    """The blocks of the last moments: as far back as ``keep_ns``, and at most ``max_bytes``.

    What is dropped ends where a key begins, so what is kept can always be read. There is to be one
    whenever :attr:`key_bytes` were written since the last.
    """

    def __init__(self, keep_ns: int, max_bytes: int) -> None:
        self._keep_ns = keep_ns
        self._max_bytes = max_bytes
        self._environment = b""
        self._blocks: deque[_Kept] = deque()
        self.bytes = 0
        # Whether something newer than keep_ns had to go, and whether anything had to.
        self.short = False
        self._dropped = False
        # So that what comes until the next key has room beside what is kept.
        self.key_bytes = max_bytes // 4

    def write(self, block: bytes, last_ns: int, *, key: bool) -> None:
        """Keep one block, and drop those that nobody can want any more."""
        if not self._environment:
            self._environment = block
            return
        self._blocks.append(_Kept(block, last_ns, key))
        self.bytes += len(block)
        if not key:
            return
        while (at := self._second_key()) is not None:
            old = self._blocks[at].last_ns <= last_ns - self._keep_ns
            full = self.bytes > self._max_bytes - self.key_bytes
            if not old and not full:
                return
            self.short |= not old
            self._dropped = True
            for _ in range(at):
                self.bytes -= len(self._blocks.popleft().block)

    def _second_key(self) -> int | None:
        """Return where the newer one of the two oldest beginnings is, if there are two."""
        return next(
            (at for at, kept in enumerate(self._blocks) if at and kept.key),
            None,
        )

    def numbered(self) -> Iterator[bytes]:
        """Yield the blocks of a capture of what is kept, numbered anew."""
        for sequence, block in enumerate([self._environment, *(k.block for k in self._blocks)]):
            header = Header.of(block[: HEADER.size])
            assert header is not None
            if sequence == 0 and self._dropped:
                # It tells of no more time than what is kept does.
                first = Header.of(self._blocks[0].block[: HEADER.size])
                assert first is not None
                header = replace(header, first_ns=first.first_ns, last_ns=first.first_ns)
            yield replace(header, sequence=sequence).to_bytes() + block[HEADER.size :]

    def encoder(self) -> BlockEncoder:
        """Return what makes the blocks that come behind :meth:`numbered`."""
        header = Header.of(self._environment)
        assert header is not None
        return BlockEncoder(header.capture, len(self._blocks) + 1)
