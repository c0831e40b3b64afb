"""The command line: registers the commands, and turns failures into one line and a status."""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from zpobs.commands import completion, doctor, exporter, info, record, scan, top, verify
from zpobs.commands.common import version
from zpobs.errors import (
    EXIT_BAD_INPUT,
    EXIT_BUG,
    EXIT_ENVIRONMENT,
    EXIT_FINDING,
    EXIT_OK,
    EXIT_USAGE,
    EnvironmentLacksError,
    ZpobsError,
    warn,
)
from zpobs.shortage import shortage

STATUSES = {
    EXIT_OK: "well",
    EXIT_FINDING: "a difference or a finding",
    EXIT_USAGE: "usage",
    EXIT_ENVIRONMENT: "the environment lacks something",
    EXIT_BAD_INPUT: "bad input file",
    EXIT_BUG: "a bug of ours",
}

app = typer.Typer(
    name="zpobs",
    help="Live, exact observability of the Linux zsmalloc allocator (zram, zswap) through eBPF.",
    epilog=f"Exit status: {', '.join(f'{status} {what}' for status, what in STATUSES.items())}.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"zpobs {version()}")
        raise typer.Exit


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
app.command(epilog=exporter.EXAMPLES)(exporter.exporter)
app.command(epilog=record.EXAMPLES)(record.record)
app.command(epilog=info.EXAMPLES)(info.info)
app.command(epilog=completion.EXAMPLES)(completion.completion)


def main() -> None:
    """Run the command line; turn every expected failure into one line and its status."""
    # An interpreter that is started without them has None here.
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY), encoding="utf-8")
    try:
        if sys.stdout is None:
            raise EnvironmentLacksError(
                "cannot write the output", found="standard output is closed", hint="> /dev/null"
            )
        if completion.VARIABLE in os.environ:
            completion.enable_answers()
        app(prog_name=completion.PROGRAM, standalone_mode=True)
    except Exception as error:
        told = shortage(error) or error
        if not isinstance(told, ZpobsError):
            _die_of_a_bug()
        warn(str(told))
        sys.exit(told.exit_status)


def _die_of_a_bug() -> NoReturn:
    traceback.print_exc()
    sys.stderr.write("zpobs: this is a bug in zpobs; please report the lines above\n")
    sys.exit(EXIT_BUG)
