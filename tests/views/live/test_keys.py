"""The one table of keys, and what is made of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

from tests.views.live.support import USUAL, busy, replayed, texts, typed
from zpobs.views.live.help import help_lines
from zpobs.views.live.keys import KEYS, manual, shown, shown_keys
from zpobs.views.live.screens import render
from zpobs.views.live.state import Size

MANUAL = Path(__file__).resolve().parents[3] / "docs" / "top.md"


def test_the_manual_has_the_table_of_keys() -> None:
    """docs/top.md tells of every key just as the table does."""
    assert "\n".join(manual()) in MANUAL.read_text(encoding="utf-8")


def test_the_help_has_every_key() -> None:
    """Keys and words of each action; those that turn a capture's clock in a replay alone."""
    for scene in (busy(), replayed()):
        lines = texts(help_lines(scene, 200))
        for each in KEYS:
            told = any(shown_keys(each) in line and each.words in line for line in lines)
            assert told == (scene.replay is not None or not each.replay)


def test_keys_are_shown_as_readers_know_them() -> None:
    """No name of a library's is shown."""
    assert [shown(key) for key in ("slash", "pageup", "j", "G", "space", "shift+tab")] == [
        "/", "PgUp", "j", "G", "Space", "Shift+Tab",
    ]  # fmt: skip
    assert not any("_" in shown(key) for each in KEYS for key in each.keys)


def test_the_footer_names_the_screen_s_own_keys() -> None:
    """On a wide terminal all of those that have a word there, and none of other screens'."""
    for scene, keys in itertools.product((busy(), replayed()), ((), ("enter",), ("e",))):
        state = typed(scene, keys)
        footer = texts(render(scene, state, Size(260, 24)))[-1]
        for each in (each for each in KEYS if each.screens):
            told = f"{shown(each.keys[0])} {each.footer}" in footer
            there = state.screen in each.screens and (scene.replay is not None or not each.replay)
            assert told == bool(each.footer and there)


def test_a_message_stands_in_the_footer_until_the_next_key() -> None:
    """What was done is told in place of the keys."""
    scene = busy()
    state = typed(scene, ())
    footer = texts(render(scene, state, USUAL))[-1]
    told = replace(state, message="wrote a file")
    assert texts(render(scene, told, USUAL))[-1] == "wrote a file"
    assert texts(render(scene, typed(scene, ("down",), told), USUAL))[-1] == footer
