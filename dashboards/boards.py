"""The two dashboards."""

from __future__ import annotations

from dashboards.developer import DEVELOPER
from dashboards.on_call import ON_CALL

BOARDS = (ON_CALL, DEVELOPER)
