"""The lab's command line: ``python -m lab list`` and ``python -m lab run``."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from lab.archive import Archive, newest_of_series
from lab.features import LACKING_VARIABLE, may_lack
from lab.host import EXIT_HOST, HostError, Interrupted, LabError, Progress, cache_folder
from lab.image import Builder
from lab.vm import GuestLost, Machine, run_guest
from zpobs.bpf_build import build_objects
from zpobs.errors import EnvironmentLacksError

_PIPE_CLOSED = 128 + signal.SIGPIPE


def _memory(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[MG]", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no size such as 512M or 2G")
    return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return path.resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m lab", description="Run zpobs on Debian kernels in throwaway machines."
    )
    commands = parser.add_subparsers(dest="verb", required=True)
    listing = commands.add_parser("list", help="list the kernels of the Debian archive")
    run = commands.add_parser(
        "run",
        help="boot a kernel and run a command in it",
        usage="python -m lab run --kernel KERNEL [options] -- COMMAND...",
    )
    for each in (listing, run):
        each.add_argument("--refresh", action="store_true", help="read the package lists anew")
        each.add_argument("--quiet", action="store_true", help="print no progress on stderr")
    run.add_argument(
        "--kernel",
        required=True,
        help="such as 7.3 (the newest of these), 6.12.107+deb13, or newest",
    )
    run.add_argument("--memory", type=_memory, default="2G", help="default 2G")
    run.add_argument("--cpus", type=_positive, default=2, help="default 2")
    run.add_argument("--share", type=_folder, metavar="DIR", help="seen at /mnt/share, read only")
    run.add_argument(
        "--timeout", type=_positive, default=1800, metavar="S", help="for the command, default 1800"
    )
    run.add_argument(
        "--tty",
        action=argparse.BooleanOptionalAction,
        help="give the command a terminal (default: if stdin and stdout are one)",
    )
    run.add_argument(
        "--append", default="", metavar="WORDS", help="further words for the kernel's command line"
    )
    run.add_argument(
        "--console", type=Path, metavar="FILE", help="keep what the kernel printed in FILE"
    )
    run.add_argument(
        "--count-instructions",
        action="store_true",
        help="one CPU whose clock advances a nanosecond an instruction",
    )
    run.add_argument("command", nargs="+", metavar="COMMAND")
    return parser


def _list(arguments: argparse.Namespace) -> int:
    progress = Progress(arguments.quiet)
    archive = Archive(cache_folder(), progress)
    builder = Builder(cache_folder(), archive, progress)
    for kernel in newest_of_series(archive.kernels(arguments.refresh)):
        if kernel.bootable:
            remarks = ["with headers" if kernel.headers else "without headers"]
            remarks += ["built"] if builder.built(kernel) else []
        else:
            remarks = [f"cannot boot: the archive lacks {' and '.join(kernel.missing)}"]
        print(f"{kernel.series:6} {kernel.release:24} {', '.join(remarks)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    if os.uname().machine != "x86_64":
        raise HostError(f"the lab needs an x86_64 machine and this is {os.uname().machine}")
    progress = Progress(arguments.quiet)
    cache = cache_folder()
    archive = Archive(cache, progress)
    terminal = arguments.tty
    if terminal is None:
        terminal = os.isatty(0) and os.isatty(1)
    elif terminal and not os.isatty(0):
        raise HostError("--tty wants a terminal on stdin; leave it out or use --no-tty")
    images = Builder(cache, archive, progress).images(arguments.kernel, arguments.refresh)
    try:
        # Guests run zpobs from the checkout, and have no compiler.
        build_objects()
    except EnvironmentLacksError as error:
        raise HostError(str(error)) from error
    machine = Machine(
        checkout=Path(__file__).resolve().parent.parent,
        memory=arguments.memory,
        cpus=1 if arguments.count_instructions else arguments.cpus,
        share=arguments.share,
        append=arguments.append,
        console=arguments.console,
        count_instructions=arguments.count_instructions,
        environment={LACKING_VARIABLE: json.dumps(may_lack(archive.kernel(images.release)))},
    )

    def started(seconds: float) -> None:
        end = "\r\n" if terminal else "\n"
        if not arguments.quiet:
            sys.stderr.write(f"lab: {images.release} booted in {seconds:.1f} s{end}")
            sys.stderr.flush()

    def again(lost: GuestLost) -> None:
        progress.line(f"{str(lost).splitlines()[0]}; booting again")

    return run_guest(
        images,
        machine,
        arguments.command,
        logs=cache / "logs",
        timeout=arguments.timeout,
        terminal=terminal,
        started=started,
        again=again,
    )


def _interrupted(signum: int, _frame: FrameType | None) -> None:
    # A second signal must not cut the cleaning up short.
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signum)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the lab's command line and return its status."""
    arguments = _parser().parse_args(argv)
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _interrupted)
    try:
        return _list(arguments) if arguments.verb == "list" else _run(arguments)
    except Interrupted as interruption:
        return interruption.status
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.status
    except BrokenPipeError:
        # Whoever read the output has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _PIPE_CLOSED
    except OSError as error:
        print(f"lab: {error}", file=sys.stderr)
        return EXIT_HOST


if __name__ == "__main__":
    sys.exit(main())
