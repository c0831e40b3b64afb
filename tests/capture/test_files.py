"""Files that blocks go to, and memory that they wait in."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.capture.support import Memory, make_capture, make_writer, random_batch, steps_of, write
from tests.capture.test_writer import STATE
from zpobs.capture.blocks import HEADER, BlockType, Header
from zpobs.capture.files import CaptureFile, FlightMemory
from zpobs.capture.steps import Ended, Gap, Key, Records
from zpobs.errors import EnvironmentLacksError, UsageError

SECOND_NS = 10**9


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.parametrize("mask", [0, 0o022, 0o177, 0o777])
def test_a_file_is_its_owners_alone(mask: int, tmp_path: Path, umask: None) -> None:  # noqa: ARG001
    os.umask(mask)
    path = tmp_path / "run.zpcap"
    file = CaptureFile(path)
    assert stat.S_IMODE(path.stat().st_mode) & 0o177 == 0
    file.write(b"block")
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_was_everybodys_is_no_more(tmp_path: Path) -> None:
    path = write(tmp_path / "run.zpcap", b"old and longer")
    path.chmod(0o666)
    file = CaptureFile(path, overwrite=True)
    file.write(b"new")
    file.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == b"new"


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    path = write(tmp_path / "run.zpcap", b"precious")
    with pytest.raises(UsageError, match=r"exists.*--overwrite"):
        CaptureFile(path)
    assert path.read_bytes() == b"precious"


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacksError, match="No such file"):
        CaptureFile(tmp_path / "nowhere" / "run.zpcap")
    with pytest.raises(UsageError, match="no regular file"):
        CaptureFile(tmp_path, overwrite=True)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a disk of 64 KiB."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)], check=True)
    yield place
    # A test that failed may have a file open.
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_on_a_full_disk_the_file_ends_behind_a_whole_block(full_disk: Path) -> None:
    """What was written is a capture; when there is room again it goes on behind it."""
    path = full_disk / "run.zpcap"
    file = CaptureFile(path)
    assert 0 < file.left_bytes <= 64 << 10
    made = make_capture(1, operations=120)
    blocks = made.memory.blocks
    for block in blocks[:3]:
        file.write(block)
    filler = write(full_disk / "filler", bytes(file.left_bytes))
    # The page that the file ends in is its own still: only a part of the block finds room.
    assert file.left_bytes == 0 and len(blocks[3]) > 4096
    whole = file.bytes
    for _ in range(2):
        with pytest.raises(EnvironmentLacksError, match=rf"No space left.*first {whole:,} bytes"):
            file.write(blocks[3])
        assert path.stat().st_size == file.bytes == whole
    assert not any(isinstance(step, Gap | Ended) for step in steps_of(path))
    filler.unlink()
    for block in blocks[3:]:
        file.write(block)
    file.close()
    assert path.read_bytes() == made.data


# -- a flight recorder's memory ---------------------------------------------------------------


def flown(memory: FlightMemory, tmp_path: Path) -> tuple[bytes, list[object]]:
    """Return what a flight recorder would write: its bytes, and the steps in them."""
    encoder = memory.encoder()
    end = encoder.block(BlockType.END, {"why": "signal"}, span_ns=(1, 1))
    data = b"".join([*memory.numbered(), end])
    return data, list(steps_of(write(tmp_path / "flight.zpcap", data)))


def fly(memory: FlightMemory, seconds: int, *, keys_ns: int = SECOND_NS, records: int = 50) -> None:
    """Have so many seconds of records told, with keys at a pace."""
    writer = make_writer(memory, key_every_ns=keys_ns)  # type: ignore[arg-type]
    chance = random.Random(1)
    for at in range(1, 4 * seconds + 1):
        now_ns = SECOND_NS + at * SECOND_NS // 4
        writer.records(random_batch(chance, records), now_ns)
        writer.flush()
        writer.tick(now_ns, lambda: STATE)


def test_memory_reaches_back_as_far_as_asked(tmp_path: Path) -> None:
    """At least so far, and no more than a key farther; it begins with a key."""
    memory = FlightMemory(5 * SECOND_NS, 1 << 30)
    fly(memory, 60)
    _, steps = flown(memory, tmp_path)
    assert isinstance(steps[0], Key) and isinstance(steps[-1], Ended)
    assert not any(isinstance(step, Gap) for step in steps)
    moments = [step.mono_ns for step in steps if isinstance(step, Records)]
    reach = 61 * SECOND_NS - moments[0]
    assert 5 * SECOND_NS - SECOND_NS // 4 <= reach <= 6 * SECOND_NS
    assert moments == list(range(moments[0], moments[-1] + 1, SECOND_NS // 4))
    assert not memory.short


def test_memory_that_nothing_was_dropped_of_has_the_beginning(tmp_path: Path) -> None:
    memory = FlightMemory(500 * SECOND_NS, 1 << 30)
    fly(memory, 10)
    _, steps = flown(memory, tmp_path)
    assert sum(isinstance(step, Records) for step in steps) == 40


@pytest.mark.parametrize("limit", [20_000, 60_000])
def test_memory_is_bounded(limit: int, tmp_path: Path) -> None:
    """It holds less time then, and tells so; what it holds can be read still."""
    memory = FlightMemory(1000 * SECOND_NS, limit)
    fly(memory, 60)
    # What comes between two keys is not dropped before the second is there.
    assert memory.bytes < limit + 20_000
    assert memory.short
    data, steps = flown(memory, tmp_path)
    assert isinstance(steps[0], Key) and not any(isinstance(step, Gap) for step in steps)
    assert len(data) > memory.bytes


def test_memory_counts_its_bytes(tmp_path: Path) -> None:
    memory = FlightMemory(3 * SECOND_NS, 1 << 30)
    fly(memory, 20)
    data, _ = flown(memory, tmp_path)
    blocks = list(memory.numbered())
    assert memory.bytes == sum(map(len, blocks[1:]))
    assert data.startswith(b"".join(blocks))


def test_memory_is_numbered_anew(tmp_path: Path) -> None:
    """From 0, with the number of the capture that it is of; written twice it is the same."""
    memory = FlightMemory(3 * SECOND_NS, 1 << 30)
    fly(memory, 20)
    first, _ = flown(memory, tmp_path)
    again, _ = flown(memory, tmp_path)
    assert first == again
    found = [Header.of(block[: HEADER.size]) for block in memory.numbered()]
    assert [each.sequence for each in found if each] == list(range(len(found)))
    whole = Memory()
    make_writer(whole)
    own = Header.of(whole.blocks[0][: HEADER.size])
    assert own is not None and {each.capture for each in found if each} == {own.capture}
