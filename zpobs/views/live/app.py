"""The interactive view in a terminal: the only module that knows Textual.

It paints what :func:`render` returns, hands keys to :func:`pressed` and scenes
to :func:`followed`; all that is seen is decided there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal, TextIO

from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.app import App, ComposeResult
from textual.drivers.linux_driver import LinuxDriver
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from zpobs.views.lines import Line
from zpobs.views.live.export import export_name, exported
from zpobs.views.live.feed import Feed, FeedOptions
from zpobs.views.live.scene import Scene
from zpobs.views.live.screens import render
from zpobs.views.live.state import Effect, Size, ViewState, ask_of, ending, followed, pressed
from zpobs.views.source import SnapshotSource

# More does not get through many a terminal's or multiplexer's buffer.
CLIPBOARD_MAX_BYTES = 1 << 16
_NAMES_TRIED = 1000

# The terminal's own colours, and of those only what can be read on black and on white.
COLOURS = {
    "title": Style(bold=True),
    "head": Style(bold=True, underline=True),
    "dim": Style(dim=True),
    "good": Style(color="green"),
    "warn": Style(color="magenta", bold=True),
    "bad": Style(color="red", bold=True),
    "cursor": Style(reverse=True),
    "bar": Style(color="green"),
    "key": Style(bold=True),
    "input": Style(underline=True),
}
NO_COLOURS = {
    role: Style(bold=style.bold, dim=style.dim, underline=style.underline, reverse=style.reverse)
    for role, style in COLOURS.items()
}


def run_live(
    source: SnapshotSource, state: ViewState, options: FeedOptions, *, stop: int
) -> Scene | None:
    """Show the view until its end; return the last scene, None if there is no terminal any more.

    It ends by a key, by its duration, or once ``stop`` is readable. Raises what
    went wrong in the feed or in the view, after the terminal was restored.
    """
    app = LiveApp(source, state, options, stop=stop)
    with _hangups_noted(app.note_gone):
        try:
            app.run(mouse=False)
        finally:
            app.feed.stop(last_frame=app.crash is None and not app.gone)
            last = app.feed.join()
    if app.crash is not None:
        raise app.crash
    return None if app.gone else last


class Canvas(Widget, can_focus=False):
    """The whole terminal, line by line."""

    def __init__(self, styles: dict[str, Style], resized: Callable[[], None]) -> None:
        super().__init__()
        self._role_styles = styles
        self._resized = resized
        self._lines: list[Line] = []
        self._drawn_columns = 0

    def on_resize(self) -> None:
        """Have it painted for the new size."""
        self._resized()

    def show(self, lines: list[Line]) -> None:
        """Show other lines; only those that are not the same as before are drawn."""
        before, self._lines = self._lines, lines
        columns = self.size.width
        if len(before) != len(lines) or columns != self._drawn_columns:
            self._drawn_columns = columns
            self.refresh()
            return
        changed = [row for row, line in enumerate(lines) if line != before[row]]
        if changed:
            self.refresh(*(Region(0, row, columns, 1) for row in changed))

    def render_line(self, y: int) -> Strip:
        """Return one line as Textual wants it."""
        columns = self.size.width
        if y >= len(self._lines):
            return Strip.blank(columns)
        segments = [Segment(text, self._role_styles.get(role)) for text, role in self._lines[y]]
        return Strip(segments).adjust_cell_length(columns)


class LiveApp(App[None]):
    """Keys, scenes, the terminal's size and signals in; lines out."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen, Canvas { background: ansi_default; color: ansi_default; }
    Screen { layout: vertical; overflow: hidden hidden; }
    Canvas { width: 100%; height: 100%; }
    """

    class SceneCame(Message):
        """The feed has a new scene."""

        def __init__(self, scene: Scene) -> None:
            super().__init__()
            self.scene = scene

    class Copied(Message):
        """A copy was made, or could not be, which ``told`` says, ever shorter.

        ``clip`` is for the clipboard.
        """

        def __init__(self, told: tuple[str, ...], clip: str | None) -> None:
            super().__init__()
            self.told = told
            self.clip = clip

    class FeedEnded(Message):
        """The feed has come to its end, or failed."""

    class TerminalGone(Message):
        """Nothing can be written to the terminal, or read from it, any more."""

    class TerminalResumed(Message):
        """The terminal was given away and taken again."""

    def __init__(
        self,
        source: SnapshotSource,
        state: ViewState,
        options: FeedOptions,
        *,
        stop: int | None = None,
    ) -> None:
        super().__init__(driver_class=Driver, ansi_color=True)
        self.animation_level = "none"
        self.state = state
        self.scene: Scene | None = None
        self.crash: Exception | None = None
        self.gone = False
        styles = NO_COLOURS if os.environ.get("NO_COLOR") else COLOURS
        self.canvas = Canvas(styles, self._changed)
        self._stop = stop
        self._asked = ask_of(self.state)
        self.feed = Feed(
            source,
            self._asked,
            options,
            deliver=lambda scene: self._tell(self.SceneCame(scene)),
            ended=lambda: self._tell(self.FeedEnded()),
        )

    def _tell(self, message: Message) -> None:
        # From any thread; after the end there is nobody left to tell.
        with contextlib.suppress(RuntimeError):
            self.post_message(message)

    def compose(self) -> ComposeResult:
        """Put the one widget on the screen."""
        yield self.canvas

    def on_mount(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        if self._stop is not None:
            loop.add_reader(self._stop, self._stop_came, loop, self._stop)
        self.feed.start()

    def _stop_came(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> None:
        loop.remove_reader(descriptor)
        self._tell(self.FeedEnded())

    # -- what comes in ------------------------------------------------------------------

    async def on_event(self, event: events.Event) -> None:
        """Take all keys; Textual's own meanings of some are not wanted here."""
        if isinstance(event, events.Key):
            self._key(event)
            return
        await super().on_event(event)

    def _key(self, event: events.Key) -> None:
        if self.scene is None:
            # Nothing is shown yet that a key could change.
            self._do(ending(event.key))
            return
        text = event.character if event.is_printable else None
        self.state, effect = pressed(self.state, event.key, self.scene, self._cells(), text=text)
        self._do(effect)
        self._changed()

    def _do(self, effect: Effect) -> None:
        match effect:
            case Effect.QUIT:
                self.exit()
            case Effect.SUSPEND:
                if can_be_suspended():
                    self.action_suspend_process()
            case Effect.COPY_JSON:
                self._copy("json")
            case Effect.COPY_CSV:
                self._copy("csv")

    def on_live_app_scene_came(self, message: SceneCame) -> None:
        """Show a new scene."""
        self.scene = message.scene
        self.state = followed(self.state, message.scene)
        self._changed()

    def on_live_app_feed_ended(self) -> None:
        """End."""
        self.exit()

    def on_live_app_terminal_gone(self) -> None:
        """End; nobody can see more."""
        self.gone = True
        self.exit()

    def note_gone(self) -> None:
        """Tell, from any thread or from a signal's handler, that the terminal has gone."""
        self.gone = True
        self._tell(self.TerminalGone())

    def note_resumed(self) -> None:
        """Tell that nothing of ours is on the terminal any more."""
        self._tell(self.TerminalResumed())

    def on_live_app_terminal_resumed(self) -> None:
        """Paint everything."""
        self.canvas.refresh()

    # -- what goes out --------------------------------------------------------------------

    def _cells(self) -> Size:
        return Size(self.canvas.size.width, self.canvas.size.height)

    def _changed(self) -> None:
        """Paint, and tell the feed if something else is wanted now."""
        asked = ask_of(self.state)
        if asked != self._asked:
            self._asked = asked
            self.feed.ask(asked)
        size = self._cells()
        if self.scene is not None and size.columns and size.rows:
            self.canvas.show(render(self.scene, self.state, size))

    def _copy(self, form: Literal["json", "csv"]) -> None:
        """Write the current view to a new file; offer it to the clipboard if it is small enough.

        In a thread: many zspages take seconds, and the view goes on meanwhile.
        """
        assert self.scene is not None
        copying = partial(self._write_copy, self.scene, self.state, form)
        self.state = self.state.telling("copying")
        self.run_worker(copying, thread=True)

    def _write_copy(self, scene: Scene, state: ViewState, form: Literal["json", "csv"]) -> None:
        text = exported(scene, state, form)
        size = len(text.encode())
        try:
            path = write_new(Path(export_name(scene, state, form)), text)
        except OSError as error:
            self._tell(self.Copied((f"not written: {error.strerror or error}",), None))
            return
        brief = (f"wrote {path} ({size:,} bytes)", f"wrote {path}", str(path))
        if size > CLIPBOARD_MAX_BYTES:
            self._tell(self.Copied(brief, None))
            return
        # Nobody tells whether a terminal takes it.
        offered = f"{brief[0]}, offered to the terminal's clipboard"
        self._tell(self.Copied((offered, *brief), text))

    def on_live_app_copied(self, copied: Copied) -> None:
        """Say what became of a copy."""
        if copied.clip is not None:
            self.copy_to_clipboard(copied.clip)
        self.state = self.state.telling(*copied.told)
        self._changed()

    def _handle_exception(self, error: Exception) -> None:
        """Keep what went wrong: run_live raises it, for the command line to tell."""
        if self.crash is None:
            self.crash = error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """End without Textual's own report, which would come before the terminal's restoring."""
        self._close_messages_no_wait()


