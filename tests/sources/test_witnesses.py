"""The kernel's own files, made by hand in every form they have, and this kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from zpobs.sources.witnesses import (
    Absent,
    ClassStat,
    SlabReading,
    VmstatReading,
    ZramReading,
    ZswapReading,
    read_witnesses,
)

MM_STAT = " 409600 300000 331776 0 340000 7 12 5 9\n"
STAT = "1 2 3 4 50 60 70 80 0 90 100 11 12 13 14 15 16\n"
ZONES = """\
Node 0, zone      DMA
  per-node stats
      nr_zspages 3
  pagesets
    cpu: 0
              count: 0
  vm stats threshold: 4
    cpu: 1
  vm stats threshold: 4
Node 0, zone   Normal
    cpu: 0
  vm stats threshold: 28
    cpu: 1
  vm stats threshold: 28
"""
CLASSES = """\
 class  size  10%  20%  99%  100% obj_allocated  obj_used pages_used pages_per_zspage freeable
    62  1024  1  0  0  2  8  5  2  1  1
   254  4096  0  0  0  7  7  7  7  1  0

 Total  1  0  0  9  15  12  9  1

"""
OLD_CLASSES = """\
 class  size almost_full almost_empty obj_allocated  obj_used pages_used pages_per_zspage freeable
    62  1024  1  1  8  5  2  1  1

 Total  1  1  8  5  2  1
"""
SLABS = """\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> : tunables
zs_handle-zram0      51200  51712      8  512    1 : tunables    0    0    0
zspagelike              1      1      8  512    1 : tunables    0    0    0
"""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Make a host with one zram device that is set up and one that is not."""
    block = tmp_path / "sys/block"
    for name, up in (("zram0", "1\n"), ("zram1", "0\n"), ("sda", "1\n")):
        write(block / name / "initstate", up)
        write(block / name / "mm_stat", MM_STAT)
        write(block / name / "io_stat", "0 0 0 3\n")
        write(block / name / "stat", STAT)
        write(block / name / "inflight", "       0        2\n")
    write(tmp_path / "proc/meminfo", "MemTotal: 9 kB\nZswap:     264 kB\nZswapped:  900 kB\n")
    write(tmp_path / "proc/vmstat", "nr_zspages 81\nzswpin 1\nzswpout 2\nzswpwb 3\n")
    write(tmp_path / "proc/zoneinfo", ZONES)
    write(tmp_path / "proc/slabinfo", SLABS)
    (tmp_path / "sys/kernel/slab/:0000056").mkdir(parents=True)
    (tmp_path / "sys/kernel/slab/zspage-zram0").symlink_to(":0000056")
    write(tmp_path / "sys/kernel/slab/zs_handle-zram0/aliases", "0\n")
    (tmp_path / "sys/kernel/debug/zsmalloc").mkdir(parents=True)
    write(tmp_path / "sys/kernel/debug/zsmalloc/zram0/classes", CLASSES)
    return tmp_path


def test_zram_is_read_by_column(root: Path) -> None:
    """mm_stat by the names of its columns, requests in flight, and only devices with a pool."""
    found = read_witnesses(root).zram
    assert set(found) == {"zram0"}
    device = found["zram0"]
    assert isinstance(device, ZramReading)
    assert device.mm_stat["mem_used_total"] == 331776
    assert (device.mm_stat["same_pages"], device.mm_stat["huge_pages"]) == (7, 5)
    assert (device.written_back, device.in_flight) == (0, 2)


def test_writeback_is_read_where_there_is_any(root: Path) -> None:
    """bd_stat's first column counts what is not in the pool any more."""
    write(root / "sys/block/zram0/bd_stat", "  31   2   33\n")
    device = read_witnesses(root).zram["zram0"]
    assert isinstance(device, ZramReading)
    assert device.written_back == 31


@pytest.mark.parametrize(
    ("file", "text", "changes"),
    [
        ("mm_stat", MM_STAT.replace("300000", "300001"), True),
        ("io_stat", "0 0 0 4\n", True),
        ("stat", STAT.replace("50", "51"), True),
        ("stat", STAT.replace("11", "17"), True),
        ("stat", "9 9 9 9" + STAT[7:], False),
    ],
    ids=["mm_stat", "freed slots", "writes", "discards", "reads"],
)
def test_activity_changes_with_every_use_but_reading(
    root: Path, file: str, text: str, changes: bool
) -> None:
    """Writes, discards and freed slots show; reading the device does not."""
    before = read_witnesses(root).zram
    write(root / "sys/block/zram0" / file, text)
    assert (read_witnesses(root).zram != before) is changes


