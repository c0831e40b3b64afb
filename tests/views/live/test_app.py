"""The view's runtime on a scripted source: keys, sizes, copies and failures, without a terminal."""

from __future__ import annotations

import asyncio
import json
import os
import select
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from tests.factories import make_pool, make_snapshot, make_zspages
from zpobs.descriptors import Look
from zpobs.errors import EnvironmentLacksError
from zpobs.snapshot import Snapshot, ZspagesOf
from zpobs.views.lines import plain
from zpobs.views.live import app as app_module
from zpobs.views.live.app import COLOURS, NO_COLOURS, LiveApp, write_new
from zpobs.views.live.feed import FeedOptions
from zpobs.views.live.screens import render
from zpobs.views.live.state import Screen, Size, started

Drive = Callable[[LiveApp, Pilot[None]], Coroutine[Any, Any, None]]


@dataclass
class SlowSource:
    """A session in which nothing happens but what ``pools`` is set to."""

    pools: list[Any] = field(default_factory=lambda: [make_pool()])
    asked: list[bool | ZspagesOf] = field(default_factory=list)
    frames: int = 0
    fail: Exception | None = None
    ended: bool = False

    def attach(self, progress: Callable[[str], None] = lambda _: None) -> None:
        progress("attaching")

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        left_s = max(deadline_s - time.monotonic(), 0)
        return bool(select.select(watch, [], [], left_s)[0])

    def snapshot(
        self,
        *,
        zspages: bool | ZspagesOf = False,
        pool: str | None = None,  # noqa: ARG002
        compaction: bool = False,  # noqa: ARG002
    ) -> Snapshot:
        if self.fail is not None:
            raise self.fail
        self.frames += 1
        self.asked.append(zspages)
        pools = self.pools
        if zspages:
            pools = [make_pool(zspage_list=make_zspages())]
        return make_snapshot(*pools, at_s=self.frames)

    def pageblocks(self, *, pool: str | None = None) -> Snapshot:  # noqa: ARG002
        return make_snapshot(make_pool())

    def look(self, _pool: int, _class_index: int) -> Look | None:
        return None


@pytest.fixture
def source() -> SlowSource:
    return SlowSource()


def driven(
    source: SlowSource, drive: Drive, *, size: tuple[int, int] = (80, 24), interval_s: float = 60
) -> LiveApp:
    """Run the view on a screen of this size, and let a function press its keys."""
    app = LiveApp(source, started(interval_s=interval_s), FeedOptions())

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: app.scene is not None)
            await drive(app, pilot)

    try:
        asyncio.run(run())
    finally:
        app.feed.stop(last_frame=False)
        app.feed.join()
    return app


async def until(pilot: Pilot[None], right: Callable[[], bool]) -> None:
    """Let the view work until something holds."""
    end_s = time.monotonic() + 20
    while not right():
        assert time.monotonic() < end_s, "it never came"
        await pilot.pause(0.01)
    await pilot.pause()


def shown(app: LiveApp) -> list[str]:
    """Return the text of all lines as the terminal gets them."""
    rows = range(app.canvas.size.height)
    return [app.canvas.render_line(row).text.rstrip() for row in rows]


def rendered(app: LiveApp, columns: int, rows: int) -> list[str]:
    """Return the text of what there is to paint."""
    assert app.scene is not None
    return [plain(line).rstrip() for line in render(app.scene, app.state, Size(columns, rows))]


def test_it_paints_exactly_the_screen(source: SlowSource) -> None:
    """The widget's lines are those of render(), each filled up to the whole width."""

    async def drive(app: LiveApp, _: Pilot[None]) -> None:
        assert shown(app) == rendered(app, 80, 24)
        assert {app.canvas.render_line(row).cell_length for row in range(24)} == {80}
        assert any("zram0" in line for line in shown(app))

    driven(source, drive)


