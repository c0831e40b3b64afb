"""The command line: the only place where parts are put together."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Annotated, TextIO

import typer

from zpobs.errors import (
    EXIT_BUG,
    EXIT_OK,
    EnvironmentLacksError,
    UsageError,
    ZpobsError,
)

app = typer.Typer(
    name="zpobs",
    help="Live, exact observability of the Linux zsmalloc allocator (zram, zswap) through eBPF.",
    epilog="Exit status: 0 well, 1 a difference or a finding, 2 usage, 3 the environment lacks "
    "something, 4 bad input file, 70 a bug of ours.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class _Loader(StrEnum):
    AUTO = "auto"
    BCC = "bcc"


class _Attach(StrEnum):
    AUTO = "auto"
    FENTRY = "fentry"
    KPROBE = "kprobe"


class _Sort(StrEnum):
    PAGES = "pages"
    FREEABLE = "freeable"
    OBJECTS = "objects"
    ALLOCS = "allocs"
    FREES = "frees"
    SIZE = "size"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zpobs {_version()}")
        raise typer.Exit


def _version() -> str:
    try:
        return metadata.version("zpobs")
    except metadata.PackageNotFoundError:
        return "from a checkout"


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of all commands."""


_TOP_EXAMPLES = """\
Examples:

\b
  zpobs top                                  live view; q quits, s sorts
  zpobs top --once                           one frame after one interval
  zpobs top --json --interval 5 --pool zram0 one JSON object every 5 s
  zpobs top --duration 60 --log run.jsonl    text for a minute, JSON kept beside it
"""


@app.command(epilog=_TOP_EXAMPLES)
def top(
    once: Annotated[bool, typer.Option("--once", help="One frame, then end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object per line (schema 1), no text.")
    ] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between frames.")
    ] = 2.0,
    duration: Annotated[
        float | None, typer.Option(min=0, help="End by itself after so many seconds.")
    ] = None,
    pool: Annotated[
        str | None, typer.Option(help="Only the pool of this name, such as zram0.")
    ] = None,
    zspages: Annotated[
        bool,
        typer.Option("--zspages", help="Every zspage in --json and --log: kernel addresses."),
    ] = False,
    sort: Annotated[_Sort, typer.Option(help="Order of the size classes.")] = _Sort.PAGES,
    log: Annotated[
        Path | None, typer.Option(help="Also append every frame to this file as JSON (mode 0600).")
    ] = None,
    loader: Annotated[_Loader, typer.Option(help="How probes are loaded.")] = _Loader.AUTO,
    attach: Annotated[
        _Attach, typer.Option(help="How probes attach; auto takes fentry where the kernel has it.")
    ] = _Attach.AUTO,
    skip_hook: Annotated[
        list[str] | None,
        typer.Option(help="Leave out the hook on this kernel function; what it costs is shown."),
    ] = None,
    ring_size: Annotated[
        str, typer.Option(help="Bytes of the event ring: a power of two, with K or M.")
    ] = "16M",
) -> None:
    """Show pools and size classes live, from probes on zsmalloc.

    What happened before the probes attached is not known: a pool is exact when
    it was created while zpobs ran, and says so. SIGINT and SIGTERM end the
    command with a last frame and status 0.
    """
    from zpobs.session import open_session  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.views.top import StopSignal, TopOptions, run_top  # noqa: PLC0415

    ring_bytes = _ring_bytes(ring_size)
    with (
        _output_checked(),
        StopSignal() as stop,
        _opened_log(log) as log_file,
        open_session(
            loader=loader.value,
            wish=attach.value,
            skip=frozenset(skip_hook or ()),
            ring_bytes=ring_bytes,
            pool=pool,
            progress=_progress,
        ) as session,
    ):
        options = TopOptions(
            interval_s=interval,
            duration_s=duration,
            once=once,
            as_json=as_json,
            zspages=zspages,
            pool=pool,
            log=log_file,
            sort=sort.value,
        )
        run_top(session, options, stop)


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"zpobs: {what}", err=True)


def _ring_bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KM]?)", text)
    count = int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]] if found else 0
    page = os.sysconf("SC_PAGE_SIZE")
    if count < page or count & (count - 1) or count > 1 << 30:
        raise UsageError(
            f"--ring-size {text} cannot be a ring",
            hint=f"a power of two from {page} to 1024M, such as 64K or 16M",
        )
    return count


@contextlib.contextmanager
def _output_checked() -> Iterator[None]:
    """Turn what can befall standard output into a quiet end or one clear line."""
    try:
        yield
    except BrokenPipeError:
        # The reader has gone and wants no more; that is how pipes end.
        _abandon_output()
        raise typer.Exit(EXIT_OK) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise
        _abandon_output()
        raise EnvironmentLacksError(
            "cannot write the output", found=os.strerror(error.errno), hint="another disk"
        ) from error


def _abandon_output() -> None:
    """Let the interpreter's own flush at exit find somewhere to write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _opened_log(path: Path | None) -> Iterator[TextIO | None]:
    """Open the log for appending, readable by its owner alone."""
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise EnvironmentLacksError(
            f"cannot write {path}", found=error.strerror or str(error), hint="another --log"
        ) from error
    with os.fdopen(descriptor, "a", encoding="utf-8") as file:
        yield file


def main() -> None:
    """Run the command line; turn every expected failure into one line and its status."""
    try:
        app(standalone_mode=True)
    except ZpobsError as error:
        sys.stderr.write(f"zpobs: {error}\n")
        sys.exit(error.exit_status)
    except Exception:
        traceback.print_exc()
        sys.stderr.write("zpobs: this is a bug in zpobs; please report the lines above\n")
        sys.exit(EXIT_BUG)
