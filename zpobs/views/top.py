"""``zpobs top``: shows snapshots as they come, in a terminal, as text, or as JSON."""

from __future__ import annotations

import json
import locale
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Protocol, TextIO

from zpobs.rates import PoolRates, rates
from zpobs.snapshot import Snapshot
from zpobs.views.source import Recording, SnapshotSource, arrived
from zpobs.views.text import render, render_pools

if TYPE_CHECKING:
    from zpobs.views.live.feed import FeedOptions
    from zpobs.views.live.scene import Scene
    from zpobs.views.live.state import ViewState

# Its font has no eighths of a cell, whatever the locale says.
_KERNEL_CONSOLE = "linux"


class _LiveView(Protocol):
    """The interactive view's entry, known here without its terminal library."""

    def __call__(
        self, source: SnapshotSource, state: ViewState, options: FeedOptions, *, stop: int
    ) -> Scene | None: ...


@dataclass(frozen=True, slots=True)
class TopOptions:
    """What the command line asked for; times in seconds, ``duration_s`` None for ever.

    ``at_once`` shows a frame before the probes are attached: there is a scan.
    ``limit`` is how many size classes of a pool are listed at most in plain text.
    ``ascii_only`` None leaves the choice to the locale. ``budget`` is the share of
    a core that the interactive view may cost. ``recording`` is the source if that is
    a capture; ``once`` then shows the moment ``at_ns`` of it, monotonic ns, at once.
    """

    interval_s: float
    duration_s: float | None = None
    once: bool = False
    as_json: bool = False
    zspages: bool = False
    pool: str | None = None
    log: TextIO | None = None
    sort: str = "waste"
    limit: int | None = None
    at_once: bool = False
    ascii_only: bool | None = None
    budget: float = 0.02
    recording: Recording | None = None
    at_ns: int | None = None


class StopSignal:
    """Turns what ends a program into a readable descriptor, so that a last frame can be shown.

    That is SIGINT, SIGTERM, and SIGHUP unless who started it has that ignored, as nohup does.
    """

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        self.raised = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        if not self.raised:
            self.raised = True
            os.write(self._writer, b".")

    def __enter__(self) -> StopSignal:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.descriptor)
        os.close(self._writer)


