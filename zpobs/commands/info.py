"""``zpobs info``: what a capture holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from zpobs.commands.common import output_checked
from zpobs.errors import EXIT_BAD_INPUT, BadInputError

EXAMPLES = """\
Examples:

\b
  zpobs info run.zpcap          from its headers and its last block
  zpobs info --check run.zpcap  reads every block; status 4 if any is damaged
  zpobs info --json *.zpcap     one JSON object a file
"""


def info(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Captures.")],
    check: Annotated[
        bool, typer.Option("--check", help="Read every block, and fail if any is damaged.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a file (schema 1), no text.")
    ] = False,
) -> None:
    """Tell what a capture holds: of which kernel, what spans, rates, loss.

    Needs no root, no BPF and nothing of this host. A file that was not ended
    (a recording that was killed, or goes on still) is read whole.
    """
    from zpobs.capture.reader import CaptureReader  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.capture.summary import summary_of  # noqa: PLC0415
    from zpobs.views.info import render  # noqa: PLC0415

    damaged = refused = False
    with output_checked():
        for number, file in enumerate(files):
            progress = _Progress()
            try:
                with CaptureReader(file) as reader:
                    summary = summary_of(reader, check=check, progress=progress)
            except BadInputError as error:
                # Of the others there is something to tell all the same.
                typer.echo(f"zpobs: {error}", err=True)
                refused = True
                continue
            finally:
                progress.clear()
            damaged |= bool(summary.damage)
            if as_json:
                sys.stdout.write(json.dumps(summary.to_json(), separators=(",", ":")) + "\n")
            else:
                sys.stdout.write("\n".join(["", *render(summary), ""][number == 0 :]))
            sys.stdout.flush()
    if refused or (check and damaged):
        raise typer.Exit(EXIT_BAD_INPUT)


_TOLD_EVERY_BYTES = 16 << 20


class _Progress:
    """Tells a person at a terminal how far the reading of a file is, if it takes long."""

    def __init__(self) -> None:
        self._told_bytes = 0

    def __call__(self, done: int, whole: int) -> None:
        """Take how many bytes were read, and of how many."""
        if done - self._told_bytes < _TOLD_EVERY_BYTES or not sys.stderr.isatty():
            return
        self._told_bytes = done
        sys.stderr.write(f"\rzpobs: reading, {100 * done // max(whole, 1)} %\x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave the line as it was."""
        if self._told_bytes:
            sys.stderr.write("\r\x1b[K")