def test_keys_reach_the_state_and_the_feed(source: SlowSource) -> None:
    """Drilling in asks for the zspages, which come long before the next frame is due."""

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        assert app.state.screen == Screen.CLASSES
        await pilot.press("enter")
        assert app.state.screen == Screen.ZSPAGES
        await until(pilot, lambda: any("0xffff8880000" in line for line in shown(app)))
        assert source.asked[-1] == ZspagesOf(1, app.state.class_index)
        await pilot.press("tab", "ctrl+q", "ctrl+p", "f5", "ctrl+backslash")
        assert app.is_running
        assert app.state.screen == Screen.ZSPAGES

    driven(source, drive)


def test_a_filter_is_typed_as_characters(source: SlowSource) -> None:
    """While a filter is typed keys are text, also those that mean something else."""

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("slash", "q", "space", "S", "less_than_sign")
        assert app.state.typing == "q S<"
        assert any("q S<" in line for line in shown(app))
        await pilot.press("escape")
        assert app.state.typing is None

    driven(source, drive)


def test_resizing_paints_anew(source: SlowSource) -> None:
    """The lines follow the terminal's size both ways."""

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        for columns, rows in [(60, 20), (200, 50), (38, 8), (80, 24)]:
            await pilot.resize_terminal(columns, rows)
            lines = rendered(app, columns, rows)
            await until(pilot, lambda lines=lines: shown(app) == lines)

    driven(source, drive)


