"""The picture of the live view: text as text, in its place, with nothing to be fetched."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from lab.picture import SIZE, classes_of, svg
from tests.factories import make_pool, make_snapshot
from zpobs.views.lines import Line, plain
from zpobs.views.live.scene import Scene
from zpobs.views.live.state import Size

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "top.svg"
_SVG = "{http://www.w3.org/2000/svg}"


def texts(source: str) -> list[str]:
    """Return the rows of a picture, their words apart by one blank."""
    rows = ElementTree.fromstring(source).iter(f"{_SVG}text")
    return [" ".join(word.text or "" for word in row) for row in rows]


def test_every_word_of_the_lines_is_in_the_picture() -> None:
    """Text stays text, marked-up signs too, at the column and row that it has in the terminal."""
    lines: list[Line] = [(("a <b>", "title"), ("  & c", "")), (), ((" d ", "cursor"),)]
    source = svg(lines, Size(20, 3), "t")
    assert texts(source) == ["a <b> & c", "d"]
    rows = list(ElementTree.fromstring(source).iter(f"{_SVG}text"))
    assert [row.get("y") for row in rows] == ["25.5", "61.5"]
    assert [word.get("x") for row in rows for word in row] == ["12", "28.8", "70.8", "87.6", "20.4"]
    assert [word.get("class") for row in rows for word in row][1:] == [
        "title",
        None,
        None,
        "cursor",
    ]


def test_it_shows_what_the_view_shows() -> None:
    """The lines are those of the classes' screen."""
    lines = classes_of(Scene(snapshot=make_snapshot(make_pool())), 1.0)
    assert len(lines) == SIZE.rows
    assert any("pools > zram0" in plain(line) for line in lines)


def test_the_picture_that_is_kept_fetches_nothing() -> None:
    """It is small, well-formed, and names no address but that of its own format."""
    source = PICTURE.read_text(encoding="utf-8")
    assert len(source.encode()) < 60_000
    words = " ".join(texts(source))
    assert "pools > zram" in words
    assert "health" in words
    assert re.findall(r"\w+://[^\"' ]+", source) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in source
    assert "@import" not in source
