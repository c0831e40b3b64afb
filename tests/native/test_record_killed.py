"""``zpobs record`` on this very kernel, killed at any moment: what it had written reads back."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.capture.support import told
from tests.native.device import NativeDevice
from zpobs.capture.reader import CaptureReader
from zpobs.capture.replay import Player
from zpobs.capture.steps import Ended, Gap, Records, Step

pytestmark = pytest.mark.native

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
LOOK_S = 0.05


def command(path: Path, device: NativeDevice) -> list[str]:
    line = [sys.executable, "-m", "zpobs", "record", str(path), "--pool", device.name]
    return [*line, "--interval", "0.1", "--quiet"]


def steps_of(path: Path) -> list[Step]:
    with CaptureReader(path) as reader:
        return list(reader.steps())


class Killed:
    """A recorder that is killed, and what its file was at moments before."""

    def __init__(self, path: Path, device: NativeDevice, after_s: float) -> None:
        self.path = path
        self.before: list[bytes] = []
        process = subprocess.Popen(command(path, device), cwd=ROOT, stderr=subprocess.PIPE)
        try:
            end_s = time.monotonic() + PATIENCE_S
            # Two blocks or more: it records.
            while not path.exists() or path.stat().st_size < 5000:
                assert process.poll() is None and time.monotonic() < end_s
                time.sleep(LOOK_S)
            end_s = time.monotonic() + after_s
            number = 0
            while time.monotonic() < end_s:
                device.fill("mixed", 64, first=64 * (number % 20), seed=number)
                device.discard(64 * (number * 7 % 20), 20)
                number += 1
                self.before.append(path.read_bytes())
        finally:
            process.kill()
            process.communicate()
        self.left = path.read_bytes()


@pytest.mark.parametrize("round_", range(4))
def test_what_was_written_reads_back(round_: int, device: NativeDevice, tmp_path: Path) -> None:
    """Blocks once written stay as they are, and steps are those that stood there before the end."""
    device.fill("mixed", 500)
    killed = Killed(tmp_path / "run.zpcap", device, random.Random(round_).uniform(0.3, 3))
    steps = steps_of(killed.path)
    assert any(isinstance(step, Records) for step in steps)
    assert not any(isinstance(step, Ended) for step in steps)
    whole = [told(step) for step in steps if not isinstance(step, Gap)]
    # At most the block that was being written is a piece.
    assert [type(step) for step in steps].count(Gap) == int(isinstance(steps[-1], Gap))
    cut = tmp_path / "cut.zpcap"
    for data in killed.before:
        assert killed.left.startswith(data)
    for data in killed.before[:: max(len(killed.before) // 5, 1)]:
        cut.write_bytes(data)
        part = [told(step) for step in steps_of(cut) if not isinstance(step, Gap)]
        assert part == whole[: len(part)]
    with CaptureReader(killed.path) as reader:
        assert reader.index.end is None
        player = Player(reader)
        player.advance(reader.index.last_ns)
        (pool,) = player.snapshot(zspages=True).pools
    assert pool.name == device.name and pool.zspages > 0


def test_one_that_is_not_killed_ends(device: NativeDevice, tmp_path: Path) -> None:
    """And what it ends with is what the device says of itself."""
    device.fill("mixed", 700)
    path = tmp_path / "run.zpcap"
    subprocess.run(
        [*command(path, device), "--duration", "1"], cwd=ROOT, check=True, capture_output=True
    )
    steps = steps_of(path)
    assert isinstance(steps[-1], Ended) and steps[-1].why == "duration"
    with CaptureReader(path) as reader:
        player = Player(reader)
        player.advance(reader.index.last_ns)
        (pool,) = player.snapshot().pools
    assert pool.pages * 4096 == device.mm_stat()[2]
