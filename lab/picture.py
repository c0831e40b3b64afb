"""The picture of the interactive view in docs/pictures, made of a real scene inside a guest.

    python3 -m lab.picture > FILE

Watches a zram device on which ``churn`` works and which is compacted meanwhile,
takes one scene with the probes' rates, and writes what the view shows of the
device's size classes as SVG: text as text, nothing to be fetched.
"""

from __future__ import annotations

import re
import sys
import time
from xml.sax.saxutils import escape

from lab.workload import Churn, ZramDevice
from zpobs.session import open_session
from zpobs.views.lines import Line
from zpobs.views.live.feed import Feed, FeedOptions
from zpobs.views.live.scene import Scene
from zpobs.views.live.screens import render
from zpobs.views.live.state import Size, ask_of, followed, pressed, started
from zpobs.wishes import Wishes

SIZE = Size(columns=110, rows=30)
_RATE = 1500
_WARM_S, _COMPACTED_S = 15.0, 12.0
_CELL_WIDTH, _CELL_HEIGHT, _FONT_PIXELS, _MARGIN = 8.4, 18, 14, 12
_PAPER, _INK = "#16181d", "#d5d8de"
# Role -> style. The view itself takes the terminal's own colours.
_STYLES = {
    "title": "font-weight:bold;fill:#ffffff",
    "head": "font-weight:bold;fill:#ffffff",
    "dim": "fill:#8b919c",
    "good": "fill:#7fc97f",
    "warn": "font-weight:bold;fill:#e5a5e8",
    "bad": "font-weight:bold;fill:#ff7b72",
    "cursor": f"fill:{_PAPER}",
    "bar": "fill:#7fc97f",
    "key": "font-weight:bold;fill:#ffffff",
    "input": "text-decoration:underline",
}


def record(*, interval_s: float = 1.0, seed: int = 2026) -> Scene:
    """Return a scene of a device that is worked on, after it was compacted."""
    seconds = _WARM_S + _COMPACTED_S
    scenes: list[Scene] = []
    with open_session(Wishes(), attach=False) as session:
        session.attach()
        device = ZramDevice("256M")
        # More operations than there is time for, so that they never pause.
        churn = Churn(device, operations=round(2 * seconds * _RATE), rate=_RATE, seed=seed)
        feed = Feed(
            session,
            ask_of(started(interval_s=interval_s)),
            FeedOptions(budget=1.0, duration_s=seconds),
            deliver=scenes.append,
            ended=lambda: None,
        )
        feed.start()
        time.sleep(_WARM_S)
        device.compact()
        feed.join()
        churn.finish()
        device.remove()
    return scenes[-1]


def classes_of(scene: Scene, interval_s: float) -> list[Line]:
    """Return the lines of the first pool's size classes, as a reader comes to them."""
    state = followed(started(interval_s=interval_s), scene)
    state, _ = pressed(state, "enter", scene, SIZE)
    return render(scene, state, SIZE)


def svg(lines: list[Line], size: Size, title: str) -> str:
    """Return a picture of lines; every word is in its place, whatever the font."""
    width = 2 * _MARGIN + size.columns * _CELL_WIDTH
    height = 2 * _MARGIN + len(lines) * _CELL_HEIGHT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}">',
        f"<title>{escape(title)}</title>",
        "<style>text{font:"
        f"{_FONT_PIXELS}px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;"
        f"fill:{_INK};white-space:pre}}",
        *(f".{role}{{{style}}}" for role, style in _STYLES.items()),
        "</style>",
        f'<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>',
    ]
    for row, line in enumerate(lines):
        top = _MARGIN + row * _CELL_HEIGHT
        column, words = 0, []
        for text, role in line:
            if role == "cursor":
                at, width = _MARGIN + column * _CELL_WIDTH, len(text) * _CELL_WIDTH
                out.append(
                    f'<rect x="{at:g}" y="{top:g}" width="{width:g}" height="{_CELL_HEIGHT}" '
                    f'fill="{_INK}"/>'
                )
            words += [_word(found, role, column) for found in re.finditer(r"\S+", text)]
            column += len(text)
        if words:
            out.append(f'<text y="{top + 0.75 * _CELL_HEIGHT:g}">{"".join(words)}</text>')
    return "\n".join([*out, "</svg>", ""])


def _word(found: re.Match[str], role: str, column: int) -> str:
    known = f' class="{role}"' if role in _STYLES else ""
    at = _MARGIN + (column + found.start()) * _CELL_WIDTH
    if not found[0].isascii():
        # Bars and sparklines: a font may have other widths for these.
        width = len(found[0]) * _CELL_WIDTH
        known += f' textLength="{width:g}" lengthAdjust="spacingAndGlyphs"'
    return f'<tspan x="{at:g}"{known}>{escape(found[0])}</tspan>'


def main() -> int:
    """Write the picture to standard output."""
    scene = record()
    title = "zpobs top: the size classes of a zram device at work"
    sys.stdout.write(svg(classes_of(scene, 1.0), SIZE, title))
    return 0


if __name__ == "__main__":
    sys.exit(main())
