"""The hooks that Python plans and the programs that C has are the same."""

from __future__ import annotations

import re

from zpobs.bpf_files import bpf_text
from zpobs.kernel.hooks import CHOICES, all_hooks
from zpobs.snapshot import Counters

_PROGRAM = re.compile(r"^ON_(ENTRY|RETURN)\((\w+), \w+\)$", re.MULTILINE)


def test_every_hook_has_its_programs() -> None:
    """Function by function and moment by moment, hooks.py and probes.bpf.c say the same."""
    in_c = {
        (function, moment.lower())
        for moment, function in _PROGRAM.findall(bpf_text("probes.bpf.c"))
    }
    in_python = {(hook.function, moment) for hook in all_hooks() for moment in hook.moments}
    assert in_c == in_python


def test_every_counter_is_fed() -> None:
    """Some hook feeds each field of Counters, and none feeds what is no field."""
    fed = {name for hook in all_hooks() for name in hook.uncounted}
    assert fed == set(Counters.__slots__)


def test_every_hook_costs_something() -> None:
    """A hook whose lack would hide nothing would not be there."""
    free = [h.function for h in all_hooks() if not (h.unseen or h.uncounted or h.untold)]
    assert free == []


def test_pool_creation_is_attached_last() -> None:
    """A pool whose creation is seen is seen by every other hook too, so creation comes last."""
    (creation,) = CHOICES[-1].sets
    assert [hook.function for hook in creation] == ["zs_create_pool"]
    others = {hook.function for choice in CHOICES[:-1] for hooks in choice.sets for hook in hooks}
    assert "zs_create_pool" not in others


def test_all_hooks_lists_each_once() -> None:
    """all_hooks() holds every hook of every set, without repeats."""
    listed = [hook.function for hook in all_hooks()]
    assert len(listed) == len(set(listed))
    assert set(all_hooks()) == {h for c in CHOICES for hooks in c.sets for h in hooks}
