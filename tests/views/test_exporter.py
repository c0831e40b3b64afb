"""The pump of the exporter, with an invented source: what it makes, serves and leaves behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.factories import COUNTERS, make_health, make_pool, make_snapshot
from tests.views.metrics.support import FOOTING, MACHINE
from zpobs.descriptors import Look
from zpobs.footing import Footing
from zpobs.snapshot import PoolView, Snapshot, ZspagesOf
from zpobs.views.exporter import ROUND_SCANS, ExporterOptions, fresh_s, landing_page, run_exporter
from zpobs.views.metrics.board import Board
from zpobs.views.metrics.metric import Checks
from zpobs.views.top import StopSignal


class Source:
    """Gives so many snapshots, then the signal; notes what was asked of it."""

    def __init__(self, stop: StopSignal, waits: int) -> None:
        self.asked: list[str] = []
        self._stop = stop
        self._left = waits
        self.each: Callable[[], None] = lambda: None
        self.health = make_health()
        self.footing: Footing | None = None
        self.pools: tuple[PoolView, ...] = (make_pool(),)

    ended = False

    def attach(self, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("attaching")
        self.asked.append("attach")

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        assert deadline_s > 0
        assert watch == (self._stop.descriptor,)
        self.each()
        self.asked.append("wait")
        self._left -= 1
        return self._left < 0

    def snapshot(self, *, zspages: bool | ZspagesOf = False, pool: str | None = None) -> Snapshot:
        assert not zspages
        self.asked.append(f"snapshot {pool}")
        return make_snapshot(
            *self.pools, at_s=len(self.asked), health=self.health, footing=self.footing
        )

    def look(self, pool: int, class_index: int) -> Look | None:
        pytest.fail(f"an exporter has no use for descriptors: {pool}, {class_index}")


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    with StopSignal() as made:
        yield made


@pytest.fixture
def board() -> Board:
    return Board(fresh_s(5.0))


def run(source: Source, board: Board, stop: StopSignal, **options: object) -> None:
    asked = ExporterOptions(interval_s=5.0, version="0.1", **options)  # type: ignore[arg-type]
    run_exporter(source, asked, board, stop, machine=lambda: MACHINE)


def test_a_page_comes_before_the_probes_attach(stop: StopSignal, board: Board) -> None:
    """Where there is a scan to make it of; then another, and one an interval."""
    source = Source(stop, 2)
    run(source, board, stop, at_once=True, pool="zram0")
    shot = "snapshot zram0"
    assert source.asked == [shot, "attach", shot, "wait", shot, "wait", shot, "wait"]
    assert board.fresh
    assert f'{{pool="zram0"}} {float(COUNTERS.allocs or 0)}' in board.page.body("text").decode()


def test_once_is_one_page_on_standard_output(
    stop: StopSignal, board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing else."""
    source = Source(stop, 0)
    run(source, board, stop, once=True, at_once=True)
    assert source.asked == ["attach", "snapshot None"]
    assert capsys.readouterr() == (board.page.body("text").decode(), "")


def test_once_with_a_textfile_leaves_it_there(
    stop: StopSignal, board: Board, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For who comes for it later."""
    path = tmp_path / "zpobs.prom"
    run(Source(stop, 0), board, stop, once=True, textfile=path)
    assert path.read_bytes() == board.page.body("text")
    assert capsys.readouterr() == ("", "")


def test_what_probes_lack_is_told_once(
    stop: StopSignal, board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the kernel's reason, on standard error and to whoever asks for health."""
    source = Source(stop, 2)
    why = "no probe is attached (Operation not permitted); figures are those of the last scan"
    source.health = make_health(hooks=0, missed_hooks=("obj_malloc",), reasons=("x", why))
    notes: list[str] = []
    source.each = lambda: notes.append(board.note)
    run(source, board, stop, at_once=True)
    assert capsys.readouterr() == ("", f"zpobs: {why}\n")
    assert notes == [why] * 3
    source = Source(stop, 0)
    source.health = make_health(hooks=8, missed_hooks=("zs_malloc", "zs_free"))
    run(source, board, stop)
    assert capsys.readouterr() == ("", "zpobs: not attached: zs_malloc, zs_free\n")


def test_what_a_page_lacks_is_told_once(
    stop: StopSignal, board: Board, capsys: pytest.CaptureFixture[str]
) -> None:
    """That a capture is damaged, and that there is no such pool; nothing else of a snapshot."""
    source = Source(stop, 2)
    damage = "the capture is damaged: a block is damaged"
    source.health = make_health(reasons=("x", damage))
    run(source, board, stop)
    assert capsys.readouterr() == ("", f"zpobs: {damage}\n")
    source = Source(stop, 2)
    source.pools = ()
    run(source, board, stop, at_once=True, pool="zram9")
    assert capsys.readouterr() == ("", "zpobs: no pool is called zram9 now\n")
    source = Source(stop, 2)
    source.pools = ()
    run(source, board, stop)
    assert capsys.readouterr() == ("", "")


def test_verification_comes_in_its_time(stop: StopSignal, board: Board) -> None:
    """What it tells is in the page that follows; before, all is 0."""
    source = Source(stop, 3)
    pages: list[str] = []
    source.each = lambda: pages.append(board.page.body("text").decode())
    made: list[Checks] = []

    def verify() -> Checks:
        made.append(Checks({"equal": len(made) + 1}, {"model": 0}))
        return made[-1]

    options = ExporterOptions(interval_s=5.0, verify_s=1e-9)
    run_exporter(source, options, board, stop, machine=lambda: MACHINE, verify=verify)
    told = [page.split('zpobs_verifications_total{verdict="equal"} ')[1][:3] for page in pages]
    assert told == ["0.0", "0.0", "1.0", "2.0"]


def test_a_verification_that_would_make_pages_stale_is_left_out(
    stop: StopSignal, board: Board
) -> None:
    """By what a scan took; and it is told."""
    source = Source(stop, 3)
    longest_ns = int(fresh_s(5.0) / ROUND_SCANS * 1e9)
    source.footing = replace(FOOTING, last_scan_ns=longest_ns + 1)
    pages: list[str] = []

    def each() -> None:
        pages.append(board.page.body("text").decode())
        if len(pages) == 2:
            source.footing = replace(FOOTING, last_scan_ns=longest_ns)

    source.each = each
    made: list[int] = []

    def verify() -> Checks:
        made.append(len(pages))
        return Checks({"equal": 1}, {"model": 0})

    options = ExporterOptions(interval_s=5.0, verify_s=1e-9)
    run_exporter(source, options, board, stop, machine=lambda: MACHINE, verify=verify)
    assert made == [2, 3]
    assert [
        page.split('zpobs_verifications_total{verdict="left out"} ')[1][:3] for page in pages
    ] == ["0.0", "0.0", "1.0", "1.0"]
    assert "zpobs_verification_seconds_total 0.0\n" in pages[2]
    assert "zpobs_verification_seconds_total 0.0\n" not in pages[3]


def test_a_signal_that_came_already_ends_it(stop: StopSignal, board: Board) -> None:
    """Without waiting for anything."""
    os.write(stop._writer, b".")
    stop.raised = True
    source = Source(stop, 9)
    run(source, board, stop)
    assert source.asked == ["attach", "snapshot None"]


def test_the_landing_page_leads_on() -> None:
    """To metrics and health; a version is text."""
    page = landing_page("<0.1>")
    assert 'href="/metrics"' in page
    assert 'href="/healthz"' in page
    assert "&lt;0.1&gt;" in page