def run_top(
    source: SnapshotSource,
    options: TopOptions,
    stop: StopSignal,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Show snapshots until the duration is over, a signal comes or the reader quits.

    Of a capture at most until it is over, but in the interactive view.
    """
    live = None if options.as_json or options.once else _live_view()
    if live is not None:
        _run_live(live, source, options, stop, progress)
        return
    if options.once and options.recording is not None:
        _show_moment(options.recording, options)
        return
    if options.at_once and not options.once and not source.ended:
        _write(_take(source, options), {}, options)
    source.attach(progress)
    _run_plain(source, options, stop)


def _live_view() -> _LiveView | None:
    """Return the interactive view, None where plain frames must do.

    Where somebody at a terminal might wonder why, standard error says it.
    """
    if not sys.stdout.isatty():
        return None
    if not sys.stdin.isatty():
        sys.stderr.write("zpobs: plain frames, standard input is no terminal to take keys from\n")
        return None
    if os.environ.get("TERM", "dumb") in ("", "dumb"):
        what = "TERM=dumb" if os.environ.get("TERM") else "TERM is not set"
        sys.stderr.write(f"zpobs: plain frames, the terminal cannot do more: {what}\n")
        return None
    try:
        # Only here: nothing else needs it, and it takes longer to load than all the rest.
        from zpobs.views.live.app import run_live  # noqa: PLC0415
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        sys.stderr.write(
            "zpobs: plain frames, the interactive view needs Textual 2.1 or later; "
            f"found: {error}; try: apt-get install python3-textual\n"
        )
        return None
    return run_live


def _run_live(
    live: _LiveView,
    source: SnapshotSource,
    options: TopOptions,
    stop: StopSignal,
    progress: Callable[[str], None],
) -> None:
    """Run the interactive view, and leave the pools' figures behind on the normal screen."""
    from zpobs.views.live.feed import FeedOptions  # noqa: PLC0415 - plain frames need none of it
    from zpobs.views.live.state import started  # noqa: PLC0415

    recording = options.recording
    # Nothing is attached for a capture, so nothing is to be shown meanwhile.
    at_once = options.at_once and recording is None
    if not at_once:
        source.attach(progress)
    ascii_only = options.ascii_only
    state = started(
        interval_s=options.interval_s,
        sort=options.sort,
        pool=options.pool,
        ascii_only=_ascii_is_safer() if ascii_only is None else ascii_only,
        speed=1.0 if recording is None else recording.speed,
    )
    log = options.log
    feed = FeedOptions(
        duration_s=options.duration_s,
        pool=options.pool,
        zspages=options.zspages,
        at_once=at_once,
        budget=options.budget,
        recording=recording,
        log=None if log is None else lambda snapshot: _write_json(snapshot, log),
    )
    last = live(source, state, feed, stop=stop.descriptor)
    if last is not None:
        sys.stdout.write(
            "\n".join([*render_pools(last.snapshot, last.rates, pool=options.pool), ""])
        )
        sys.stdout.flush()


def _ascii_is_safer() -> bool:
    if os.environ.get("TERM") == _KERNEL_CONSOLE:
        return True
    return locale.getencoding().lower().replace("-", "") != "utf8"


def _end_s(options: TopOptions, start_s: float) -> float:
    if options.once:
        return start_s + options.interval_s
    return start_s + options.duration_s if options.duration_s is not None else float("inf")


def _take(source: SnapshotSource, options: TopOptions) -> Snapshot:
    snapshot = source.snapshot(zspages=options.zspages, pool=options.pool)
    if options.log:
        _write_json(snapshot, options.log)
    return snapshot


def _show_moment(recording: Recording, options: TopOptions) -> None:
    """Write one frame: of a moment of a capture, with the rates of the interval before it."""
    step_ns = round(options.interval_s * 1e9)
    to_ns = recording.span.first_ns + step_ns if options.at_ns is None else options.at_ns
    before = arrived(recording, to_ns, options.interval_s, options.pool)
    snapshot = _take(recording, options)
    _write(snapshot, rates(before, snapshot), options)


def _run_plain(source: SnapshotSource, options: TopOptions, stop: StopSignal) -> None:
    """Write a frame an interval; the one at the end is complete whatever ended it.

    That may be the source itself, a capture that is over.
    """
    start_s = time.monotonic()
    end_s = _end_s(options, start_s)
    previous: Snapshot | None = source.snapshot(pool=options.pool)
    frame = 1
    while True:
        due_s = min(start_s + frame * options.interval_s, end_s)
        stopped = stop.raised or source.ended or source.wait(due_s, (stop.descriptor,))
        snapshot = _take(source, options)
        _write(snapshot, rates(previous, snapshot), options)
        previous = snapshot
        if stopped or source.ended or due_s >= end_s:
            return
        # A slow reader costs frames, never a growing lag.
        frame = max(frame + 1, int((time.monotonic() - start_s) / options.interval_s) + 1)


def _write(snapshot: Snapshot, per_second: dict[int, PoolRates], options: TopOptions) -> None:
    if options.as_json:
        _write_json(snapshot, sys.stdout)
    else:
        _write_text(snapshot, per_second, options)


def _write_json(snapshot: Snapshot, out: TextIO) -> None:
    out.write(json.dumps(snapshot.to_json(), separators=(",", ":")) + "\n")
    out.flush()


def _write_text(snapshot: Snapshot, per_second: dict[int, PoolRates], options: TopOptions) -> None:
    lines = render(snapshot, per_second, sort=options.sort, limit=options.limit, pool=options.pool)
    sys.stdout.write("\n".join(lines) + "\n\n")
    sys.stdout.flush()
