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

SIZE_MAX = 60_000


@pytest.mark.parametrize("path", sorted(golden.FOLDER.glob("*.zpcap")), ids=lambda path: path.name)
def test_a_golden_capture_reads_as_ever(path: Path) -> None:
    """All of its facts are those that were found when it was made."""
    assert path.stat().st_size < SIZE_MAX
    assert golden.facts(path) == json.loads(path.with_suffix(".json").read_text(encoding="ascii"))


def test_there_are_golden_captures_of_this_version() -> None:
    names = {path.name for path in golden.FOLDER.glob("*.zpcap")}
    assert {golden.RECORDED, *golden.GENERATED} <= names
    data = (golden.FOLDER / golden.RECORDED).read_bytes()
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


def test_the_recorded_one_is_of_a_kernel() -> None:
    with CaptureReader(golden.FOLDER / golden.RECORDED) as reader:
        assert str(reader.environment["kernel"]["release"]).startswith("6.18")
        assert reader.environment["host"]["name"] == "golden"
    facts = golden.facts(golden.FOLDER / golden.RECORDED)
    assert facts["ended"] and facts["pools"][0][4] > 0
