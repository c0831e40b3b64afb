"""Rounds of scans: what is said of pools that are not found, and which walks are kept."""

from __future__ import annotations

import numpy as np
import pytest

from zpobs import scans, wire
from zpobs.sources.scanner import FoundPool, FoundPools

ZRAM = FoundPool(0x1000, "zram0", 1)
ZSWAP = FoundPool(0x2000, "zswap1", 2)


class Finder:
    """A scanner as far as it finds pools."""

    def __init__(self, *pools: FoundPool, complete: bool = True) -> None:
        self._found = FoundPools(pools, complete)

    def find_pools(self) -> FoundPools:
        return self._found


def number(found: FoundPools) -> dict[FoundPool, int]:
    return {pool: at for at, pool in enumerate(found.pools, 1)}


def found(finder: Finder, in_use: set[str], monkeypatch: pytest.MonkeyPatch) -> scans.Found:
    monkeypatch.setattr(scans, "pools_in_use", lambda: in_use)
    return scans.find_pools(finder, number)  # type: ignore[arg-type]


def test_nothing_is_missing_if_all_in_use_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A zswap pool of any name is zswap's."""
    told = found(Finder(ZRAM, ZSWAP), {"zram0", "zswap"}, monkeypatch)
    assert told == scans.Found({ZRAM: 1, ZSWAP: 2}, ())


def test_what_is_in_use_and_not_found_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its name."""
    told = found(Finder(ZRAM), {"zram0", "zram3", "zswap"}, monkeypatch)
    assert told.missing == (
        "zram3 is in use, but no pool of it was found",
        "zswap is in use, but no pool of it was found",
    )


def test_what_came_or_went_meanwhile_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was in use before and after the search is."""
    readings = iter([{"zram0", "zram3"}, {"zram0", "zram4"}])
    monkeypatch.setattr(scans, "pools_in_use", lambda: next(readings))
    assert scans.find_pools(Finder(ZRAM), number).missing == ()  # type: ignore[arg-type]


def test_a_search_that_did_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be pools that it did not come to."""
    (sentence,) = found(Finder(ZRAM, complete=False), {"zram0"}, monkeypatch).missing
    assert sentence.startswith("there may be more pools")


def test_a_pool_that_got_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not scanned."""
    monkeypatch.setattr(scans, "pools_in_use", set)
    told = scans.find_pools(Finder(ZRAM, ZSWAP), lambda _: {ZRAM: 1})  # type: ignore[arg-type]
    assert told.missing == ("no place for more pools: zswap1",)


def test_of_each_class_the_last_walk_is_kept() -> None:
    """With all that stands in it, and what stands behind it up to the next walk."""

    def record(kind: int, value: int) -> list[int]:
        return [wire.head(kind), 1, 0x1000, value, 0, 0, 0]

    begin, state, end = wire.KIND_SCAN_BEGIN, wire.KIND_STATE, wire.KIND_SCAN_END
    words = np.array(
        [
            *(record(begin, 7), record(state, 70), record(end, 7)),
            *(record(begin, 8), record(state, 80), record(end, 8)),
            *(record(begin, 7), record(state, 71), record(end, 7)),
        ],
        dtype=np.uint64,
    )
    assert scans._last_walks(words)[:, 3].tolist() == [8, 80, 8, 7, 71, 7]
