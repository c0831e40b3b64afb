"""Captures of each format version read as they ever did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import zstandard

from tests.capture import golden
from tests.capture.support import steps_of, told, write
from zpobs.capture.blocks import FORMAT_VERSION, HEADER, Header
from zpobs.capture.layout import KINDS
from zpobs.capture.reader import CaptureReader
from zpobs.capture.summary import summary_of

SIZE_MAX = 60_000


@pytest.mark.parametrize("path", sorted(golden.FOLDER.glob("*.zpcap")), ids=lambda path: path.name)
def test_a_golden_capture_reads_as_ever(path: Path) -> None:
    """All of its facts are those that were found when it was made."""
    assert path.stat().st_size < SIZE_MAX
    assert golden.facts(path) == json.loads(path.with_suffix(".json").read_text(encoding="ascii"))


def test_there_are_golden_captures_of_this_version() -> None:
    names = {path.name for path in golden.FOLDER.glob("*.zpcap")}
    assert {*golden.RECORDED, *golden.GENERATED} <= names
    data = (golden.FOLDER / golden.RECORDED[0]).read_bytes()
    assert Header.of(data[: HEADER.size]) is not None
    assert int.from_bytes(data[8:10], "little") == FORMAT_VERSION


@pytest.mark.parametrize("name", golden.GENERATED)
def test_generated_ones_are_made_again_alike(name: str, tmp_path: Path) -> None:
    """Byte for byte where zstd is as it was, and in what they tell anywhere."""
    before = golden.FOLDER / name
    again = write(tmp_path / name, golden.made(name))
    assert [told(step) for step in steps_of(again)] == [told(step) for step in steps_of(before)]
    if zstandard.ZSTD_VERSION == golden.MADE_WITH:
        assert again.read_bytes() == before.read_bytes()


def test_the_generated_one_has_everything() -> None:
    """Every kind of record and of step."""
    facts = golden.facts(golden.FOLDER / "probes-1.zpcap")
    assert facts["records"].keys() == {kind.name for kind in KINDS}
    steps = {"Counters", "Covered", "Ended", "Key", "Loss", "Moment", "Records", "ScanNoted"}
    assert facts["steps"].keys() == steps | {"Swept"}


@pytest.mark.parametrize("name", golden.RECORDED)
def test_the_recorded_ones_are_of_kernels(name: str) -> None:
    """Of that release, ended, and with a pool that was in use."""
    with CaptureReader(golden.FOLDER / name) as reader:
        release = str(reader.environment["kernel"]["release"])
        assert release.startswith(name.removeprefix("zram-").removesuffix(".zpcap"))
        assert reader.environment["host"]["name"] in ("golden", "lab")
    facts = golden.facts(golden.FOLDER / name)
    assert facts["ended"] and facts["records"]["state"] > 0


def test_the_one_of_probes_tells_of_every_operation() -> None:
    """What was counted is what was told one by one."""
    with CaptureReader(golden.FOLDER / golden.RECORDED[1]) as reader:
        summary = summary_of(reader, check=True)
    assert summary.records is not None and summary.operations is not None
    assert summary.records["object_owner"] == summary.operations["allocs"] > 400
    assert summary.records["object_freed"] == summary.operations["frees"] > 400
    assert not any(summary.lost.values())
