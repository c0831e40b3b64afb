"""A capture in a session's place: the keys that turn its clock, and where that stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from zpobs.views.figures import position
from zpobs.views.lines import Part
from zpobs.views.live.keys import Action
from zpobs.views.live.scene import Scene
from zpobs.views.live.view import ViewState

JUMP_NS = 10_000_000_000
# From here on, doubled, it is as fast as can be.
FASTEST = 128.0
SLOWEST = 1 / 16
# From here on there is room for more than the place.
_WIDE = 60


def clock_parts(scene: Scene, state: ViewState, columns: int) -> list[Part]:
    """Return where a capture stands, and whether time stands still; the latter of sessions too."""
    paused: Part = (0, (("PAUSED", "warn"),) if state.paused else ())
    at = scene.replay
    if at is None:
        return [paused]
    stands: Part = (0, (("END", "warn"),)) if at.ended else paused
    where = f"REPLAY {position(at.position_ns - at.span.first_ns)}"
    if columns >= _WIDE:
        speed = "max" if state.speed is None else f"{state.speed:g}x"
        where += f" of {position(at.span.length_ns)}, {speed}"
    return [(0, ((where, "title"),)), stands]


# ---- keys ----------------------------------------------------------------------


def _paused(state: ViewState, scene: Scene) -> ViewState:
    """Stop, or go on, where there is anything to go on to."""
    if scene.replay is not None and scene.replay.ended and not state.moves:
        return state.telling("the capture is over: [ goes back, t to a time", "the capture is over")
    return replace(state, paused=not state.paused)


def went(state: ViewState, scene: Scene) -> ViewState:
    """Go to the time that was typed, if that is in the capture; else it is told."""
    text = (state.going or "").strip()
    if not text or scene.replay is None:
        return replace(state, going=None)
    span = scene.replay.span
    to_ns = span.moment(text)
    if to_ns is None:
        found, hint = span.why_not(text)
        return state.telling(f"not in it ({found}): {hint}", f"not in it: {found}")
    return replace(state, going=None).moving(to_ns, by=False)


def _stepped(direction: int) -> Callable[[ViewState], ViewState]:
    def change(state: ViewState) -> ViewState:
        by_ns = direction * round(state.interval_s * 1e9)
        return replace(state, paused=True).moving(by_ns, step=direction > 0)

    return change


def _jumped(by_ns: int) -> Callable[[ViewState], ViewState]:
    return lambda state: state.moving(by_ns)


def _hastened(state: ViewState) -> ViewState:
    faster = None if state.speed is None else state.speed * 2
    return replace(state, speed=None if faster is None or faster > FASTEST else faster)


def _retarded(state: ViewState) -> ViewState:
    slower = FASTEST if state.speed is None else state.speed / 2
    return state if slower < SLOWEST else replace(state, speed=slower)


def _asked_where(state: ViewState) -> ViewState:
    return replace(state, going="")


def _of_a_capture(
    change: Callable[[ViewState], ViewState],
) -> Callable[[ViewState, Scene], ViewState]:
    def changed(state: ViewState, scene: Scene) -> ViewState:
        if scene.replay is None:
            return state.telling("only in a replay: zpobs top --replay FILE", "only in a replay")
        return change(state)

    return changed


CHANGES: dict[Action | None, Callable[[ViewState, Scene], ViewState]] = {
    Action.PAUSE: _paused,
    Action.STEP: _of_a_capture(_stepped(1)),
    Action.STEP_BACK: _of_a_capture(_stepped(-1)),
    Action.JUMP: _of_a_capture(_jumped(JUMP_NS)),
    Action.JUMP_BACK: _of_a_capture(_jumped(-JUMP_NS)),
    Action.HASTEN: _of_a_capture(_hastened),
    Action.RETARD: _of_a_capture(_retarded),
    Action.GO_TO: _of_a_capture(_asked_where),
}
