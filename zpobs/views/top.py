"""``zpobs top``: shows snapshots as they come, in a terminal, as text, or as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Protocol, TextIO

from zpobs.rates import PoolRates, rates
from zpobs.snapshot import Snapshot
from zpobs.views.text import TopState, render

_HOME_AND_CLEAR = "\x1b[H\x1b[J"
_ALTERNATE_SCREEN = "\x1b[?1049h\x1b[?25l"
_NORMAL_SCREEN = "\x1b[?25h\x1b[?1049l"
_KEYS_LINE = "q quit  s/S sort by next/previous column  r reverse"


class SnapshotSource(Protocol):
    """What ``top`` needs of a session."""

    def attach(self, progress: Callable[[str], None] = ...) -> None:
        """Attach what probes there can be; called once."""
        ...

    def wait(self, deadline_s: float, watch: tuple[int, ...] = ()) -> bool:
        """Feed the model until a monotonic time or until a descriptor is readable."""
        ...

    def snapshot(self, *, zspages: bool = False, pool: str | None = None) -> Snapshot:
        """Return the present state, frozen."""
        ...


@dataclass(frozen=True, slots=True)
class TopOptions:
    """What the command line asked for; times in seconds, ``duration_s`` None for ever.

    ``at_once`` shows a frame before the probes are attached: there is a scan.
    """

    interval_s: float
    duration_s: float | None = None
    once: bool = False
    as_json: bool = False
    zspages: bool = False
    pool: str | None = None
    log: TextIO | None = None
    sort: str = "pages"
    at_once: bool = False


class StopSignal:
    """Turns SIGINT and SIGTERM into a readable descriptor, so that a last frame can be shown."""

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        self.raised = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if not self.raised:
            self.raised = True
            os.write(self._writer, b".")

    def __enter__(self) -> StopSignal:
        self._before = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._writer)


class _Terminal:
    """Standard output as a screen that is redrawn in place, keys read one by one."""

    def __init__(self) -> None:
        self.keys = sys.stdin.fileno()

    @contextlib.contextmanager
    def opened(self) -> Iterator[_Terminal]:
        before = termios.tcgetattr(self.keys)
        tty.setcbreak(self.keys)
        sys.stdout.write(_ALTERNATE_SCREEN)
        try:
            yield self
        finally:
            sys.stdout.write(_NORMAL_SCREEN)
            sys.stdout.flush()
            termios.tcsetattr(self.keys, termios.TCSADRAIN, before)

    def draw(self, lines: list[str]) -> None:
        sys.stdout.write(_HOME_AND_CLEAR + "\n".join(lines))
        sys.stdout.flush()

    def size(self) -> tuple[int, int]:
        """Return rows and columns; a serial line does not know them and says 0."""
        size = os.get_terminal_size(sys.stdout.fileno())
        return size.lines or 24, size.columns or 80


def run_top(
    source: SnapshotSource,
    options: TopOptions,
    stop: StopSignal,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Show snapshots until the duration is over, a signal comes or ``q`` is pressed."""
    interactive = not (options.as_json or options.once)
    if interactive and sys.stdout.isatty() and sys.stdin.isatty():
        last = _run_terminal(source, options, stop, progress)
        _write_text(last, rates(None, last), options)
        return
    if options.at_once and not options.once:
        _write(_take(source, options), {}, options)
    source.attach(progress)
    _run_plain(source, options, stop)


def _end_s(options: TopOptions, start_s: float) -> float:
    if options.once:
        return start_s + options.interval_s
    return start_s + options.duration_s if options.duration_s is not None else float("inf")


def _take(source: SnapshotSource, options: TopOptions) -> Snapshot:
    snapshot = source.snapshot(zspages=options.zspages, pool=options.pool)
    if options.log:
        _write_json(snapshot, options.log)
    return snapshot


def _run_plain(source: SnapshotSource, options: TopOptions, stop: StopSignal) -> None:
    """Write a frame an interval; the one at the end is complete whatever ended it."""
    start_s = time.monotonic()
    end_s = _end_s(options, start_s)
    previous: Snapshot | None = source.snapshot(pool=options.pool)
    frame = 1
    while True:
        due_s = min(start_s + frame * options.interval_s, end_s)
        stopped = stop.raised or source.wait(due_s, (stop.descriptor,))
        snapshot = _take(source, options)
        _write(snapshot, rates(previous, snapshot), options)
        previous = snapshot
        if stopped or due_s >= end_s:
            return
        # A slow reader costs frames, never a growing lag.
        frame = max(frame + 1, int((time.monotonic() - start_s) / options.interval_s) + 1)


def _run_terminal(
    source: SnapshotSource,
    options: TopOptions,
    stop: StopSignal,
    progress: Callable[[str], None],
) -> Snapshot:
    """Redraw in place until told to end; return the last snapshot."""
    terminal = _Terminal()
    state = TopState(sort=options.sort)
    shown_rates: dict[int, PoolRates] = {}
    if not options.at_once:
        source.attach(progress)
    snapshot = _take(source, options)
    with terminal.opened():
        if options.at_once:
            _draw(terminal, snapshot, shown_rates, state, "attaching probes", pool=options.pool)
            source.attach()
            # Rates count from here: nothing was counted before.
            snapshot = source.snapshot(pool=options.pool)
        end_s = _end_s(options, time.monotonic())
        while True:
            due_s = min(time.monotonic() + options.interval_s, end_s)
            while True:
                _draw(terminal, snapshot, shown_rates, state, _KEYS_LINE, pool=options.pool)
                if not source.wait(due_s, (stop.descriptor, terminal.keys)):
                    break
                key = "" if stop.raised else os.read(terminal.keys, 1).decode(errors="replace")
                if stop.raised or key in ("q", "Q", ""):
                    return _take(source, options)
                state = _pressed(state, key)
            previous, snapshot = snapshot, _take(source, options)
            shown_rates = rates(previous, snapshot)
            if due_s >= end_s:
                return snapshot


def _draw(
    terminal: _Terminal,
    snapshot: Snapshot,
    per_second: dict[int, PoolRates],
    state: TopState,
    last_line: str,
    *,
    pool: str | None,
) -> None:
    rows, columns = terminal.size()
    lines = render(snapshot, per_second, state, rows=rows - 1, columns=columns, pool=pool)
    terminal.draw([*lines, last_line[:columns]])


def _pressed(state: TopState, key: str) -> TopState:
    if key in ("s", ">"):
        return state.next_sort(1)
    if key in ("S", "<"):
        return state.next_sort(-1)
    return state.reversed() if key == "r" else state


def _write(snapshot: Snapshot, per_second: dict[int, PoolRates], options: TopOptions) -> None:
    if options.as_json:
        _write_json(snapshot, sys.stdout)
    else:
        _write_text(snapshot, per_second, options)


def _write_json(snapshot: Snapshot, out: TextIO) -> None:
    out.write(json.dumps(snapshot.to_json(), separators=(",", ":")) + "\n")
    out.flush()


def _write_text(snapshot: Snapshot, per_second: dict[int, PoolRates], options: TopOptions) -> None:
    lines = render(snapshot, per_second, TopState(sort=options.sort), pool=options.pool)
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()
