"""What several commands share: options, progress, and an output that can fail."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zpobs.errors import EXIT_OK, EnvironmentLacksError, UsageError

if TYPE_CHECKING:
    from zpobs.objects import Sampling


class LoaderChoice(StrEnum):
    """How probes are loaded."""

    AUTO = "auto"
    CORE = "core"
    BCC = "bcc"


class AttachChoice(StrEnum):
    """How probes attach."""

    AUTO = "auto"
    FENTRY = "fentry"
    KPROBE = "kprobe"


LoaderOption = Annotated[LoaderChoice, typer.Option(help="How probes are loaded.")]
AttachOption = Annotated[
    AttachChoice,
    typer.Option(help="How probes attach; auto takes fentry where the kernel has it."),
]
RingSizeOption = Annotated[
    str,
    typer.Option(metavar="BYTES", help="Size of the event ring: a power of two, with K or M."),
]
ScanOption = Annotated[
    bool,
    typer.Option(
        "--scan/--no-scan", help="Scan pools as well; without, only what probes see is known."
    ),
]
RescanOption = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Time between scans that repair the model, 0: only after loss.",
    ),
]


def _pool_names(incomplete: str) -> list[str]:
    """Return the pools that this host may have, to complete a name that was begun."""
    # No more than names: who waits for a completion waits for no import.
    return sorted(
        path.name
        for path in Path("/sys/block").glob("zram[0-9]*")
        if path.name.startswith(incomplete)
    )


PoolOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Only the pool of this name, such as zram0.",
        autocompletion=_pool_names,
    ),
]


def _hook_names(incomplete: str) -> list[str]:
    """Return the kernel functions that have a hook, to complete a name that was begun."""
    from zpobs.kernel.hooks import all_hooks  # noqa: PLC0415 - of no use but for this

    return sorted(hook.function for hook in all_hooks() if hook.function.startswith(incomplete))


SkipHookOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FUNCTION",
        help="Leave out the hook on this kernel function; what it costs is shown.",
        autocompletion=_hook_names,
    ),
]
ObjectsOption = Annotated[
    bool,
    typer.Option(
        "--objects", help="Objects one by one: requested sizes, lifetimes, who pins zspages."
    ),
]
ObjectsRateOption = Annotated[
    int,
    typer.Option(
        min=1,
        max=1 << 20,
        metavar="N",
        help="As --objects, but 1 in N of them, chosen by handle; the rest is estimated.",
    ),
]
ObjectsSeedOption = Annotated[
    int | None,
    typer.Option(metavar="N", help="With --objects-rate: choose the same handles every time."),
]


def version() -> str:
    """Return the version of the package that is installed."""
    from importlib import metadata  # noqa: PLC0415 - takes longer than the rest of --help

    try:
        return metadata.version("zpobs")
    except metadata.PackageNotFoundError:
        return "from a checkout"


def sampling_of(wanted: bool, rate: int, seed: int | None) -> Sampling | None:
    """Return which objects are to be told one by one, None for none."""
    if not wanted and rate == 1:
        return None
    from zpobs.objects import Sampling  # noqa: PLC0415 - --help needs no NumPy

    return Sampling.seeded(rate, secrets.randbits(64) if seed is None else seed)


def progress(what: str) -> None:
    """Tell a person who waits at a terminal what is being done."""
    if sys.stderr.isatty():
        typer.echo(f"zpobs: {what}", err=True)


def parse_ring_size(text: str) -> int:
    """Return the bytes that ``--ring-size`` asks for; raise UsageError if no ring can have them."""
    found = re.fullmatch(r"(\d+)([KM]?)", text)
    count = int(found[1]) << {"": 0, "K": 10, "M": 20}[found[2]] if found else 0
    page = os.sysconf("SC_PAGE_SIZE")
    if count < page or count & (count - 1) or count > 1 << 30:
        raise UsageError(
            f"--ring-size {text} cannot be a ring",
            found=f"{count} bytes" if found else "neither bytes nor a number with K or M",
            hint=f"a power of two from {page} to 1024M, such as 64K or 16M",
        )
    return count


@contextlib.contextmanager
def output_checked() -> Iterator[None]:
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
