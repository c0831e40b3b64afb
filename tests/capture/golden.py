"""Golden captures: files of each format version that every later zpobs must read alike.

``python -m tests.capture.golden`` makes those again that are made of numbers, and tells the facts
of all in a JSON beside each. What was recorded on a kernel is never made again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from tests.capture.support import digest, make_capture
from zpobs import wire
from zpobs.capture.anonymous import Anonymizer
from zpobs.capture.layout import BY_CODE
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player
from zpobs.capture.steps import Key, Records
from zpobs.snapshot import Snapshot

FOLDER = Path(__file__).resolve().parent.parent / "data" / "captures"
# By scans alone; by probes, with objects, of a churn in a guest.
RECORDED = ("zram-6.18.zpcap", "zram-7.3.zpcap")
GENERATED = {"probes-1.zpcap": False, "anonymous-1.zpcap": True}
_SEED = 17
# The zstd that made the files as they are.
MADE_WITH = (1, 5, 7)


def made(name: str) -> bytes:
    """Return the bytes of a golden capture that is made of numbers."""
    return make_capture(_SEED, anonymizer=Anonymizer() if GENERATED[name] else None).data


def facts(path: Path) -> dict[str, Any]:
    """Return what is so of a capture: counts, spans, and what it ends with."""
    with CaptureReader(path) as reader:
        index = reader.index
        steps: Counter[str] = Counter()
        kinds: Counter[str] = Counter()
        words = hashlib.sha256()
        states = []
        for step in reader.steps():
            steps[type(step).__name__] += 1
            if isinstance(step, Records):
                kinds.update(BY_CODE[code].name for code in wire.kinds(step.words).tolist())
                words.update(np.ascontiguousarray(step.words).astype("<u8").tobytes())
            if isinstance(step, Key):
                states.append(digest(step.state))
        player = Player(reader)
        player.advance(index.last_ns)
        snapshot = player.snapshot(zspages=True)
    return {
        "bytes": index.bytes,
        "blocks": index.blocks,
        "span_ns": [index.first_ns, index.last_ns],
        "keys": [[key.at, key.mono_ns] for key in index.keys],
        "ended": index.end is not None,
        "damage": len(index.damage),
        "steps": dict(sorted(steps.items())),
        "records": dict(sorted(kinds.items())),
        "words": words.hexdigest(),
        "states": states,
        "pools": [
            [pool.id, pool.name, pool.status, pool.pages, pool.zspages, pool.objects]
            for pool in snapshot.pools
        ],
        "zspages": zspages_digest(snapshot),
    }


def zspages_digest(snapshot: Snapshot) -> str:
    """Return a digest of all zspages with their frames, by pool and address."""
    rows = []
    for pool in snapshot.pools:
        table = pool.zspage_list
        assert table is not None
        frames, start = table.frames.tolist(), table.frame_start.tolist()
        columns = (table.address, table.class_index, table.inuse, table.fullness)
        each = zip(*(column.tolist() for column in columns), strict=True)
        for at, row in enumerate(each):
            rows.append([pool.id, *row, *frames[start[at] : start[at + 1]]])
    return hashlib.sha256(json.dumps(sorted(rows)).encode()).hexdigest()


def tell_facts(path: Path) -> None:
    told = json.dumps(facts(path), indent=1) + "\n"
    path.with_suffix(".json").write_text(told, encoding="ascii")


if __name__ == "__main__":
    for name in GENERATED:
        (FOLDER / name).write_bytes(made(name))
        tell_facts(FOLDER / name)
    for name in RECORDED:
        if not (FOLDER / name).with_suffix(".json").exists():
            tell_facts(FOLDER / name)
