"""A waste split as a sum that can be read from left to right."""

from __future__ import annotations

from zpobs.views.live.figures import UNKNOWN, bounds, in_bytes
from zpobs.views.live.lines import Line, plain, wrapped
from zpobs.waste import Waste

_LINES = 2


def split_lines(name: str, waste: Waste, columns: int) -> list[Line]:
    """Return the parts of a pool's or class's bytes, which sum to what is behind the =.

    Short figures are used where long ones would take more than two lines.
    """
    made: list[Line] = []
    for short in (False, True):
        made = wrapped(_terms(name, waste, short=short), columns, role="dim")
        if len(made) <= _LINES:
            break
    return [_coloured(line) for line in made]


def _terms(name: str, waste: Waste, *, short: bool) -> list[str]:
    """Return the terms of the sum; none of them is broken between two lines."""

    def brief(text: str) -> str:
        return (
            text.replace(" KiB", "K").replace(" MiB", "M").replace(" GiB", "G") if short else text
        )

    def term(what: str, value: int | None) -> str:
        return f"+ {what} {brief(in_bytes(value))}"

    beside = waste.headers + waste.tail + waste.free_slots
    if waste.requested is None or waste.rounding is None:
        asked = [f"requested and rounding {brief(in_bytes(waste.pages - beside))}"]
        asked.append("(not told apart: class spacing is not known)")
    else:
        asked = [f"requested {brief(bounds(waste.requested))}"]
        asked.append(f"+ rounding {brief(bounds(waste.rounding))}")
        asked += [] if waste.requested.exact else ["(bounded by class spacing)"]
    if waste.total is None:
        whole = [f"= {in_bytes(waste.pages)}", f"+ descriptors {UNKNOWN}"]
    else:
        whole = [term("descriptors", waste.descriptors), f"= {in_bytes(waste.total)}"]
    return [
        f"{name}: {asked[0]}",
        *asked[1:],
        term("headers", waste.headers),
        term("tail", waste.tail),
        term("free slots", waste.free_slots),
        *whole,
    ]


def _coloured(line: Line) -> Line:
    """Set figures apart from the words between them."""
    spans = []
    for at, word in enumerate(plain(line).split(" ")):
        figure = word[:1].isdigit() or word in ("B", "KiB", "MiB", "GiB", "TiB", UNKNOWN)
        spans.append((f"{' ' if at else ''}{word}", "" if figure else "dim"))
    return tuple(spans)
