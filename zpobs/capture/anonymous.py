"""Captures that tell nothing of whose they are: ordinals for addresses, no names, no commands.

Which zspage, handle, page frame, pool or control group is the same as another stays to be seen,
and all figures stay as they are. Addresses of zspages become multiples of 32, handles of 8, as
far apart as real ones; page frames and control groups count from 1. 0, which means none, stays.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from zpobs import wire
from zpobs.capture.columns import U64
from zpobs.capture.layout import BY_CODE, Kind
from zpobs.capture.personal import STATE_HIDDEN, STATE_SHOWN, STATE_VALUES
from zpobs.model.arrays import unique_sorted
from zpobs.model.index import GRANULE_SHIFT, AddressIndex
from zpobs.model.inputs import CountersReading
from zpobs.model.state import Column, ModelState
from zpobs.objects import frame_shift
from zpobs.snapshot import owner_of
from zpobs.wire import Words

_FRAME_SHIFT = frame_shift(os.sysconf("SC_PAGE_SIZE"))
_NAME = re.compile(r"\b(?:zram[0-9]+|zswap[0-9a-f]+)\b")


class _Ordinals:
    """Ordinals of numbers in the order in which they came, times ``step``; 0 stays 0.

    ``apart_bits``: numbers differ above so many bits.
    """

    def __init__(self, apart_bits: int, step: int = 1) -> None:
        self._index = AddressIndex()
        self._shift = np.uint64(GRANULE_SHIFT - apart_bits)
        self._step = np.uint64(step)
        self._count = 0

    def of(self, values: U64) -> U64:
        """Return the ordinal of each value, shape (n,)."""
        at = values << self._shift
        found = self._index.find(at)
        new = (found == 0) & (values != 0)
        if new.any():
            fresh = unique_sorted(at[new])
            numbers = np.arange(1, len(fresh) + 1, dtype=np.uint32) + np.uint32(self._count)
            self._index.insert(fresh, numbers)
            self._count += len(fresh)
            found = self._index.find(at)
        out: U64 = found.astype(np.uint64)
        out[values == 0] = 0
        return out * self._step


class Anonymizer:
    """One for all files of a recording: what is the same stays the same in all of them."""

    def __init__(self) -> None:
        self._ordinals = {
            "zspage": _Ordinals(GRANULE_SHIFT, 1 << GRANULE_SHIFT),
            "handle": _Ordinals(3, 8),
            "pool": _Ordinals(GRANULE_SHIFT, 1 << GRANULE_SHIFT),
            "frame": _Ordinals(0),
            "cgroup": _Ordinals(0),
        }
        self._names: dict[str, str] = {}

    def name(self, name: str) -> str:
        """Return what a pool is called instead; of its name only who made it is left."""
        if not name:
            return name
        if name not in self._names:
            owner = owner_of(name)
            kind = "pool" if owner == "unknown" else owner
            self._names[name] = f"{kind}{len(self._names) + 1}"
        return self._names[name]

    def words(self, words: Words) -> Words:
        """Return a batch, shape (N, RECORD_WORDS), by other names."""
        out = np.array(words, order="F")
        kinds = wire.kinds(words)
        for code in np.flatnonzero(np.bincount(kinds)).tolist():
            rows = np.flatnonzero(kinds == code)
            kind = BY_CODE.get(code)
            if kind is not None:
                self._hide(kind, out, rows)
        return out

    def _hide(self, kind: Kind, out: Words, rows: np.ndarray) -> None:
        if kind.group:
            out[rows, wire.WORD_SUBJECT] = self._of(kind.group, out[rows, wire.WORD_SUBJECT])
        for field in kind.fields:
            if field.personal == "name":
                continue
            if field.personal:
                out[rows, field.word] = self._of(field.personal, out[rows, field.word])
        if kind.code == wire.KIND_OBJECT_STORED:
            out[rows, 5] = self._value(out[rows, 5])
        elif kind.code == wire.KIND_OBJECT_OWNER:
            out[rows, 5] = out[rows, 6] = 0
        elif kind.code == wire.KIND_POOL_CREATED:
            for row in rows:
                told = out[row, 3:7].tobytes().split(b"\0", 1)[0].decode("utf-8", "replace")
                name = self.name(told).encode().ljust(wire.NAME_BYTES, b"\0")
                out[row, 3:7] = np.frombuffer(name, dtype=np.uint64)

    def _of(self, what: str, values: U64) -> U64:
        return self._ordinals[what].of(np.ascontiguousarray(values))

    def _value(self, values: U64) -> U64:
        """Return where objects lie with other frames, and the same places in them."""
        low = values & ((np.uint64(1) << _FRAME_SHIFT) - np.uint64(1))
        return self._of("frame", values >> _FRAME_SHIFT) << _FRAME_SHIFT | low

    def reading(self, reading: CountersReading) -> CountersReading:
        """Return a reading of counters by other names."""
        pools = tuple(
            replace(pool, name=self.name(pool.name), address=self._address(pool.address))
            for pool in reading.pools
        )
        return replace(reading, pools=pools)

    def _address(self, address: int) -> int:
        return int(self._of("pool", np.array([address], dtype=np.uint64))[0])

    def sentences(self, sentences: tuple[str, ...]) -> tuple[str, ...]:
        """Return sentences by other names."""
        return tuple(map(self._sentence, sentences))

    def _sentence(self, sentence: str) -> str:
        # Pools of others than zram and zswap are called anything, so only met ones are known.
        met = "|".join(re.escape(name) for name in sorted(self._names, key=len, reverse=True))
        names = re.compile(rf"{_NAME.pattern}|\b(?:{met})\b") if met else _NAME
        return names.sub(lambda found: self.name(found[0]), sentence)

    def aside(self, aside: dict[str, Any]) -> dict[str, Any]:
        """Return what a moment tells by other names; control groups are called by ordinals."""
        ids = np.array([int(id_) for id_ in aside["cgroups"]], dtype=np.uint64)
        groups = {str(each): f"/cgroup{each}" for each in self._of("cgroup", ids).tolist()}
        out: dict[str, Any] = self._renamed({**aside, "cgroups": groups})
        return out

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.sentences((value,))[0]
        if isinstance(value, list):
            return [self._renamed(each) for each in value]
        if isinstance(value, dict):
            return {self._renamed(name): self._renamed(each) for name, each in value.items()}
        return value

    def environment(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """Return an environment without the host's name and nodes, and by other names."""
        host = {**environment["host"], "name": ""}
        pool = environment["pool"]
        return {
            **environment,
            "host": host,
            "pool": None if pool is None else self.name(pool),
            # On which node a page frame lies can be told of true frames alone.
            "nodes": None,
            "anonymous": True,
        }

    def state(self, state: ModelState) -> ModelState:
        """Return a model's state by other names, in the order of what it calls them."""
        columns = {name: self._column(name, column) for name, column in state.columns.items()}
        # The first words of records.
        events = [f"events.{each}" for each in STATE_SHOWN["events"]]
        told = np.zeros((len(columns[events[0]]), wire.RECORD_WORDS), dtype=np.uint64)
        told[:, : len(events)] = np.stack([columns[each] for each in events], axis=1)
        words = self.words(told)
        columns |= {each: words[:, at] for at, each in enumerate(events)}
        for table, by in (("zspages", "address"), ("tombstones", "address"), ("objects", "handle")):
            if f"{table}.{by}" in columns:
                _sort(columns, table, by)
        values = {name: self._value_of(name, value) for name, value in state.values.items()}
        return ModelState(values, columns)

    def _column(self, name: str, column: Column) -> Column:
        hidden = STATE_HIDDEN.get(name)
        if hidden is None:
            table, _, own = name.rpartition(".")
            if own not in STATE_SHOWN.get(table, ()):
                raise ValueError(f"nobody decided whether the column {name} tells whose it is")
            return column
        if hidden == "command":
            return np.zeros_like(column)
        return self._value(column) if hidden == "value" else self._of(hidden, column)

    def _value_of(self, name: str, value: Any) -> Any:
        if name not in STATE_VALUES:
            raise ValueError(f"nobody decided whether the value {name} tells whose it is")
        return [self.name(each) for each in value] if name == "pool_names" else self._renamed(value)


def _sort(columns: dict[str, Column], table: str, by: str) -> None:
    """Have the rows of a table stand in the order of one of its columns."""
    order = np.argsort(columns[f"{table}.{by}"])
    rows = [f"{table}.{each}" for each in STATE_SHOWN[table]]
    rows += [name for name in STATE_HIDDEN if name.rpartition(".")[0] == table]
    frames = f"{table}.frames"
    if frames in rows:
        # Of each zspage as many as it has pages.
        rows.remove(frames)
        pages = columns[f"{table}.pages"].astype(np.int64)
        begin = (np.cumsum(pages) - pages)[order]
        pages = pages[order]
        within = np.arange(int(pages.sum())) - np.repeat(np.cumsum(pages) - pages, pages)
        columns[frames] = columns[frames][np.repeat(begin, pages) + within]
    for name in rows:
        columns[name] = columns[name][order]
