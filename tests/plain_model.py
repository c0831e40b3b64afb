"""The shadow model's rules in plain Python: one record at a time, dicts, no NumPy tricks.

Slow and simple on purpose: what :class:`zpobs.model.ShadowModel` must agree with.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zpobs import wire

Listed = dict[int, dict[int, tuple[object, ...]]]


@dataclass
class PlainZspage:
    time_ns: int = 0
    dead: bool = False
    pool: int = 0
    class_index: int = 0
    inuse: int = 0
    fullness: int = 0
    huge: bool = False
    boundary_ns: int | None = None
    oldest_ns: int | None = None
    generation_ns: int = 0
    pages: int = 0
    parts: dict[int, list[int]] = field(default_factory=dict)


class PlainModel:
    """Zspages by address and pools by serial."""

    def __init__(self) -> None:
        self.zspages: dict[int, PlainZspage] = {}
        self.pools: dict[int, str] = {}
        self.gone: set[int] = set()
        self.deferred_ns: dict[int, int] = {}

    def apply(self, record: tuple[int, ...]) -> None:
        """Take one record."""
        head, time_ns, subject, *words = record
        kind, flags, serial = head & 0xFF, head >> 8 & 0xFF, head >> 32
        if kind in {wire.KIND_STATE, wire.KIND_DEATH}:
            zspage = self.zspages.setdefault(subject, PlainZspage())
            self.pools.setdefault(serial, "")
            newborn = bool(kind == wire.KIND_STATE and flags & wire.FLAG_NEWBORN)
            if newborn or kind == wire.KIND_DEATH:
                zspage.boundary_ns = max(zspage.boundary_ns or 0, time_ns)
            else:
                zspage.oldest_ns = min(zspage.oldest_ns or time_ns, time_ns)
            if time_ns > zspage.time_ns:
                zspage.time_ns = time_ns
                zspage.dead = kind == wire.KIND_DEATH
                zspage.pool = serial
                zspage.class_index = words[1]
                zspage.inuse = words[0] & 0xFFFFFFFF
                zspage.fullness = head >> 16 & 0xFF
                zspage.huge = bool(flags & wire.FLAG_HUGE)
        elif kind == wire.KIND_FRAMES:
            self._take_frames(head, time_ns, subject, words)
        elif kind == wire.KIND_POOL_CREATED:
            raw = b"".join(word.to_bytes(8, "little") for word in words)
            self.pools[serial] = raw.rstrip(b"\0").decode()
        elif kind == wire.KIND_POOL_DESTROYED:
            self.gone.add(serial)
        elif kind == wire.KIND_DEFERRED_FREE:
            self.pools.setdefault(serial, "")
            self.deferred_ns[serial] = max(self.deferred_ns.get(serial, 0), words[0])

    def _take_frames(self, head: int, time_ns: int, subject: int, words: list[int]) -> None:
        zspage = self.zspages.setdefault(subject, PlainZspage())
        if time_ns < zspage.generation_ns:
            return
        if time_ns > zspage.generation_ns:
            zspage.generation_ns = time_ns
            zspage.parts = {}
            zspage.pages = head >> 24 & 0xFF
        first = head >> 16 & 0xFF
        zspage.parts[first] = words[: min(4, zspage.pages - first)]

    def live(self) -> Listed:
        """Return by pool serial and address: class, inuse, fullness, huge, first, last, frames."""
        out: Listed = {serial: {} for serial in self.pools if serial not in self.gone}
        for address, zspage in self.zspages.items():
            emptied = zspage.inuse == 0 and zspage.time_ns < self.deferred_ns.get(zspage.pool, 0)
            if zspage.time_ns == 0 or zspage.dead or emptied or zspage.pool in self.gone:
                continue
            first_ns = zspage.oldest_ns if zspage.boundary_ns is None else zspage.boundary_ns
            frames = [number for at in sorted(zspage.parts) for number in zspage.parts[at]]
            if len(frames) != zspage.pages or zspage.generation_ns < (zspage.boundary_ns or 0):
                frames = []
            out[zspage.pool][address] = (
                zspage.class_index,
                zspage.inuse,
                zspage.fullness,
                zspage.huge,
                first_ns,
                zspage.time_ns,
                frames,
            )
        return out
