"""Page frame numbers of zspages: one flat arena, spans of 1..CHAIN_MAX frames.

A span freed by one chain goes to the free list of its length and is given to
the next chain as long as it. Chain lengths follow from size classes, so the
lists never hold much that cannot be used again.
"""

from __future__ import annotations

import numpy as np

from zpobs.model.arrays import I64, U8, U32, U64, FreeList, grown, grown_length
from zpobs.wire import CHAIN_MAX


def _lengths(pages: U8) -> list[int]:
    """Return the chain lengths that occur, 0 left out."""
    found: list[int] = np.flatnonzero(np.bincount(pages)[1:]).tolist()
    return [length + 1 for length in found]


class FrameArena:
    """Frame numbers by span; a span is the index of its first frame in ``frames``."""

    def __init__(self) -> None:
        self.frames: U64 = np.zeros(64, dtype=np.uint64)
        self._end = 0
        # By length: freed spans only. Fresh ones come from the arena's end.
        self._free = [FreeList(start=0) for _ in range(CHAIN_MAX + 1)]

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self.frames.nbytes + sum(part.nbytes for part in self._free)

    def take(self, pages: U8) -> U32:
        """Return a span for each chain length in ``pages`` (all in 1..CHAIN_MAX), shape (n,)."""
        spans = np.empty(len(pages), dtype=np.uint32)
        for length in _lengths(pages):
            wanted = np.flatnonzero(pages == length)
            free = self._free[length]
            reused = min(len(wanted), len(free))
            spans[wanted[:reused]] = free.take(reused)
            fresh = len(wanted) - reused
            start = np.arange(self._end, self._end + fresh * length, length, dtype=np.uint32)
            spans[wanted[reused:]] = start
            self._end += fresh * length
        if self._end > len(self.frames):
            self.frames = grown(self.frames, grown_length(len(self.frames), self._end))
        return spans

    def give(self, spans: U32, pages: U8) -> None:
        """Take back spans of the given lengths; length 0 is no span."""
        for length in _lengths(pages):
            self._free[length].give(spans[pages == length])

    def gather(self, spans: U32, pages: I64) -> U64:
        """Return the frames of all spans end to end, shape (sum of pages,)."""
        return self.frames.take(_end_to_end(spans.astype(np.int64), pages))

    def put(self, spans: U32, pages: I64, frames: U64) -> None:
        """Store frames of all spans, which are end to end as :meth:`gather` returns them."""
        self.frames[_end_to_end(spans.astype(np.int64), pages)] = frames


def _end_to_end(first: I64, lengths: I64) -> I64:
    """Return the numbers first, first + 1, ... of all, so many of each."""
    at = np.arange(int(lengths.sum()), dtype=np.int64)
    at += np.repeat(first - (np.cumsum(lengths) - lengths), lengths)
    return at


def places_in_chains(pages: I64) -> I64:
    """Return of all pages of chains, end to end, which of its chain each is, from 0."""
    return _end_to_end(np.zeros(len(pages), dtype=np.int64), pages)
