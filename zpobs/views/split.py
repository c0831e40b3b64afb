"""A waste split as a sum that can be read from left to right."""

from __future__ import annotations

import re
from typing import NamedTuple

from zpobs.views.figures import UNKNOWN, between, in_bytes
from zpobs.views.lines import Line, merged, plain, wrapped
from zpobs.waste import Range, Waste

# The width of three digits and a unit, and one for any figure.
_BRIEF, _LONG = 7, 99


class _Form(NamedTuple):
    """How wide figures are, whether units are written out, and what the first sum is called."""

    width: int
    units: bool
    pages: str


_FORMS = (
    _Form(_LONG, True, "pages "),
    _Form(_LONG, False, "pages "),
    _Form(_BRIEF, False, "pages "),
    _Form(_BRIEF, False, ""),
)


def split_lines(name: str, waste: Waste, columns: int, *, lines: int = 2) -> list[Line]:
    """Return the parts of a pool's or class's bytes, which sum to what is behind each =.

    Those before the first = are its pages; descriptors lie beside these. Shorter
    forms are used where the long one would take more ``lines``.
    """
    made: list[Line] = []
    for form in _FORMS:
        made = wrapped(_terms(name, waste, form), columns, role="dim")
        if len(made) <= lines:
            break
    return [_coloured(line) for line in made]


def _terms(name: str, waste: Waste, form: _Form) -> list[str]:
    """Return the terms of the sum; none of them is broken between two lines."""

    def told(text: str) -> str:
        return text if form.units else _brief(text)

    def size(value: int | None) -> str:
        return told(in_bytes(value, form.width))

    def span(value: Range) -> str:
        return size(value.low) if value.exact else told(between(value, form.width))

    beside = waste.headers + waste.tail + waste.free_slots
    if waste.requested is None or waste.rounding is None:
        asked = [f"requested and rounding {size(waste.pages - beside)}"]
        asked.append("(not told apart: class spacing is not known)")
    else:
        asked = [f"requested {span(waste.requested)}", f"+ rounding {span(waste.rounding)}"]
        asked += [] if waste.requested.exact else ["(bounded by class spacing)"]
    if waste.total is None:
        whole = [f"+ descriptors {UNKNOWN}"]
    else:
        whole = [f"+ descriptors {size(waste.descriptors)}", f"= {size(waste.total)}"]
    return [
        f"{name}: {asked[0]}",
        *asked[1:],
        f"+ headers {size(waste.headers)}",
        f"+ tail {size(waste.tail)}",
        f"+ free slots {size(waste.free_slots)}",
        f"= {form.pages}{size(waste.pages)}",
        *whole,
    ]


def _brief(text: str) -> str:
    return re.sub(r" ([KMGT])iB", r"\1", text)


def _coloured(line: Line) -> Line:
    """Set figures apart from the words between them."""
    spans = []
    for at, word in enumerate(plain(line).split(" ")):
        figure = word[:1].isdigit() or word in ("B", "KiB", "MiB", "GiB", "TiB", UNKNOWN)
        spans.append((f"{' ' if at else ''}{word}", "" if figure else "dim"))
    return merged(tuple(spans))
