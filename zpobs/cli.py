"""The command line: registers the commands, and turns failures into one line and a status."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated

import typer

from zpobs.commands import doctor, scan, top, verify
from zpobs.errors import EXIT_BUG, EnvironmentLacksError, ZpobsError

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


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zpobs {_version()}")
        raise typer.Exit


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - takes longer than the rest of --help

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


app.command(epilog=top.EXAMPLES)(top.top)
app.command(epilog=scan.EXAMPLES)(scan.scan)
app.command(epilog=verify.EXAMPLES)(verify.verify)
app.command(epilog=doctor.EXAMPLES)(doctor.doctor)


def main() -> None:
    """Run the command line; turn every expected failure into one line and its status."""
    # An interpreter that is started without them has None here.
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    try:
        if sys.stdout is None:
            raise EnvironmentLacksError(
                "cannot write the output", found="standard output is closed", hint="> /dev/null"
            )
        app(standalone_mode=True)
    except ZpobsError as error:
        sys.stderr.write(f"zpobs: {error}\n")
        sys.exit(error.exit_status)
    except Exception:
        traceback.print_exc()
        sys.stderr.write("zpobs: this is a bug in zpobs; please report the lines above\n")
        sys.exit(EXIT_BUG)
