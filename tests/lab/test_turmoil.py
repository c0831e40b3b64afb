"""The books of a turmoil: what was done on each device since its pool was made."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from lab.turmoil import Books, Size


def device(name: str) -> Any:
    return SimpleNamespace(name=name)


def test_what_processes_did_is_summed() -> None:
    """Of one device; another has its own."""
    books = Books()
    for name, made in (("zram0", 3), ("zram0", 4), ("zram1", 5)):
        books.enter(device(name), {"zs_malloc": made, "live_objects": 1})
    assert books.made["zram0"] == {"zs_malloc": 7, "live_objects": 2}
    assert books.made["zram1"] == {"zs_malloc": 5, "live_objects": 1}


def test_what_was_done_since() -> None:
    """Operations are counted from then on; what lives is all that does."""
    books = Books()
    books.enter(device("zram0"), {"zs_malloc": 10, "live_objects": 4})
    before = books.copy()
    books.enter(device("zram0"), {"zs_malloc": 5, "live_objects": 2})
    assert books.since(before).made["zram0"] == {"zs_malloc": 5, "live_objects": 6}
    assert before.made["zram0"]["zs_malloc"] == 10


def test_a_new_pool_begins_at_nothing() -> None:
    """What was done to the pool before does not count against it."""
    books = Books()
    books.enter(device("zram0"), {"zs_malloc": 10, "live_objects": 4})
    before = books.copy()
    books.forget(device("zram0"))
    books.enter(device("zram0"), {"zs_malloc": 3, "live_objects": 1})
    assert books.since(before).made["zram0"] == {"zs_malloc": 3, "live_objects": 1}


def test_parts_have_seeds_of_their_own() -> None:
    """And the operations of their share."""
    size = Size(operations=1_000, seed=7)
    parts = [size.part(0.4, 1), size.part(0.6, 2)]
    assert [part.operations for part in parts] == [400, 600]
    assert len({part.seed for part in parts}) == 2
    assert Size(operations=1_000, seed=8).part(0.4, 1).seed not in {part.seed for part in parts}
