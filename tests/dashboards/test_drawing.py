"""The page that draws the dashboards knows every kind of panel; the pictures are there."""

from __future__ import annotations

import json
import re

from dashboards.boards import BOARDS
from dashboards.grafana import COLUMNS, dashboard_json
from dashboards.pictures import BOARDS as DRAWN
from dashboards.pictures import PICTURES, ROW_PX, SOURCE, WIDTH

PAGE = (SOURCE / "page.jsx").read_text(encoding="utf-8")
PNG = b"\x89PNG\r\n\x1a\n"


def test_every_dashboard_has_its_picture() -> None:
    """As large as its panels take."""
    assert {board.uid for board in BOARDS} == set(DRAWN)
    for board in BOARDS:
        picture = (PICTURES / f"{board.uid.removeprefix('zpobs-')}.png").read_bytes()
        assert picture.startswith(PNG)
        places = [each["gridPos"] for each in json.loads(dashboard_json(board))["panels"]]
        rows = max(each["y"] + each["h"] for each in places)
        size = int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")
        assert size == (WIDTH, rows * ROW_PX + 16)


def test_every_kind_of_panel_is_drawn() -> None:
    """By a component of its own, and no wider than the picture."""
    kinds = {
        each["type"] for board in BOARDS for each in json.loads(dashboard_json(board))["panels"]
    }
    (drawn,) = re.findall(r"const DRAWN = \{ (.*) \};", PAGE)
    assert kinds - {"row"} == {*re.findall(r"(\w+):", drawn), "table"}
    (column_px,) = re.findall(r"const COLUMN_PX = (\d+);", PAGE)
    (row_px,) = re.findall(r"const ROW_PX = (\d+);", PAGE)
    assert int(row_px) == ROW_PX
    assert COLUMNS * int(column_px) <= WIDTH
