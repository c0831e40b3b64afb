"""The textfile: whole and true or not there, and refused at the start where it cannot be."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.views.metrics.support import families_of, full_pool, make_moment
from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.views.metrics.board import Board
from zpobs.views.metrics.pages import Page
from zpobs.views.metrics.textfile import (
    check_textfile,
    textfile_kept,
    textfile_or_none,
    write_textfile,
)

PATIENCE_S = 60.0


def until(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def fresh_page() -> Page:
    return Page(families_of(make_moment(full_pool())), time.monotonic())


def says(path: Path, page: Page) -> bool:
    return path.exists() and path.read_bytes() == page.body("text")


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
    for no_name in (Path(), Path("/"), Path()):
        with pytest.raises(UsageError, match=r"would not be read.*zpobs\.prom$"):
            check_textfile(no_name)
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


def test_a_file_is_what_the_board_says(tmp_path: Path) -> None:
    """Down, a page, the next, down once no other came: nobody has to make that page."""
    path = tmp_path / "zpobs.prom"
    path.write_text("zpobs_up 1 # of one that was killed\n")
    board = Board(0.5)
    down = board.page
    with textfile_kept(path, board):
        until(lambda: says(path, down))
        for _ in range(2):
            page = fresh_page()
            board.put(page)
            until(lambda: says(path, page))  # noqa: B023 - waited for here
        until(lambda: says(path, down))
        page = fresh_page()
        board.put(page)
        until(lambda: says(path, page))
    assert not list(tmp_path.iterdir())


def test_it_goes_whatever_ends_its_writer(tmp_path: Path) -> None:
    """An error like an interrupt; so does the one that --once was to renew."""
    path = tmp_path / "zpobs.prom"
    for ended in (OSError, KeyboardInterrupt):
        board = Board(PATIENCE_S)
        board.put(fresh_page())
        with pytest.raises(ended), textfile_kept(path, board):
            until(path.exists)
            raise ended
        assert not path.exists()
        path.touch()
        with pytest.raises(ended), textfile_or_none(path):
            raise ended
        assert not path.exists()
    path.touch()
    with textfile_or_none(path):
        pass
    assert path.exists()


def test_what_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And tried again, without another page too."""
    folder = tmp_path / "there"
    folder.mkdir()
    path = folder / "zpobs.prom"
    board = Board(PATIENCE_S)
    with textfile_kept(path, board):
        until(path.exists)
        path.unlink()
        folder.rmdir()
        for _ in range(3):
            board.put(fresh_page())
            time.sleep(0.05)
        folder.mkdir()
        until(lambda: says(path, board.page))
    _, err = capsys.readouterr()
    assert err == f"zpobs: cannot write {path}: No such file or directory\n"


def test_it_goes_on_if_nobody_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard error on a full disk ends no writer."""
    folder = tmp_path / "there"
    folder.mkdir()
    path = folder / "zpobs.prom"
    board = Board(PATIENCE_S)
    with Path("/dev/full").open("w", buffering=1) as full, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", full)
        with textfile_kept(path, board):
            until(path.exists)
            path.unlink()
            folder.rmdir()
            board.put(fresh_page())
            time.sleep(0.05)
            folder.mkdir()
            until(lambda: says(path, board.page))
        with pytest.raises(OSError), full:
            full.write("x\n")
    assert not path.exists()
