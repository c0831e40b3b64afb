"""Objects of a pool as plain text: a pure function of what a snapshot holds."""

from __future__ import annotations

import numpy as np

from zpobs.objects import Estimate, Pins, PoolObjects
from zpobs.views.life import duration

_PINS_SHOWN = 10
_COMMAND_CELLS = 15


def objects_lines(name: str, objects: PoolObjects, now_ns: int) -> list[str]:
    """Return the block of one pool; ``now_ns`` is wall-clock time."""
    if objects.status == "unknown":
        return [f"{name}: objects unknown", *(f"  {why}" for why in objects.reasons)]
    rate = objects.sampling.rate
    which = "all" if rate == 1 else f"1 in {rate:,}"
    return [
        f"{name}: objects, {objects.status}, {which}, for {duration(now_ns - objects.since_ns)}",
        *(f"  {why}" for why in objects.reasons),
        *sums_lines(objects),
        *lifetime_lines(objects),
        *_pins(objects.pins, now_ns),
    ]


def sums_lines(objects: PoolObjects) -> list[str]:
    """Return how many objects there were and are, and what was asked for them."""
    sums = {
        what: int(getattr(objects, what).sum())
        for what in ("stored", "freed", "vanished", "unkept", "live", "moves")
    }
    rest = "".join(f" + {what} {sums[what]:,}" for what in ("vanished", "unkept") if sums[what])
    lines = [
        f"  stored {sums['stored']:,} = freed {sums['freed']:,}{rest} + live {sums['live']:,};"
        f" moves {sums['moves']:,}",
    ]
    if objects.sampling.rate > 1:
        lines += [
            f"  of all: {what.replace('_', ' ')} {ranged(objects.estimates[what])}"
            for what in ("stored", "freed", "live")
        ]
    lines.append(f"  requested bytes of the live {ranged(objects.estimates['live_bytes'])}")
    return lines


def ranged(estimate: Estimate) -> str:
    """Return a figure, with its bounds if it is estimated."""
    if estimate.low == estimate.high:
        return f"{estimate.value:,}"
    return f"{estimate.value:,} ({estimate.low:,} to {estimate.high:,})"


def lifetime_lines(objects: PoolObjects) -> list[str]:
    """Return how long objects lived, by powers of two."""
    counts = objects.lifetimes.sum(axis=0)
    used = np.flatnonzero(counts).tolist()
    if not used:
        return []
    sampled = objects.sampling.rate > 1
    head = f"  {'LIVED BELOW':>12}{'OBJECTS':>12}" + (f"{'OF ALL':>34}" if sampled else "")
    lines = [head]
    for bucket in used:
        line = f"  {duration(1 << bucket):>12}{int(counts[bucket]):>12,}"
        if sampled:
            line += f"{ranged(objects.lifetime_estimates[bucket]):>34}"
        lines.append(line)
    return lines


def _pins(pins: Pins | None, now_ns: int) -> list[str]:
    if pins is None or not pins.objects:
        return []
    shown = min(len(pins.handle), _PINS_SHOWN)
    return [
        f"  {pins.objects:,} objects pin {pins.zspages:,} near-empty zspages"
        f" ({pins.pages:,} pages); the oldest:",
        f"  {pin_head()}",
        *(f"  {pin_line(pins, row, now_ns)}" for row in range(shown)),
    ]


def pin_head() -> str:
    """Return the head of lines of pins."""
    return (
        f"{'AGE':>8}{'CLASS':>7}{'SIZE':>7}{'IN ZSPAGE':>11}{'NODE':>6}"
        f"  {'COMMAND':<{_COMMAND_CELLS}}  {'PLACE':<16}  CGROUP"
    )


def pin_line(pins: Pins, row: int, now_ns: int) -> str:
    """Return one line for one pin."""
    size, node = int(pins.size[row]), int(pins.node[row])
    age = duration(max(now_ns - int(pins.stored_ns[row]), 0))
    within = f"{int(pins.inuse[row])}/{int(pins.capacity[row])}"
    command = "".join(each if each.isprintable() else "?" for each in pins.command[row]) or "-"
    line = (
        f"{age:>8}{int(pins.class_index[row]):>7}{size if size >= 0 else '-':>7}{within:>11}"
        f"{node if node >= 0 else '-':>6}  {command:<{_COMMAND_CELLS}}"
        f"  {place_words(pins, row):<16}  {owner_words(pins, row)}"
    )
    return line.rstrip()


def place_words(pins: Pins, row: int) -> str:
    """Return the swap slot or block of a pin in words."""
    place = pins.place(row)
    if place is None:
        return "-"
    if "block" in place:
        return f"block {place['block']}"
    return f"swap {place['swap_type']}:{place['swap_offset']}"


def owner_words(pins: Pins, row: int) -> str:
    """Return whose a pin is; the storing task's cgroup is marked, since it need not be the owner's.

    A cgroup that is not there any more is told by its id.
    """
    owner = "".join(each if each.isprintable() else "?" for each in pins.owner(row))
    return owner if pins.of_page[row] or not pins.cgroup[row] else f"{owner} (task)"
