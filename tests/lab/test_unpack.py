"""Kernels that cannot boot are judged all the same, by the BTF in their images."""

from __future__ import annotations

import gzip
import re
import struct
from pathlib import Path

import pytest

from lab.archive import Archive, UnknownKernelError
from lab.host import HostError, Progress, cache_folder
from lab.unpack import unpacked, vmlinux_of
from zpobs.doctor.judge import judge_btf
from zpobs.kernel.btf_file import read_btf_files

DOC = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"
# | series | release | descriptor | scan | hooks n of m |
_ROW = re.compile(
    r"^\| (\d+\.\d+) \| [^|]+ \| (\w+) \| (\w+) \| (\d+) of (\d+) \| ([^|]*) \|$", re.M
)
TABLE = {row[0]: row[1:] for row in _ROW.findall(DOC.read_text(encoding="utf-8"))}


def image_of(packed: bytes) -> bytes:
    """Return a boot image with one sector of setup and this payload."""
    head = bytearray(1024)
    head[0x1F1] = 1
    struct.pack_into("<II", head, 0x248, 16, len(packed))
    return bytes(head) + bytes(16) + packed + b"\x04\0\0\0"


def test_an_image_is_unpacked() -> None:
    """From where its head says, as long as its head says."""
    vmlinux = b"\x7fELF and all the rest"
    assert unpacked(image_of(gzip.compress(vmlinux))) == vmlinux


@pytest.mark.parametrize(
    ("packed", "words"), [(b"LZO!", "not known"), (gzip.compress(b"text"), "no vmlinux")]
)
def test_what_is_no_image_is_refused(packed: bytes, words: str) -> None:
    """With what was found."""
    with pytest.raises(HostError, match=words):
        unpacked(image_of(packed))


def test_the_kernels_that_cannot_boot_are_in_the_table() -> None:
    """Those between the ones that guests run."""
    assert {"6.19", "7.0", "7.1"} <= TABLE.keys()


@pytest.mark.lab
@pytest.mark.parametrize("series", sorted(TABLE))
def test_the_table_is_true(series: str, tmp_path: Path) -> None:
    """Each row is what ``zpobs doctor --btf`` says of the archive's newest kernel of a series."""
    descriptor, scan, hooks, wanted, absent = TABLE[series]
    try:
        _, vmlinux = vmlinux_of(series, Archive(cache_folder(), Progress(quiet=True)))
    except UnknownKernelError as error:
        pytest.skip(str(error))
    path = tmp_path / "vmlinux"
    path.write_bytes(vmlinux)
    report = judge_btf(read_btf_files([path]), series)
    (found,) = [each.found for each in report.checks if each.name == "descriptor"]
    assert found.startswith(f"struct {descriptor}")
    standing, probes = report.verdicts
    assert standing.standing == scan
    assert probes.text == f"fentry could attach to {hooks} of {wanted} hooks"
    lacking = [each.name for each in report.lacking]
    assert (lacking or ["nothing"]) == absent.split(", ")