def test_only_what_changed_is_drawn(source: SlowSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new scene redraws the lines that differ, and none of the others."""

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        drawn: list[int] = []
        whole = app.canvas.refresh

        def refresh(*regions: Any, **options: Any) -> Any:
            drawn.extend(region.y for region in regions)
            assert regions, "everything is drawn"
            return whole(*regions, **options)

        monkeypatch.setattr(app.canvas, "refresh", refresh)
        before, frames = shown(app), source.frames
        await until(pilot, lambda: source.frames > frames and bool(drawn))
        after = shown(app)
        assert set(drawn) >= {row for row in range(24) if before[row] != after[row]}
        assert len(drawn) < 24

    driven(source, drive, interval_s=0.2)


def test_a_pool_that_vanishes_is_told(source: SlowSource) -> None:
    """The view drops back by itself when a scene comes without it."""

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        source.pools = []
        await until(pilot, lambda: app.state.screen == Screen.POOLS)
        assert any("zram0 is gone" in line for line in shown(app))

    driven(source, drive, interval_s=0.1)


@pytest.mark.parametrize(("key", "suffix"), [("c", ".json"), ("C", ".csv")])
def test_a_copy_is_a_new_file_and_offered_to_the_clipboard(
    source: SlowSource,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    suffix: str,
) -> None:
    """Readable by its owner alone, never over another one; the message tells name and size."""
    monkeypatch.chdir(tmp_path)

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        for number in (1, 2):
            await pilot.press(key)
            await until(pilot, lambda: app.state.message.startswith("wrote"))
            assert len(list(tmp_path.iterdir())) == number
            if number == 1:
                app.state = app.state.telling("")
        one, two = sorted(tmp_path.iterdir(), key=lambda path: len(path.name))
        assert two.name == f"{one.stem}-2{suffix}"
        assert {path.suffix for path in (one, two)} == {suffix}
        assert {path.stat().st_mode & 0o777 for path in (one, two)} == {0o600}
        text = one.read_text(encoding="utf-8")
        assert text == two.read_text(encoding="utf-8") == app.clipboard
        if suffix == ".json":
            assert json.loads(text)["schema"] == 1
        told = f"wrote {two.name} ({len(text.encode()):,} bytes)"
        # Whether the terminal took it nobody knows.
        assert app.state.message == f"{told}, offered to the terminal's clipboard"
        assert app.state.shorter == (told, f"wrote {two.name}", two.name)

    driven(source, drive, size=(120, 24))


def test_what_is_too_large_is_only_written(
    source: SlowSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than 64 KiB is not sent through the terminal."""
    monkeypatch.chdir(tmp_path)
    large = "x" * (app_module.CLIPBOARD_MAX_BYTES + 1)
    monkeypatch.setattr(app_module, "exported", lambda *_: large)

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("c")
        await until(pilot, lambda: app.state.message.startswith("wrote"))
        (path,) = tmp_path.iterdir()
        assert path.read_text(encoding="utf-8") == large
        assert app.clipboard == ""
        assert "clipboard" not in app.state.message

    driven(source, drive)


def test_a_copy_that_cannot_be_written_is_told(
    source: SlowSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no folder any more the view says so and goes on."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        await pilot.press("c")
        await until(pilot, lambda: app.state.message != "copying")
        assert app.state.message == "not written: No such file or directory"
        assert app.clipboard == ""
        await pilot.press("enter")
        assert app.state.screen == Screen.CLASSES

    driven(source, drive)


def test_a_failing_feed_ends_the_view(source: SlowSource) -> None:
    """What went wrong in the thread comes out of join, once the view has ended."""
    source.fail = EnvironmentLacksError("cannot be scanned")
    app = LiveApp(source, started(interval_s=1), FeedOptions())

    async def run() -> None:
        async with app.run_test() as pilot:
            await until(pilot, lambda: not app.is_running)

    asyncio.run(run())
    with pytest.raises(EnvironmentLacksError, match="cannot be scanned"):
        app.feed.join()


def test_a_bug_in_painting_ends_the_view(
    source: SlowSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception is kept for the command line to tell."""
    broken = ValueError("broken on purpose")

    def render(*_: object) -> None:
        raise broken

    async def drive(app: LiveApp, pilot: Pilot[None]) -> None:
        monkeypatch.setattr(app_module, "render", render)
        await pilot.press("enter")
        await until(pilot, lambda: not app.is_running)

    app = LiveApp(source, started(interval_s=60), FeedOptions())

    async def run() -> None:
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.scene is not None)
            await drive(app, pilot)

    with pytest.raises(ValueError, match="broken on purpose"):
        asyncio.run(run())
    assert app.crash is broken
    app.feed.stop(last_frame=False)
    app.feed.join()


def test_a_stop_signal_ends_the_view(source: SlowSource) -> None:
    """A descriptor that becomes readable is the end."""
    reader, writer = os.pipe()
    app = LiveApp(source, started(interval_s=60), FeedOptions(), stop=reader)

    async def run() -> None:
        async with app.run_test() as pilot:
            await until(pilot, lambda: app.scene is not None)
            os.write(writer, b".")
            await until(pilot, lambda: not app.is_running)

    asyncio.run(run())
    app.feed.stop()
    last = app.feed.join()
    assert last is not None
    assert last.snapshot.pools
    os.close(reader)
    os.close(writer)


def test_the_feed_is_no_thread_any_more_at_the_end(source: SlowSource) -> None:
    """Nothing goes on behind the view's back."""

    async def drive(_: LiveApp, pilot: Pilot[None]) -> None:
        assert "zpobs-feed" in {thread.name for thread in threading.enumerate()}
        await pilot.press("q")

    driven(source, drive)
    assert "zpobs-feed" not in {thread.name for thread in threading.enumerate()}


def test_no_colour_has_every_role_and_no_colour() -> None:
    """Without colours roles keep their weight; no two that judge look alike in colour."""
    assert set(NO_COLOURS) == set(COLOURS)
    assert all(style.color is None and style.bgcolor is None for style in NO_COLOURS.values())
    assert all(style.bgcolor is None for style in COLOURS.values())
    judging = [COLOURS[role] for role in ("good", "warn", "bad")]
    assert len(set(judging)) == 3


def test_a_new_file_never_takes_anothers_place(tmp_path: Path) -> None:
    """Taken names get a number, links are not followed, and parts are not left behind."""
    path = tmp_path / "zpobs-zram0.json"
    outside = tmp_path / "outside"
    path.symlink_to(outside)
    assert write_new(path, "a").name == "zpobs-zram0-2.json"
    assert write_new(path, "b").name == "zpobs-zram0-3.json"
    assert not outside.exists()
    assert (tmp_path / "zpobs-zram0-3.json").read_text(encoding="utf-8") == "b"
