"""What a model is made of, and all of it as one state and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from zpobs import wire
from zpobs.model.compaction import RunLedger
from zpobs.model.inputs import Coverage
from zpobs.model.life import LifeLedger
from zpobs.model.losses import LossHistory
from zpobs.model.migration import MigrationLedger
from zpobs.model.objects import ObjectLedger
from zpobs.model.pools import PoolDirectory
from zpobs.model.publish import EVENT_KINDS, Known
from zpobs.model.rows import Tombstones, ZspageRows
from zpobs.model.scans import ScanRounds
from zpobs.model.state import ModelState, StateReader, StateWriter, check, member, texts

# How late a record may come, in record time, and for how many dead zspages that holds.
TOMBSTONE_NS = 5_000_000_000
TOMBSTONE_ROWS = 1 << 17
EVENTS_KEPT = 256

# What events are shown by; no word 6 is.
_EVENT_COLUMNS = ("head", "time_ns", "subject", "word3", "word4", "word5")


def new_tombstones() -> Tombstones:
    """Return an empty list of the dead."""
    return Tombstones(keep_ns=TOMBSTONE_NS, keep_rows=TOMBSTONE_ROWS)


@dataclass(frozen=True, slots=True)
class Parts:
    """All that a model knows, and what it needs beside that to go on."""

    known: Known
    coverage: Coverage
    covered_ns: int
    newest_ns: int
    sweep_due: bool
    tombstones: Tombstones = field(default_factory=new_tombstones)

    def state(self) -> ModelState:
        """Return all of it as numbers."""
        out, known = StateWriter(), self.known
        out.value("coverage", _coverage_values(self.coverage))
        for name in ("covered_ns", "newest_ns", "sweep_due"):
            out.value(name, getattr(self, name))
        known.pools.save(out)
        known.rows.save(out, known.pools)
        self.tombstones.save(out, known.rows)
        for part in (known.losses, known.rounds, known.migrations, known.runs):
            part.save(out)
        words = known.events.T[: len(_EVENT_COLUMNS)]
        out.table("events", dict(zip(_EVENT_COLUMNS, words, strict=True)))
        out.value("events_seen", known.events_seen)
        if known.life:
            known.life.save(out, known.pools)
        if known.objects:
            known.objects.save(out, known.pools)
        return out.state()

    @classmethod
    def of(cls, state: ModelState, groups: int) -> Parts:
        """Return what a state tells of; raise StateError if it is none.

        The kernel has so many fullness groups.
        """
        given = StateReader(state)
        coverage = _coverage(given.value("coverage", dict))
        pools = PoolDirectory(alone=coverage.hooks == 0)
        pools.load(given)
        rows, tombstones = ZspageRows(), new_tombstones()
        rows.load(given, pools, groups)
        tombstones.load(given, rows)
        life = LifeLedger(groups) if "life" in state.values else None
        if life:
            life.load(given, pools)
        known = Known(
            rows=rows,
            pools=pools,
            losses=LossHistory(),
            rounds=ScanRounds.load(given),
            events=_events(given),
            events_seen=given.value("events_seen", int),
            migrations=MigrationLedger(),
            runs=RunLedger(),
            life=life,
            objects=ObjectLedger.load(given, pools) if "objects" in state.values else None,
        )
        for part in (known.losses, known.migrations, known.runs):
            part.load(given)
        parts = cls(
            known=known,
            coverage=coverage,
            covered_ns=given.value("covered_ns", int),
            newest_ns=given.value("newest_ns", int),
            sweep_due=given.value("sweep_due", bool),
            tombstones=tombstones,
        )
        given.finish()
        return parts


def _events(given: StateReader) -> wire.Words:
    columns = given.table("events", dict.fromkeys(_EVENT_COLUMNS, np.uint64))
    events = np.zeros((len(columns["head"]), wire.RECORD_WORDS), dtype=np.uint64)
    events[:, : len(columns)] = np.stack(list(columns.values()), axis=1)
    check(len(events) <= EVENTS_KEPT, "events")
    check(set(wire.kinds(events).tolist()) <= EVENT_KINDS, "events.head")
    return events


def _coverage_values(coverage: Coverage) -> dict[str, Any]:
    values = asdict(coverage)
    values["uncounted"] = sorted(coverage.uncounted)
    return values | {name: list(getattr(coverage, name)) for name in _TEXTS}


def _coverage(values: dict[str, Any]) -> Coverage:
    told = {name: texts(member(values, name, list), f"coverage.{name}") for name in _TEXTS}
    uncounted = texts(member(values, "uncounted", list), "coverage.uncounted")
    return Coverage(
        hooks=member(values, "hooks", int),
        why_no_hooks=member(values, "why_no_hooks", str),
        uncounted=frozenset(uncounted),
        **told,
    )


_TEXTS = ("missed_hooks", "unseen", "untold")
