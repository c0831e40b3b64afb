"""``zpobs doctor``: what this host can do, what not, why, and what to try."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from zpobs.commands.common import output_checked, progress
from zpobs.errors import EXIT_FINDING

EXAMPLES = """\
Examples:

\b
  zpobs doctor                               this host; tells less without root
  sudo zpobs doctor                          tries the scanner and the probes too
  zpobs doctor --json --strict               for scripts: status 1 if anything is lacking
  zpobs doctor --btf vmlinux                 another kernel, by its BTF alone
  zpobs doctor --btf vmlinux --btf zsmalloc  one whose zsmalloc is a module
"""


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object (schema 1), no text.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Status 1 if anything that costs something is lacking."),
    ] = False,
    btf: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Judge this BTF, raw or in a vmlinux, instead of this host."
        ),
    ] = None,
) -> None:
    """Tell what zpobs can do on this host, what not, why, and what to try.

    Everything is present, absent, or could not be found out. As root it loads
    the scanner and attaches every hook for a moment, for only that tells what
    a kernel allows.
    """
    from zpobs.doctor.judge import judge_btf, judge_host  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.views.doctor import render  # noqa: PLC0415

    if btf:
        from zpobs.kernel.btf_file import read_btf_files  # noqa: PLC0415

        report = judge_btf(read_btf_files(btf), ", ".join(map(str, btf)))
    else:
        from zpobs.doctor.gather import gather  # noqa: PLC0415

        report = judge_host(gather(progress=progress))
    with output_checked():
        if as_json:
            sys.stdout.write(json.dumps(report.to_json()) + "\n")
        else:
            sys.stdout.write("\n".join([*render(report), ""]))
        sys.stdout.flush()
    if strict and report.lacking:
        raise typer.Exit(EXIT_FINDING)
