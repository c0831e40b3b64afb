"""The textfile: whole or not there, and refused at the start where it cannot be."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.views.metrics.textfile import check_textfile, write_textfile


def test_a_reader_never_sees_half_a_page(tmp_path: Path) -> None:
    """Whatever is read is one of the pages, all of it; nothing else is left in the folder."""
    path = tmp_path / "zpobs.prom"
    pages = [bytes([digit]) * 500_000 for digit in b"ab"]
    write_textfile(path, pages[0])
    ended = threading.Event()

    def write() -> None:
        for count in range(200):
            write_textfile(path, pages[count % 2])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        assert path.read_bytes() in pages
    writer.join()
    assert [each.name for each in tmp_path.iterdir()] == ["zpobs.prom"]
    # node_exporter is another user.
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """No folder, a folder of that name, or a name that the collector does not read."""
    with pytest.raises(EnvironmentLacksError, match="No such file or directory"):
        check_textfile(tmp_path / "no" / "x.prom")
    (tmp_path / "folder.prom").mkdir()
    with pytest.raises(EnvironmentLacksError, match="Is a directory"):
        check_textfile(tmp_path / "folder.prom")
    with pytest.raises(UsageError, match=r"try: .*x\.prom$"):
        check_textfile(tmp_path / "x.txt")
    check_textfile(tmp_path / "x.prom")
    assert [each.name for each in tmp_path.iterdir()] == ["folder.prom"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """And no temporary file."""
    path = tmp_path / "zpobs.prom"
    path.mkdir()
    (path / "kept").touch()
    with pytest.raises(OSError):
        write_textfile(path, b"x")
    assert [each.name for each in tmp_path.iterdir()] == ["zpobs.prom"]
