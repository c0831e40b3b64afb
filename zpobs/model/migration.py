"""Failed page migrations, kept from their records: by error, and by zspage that refused."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from zpobs import wire
from zpobs.migration import PoolMigration, Refusal
from zpobs.model.rows import LIVE, STATE_CLASS_SHIFT, ZspageRows
from zpobs.model.state import StateReader, StateWriter
from zpobs.wire import Words

# Columns of a state; errno values are positive there.
_ERRORS = {"pool": np.uint32, "errno": np.uint64, "failures": np.int64}
_REFUSING = {
    "pool": np.uint32,
    "address": np.uint64,
    "times": np.int64,
    "errno": np.uint64,
    "last_ns": np.uint64,
    "first_ns": np.uint64,
}
# Zspages of a pool that are remembered for having refused.
REFUSING_MAX = 256


@dataclass(slots=True)
class _Refused:
    """Of one zspage: how often, the last error, when it was and when it was first, monotonic."""

    times: int
    error: int
    last_ns: int
    first_ns: int


@dataclass(slots=True)
class _Failures:
    errors: dict[int, int] = field(default_factory=dict)
    zspages: dict[int, _Refused] = field(default_factory=dict)


class MigrationLedger:
    """By pool serial."""

    def __init__(self) -> None:
        self._pools: dict[int, _Failures] = {}

    def take(self, events: Words) -> None:
        """Take those of some events that are failed migrations, shape (n, RECORD_WORDS)."""
        failed = events[(wire.kinds(events) == wire.KIND_MIGRATION) & (events[:, 5] != 0)]
        if not len(failed):
            return
        # One page that cannot go is tried again and again: what is alike is one step.
        columns = np.stack([failed[:, 0] >> np.uint64(32), failed[:, 2], failed[:, 5]])
        alike, which, counts = np.unique(columns, axis=1, return_inverse=True, return_counts=True)
        last = np.zeros(alike.shape[1], dtype=np.uint64)
        first = np.full(alike.shape[1], np.iinfo(np.uint64).max, dtype=np.uint64)
        np.maximum.at(last, which.reshape(-1), failed[:, 1])
        np.minimum.at(first, which.reshape(-1), failed[:, 1])
        for at, (serial, zspage, word) in enumerate(alike.T.tolist()):
            pool = self._pools.setdefault(serial, _Failures())
            error, count = word - (1 << 64), int(counts[at])
            pool.errors[error] = pool.errors.get(error, 0) + count
            known = pool.zspages.pop(zspage, None)
            one = _Refused(count, error, int(last[at]), int(first[at]))
            if known is not None:
                newer = one.last_ns >= known.last_ns
                one.times += known.times
                one.first_ns = min(one.first_ns, known.first_ns)
                if not newer:
                    one.error, one.last_ns = known.error, known.last_ns
            # Those that refused last stand last, and stay.
            pool.zspages[zspage] = one
            if len(pool.zspages) > REFUSING_MAX:
                del pool.zspages[next(iter(pool.zspages))]

    def forget(self, serial: int) -> None:
        """Drop a pool that is gone."""
        self._pools.pop(serial, None)

    def save(self, out: StateWriter) -> None:
        """Add all to a state; the zspages of a pool are in the order of their last refusal."""
        pools = self._pools.items()
        errors = [
            (serial, -error, count)
            for serial, pool in pools
            for error, count in pool.errors.items()
        ]
        refused = [
            (serial, zspage, one.times, -one.error, one.last_ns, one.first_ns)
            for serial, pool in pools
            for zspage, one in pool.zspages.items()
        ]
        out.rows("migrations.errors", _ERRORS, errors)
        out.rows("migrations.refusing", _REFUSING, refused)

    def load(self, given: StateReader) -> None:
        """Take all from a state, with nothing here before."""
        for serial, error, count in given.rows("migrations.errors", _ERRORS, keys=2):
            self._pools.setdefault(serial, _Failures()).errors[-error] = count
        for serial, zspage, times, error, last_ns, first_ns in given.rows(
            "migrations.refusing", _REFUSING, keys=2
        ):
            one = _Refused(times, -error, last_ns, first_ns)
            self._pools.setdefault(serial, _Failures()).zspages[zspage] = one

    def of_pool(
        self, table: ZspageRows, serial: int, slot: int, *, counted: int | None, ago_ns: int
    ) -> PoolMigration:
        """Return what is known of a pool; ``counted`` failures the probes counted, None: unknown.

        ``ago_ns`` is wall-clock less monotonic time.
        """
        pool = self._pools.get(serial, _Failures())
        found = []
        rows = table.find(np.array(list(pool.zspages), dtype=np.uint64))
        for (zspage, one), row in zip(pool.zspages.items(), rows.tolist(), strict=True):
            if _lives(table, row, zspage, slot, one.first_ns):
                state = int(table.state[row])
                found.append(
                    Refusal(
                        zspage=zspage,
                        class_index=state >> STATE_CLASS_SHIFT & 0xFFFF,
                        times=one.times,
                        error=one.error,
                        last_ns=ago_ns + one.last_ns,
                    )
                )
        found.sort(key=lambda each: (-each.times, each.zspage))
        told = sum(pool.errors.values())
        return PoolMigration(
            status="unknown" if counted is None else "exact" if told == counted else "bounded",
            errors=dict(pool.errors),
            refusing=tuple(found),
            forgotten=told - sum(each.times for each in found),
        )


def _lives(table: ZspageRows, row: int, zspage: int, slot: int, first_ns: int) -> bool:
    """Tell whether a zspage that refused is still there, and no other in its place."""
    state = int(table.state[row])
    if not row or not state & int(LIVE) or state & 0xFFFF != slot:
        return False
    reborn = bool(table.born[row]) and int(table.first_ns[row]) > first_ns
    return int(table.address[row]) == zspage and not reborn
