"""Lines of a screen as spans of text, each with a role that the terminal may turn into a colour.

Roles: "" plain, "title", "head", "dim", "good", "warn", "bad", "cursor", "bar",
"key", "input". What a role says the text says too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter

Span = tuple[str, str]
Line = tuple[Span, ...]

# A part of a line, and how early it is left out where the line is too long: 0 never.
Part = tuple[int, Line]


def plain(line: Line) -> str:
    """Return a line's text."""
    return "".join(text for text, _ in line)


def width(line: Line) -> int:
    """Return how many cells a line takes: every character takes one."""
    return sum(len(text) for text, _ in line)


def merged(line: Line) -> Line:
    """Return a line whose neighbouring spans of one role are one span."""
    return tuple(
        ("".join(text for text, _ in spans), role)
        for role, spans in groupby(line, key=itemgetter(1))
    )


def cut(line: Line, columns: int) -> Line:
    """Return as much of a line as fits, its end marked where something is missing."""
    if width(line) <= columns:
        return line
    left, out = max(columns - 1, 0), []
    for text, role in line:
        if len(text) > left:
            out.append((text[:left], role))
            break
        out.append((text, role))
        left -= len(text)
    kept = tuple(span for span in out if span[0])
    return (*kept, (">", "dim")) if columns > 0 else ()


def filled(line: Line, columns: int, role: str = "") -> Line:
    """Return a line that is cut or filled up with blanks to its full width."""
    short = cut(line, columns)
    blanks = columns - width(short)
    return (*short, (" " * blanks, role)) if blanks else short


def joined(parts: Sequence[Part], columns: int, gap: str = "  ") -> Line:
    """Put parts side by side, leaving out the least important ones until they fit."""
    kept = [part for part in parts if width(part[1])]
    while (
        sum(width(line) for _, line in kept) + len(gap) * (len(kept) - 1) > columns
        and max((rank for rank, _ in kept), default=0) > 0
    ):
        worst = max(rank for rank, _ in kept)
        del kept[max(at for at, (rank, _) in enumerate(kept) if rank == worst)]
    out: list[Span] = []
    for _, line in kept:
        out += [(gap, "")] if out else []
        out += line
    return cut(tuple(out), columns)


def broken(text: str, columns: int, *, role: str = "") -> list[Line]:
    """Set text into lines, all of it: a word that is wider than a line goes on in the next."""
    pieces = [
        word[at : at + columns] for word in text.split() for at in range(0, len(word), columns)
    ]
    return wrapped(pieces, columns, role=role)


def wrapped(words: Iterable[str], columns: int, *, indent: str = "", role: str = "") -> list[Line]:
    """Set words into lines; a word that is wider than a line is cut."""
    lines: list[Line] = []
    current = ""
    for word in words:
        longer = f"{current} {word}" if current else indent + word
        if current and len(longer) > columns:
            lines.append(((current, role),))
            longer = indent + word
        current = longer
    if current:
        lines.append(((current, role),))
    return [cut(line, columns) for line in lines]
