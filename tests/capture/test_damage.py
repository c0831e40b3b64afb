"""Captures that are damaged read as what is whole of them, or are refused: nothing else ever.

Every place at which a file can end, every byte of it changed; pieces of it in any order; headers
that lie although their checksums are right.
"""

from __future__ import annotations

import contextlib
import json
import random
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.capture.support import (
    Made,
    Memory,
    environment,
    is_part,
    make_capture,
    make_writer,
    random_batch,
    told,
    write,
)
from zpobs import wire
from zpobs.capture.blocks import HEADER, BlockEncoder, BlockType, Header
from zpobs.capture.columns import Column, Packed, packed
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player
from zpobs.capture.steps import Ended, Gap, Step
from zpobs.errors import BadInputError
from zpobs.model.state import ModelState

# What reading a small file may take, whatever it says: mostly one block understood.
MEMORY_MAX = 64 << 20
SMALL = environment(records={}, nodes=None)


class Damaged:
    """A capture, and what may come of it when it was damaged."""

    def __init__(self, made: Made, path: Path) -> None:
        self.blocks = made.memory.blocks
        self.data = made.data
        self.path = path
        self.whole = [told(step) for step in self.read(self.data)]
        self._played: set[int] = set()
        # How often what was read was the whole, a part, and nothing at all.
        self.outcomes = {"whole": 0, "part": 0, "refused": 0}

    def read(self, data: bytes) -> list[Step]:
        with CaptureReader(write(self.path, data)) as reader:
            return list(reader.steps())

    def check(self, data: bytes) -> list[Step]:
        """Read a damaged file; fail unless what is read was in the whole, and the rest declared."""
        try:
            with CaptureReader(write(self.path, data)) as reader:
                steps = list(reader.steps())
                seen = [told(step) for step in steps]
                self._play(reader, hash(tuple(seen)))
        except BadInputError as error:
            assert "\n" not in str(error)
            self.outcomes["refused"] += 1
            return []
        if seen == self.whole:
            self.outcomes["whole"] += 1
            return steps
        self.outcomes["part"] += 1
        kept = [each for each, step in zip(seen, steps, strict=True) if not isinstance(step, Gap)]
        assert is_part(kept, self.whole)
        assert len(kept) < len(seen) or not any(isinstance(step, Ended) for step in steps)
        return steps

    def _play(self, reader: CaptureReader, which: int) -> None:
        # Equal steps play alike.
        if which in self._played:
            return
        self._played.add(which)
        player = Player(reader)
        player.advance(reader.index.last_ns)
        assert player.ended
        player.snapshot(zspages=True)
        player.seek((reader.index.first_ns + reader.index.last_ns) // 2)
        player.snapshot()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    made = make_capture(3, operations=5, told=SMALL, scanned=2)
    assert len(made.data) < 9000
    return Damaged(made, tmp_path_factory.mktemp("damage") / "small.zpcap")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    made = make_capture(2, operations=60, told=SMALL)
    return Damaged(made, tmp_path_factory.mktemp("damage") / "larger.zpcap")


def test_the_file_may_end_anywhere(small: Damaged) -> None:
    """It reads as the blocks that are whole, and without an end."""
    ends = np.cumsum([0, *map(len, small.blocks)])
    for length in range(len(small.data)):
        steps = small.check(small.data[:length])
        assert not any(isinstance(step, Ended) for step in steps)
        inside = length not in ends
        if steps:
            # What is missing inside of a block is told; that there were more blocks cannot be.
            assert isinstance(steps[-1], Gap) == inside
    assert small.outcomes["refused"] > 0 and small.outcomes["part"] > 0


def test_any_byte_may_be_another(small: Damaged) -> None:
    """Every byte, changed by any of its bits or into any other value: its block alone is lost."""
    chance = random.Random(1)
    small.outcomes |= dict.fromkeys(small.outcomes, 0)
    for at in range(len(small.data)):
        changed = bytearray(small.data)
        changed[at] ^= chance.choice([1 << at % 8, chance.randrange(1, 256)])
        gaps = [step for step in small.check(bytes(changed)) if isinstance(step, Gap)]
        # Whatever the byte stands for, at most one block is gone, and its bytes are told.
        assert [gap.blocks for gap in gaps] in ([1], [None])
    assert small.outcomes == {"whole": 0, "part": len(small.data), "refused": 0}


@pytest.mark.parametrize("bit", range(8))
def test_any_bit_of_headers_may_be_another(small: Damaged, bit: int) -> None:
    """All bits of all headers."""
    begin = 0
    for block in small.blocks:
        for at in range(begin, begin + HEADER.size):
            changed = bytearray(small.data)
            changed[at] ^= 1 << bit
            small.check(bytes(changed))
        begin += len(block)


PIECES = st.lists(
    st.tuples(
        st.integers(0, 2**16), st.integers(0, 2**14), st.sampled_from(["cut", "put", "junk"])
    ),
    min_size=1,
    max_size=6,
)


@given(pieces=PIECES, seed=st.integers(0, 2**32))
def test_pieces_may_be_anywhere(
    larger: Damaged, pieces: list[tuple[int, int, str]], seed: int
) -> None:
    """Bytes cut out, put in from elsewhere in the file, or overwritten."""
    chance = random.Random(seed)
    data = larger.data
    for place, length, what in pieces:
        at = place % (len(data) + 1)
        size = length % (1 + len(data) // 2)
        if what == "cut":
            data = data[:at] + data[at + size :]
        elif what == "put":
            begin = chance.randrange(len(larger.data))
            data = data[:at] + larger.data[begin : begin + size] + data[at:]
        else:
            data = data[:at] + chance.randbytes(size) + data[at + size :]
    larger.check(data)


@given(order=st.lists(st.integers(0, 5), max_size=12))
def test_blocks_may_be_missing_twice_or_in_any_order(larger: Damaged, order: list[int]) -> None:
    """Each is read once, where none of a higher number was read before it."""
    assert len(larger.blocks) == 6
    steps = larger.check(b"".join(larger.blocks[at] for at in order))
    if not steps:
        return
    read: list[int] = []
    for at in order:
        if not read or read[-1] < at:
            read.append(at)
        if at == len(larger.blocks) - 1:
            break
    missing = sum(step.blocks or 0 for step in steps if isinstance(step, Gap))
    assert missing == read[-1] + 1 - len(read)


def test_a_block_that_stands_twice_is_read_once(larger: Damaged) -> None:
    data = b"".join(block * 2 for block in larger.blocks)
    assert [told(step) for step in larger.read(data)] == larger.whole
    with CaptureReader(larger.path) as reader:
        whats = {damage.what for damage in reader.index.damage}
    assert whats == {"a block that was there before", "a block behind the end"}


def test_of_two_captures_in_one_file_the_first_is_read(larger: Damaged) -> None:
    """The other is listed as damage; without the first's end no block of it is mixed in either."""
    killed = b"".join(larger.blocks[:-1])
    # Of numbers of blocks that go on where others end.
    other = make_capture(9, operations=14, told=SMALL | {"zpobs": "other"}, rounds=4).data
    for first in (larger.data, killed):
        steps = larger.check(first + other)
        alone = larger.check(first)
        assert [told(step) for step in steps] == [told(step) for step in alone]
        larger.read(first + other)
        with CaptureReader(larger.path) as reader:
            damage = reader.index.damage
            assert sum(each.end - each.begin for each in damage) == len(other)
            assert {each.what for each in damage} == {"a block of another capture"}
            assert (reader.index.end is not None) == (first is larger.data)


def test_nothing_is_missing_for_what_stands_behind_the_end(larger: Damaged) -> None:
    """Zeros behind the end, as file systems may leave them, are no gap; without an end they are."""
    assert [told(step) for step in larger.read(larger.data + bytes(5000))] == larger.whole
    killed = larger.read(b"".join(larger.blocks[:-1]) + bytes(5000))
    assert isinstance(killed[-1], Gap)
    assert (killed[-1].blocks, killed[-1].bytes) == (None, 5000)


def test_what_stands_between_blocks_is_passed_by(larger: Damaged) -> None:
    data = (b"\x89ZPC junk" * 9).join([b"", *larger.blocks])
    assert [told(step) for step in larger.read(data)] == larger.whole


def test_bytes_that_are_missing_cost_the_block_that_they_were_of(larger: Damaged) -> None:
    """The next block is found although it is not where the header before it says."""
    for at in range(1, len(larger.blocks) - 1):
        blocks = list(larger.blocks)
        blocks[at] = blocks[at][: HEADER.size + 10] + blocks[at][HEADER.size + 11 :]
        gaps = [step for step in larger.check(b"".join(blocks)) if isinstance(step, Gap)]
        assert [gap.blocks for gap in gaps] == [1]


def test_a_key_that_is_damaged_is_not_begun_with(larger: Damaged) -> None:
    """Who seeks behind it begins before it."""
    data = bytearray(larger.data)
    at = sum(map(len, larger.blocks[: _key_at(larger)])) + HEADER.size + 20
    data[at] ^= 1
    larger.check(bytes(data))
    with CaptureReader(larger.path) as reader:
        (key,) = reader.index.keys
        assert reader.key_before(key.mono_ns) is None


def test_no_key_is_made_of_two(tmp_path: Path) -> None:
    """Of one the beginning is left, of the next the end: neither can be read."""
    chance, memory = np.random.default_rng(1), Memory()
    writer = make_writer(memory, SMALL)
    for at in (1, 2):
        columns = {f"t.{each}": chance.integers(0, 2**63, 1 << 18, np.uint64) for each in range(6)}
        writer.key(ModelState({}, columns), 10**9 + at)
    writer.end("duration", 10**9 + 3)
    environment_, first, _, _, second, end = memory.blocks
    with CaptureReader(write(tmp_path / "c", environment_ + first + second + end)) as reader:
        assert [type(step) for step in reader.steps()] == [Gap, Ended]


def _key_at(damaged: Damaged) -> int:
    (at,) = (
        at
        for at, block in enumerate(damaged.blocks)
        if struct.unpack_from("<H", block, 10) == (BlockType.KEY,)
    )
    return at


# -- headers and bodies that lie ------------------------------------------------------------


def block(
    text: bytes,
    planes: bytes = b"",
    *,
    type_: BlockType = BlockType.DATA,
    sequence: int = 1,
    records: int = 0,
    length: int | None = None,
    stored: bytes | None = None,
    plain_bytes: int | None = None,
) -> bytes:
    """Return a block of anything, with right checksums."""
    plain = struct.pack("<I", len(text) if length is None else length) + text + planes
    body = zstandard.ZstdCompressor().compress(plain) if stored is None else stored
    size = len(plain) if plain_bytes is None else plain_bytes
    header = Header(
        type_, len(body), size, records, sequence, 10**9, 10**9 + 1, 7, zlib.crc32(body)
    )
    return header.to_bytes() + body


def told_as(**values: Any) -> bytes:
    return json.dumps({"columns": [], **values}).encode()


def data_block(*columns: Packed, records: int, steps: Sequence[Any] | None = None) -> bytes:
    steps = [["records", 10**9, records]] if steps is None else steps
    encoder = BlockEncoder(7, 1)
    return encoder.block(BlockType.DATA, {"steps": steps}, columns, records=records)


def column(name: str, width: int, count: int, base: int = 0) -> list[Any]:
    return Column(name, "delta", width, count, base).to_json()


def bomb(size: int) -> bytes:
    """Return a frame that says it holds so many zeros, and does."""
    compressor = zstandard.ZstdCompressor().compressobj(size=size)
    out = [compressor.compress(bytes(min(1 << 20, size - at))) for at in range(0, size, 1 << 20)]
    return b"".join([*out, compressor.flush()])


def key_block(lengths: dict[str, Any], key: list[int]) -> bytes:
    clock = {"time_ns": 1, "mono_ns": 1}
    text = told_as(key=key, values={}, lengths=lengths, clock=clock)
    return block(text, type_=BlockType.KEY)


def _oversized_frame() -> bytes:
    # Of a frame's head: magic, one segment, size in eight bytes.
    return b"\x28\xb5\x2f\xfd" + bytes([0xE0]) + struct.pack("<Q", 1 << 45) + bytes(20)


def _known(count: int) -> bytes:
    planes = [
        packed("kind", np.ones(1, np.uint64)),
        Packed(Column("zspage.known", "delta", 0, count, 1), b""),
    ]
    return data_block(*[each for each in planes if each], records=1)


COUNTED = ("ring_full", "unpaired", "missed_runs", "missed_counting_runs", "untracked_pools")
READING = {**dict.fromkeys(COUNTED, 0), "missed_counts": {}, "pools": [], "whole": True}

LIES: dict[str, Callable[[], bytes]] = {
    "a frame of 32 TiB": lambda: block(b"", stored=_oversized_frame(), plain_bytes=4096),
    "a frame of 1 GiB": lambda: block(b"", stored=bomb(1 << 30), plain_bytes=4096),
    "JSON longer than the body": lambda: block(b"{}", length=1 << 31),
    "no body": lambda: block(b"", stored=b""),
    "no JSON": lambda: block(b"\xff\xfe"),
    "deep JSON": lambda: block(b"[" * 1_000_000),
    "JSON that is no object": lambda: block(b"[1,2]"),
    "no steps": lambda: block(told_as()),
    "steps that are none": lambda: block(told_as(steps=[[1], 2, None])),
    "an unknown step": lambda: block(told_as(steps=[["dance", 5, {}]])),
    "a time below 0": lambda: block(told_as(steps=[["scan", -5, {"begin_ns": 0, "missing": []}]])),
    "an infinite time": lambda: block(
        b'{"columns":[],"steps":[["moment",5,{"time_ns":1e999,"aside":{}}]]}'
    ),
    "a number of 5000 digits": lambda: block(b'{"columns":[],"steps":[["loss",' + b"9" * 5000),
    "records that are not there": lambda: data_block(records=5, steps=[["records", 5, 9]]),
    "fewer than no records": lambda: data_block(records=5, steps=[["records", 5, -1]]),
    "2^32 - 1 records": lambda: data_block(records=0xFFFFFFFF),
    "a column of 2^60": lambda: block(told_as(steps=[], columns=[column("kind", 0, 1 << 60)])),
    "a column of 2^60 planes": lambda: block(
        told_as(steps=[], columns=[column("kind", 8, 1 << 60)])
    ),
    "a column twice": lambda: block(told_as(steps=[], columns=[column("kind", 0, 1)] * 2)),
    "a width of 9": lambda: block(
        told_as(steps=[], columns=[["kind", "plain", 9, 1, 0]]), bytes(9)
    ),
    "many zspages": lambda: _known(1 << 18),
    "kind 255": lambda: data_block(_column("kind", [255]), records=1),
    "kind 256": lambda: data_block(_column("kind", [256]), records=1),
    "a subject that is not named": lambda: data_block(
        _column("kind", [1]), _column("zspage.at", [77]), records=1
    ),
    "values too large": lambda: data_block(
        _column("kind", [1]), _column("state.inuse", [1 << 40]), records=1
    ),
    "a class too large": lambda: data_block(
        _column("kind", [wire.KIND_OBJECT_STORED]), _column("class_index", [1 << 33]), records=1
    ),
    "a place that is not named": lambda: data_block(
        _column("kind", [wire.KIND_OBJECT_STORED]), _column("zspage.at", [1]), records=1
    ),
    "times that are not there": lambda: data_block(
        _column("kind", [1, 1]), _column("state.since_ns", [2]), records=2
    ),
    "two first times": lambda: data_block(
        _column("kind", [1, 1]), _column("first_ns", [2, 2]), records=2
    ),
    "a moment of nothing": lambda: block(
        told_as(steps=[["moment", 5, {"time_ns": 5, "aside": {}, "whole": True}]])
    ),
    "a moment of a list": lambda: block(
        told_as(steps=[["moment", 5, {"time_ns": 5, "aside": [1], "whole": True}]])
    ),
    "a reading of many classes": lambda: block(
        told_as(steps=[["counters", 5, READING | {"pools": [_pool(1 << 40)]}]])
    ),
    "a reading of classes that are not there": lambda: block(
        told_as(steps=[["counters", 5, READING | {"pools": [_pool(3, [[9, 0, 0, 0, 0]])]}]])
    ),
    "a key of 2^40 zspages": lambda: key_block({"zspages.address": [1 << 40, "uint64"]}, [0, 1]),
    "a key of 100 columns of 2^28": lambda: key_block(
        {f"a.{at}": [1 << 28, "uint64"] for at in range(100)}, [0, 1]
    ),
    "a key of 2^31 blocks": lambda: key_block({"a.b": [1 << 45, "uint64"]}, [0, 1 << 31]),
    "a key of zeros": lambda: key_block({"zspages.address": [1 << 22, "uint64"]}, [0, 1]),
    "a key of text": lambda: key_block({"zspages.address": [1, "<U7"]}, [0, 1]),
    "a key that is no key": lambda: block(told_as(key="x"), type_=BlockType.KEY),
    "a key of a list": lambda: block(
        told_as(key=[0, 1], lengths=[], values=1), type_=BlockType.KEY
    ),
    "an end of nothing": lambda: block(b'{"columns":[],"totals":7}', type_=BlockType.END),
}


def _column(name: str, values: list[int]) -> Packed:
    found = packed(name, np.array(values, dtype=np.uint64))
    assert found is not None
    return found


def _pool(size_classes: int, classes: Sequence[Any] = ()) -> dict[str, Any]:
    names = {"serial": 1, "address": 4096, "name": "zram0", "since_mono_ns": 1, "created": True}
    more = {"counters": None, "size_classes": size_classes, "classes": list(classes)}
    return {**names, **more}


@pytest.fixture
def measured() -> Iterator[None]:
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEMORY_MAX


@pytest.mark.parametrize("lie", LIES)
def test_a_block_that_lies_takes_no_memory(
    lie: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It is damage or one clear line, and never more memory than a block may take."""
    lying = LIES[lie]()
    begin = BlockEncoder(7).block(BlockType.ENVIRONMENT, environment(records={}))
    path = write(tmp_path / "lie.zpcap", begin + lying)
    request.getfixturevalue("measured")
    try:
        with CaptureReader(path) as reader:
            player = Player(reader)
            player.advance(reader.index.last_ns)
            steps = list(reader.steps())
    except BadInputError as error:
        assert "\n" not in str(error) and error.found
    else:
        # Nothing of it was believed, or what it says is harmless.
        assert all(isinstance(step, Gap | Ended) for step in steps) or lie == "many zspages"


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"format": 2},
        {"wire_version": 99},
        {"clock": {"time_ns": "x", "mono_ns": 1}},
        {"clock": {"time_ns": -1, "mono_ns": 1}},
        {"clock": None},
        {"kernel": {"page_size": 4096}},
        {"kernel": None},
        {"objects": {"rate": "x"}},
        {"objects": []},
        {"objects": {"rate": 0, "multiplier": 1}},
        {"nodes": {"blocks": ["x"]}},
        {"nodes": 7},
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(
    changed: dict[str, Any], tmp_path: Path
) -> None:
    made = BlockEncoder(7).block(BlockType.ENVIRONMENT, environment(**changed) if changed else {})
    with (
        pytest.raises(BadInputError) as caught,
        CaptureReader(write(tmp_path / "c", made)) as reader,
    ):
        Player(reader).advance(1 << 40)
    assert "\n" not in str(caught.value) and caught.value.found


@pytest.mark.parametrize("seed", range(40))
def test_records_that_cannot_be_are_refused(seed: int, tmp_path: Path) -> None:
    """Any words in the place of a machine's: the model takes them, or one line tells of them."""
    chance, memory = random.Random(seed), Memory()
    writer = make_writer(memory, SMALL)
    writer.records(random_batch(chance, chance.randrange(1, 200)), 2 * 10**9)
    writer.end("duration", 3 * 10**9)
    with CaptureReader(write(tmp_path / "any.zpcap", memory.whole)) as reader:
        player = Player(reader)
        with contextlib.suppress(BadInputError):
            player.advance(reader.index.last_ns)
            player.snapshot(zspages=True)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"PK\x03\x04" * 99, "do not begin as a capture"),
        (b"\x89ZPC\r\n\x1a\n" + bytes(99), "neither its first block nor a key is intact"),
        # As FTP's text mode and the like leave it.
        (b"\x89ZPC\n\x1a\n" + bytes(99), "do not begin as a capture"),
    ],
)
def test_what_is_no_capture_is_told(data: bytes, found: str, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=found):
        CaptureReader(write(tmp_path / "none.zpcap", data))


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    for path, found in (
        (tmp_path, "directory"),
        (tmp_path / "none", "No such file"),
        (Path("/dev/null"), "no regular file"),
    ):
        with pytest.raises(BadInputError, match=found):
            CaptureReader(path)


def test_a_format_that_is_not_known_is_told(larger: Damaged) -> None:
    header = bytearray(larger.data[: HEADER.size])
    header[8] = 2
    header[60:] = struct.pack("<I", zlib.crc32(header[:60]))
    with pytest.raises(BadInputError, match="version 2, not 1"):
        larger.read(bytes(header) + larger.data[HEADER.size :])


def test_a_block_of_an_unknown_type_is_damage(larger: Damaged) -> None:
    """Its number tells that something is missing."""
    header = Header.of(larger.blocks[1])
    assert header is not None
    raw = bytearray(larger.blocks[1])
    raw[10] = 9
    raw[60:64] = struct.pack("<I", zlib.crc32(raw[:60]))
    steps = larger.check(b"".join([larger.blocks[0], bytes(raw), *larger.blocks[2:]]))
    assert [step.blocks for step in steps if isinstance(step, Gap)] == [1]
    assert replace(header, sequence=0).to_bytes() != bytes(raw[:64])
