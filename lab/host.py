"""What the lab needs of the machine it runs on: tools, children that never outlive it, a cache."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

EXIT_USAGE = 2
EXIT_HOST = 3
EXIT_GUEST_LOST = 5
EXIT_KERNEL_WARNED = 6

_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 12


class LabError(Exception):
    """Something that ends the lab with one line on stderr and a status of its own."""

    status = EXIT_HOST


class HostError(LabError):
    """The host has no such tool, no rights, no network or no room."""


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; like KeyboardInterrupt, no ordinary handler may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.status = 128 + signum


class Progress:
    """Progress lines on stderr: each step with its seconds."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def line(self, text: str) -> None:
        """Print one line, unless quiet."""
        if not self.quiet:
            print(f"lab: {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step when it begins and say how long it took when it is done."""
        self.line(f"{text} ...")
        began = time.monotonic()
        yield
        self.line(f"{text}: {time.monotonic() - began:.1f} s")


def die_with_parent() -> Callable[[], None]:
    """Return what a child calls before exec so that the kernel ends it when the lab is killed."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def arrange() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return arrange


def end_group(child: subprocess.Popen[bytes], grace: float = 10.0) -> None:
    """End a child started in a session of its own, and everything it started there."""
    if child.poll() is not None:
        return
    for signum, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(patience)
            return


def need(tool: str, package: str) -> str:
    """Return the path of a host tool, or say which package brings it."""
    # The administrator's folders are often missing from an ordinary PATH.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    found = shutil.which(tool, path=path)
    if found is None:
        raise HostError(f"{tool} is not on this machine; try: apt-get install {package}")
    return found


def call(
    argv: Sequence[str],
    *,
    stdin: str = "",
    folder: Path | None = None,
    env: dict[str, str] | None = None,
) -> str:
    """Run a host tool, return its stdout; on failure raise HostError with what it printed."""
    child = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env=None if env is None else {**os.environ, **env},
        start_new_session=True,
        preexec_fn=die_with_parent(),  # noqa: PLW1509 - the lab has no threads
    )
    try:
        out, err = child.communicate(stdin.encode())
    except BaseException:
        end_group(child)
        raise
    if child.returncode != 0:
        said = (err or out).decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
        reason = said[-1] if said else "nothing was said"
        first = f"{Path(argv[0]).name} failed with status {child.returncode}: {reason}"
        raise HostError("\n".join([first, *(f"| {row}" for row in said[:-1])]))
    return out.decode(errors="replace")


def cache_folder() -> Path:
    """Return the folder below which the lab keeps everything it writes."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "zpobs" / "lab"


@contextlib.contextmanager
def locked(folder: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file of the cache, so that two labs never build the same thing at once."""
    path = folder / f"{name}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HostError(f"cannot write the cache: {error}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    """Give a fresh temporary folder inside the cache; the caller holds the lock of that name."""
    path = folder / f"{name}.tmp"
    # One left by a lab that was killed: the lock says nobody uses it.
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
