"""Failed migrations by error and by zspage."""

from __future__ import annotations

import errno
import random
from collections import Counter

import numpy as np
import pytest

from tests.delivery import as_words
from tests.model.support import FULL_COVERAGE, KERNEL
from zpobs import wire
from zpobs.migration import PoolMigration
from zpobs.model import CountersReading, PoolReading, ShadowModel
from zpobs.model.migration import REFUSING_MAX

BASE = 0xFFFF_8881_0000_1000
Record = tuple[int, ...]


def born(time_ns: int, zspage: int) -> Record:
    head = wire.head(wire.KIND_STATE, flags=wire.FLAG_NEWBORN, a=4, b=1, serial=1)
    return (head, time_ns, zspage, 1, 7, 0, 0)


def dead(time_ns: int, zspage: int) -> Record:
    return (wire.head(wire.KIND_DEATH, serial=1), time_ns, zspage, 0, 7, 0, 0)


def migrated(time_ns: int, zspage: int, error: int = 0) -> Record:
    head = wire.head(wire.KIND_MIGRATION, serial=1)
    return (head, time_ns, zspage, 10, 11, error % (1 << 64), 0)


def told_of(records: list[Record], failures: int) -> PoolMigration:
    model = ShadowModel(KERNEL, FULL_COVERAGE)
    model.apply(as_words(records))
    counters = np.zeros(wire.POOL_WORDS, dtype=np.uint64)
    counters[wire.POOL_MIGRATION_FAILURES] = failures
    classes = np.zeros((8, wire.CLASS_WORDS), dtype=np.uint64)
    pool = PoolReading(1, 5, "zram0", 1, True, classes, counters)
    model.apply_counters(CountersReading(10**6, 0, 0, 0, 0, (pool,)))
    (view,) = model.snapshot(time_ns=10**7 + 50, mono_ns=10**7).pools
    assert view.migration is not None
    return view.migration


def test_failures_by_error_and_the_zspages_that_refuse() -> None:
    one, two = BASE, BASE + 4096
    busy, invalid = -errno.EBUSY, -errno.EINVAL
    told = told_of(
        [
            *(born(10, one), born(11, two), migrated(20, one, busy), migrated(21, two, invalid)),
            *(migrated(22, one, invalid), migrated(23, one), migrated(24, one, busy)),
        ],
        failures=4,
    )
    assert told.to_json(addresses=True) == {
        "status": "exact",
        "errors": {"EINVAL": 2, "EBUSY": 2},
        "refusing": [
            {"zspage": hex(one), "class": 7, "times": 3, "error": "EBUSY", "last_ns": 74},
            {"zspage": hex(two), "class": 7, "times": 1, "error": "EINVAL", "last_ns": 71},
        ],
        "forgotten": 0,
    }
    assert set(told.to_json(addresses=False)) == {"status", "errors"}


def test_the_dead_refuse_no_more_and_who_comes_in_their_place_is_not_blamed() -> None:
    records = [born(10, BASE), migrated(20, BASE, -errno.EBUSY), dead(30, BASE)]
    gone = told_of(records, failures=1)
    assert (gone.refusing, gone.forgotten, gone.errors) == ((), 1, {-errno.EBUSY: 1})
    assert told_of([*records, born(40, BASE)], failures=1).refusing == ()


def test_a_sum_that_is_not_what_was_counted_is_no_more_than_bounded() -> None:
    records = [born(10, BASE), migrated(20, BASE, -errno.EBUSY)]
    assert told_of(records, failures=1).status == "exact"
    assert told_of(records, failures=2).status == "bounded"


@pytest.mark.parametrize("seed", range(5))
def test_many_failures(seed: int) -> None:
    """Sums equal those kept one by one; of too many zspages those that refused last stay."""
    chance = random.Random(seed)
    zspages = [BASE + at * 4096 for at in range(2 * REFUSING_MAX)]
    records = [born(1 + at, each) for at, each in enumerate(zspages)]
    failed = [
        migrated(10**4 + at, chance.choice(zspages), -chance.choice((errno.EBUSY, errno.EAGAIN)))
        for at in range(3000)
    ]
    model = told_of(records + failed, failures=len(failed))
    assert model.errors == Counter(record[5] - (1 << 64) for record in failed)
    assert len(model.refusing) == REFUSING_MAX
    times = Counter(record[2] for record in failed)
    assert all(each.times == times[each.zspage] for each in model.refusing)
    assert model.forgotten == len(failed) - sum(each.times for each in model.refusing)
