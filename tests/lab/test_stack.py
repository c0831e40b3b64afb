"""``make stack``: what is refused before anything is begun."""

from __future__ import annotations

import pytest

from lab.host import EXIT_USAGE
from lab.stack import main


@pytest.mark.parametrize(
    ("option", "port"),
    [("--exporter-port", "99999"), ("--prometheus-port", "-1"), ("--prometheus-port", "65536")],
)
def test_ports_that_are_none_are_one_line(
    capsys: pytest.CaptureFixture[str], option: str, port: str
) -> None:
    """As wrong usage."""
    assert main([option, port]) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"stack: {option} {port} is no port; ")
