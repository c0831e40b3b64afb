"""From FRAMES records to the page chains of rows: the newest whole generation of each."""

from __future__ import annotations

import numpy as np

from zpobs import wire
from zpobs.errors import RecordError
from zpobs.model.arrays import I64, U8, U64, Bools
from zpobs.model.rows import ZspageRows
from zpobs.wire import Words


def check_frames(head: U64) -> None:
    """Raise :class:`RecordError` if a FRAMES record names pages that no chain has."""
    first = (head >> np.uint64(16)).astype(np.uint8)
    pages = (head >> np.uint64(24)).astype(np.uint8)
    wrong = (first >= pages) | (pages > wire.CHAIN_MAX) | (first % wire.FRAMES_PER_RECORD != 0)
    if wrong.any():
        at = int(wrong.argmax())
        raise RecordError(
            "a FRAMES record names pages that no chain has",
            found=f"first page {int(first[at])} of {int(pages[at])}",
        )


def take_frames(table: ZspageRows, columns: Words) -> I64:
    """Take FRAMES records by column, shape (RECORD_WORDS, n); return the row of each."""
    time_ns = columns[wire.WORD_TIME]
    if not (time_ns[1:] >= time_ns[:-1]).all():
        columns = columns.take(np.argsort(time_ns, kind="stable"), axis=1)
        time_ns = columns[wire.WORD_TIME]
    rows = table.find_or_add(columns[wire.WORD_SUBJECT])
    before_ns = table.generation_ns.take(rows)
    void = (time_ns < before_ns) | (table.born.take(rows) & (time_ns < table.first_ns.take(rows)))
    table.generation_ns[rows[~void]] = time_ns[~void]
    # By rising time, so that the newest generation of each row stays.
    newest = time_ns == table.generation_ns.take(rows)
    newest &= ~void
    if newest.all():
        renew_chains(table, columns, rows, time_ns > before_ns)
    else:
        some = np.flatnonzero(newest)
        renewed = time_ns[some] > before_ns[some]
        renew_chains(table, columns[:, some], rows[some], renewed)
    # Rows of void parts too: they may have been made just now, for nothing.
    return rows


def renew_chains(table: ZspageRows, columns: Words, rows: I64, renewed: Bools) -> None:
    """Store parts of page chains, all of their rows' newest generations.

    ``renewed`` tells which belong to a generation of which nothing is stored yet.
    """
    head = columns[wire.WORD_HEAD]
    first = (head >> np.uint64(16)).astype(np.uint8)
    pages = (head >> np.uint64(24)).astype(np.uint8)
    table.parts[rows if renewed.all() else rows[renewed]] = 0
    misfit = table.pages.take(rows) != pages
    if misfit.any():
        _fit_spans(table, rows[misfit], pages[misfit])
        # A part that names another length must not write past the span there is.
        fit = table.pages.take(rows) == pages
        if not fit.all():
            some = np.flatnonzero(fit)
            columns, rows, first, pages = columns[:, some], rows[some], first[some], pages[some]
    start = table.span.take(rows) + first
    length = pages - first
    for offset in range(min(wire.FRAMES_PER_RECORD, int(length.max(initial=0)))):
        inside = np.flatnonzero(length > offset) if offset else slice(None)
        table.arena.frames[start[inside] + np.uint32(offset)] = columns[3 + offset][inside]
    part = first // np.uint8(wire.FRAMES_PER_RECORD)
    for number in range(1 + int(part.max(initial=0))):
        # Repeated rows do no harm: all would set the same bit.
        table.parts[rows[part == number]] |= np.uint8(1 << number)


def _fit_spans(table: ZspageRows, rows: I64, pages: U8) -> None:
    """Give each of the rows, which may repeat, a span of so many pages; of several the last."""
    number = np.arange(len(rows), dtype=np.uint32)
    spans = table.span[rows]
    # Of several assignments to one row the last stays: that finds one record for each row.
    table.span[rows] = number
    at = np.flatnonzero(table.span[rows] == number)
    table.span[rows] = spans
    rows, pages = rows[at], pages[at]
    table.void_frames(rows)
    table.span[rows] = table.arena.take(pages)
    table.pages[rows] = pages
