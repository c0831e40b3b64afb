"""``zpobs scan``: one snapshot, taken by a scan alone."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zpobs.commands.common import PoolOption, output_checked, progress
from zpobs.commands.replaying import AtOption, ReplayOption, opened_replay
from zpobs.errors import UsageError

if TYPE_CHECKING:
    from zpobs.scans import ScanResult
    from zpobs.snapshot import Snapshot

EXAMPLES = """\
Examples:

\b
  zpobs scan                                 pools and size classes, now
  zpobs scan --json --zspages                everything, one JSON object
  zpobs scan --compaction                    what a compaction would do now
  zpobs scan --pageblocks                    where pages lie in memory
  zpobs scan --pool zram0 --class 126        zspages of one size class
  zpobs scan --descriptors --class 126 --limit 3
  zpobs scan --descriptors --zspage 0xffff888104d6f930
  zpobs scan --replay run.zpcap --at 12.5    how things were then, from a capture
"""

# Addresses are words of 64 bits.
_ADDRESS_MAX = 2**64 - 1
_LINES_PER_WRITE = 4096

_DescriptorsOption = Annotated[
    bool, typer.Option("--descriptors", help="Every zspage, and every page's descriptor in it.")
]
_ZspageOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="List the zspage at this address alone.")
]
_CompactionOption = Annotated[
    bool, typer.Option("--compaction", help="What a compaction would free and move now, by class.")
]
_PageblocksOption = Annotated[
    bool,
    typer.Option("--pageblocks", help="In which pageblocks pages lie, of which migratetype."),
]
_ClassOption = Annotated[
    int | None,
    typer.Option("--class", min=0, metavar="INDEX", help="List zspages of this size class."),
]


def scan(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object (schema 1), no text.")
    ] = False,
    pool: PoolOption = None,
    zspages: Annotated[
        bool, typer.Option("--zspages", help="Every zspage: kernel addresses and page frames.")
    ] = False,
    descriptors: _DescriptorsOption = False,
    compaction: _CompactionOption = False,
    pageblocks: _PageblocksOption = False,
    class_index: _ClassOption = None,
    zspage: _ZspageOption = None,
    limit: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="List at most so many zspages of a pool.")
    ] = None,
    replay: ReplayOption = None,
    at: AtOption = None,
) -> None:
    """Show every pool as it is now, from one scan; no probe is attached.

    Where a pool changed while it was scanned its status says so. With
    ``--replay`` it shows what a capture knows of a moment, of its end unless
    ``--at`` tells one.
    """
    address = None if zspage is None else _parse_address(zspage)
    from zpobs.descriptors import descriptor_dump  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.single_scan import scan_once  # noqa: PLC0415
    from zpobs.views.scan import Choice, Details, chosen, render, warnings, write_json  # noqa: PLC0415

    narrowed = class_index is not None or address is not None or limit is not None
    choice = Choice(zspages or descriptors or narrowed, class_index, address, limit, pool)
    asked = {"--descriptors": descriptors, "--compaction": compaction, "--pageblocks": pageblocks}
    result = _replayed(replay, at, pool, asked, zspages=choice.zspages) or scan_once(
        pool=pool,
        zspages=choice.zspages or pageblocks,
        detail=descriptors,
        keep=compaction,
        pageblocks=pageblocks,
        progress=progress,
    )
    snapshot = result.forecast() if compaction else result.snapshot
    if class_index is not None:
        _check_class(result, class_index)
    if address is not None and not any(len(chosen(each, choice)) for each in snapshot.pools):
        raise _no_zspage(snapshot, zspage or "", class_index)
    details = None
    if descriptors:
        dumps = {
            key: descriptor_dump(words, result.page_flags) for key, words in result.details.items()
        }
        details = Details(dumps, result.page_flags)
    # The records may be many times what is shown of them.
    del result
    with output_checked():
        if as_json:
            for reason in warnings(snapshot):
                typer.echo(f"zpobs: {reason}", err=True)
            write_json(snapshot, choice, details, sys.stdout)
        else:
            _write_lines(render(snapshot, choice, details))


def _no_zspage(snapshot: Snapshot, zspage: str, class_index: int | None) -> UsageError:
    return UsageError(
        f"no zspage{'' if class_index is None else f' of class {class_index}'} is at {zspage}",
        found=f"{sum(each.zspages for each in snapshot.pools)} others",
        hint="zpobs scan --zspages; zspages come and go",
    )


def _write_lines(lines: Iterable[str]) -> None:
    """Write lines as they come, many at a time."""
    waiting: list[str] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) == _LINES_PER_WRITE:
            sys.stdout.write("\n".join([*waiting, ""]))
            waiting.clear()
    sys.stdout.write("\n".join([*waiting, ""]))
    sys.stdout.flush()


def _replayed(
    file: Path | None, at: str | None, pool: str | None, asked: dict[str, bool], *, zspages: bool
) -> ScanResult | None:
    """Return what a capture knows of a moment in a scan's place, None without a capture."""
    if file is None:
        if at is not None:
            raise UsageError(
                "--at is a time of a capture", found="no --replay", hint="--replay too"
            )
        return None
    for option, given in asked.items():
        if given:
            raise UsageError(
                f"{option} reads the kernel",
                found=f"--replay {file}, which does not hold it",
                hint="only one of the two",
            )
    from zpobs.kernel.pageflags import PageFlags  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.scans import ScanResult  # noqa: PLC0415

    with opened_replay(file, at=at or "-0") as source:
        source.player.seek_precisely(source.player.position_ns)
        return ScanResult(source.snapshot(zspages=zspages, pool=pool), PageFlags({}, {}, 0))


def _check_class(result: ScanResult, index: int) -> None:
    """Raise UsageError if there are pools and none has this size class."""
    indices = sorted(
        {each for pool in result.snapshot.pools for each in pool.classes.index.tolist()}
    )
    if result.snapshot.pools and index not in indices:
        raise UsageError(
            f"no pool has a size class {index}",
            found=f"{len(indices)} classes"
            + (f" from {indices[0]} to {indices[-1]}" if indices else ""),
            hint="a class that zpobs scan lists; the kernel joins classes that would be alike",
        )


def _parse_address(text: str) -> int:
    """Return an address written in hexadecimal, with or without 0x."""
    try:
        address = int(text, 16)
    except ValueError:
        address = -1
    if not 0 <= address <= _ADDRESS_MAX:
        raise UsageError(
            f"--zspage {text} is no address",
            found="no hexadecimal number of 64 bits",
            hint="one that zpobs scan --zspages lists",
        )
    return address