def test_an_unknown_form_of_mm_stat_is_told(root: Path) -> None:
    """Fewer columns than are known: absent, with the reason."""
    write(root / "sys/block/zram0/mm_stat", "1 2 3\n")
    assert read_witnesses(root).zram["zram0"] == Absent("mm_stat has 3 columns, not 8")


def test_debugfs_classes_are_read(root: Path) -> None:
    """One line a class, the totals left out."""
    found = read_witnesses(root).classes
    assert found == {
        "zram0": {
            62: ClassStat((1, 0, 0, 2), 8, 5, 2),
            254: ClassStat((0, 0, 0, 7), 7, 7, 7),
        }
    }


def test_debugfs_of_old_kernels_is_read(root: Path) -> None:
    """Without percent columns there are no groups to compare."""
    write(root / "sys/kernel/debug/zsmalloc/zram0/classes", OLD_CLASSES)
    found = read_witnesses(root).classes
    assert found == {"zram0": {62: ClassStat((), 8, 5, 2)}}


def test_debugfs_that_is_not_there_says_why(root: Path, tmp_path: Path) -> None:
    """Not mounted, and mounted but not built, are told apart."""
    (root / "sys/kernel/debug/zsmalloc").rename(root / "sys/kernel/debug/other")
    found = read_witnesses(root).classes
    assert isinstance(found, Absent)
    assert "CONFIG_ZSMALLOC_STAT" in found.reason
    (root / "sys/kernel/debug/other").rename(tmp_path / "away")
    found = read_witnesses(root).classes
    assert found == Absent("debugfs is not mounted")


def test_zswap_is_read(root: Path) -> None:
    """Bytes of all pools; without the line there is no zswap."""
    found = read_witnesses(root).zswap
    assert isinstance(found, ZswapReading)
    assert (found.pool_bytes, found.stored_bytes) == (264 * 1024, 900 * 1024)
    write(root / "proc/vmstat", "nr_zspages 81\nzswpin 1\nzswpout 4\nzswpwb 3\n")
    assert read_witnesses(root).zswap != found
    write(root / "proc/meminfo", "MemTotal: 9 kB\n")
    assert isinstance(read_witnesses(root).zswap, Absent)


def test_what_cpus_may_hold_back_is_added_up(root: Path) -> None:
    """The drift of nr_zspages is the threshold of every zone and CPU together."""
    assert read_witnesses(root).vmstat == VmstatReading(pages=81, drift=2 * 4 + 2 * 28)
    write(root / "proc/zoneinfo", "Node 0\n")
    assert isinstance(read_witnesses(root).vmstat, Absent)


def test_slab_rows_merged_caches_and_shared_ones(root: Path) -> None:
    """A cache has a row, or was merged; a row can serve other caches as well."""
    found = read_witnesses(root).slabs
    assert found == {
        "zs_handle-zram0": SlabReading(51200, 51712, 0),
        "zspage-zram0": Absent("merged with other caches (:0000056)"),
    }
    write(root / "sys/kernel/slab/zs_handle-zram0/aliases", "6\n")
    found = read_witnesses(root).slabs
    assert isinstance(found, dict)
    assert found["zs_handle-zram0"] == SlabReading(51200, 51712, 6)


def test_rows_of_one_name_add_up(root: Path) -> None:
    """Some kernels call the caches of all pools the same."""
    row = "zspage   {0}  {1}  56   73  1 : tunables 0 0 0\n"
    write(root / "proc/slabinfo", row.format(10, 20) + row.format(5, 20))
    found = read_witnesses(root).slabs
    assert isinstance(found, dict)
    assert found["zspage"] == SlabReading(15, 40, 0)


def test_nothing_at_all_raises_nothing(tmp_path: Path) -> None:
    """On a host without any of the files every witness is absent and says which file it was."""
    found = read_witnesses(tmp_path)
    assert found.zram == {}
    absent = (found.classes, found.zswap, found.vmstat, found.slabs)
    assert all(isinstance(each, Absent) and each.reason for each in absent)


def test_this_host_is_read() -> None:
    """The true files have the forms that are known."""
    found = read_witnesses()
    assert not any(isinstance(each, Absent) for each in found.zram.values())
    if "nr_zspages" in Path("/proc/vmstat").read_text():
        assert isinstance(found.vmstat, VmstatReading)
        assert found.vmstat.drift > 0
