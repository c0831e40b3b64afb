"""How what probes told reaches a reader: late, twice, out of order, or not at all."""

from __future__ import annotations

import random

import numpy as np

from tests.true_allocator import Record
from zpobs import wire


def as_words(records: list[Record]) -> wire.Words:
    """Return records as a batch, shape (N, RECORD_WORDS)."""
    return np.array(records, dtype=np.uint64).reshape(-1, wire.RECORD_WORDS)


Arrival = tuple[float, int, Record]


def deliver(
    records: list[Record],
    seed: int,
    *,
    loss: float = 0.0,
    duplicates: float = 0.0,
    reach: int = 0,
) -> tuple[list[Record], int]:
    """Return what arrives of ``records`` and how many were lost.

    Each record is lost with probability ``loss``, comes again with probability
    ``duplicates``, and overtakes at most ``reach`` others.
    """
    arriving, lost = arrivals(records, seed, loss=loss, duplicates=duplicates, reach=reach)
    return [record for _, _, record in sorted(arriving)], lost


def arrivals(
    records: list[Record],
    seed: int,
    *,
    first: int = 0,
    loss: float = 0.0,
    duplicates: float = 0.0,
    reach: int = 0,
) -> tuple[list[Arrival], int]:
    """Return what arrives of ``records``, each with its place in the order, and how many were lost.

    ``first`` is the number of the first record: arrivals of several calls can be sorted
    together, so that what is told later overtakes what was told before.
    """
    chance = random.Random(seed)
    arriving: list[Arrival] = []
    lost = 0
    for at, record in enumerate(records, first):
        if chance.random() < loss:
            lost += 1
            continue
        copies = 2 if chance.random() < duplicates else 1
        for _ in range(copies):
            arriving.append((at + chance.random() * reach, at, record))
    return arriving, lost