# -- the terminal --------------------------------------------------------------------------


class Output:
    """Standard output for Textual's writing thread, which would not outlive an error."""

    def __init__(self, file: TextIO, gone: Callable[[], None]) -> None:
        self._file = file
        self._gone = gone
        self._failed = False

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._file.fileno()

    def write(self, text: str) -> None:
        """Write all of it, unless the terminal has gone."""
        left = memoryview(text.encode(self._file.encoding or "utf-8", "replace"))
        try:
            while left and not self._failed:
                left = left[os.write(self._file.fileno(), left) :]
        except OSError:
            self._failed = True
            self._gone()

    def flush(self) -> None:
        """Do nothing: everything was written."""


class Driver(LinuxDriver):
    """Textual's own driver, but on standard output, and at ease with a terminal that goes."""

    def __init__(
        self,
        app: LiveApp,
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        self._gone, self._resumed = app.note_gone, app.note_resumed
        self._hangup: select.epoll | None = None
        assert sys.__stdout__ is not None
        self._file = Output(sys.__stdout__, self._gone)  # type: ignore[assignment]

    def _hung_up(self) -> None:
        self._unwatch()
        self._gone()

    def _unwatch(self) -> None:
        if self._hangup is not None and not self._hangup.closed:
            asyncio.get_running_loop().remove_reader(self._hangup.fileno())
            self._hangup.close()

    def start_application_mode(self) -> None:
        """Take the terminal; whenever it was given away in between, all must be painted anew.

        SIGCONT also comes to what was never stopped, or was without being asked.
        """
        if self._hangup is None:
            # No event is asked for: a hang-up is always told. Without this a terminal that goes
            # and sends no signal would have the reader of keys turn round and round.
            self._hangup = select.epoll()
            if os.isatty(self.fileno):
                self._hangup.register(self.fileno, 0)
            asyncio.get_running_loop().add_reader(self._hangup.fileno(), self._hung_up)
            super().start_application_mode()  # type: ignore[no-untyped-call]
        self._resumed()

    def run_input_thread(self) -> None:
        """Read keys until the end, or until there is nothing to read them from."""
        try:
            super().run_input_thread()
        except OSError:
            self._gone()

    def close(self) -> None:
        """Give back what is held; it can be started again."""
        super().close()
        self._unwatch()
        self._hangup = None


@contextlib.contextmanager
def _hangups_noted(note: Callable[[], None]) -> Iterator[None]:
    """Have a closed window end the view quietly, unless who started it wants it to stay."""
    before = signal.getsignal(signal.SIGHUP)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda *_: note())
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def can_be_suspended() -> bool:
    """Tell whether anybody could continue us: a shell that started our process group."""
    group, session = os.getpgrp(), os.getsid(0)
    pid = os.getppid()
    while pid > 1:
        try:
            if os.getsid(pid) != session:
                return False
            if os.getpgid(pid) != group:
                return True
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        pid = int(stat.rpartition(")")[2].split()[1])
    return False


def write_new(path: Path, text: str) -> Path:
    """Write a file that was not there, readable by its owner alone; return its name.

    A number is added to a name that is taken. OSError leaves no part of a file behind.
    """
    for number in range(1, _NAMES_TRIED):
        tried = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        try:
            descriptor = os.open(tried, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            continue
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError:
            tried.unlink(missing_ok=True)
            raise
        return tried
    raise FileExistsError(0, f"{_NAMES_TRIED} names are taken", str(path))
