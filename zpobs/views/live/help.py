"""The help: keys from their table, what signs mean, and all that health has to say."""

from __future__ import annotations

from zpobs.views.figures import status_span
from zpobs.views.lines import Line, cut, wrapped
from zpobs.views.live.header import all_reasons
from zpobs.views.live.keys import KEYS, shown_keys, where
from zpobs.views.live.scene import Scene
from zpobs.views.live.view import Screen

_KEYS_WIDTH = 19

LEGEND = (
    ("~", "bounded: records were lost, or the class changed while it was scanned"),
    ("?", "not known, or counted by no attached hook"),
    ("-", "no rate yet, or nothing to tell"),
    (">=", "at least; an age whose beginning, or a change whose time, was not seen"),
    ("a..b", "somewhere between: what was asked for is known by the class spacing alone"),
    ("every", "really slower where taking frames would cost more than --budget allows"),
    ("requested", "what the owner asked for"),
    ("rounding", "what the objects' slots are larger than that, beside the handle"),
    ("headers", "the handle in front of each object; a huge object has none"),
    ("tail", "the ends of zspages, in which no slot fits"),
    ("free slots", "slots without an object"),
    ("= pages", "the sum of these five: the bytes of the pool"),
    ("descriptors", "struct zspage and handles: slab memory beside the pages"),
    ("WASTE", "pools: all bytes that the owner did not ask for"),
    ("WASTE>=", "classes: headers, tails and free slots; rounding comes on top"),
    ("USED", "objects by capacity; full only at 100%"),
    ("FULLNESS", "zspages by group, emptiest first: . none, 0 to 9 tenths of them, * all"),
    ("FREEABLE", "pages that a compaction could free now"),
    ("ACTIVITY", "allocations and frees per second, the newest at the right"),
    ("BEST", "compaction: where to begin, to get most pages for the bytes that are copied"),
    ("SO FAR", "pages of all classes down to this one"),
    ("FREED MOVED", "of the class by the last run; EXPECTED, TO MOVE: its forecast"),
    ("M U R C ..", "map: a block's migratetype by its first letter, and how many eighths are held"),
    ("STATE", "of a zspage: huge, locked, isolated; ? no scan told its locks"),
    ("FREE", "first free slot of a zspage"),
    ("ZSPAGE", "own: the descriptor points back to its zspage; OTHER: it does not"),
)
FILTERS = (
    ("text", "pools and events whose name, owner, status or words hold it"),
    ("107", "size classes of that number or size; of a status: exact, bounded"),
    ("0xffff", "zspages by digits of the address, with 0x from its start"),
    ("waste>1m", "any column that can be sorted by, with < <= > >= = != and k m g t"),
    ("huge locked", "zspages in these states; several words must all fit"),
)


def help_lines(scene: Scene, columns: int) -> list[Line]:
    """Return all lines of the help, however many there are."""
    health = scene.snapshot.health
    lines: list[Line] = [(("HEALTH: ", "title"), status_span(health.status))]
    reasons = all_reasons(health) or ["nothing was lost or missed: every figure is as told"]
    for reason in reasons:
        lines += wrapped(reason.split(), columns, indent="  ")
    lines += [(), (("KEYS", "title"),)]
    for each in (each for each in KEYS if scene.replay or not each.replay):
        place = "" if each.screens == tuple(Screen) else f" ({where(each)})"
        lines += _entry(shown_keys(each), each.words + place, columns, "key")
    lines += [(), (("FILTERS", "title"),)]
    for name, words in FILTERS:
        lines += _entry(name, words, columns, "input")
    lines += [(), (("SIGNS AND COLUMNS", "title"),)]
    for name, words in LEGEND:
        lines += _entry(name, words, columns, "key")
    return lines


def _entry(name: str, words: str, columns: int, role: str) -> list[Line]:
    indent = " " * (_KEYS_WIDTH + 2)
    first, *more = wrapped(words.split(), columns, indent=indent)
    text = first[0][0][len(indent) :]
    head = f"  {name:<{_KEYS_WIDTH - 1}} "
    return [cut(((head, role), (text, "")), columns), *more]
