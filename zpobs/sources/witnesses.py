"""What the kernel's own files say of zsmalloc: figures that no part of zpobs made.

Everything is read by :func:`read_witnesses` at one time and comes as it is
written there, in the file's own units; :mod:`zpobs.verify.witnesses` judges it. A
file that is not there, or has another form, becomes :class:`Absent` with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

_Read = TypeVar("_Read")
_MM_STAT = (
    "orig_data_size",
    "compr_data_size",
    "mem_used_total",
    "mem_limit",
    "mem_used_max",
    "same_pages",
    "pages_compacted",
    "huge_pages",
)
_GROUP_COLUMN = re.compile(r"\d+%")
SLAB_CACHES = ("zspage", "zs_handle")


@dataclass(frozen=True, slots=True)
class Absent:
    """A witness that this host does not have, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class ZramReading:
    """One zram device that has a pool.

    ``mm_stat`` holds its columns by their names in the kernel's documentation
    (bytes, or pages where the name says so), ``written_back`` the pages
    (bd_count) that are on a backing device, in units of 4096 bytes.
    ``activity`` are lines of files that change with every write, discard and
    freed slot; ``in_flight`` counts requests that had begun and not ended.
    """

    mm_stat: Mapping[str, int]
    written_back: int
    activity: tuple[str, ...]
    in_flight: int


@dataclass(frozen=True, slots=True)
class ClassStat:
    """One line of debugfs ``zsmalloc/POOL/classes``; ``fullness`` is () in old kernels' form.

    ``fullness`` holds zspages of groups 1 and up; group 0 is not told there.
    """

    fullness: tuple[int, ...]
    obj_allocated: int
    obj_used: int
    pages_used: int


@dataclass(frozen=True, slots=True)
class ZswapReading:
    """Bytes that zswap's pools hold, all together, and lines that change with its use.

    ``stored_bytes`` are those of the pages before they were compressed, None on
    kernels that do not tell. ``limit_bytes`` is what max_pool_percent lets the pools hold.
    """

    pool_bytes: int
    activity: tuple[str, ...]
    stored_bytes: int | None = None
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class VmstatReading:
    """``nr_zspages`` (pages of all pools) and by how many pages it can be wrong."""

    pages: int
    drift: int


@dataclass(frozen=True, slots=True)
class SlabReading:
    """One row of /proc/slabinfo; ``shared_with`` counts other caches merged into this one."""

    active: int
    total: int
    shared_with: int


@dataclass(frozen=True, slots=True)
class Witnesses:
    """All witnesses at one time.

    ``classes`` is by pool name, then by class index. ``slabs`` is by cache name:
    the rows and merged names of zsmalloc's caches that there are.
    """

    zram: Mapping[str, ZramReading | Absent]
    classes: Mapping[str, Mapping[int, ClassStat]] | Absent
    zswap: ZswapReading | Absent
    vmstat: VmstatReading | Absent
    slabs: Mapping[str, SlabReading | Absent] | Absent


@dataclass(frozen=True, slots=True)
class Owners:
    """The witnesses that are owners of pools; ``zram`` is by device."""

    zram: Mapping[str, ZramReading | Absent]
    zswap: ZswapReading | Absent


def read_owners(root: Path = Path("/")) -> Owners:
    """Read what owners say, below ``root``; raises nothing for what is missing."""
    return Owners(zram=_zram(root / "sys/block"), zswap=_reading(partial(_zswap, root)))


def read_witnesses(root: Path = Path("/")) -> Witnesses:
    """Read every witness below ``root``; raises nothing for what is missing."""
    return Witnesses(
        zram=_zram(root / "sys/block"),
        classes=_reading(partial(_classes, root / "sys/kernel/debug")),
        zswap=_reading(partial(_zswap, root)),
        vmstat=_reading(partial(_vmstat, root / "proc")),
        slabs=_reading(partial(_slabs, root)),
    )


class _MissingError(Exception):
    """A witness is not there, for the reason given."""


def _reading(read: Callable[[], _Read]) -> _Read | Absent:
    try:
        return read()
    except _MissingError as missing:
        return Absent(str(missing))
    except OSError as error:
        return Absent(f"{error.filename}: {error.strerror}")


def _zram(block: Path) -> dict[str, ZramReading | Absent]:
    return {
        device.name: _reading(partial(_zram_device, device))
        for device in sorted(block.glob("zram[0-9]*"))
        if _text(device / "initstate").strip() == "1"
    }


def _zram_device(device: Path) -> ZramReading:
    line = (device / "mm_stat").read_text(encoding="ascii")
    columns = [int(word) for word in line.split()]
    if len(columns) < len(_MM_STAT):
        raise _MissingError(f"mm_stat has {len(columns)} columns, not {len(_MM_STAT)}")
    backing = _text(device / "bd_stat")
    # Writes and discards alone: reading a device changes nothing in its pool.
    requests = _text(device / "stat").split()
    return ZramReading(
        mm_stat=dict(zip(_MM_STAT, columns, strict=False)),
        written_back=int(backing.split()[0]) if backing else 0,
        activity=(line, backing, _text(device / "io_stat"), *requests[4:7], *requests[11:14]),
        in_flight=sum(int(word) for word in _text(device / "inflight").split()),
    )


def _text(path: Path) -> str:
    """Return a file that some kernels lack, and that can vanish; empty if it is not there."""
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _classes(debugfs: Path) -> dict[str, dict[int, ClassStat]]:
    if not debugfs.is_dir() or not any(debugfs.iterdir()):
        raise _MissingError("debugfs is not mounted")
    folder = debugfs / "zsmalloc"
    if not folder.is_dir():
        raise _MissingError("no zsmalloc in debugfs (CONFIG_ZSMALLOC_STAT)")
    # A pool may go while it is read.
    return {pool.name: _class_stats(_text(pool / "classes")) for pool in sorted(folder.iterdir())}


def _class_stats(text: str) -> dict[int, ClassStat]:
    lines = [line.split() for line in text.splitlines()]
    if not lines or lines[0][:2] != ["class", "size"]:
        return {}
    header = lines[0]
    at = {name: number for number, name in enumerate(header)}
    groups = [number for number, name in enumerate(header) if _GROUP_COLUMN.fullmatch(name)]
    return {
        int(words[0]): ClassStat(
            fullness=tuple(int(words[number]) for number in groups),
            obj_allocated=int(words[at["obj_allocated"]]),
            obj_used=int(words[at["obj_used"]]),
            pages_used=int(words[at["pages_used"]]),
        )
        for words in lines[1:]
        if len(words) == len(header) and words[0].isdigit()
    }


def _table(path: Path) -> dict[str, int]:
    """Return a file of lines ``name value`` or ``name: value kB``, as it is."""
    pairs = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) > 1}


def _zswap(root: Path) -> ZswapReading:
    proc = root / "proc"
    memory = _table(proc / "meminfo")
    if "Zswap" not in memory:
        raise _MissingError("no line Zswap in /proc/meminfo (CONFIG_ZSWAP)")
    uses = _table(proc / "vmstat")
    percent = _text(root / "sys/module/zswap/parameters/max_pool_percent").strip()
    limited = percent.isdigit() and "MemTotal" in memory
    return ZswapReading(
        pool_bytes=1024 * memory["Zswap"],
        stored_bytes=1024 * memory["Zswapped"] if "Zswapped" in memory else None,
        # zswap_max_pages() in mm/zswap.c reckons with totalram_pages(), which MemTotal is.
        limit_bytes=1024 * memory["MemTotal"] * int(percent) // 100 if limited else None,
        activity=(
            f"{memory['Zswap']} {memory.get('Zswapped')}",
            *(f"{name} {uses.get(name)}" for name in ("zswpin", "zswpout", "zswpwb")),
        ),
    )


def _vmstat(proc: Path) -> VmstatReading:
    counts = _table(proc / "vmstat")
    if "nr_zspages" not in counts:
        raise _MissingError("no nr_zspages in /proc/vmstat")
    zones = (proc / "zoneinfo").read_text(encoding="ascii")
    # One per zone and CPU: what the CPU may hold back before it tells the zone.
    thresholds = re.findall(r"^\s*vm stats threshold: (\d+)$", zones, re.MULTILINE)
    if not thresholds:
        raise _MissingError("no stat threshold in /proc/zoneinfo bounds nr_zspages")
    return VmstatReading(counts["nr_zspages"], sum(int(each) for each in thresholds))


def _slabs(root: Path) -> dict[str, SlabReading | Absent]:
    """Return zsmalloc's caches: ``zspage`` and ``zs_handle``, or one of each for every pool."""
    pattern = re.compile(rf"({'|'.join(SLAB_CACHES)})(-.*)?")
    sysfs = root / "sys/kernel/slab"
    found: dict[str, SlabReading | Absent] = {}
    for link in sorted(sysfs.iterdir()) if sysfs.is_dir() else []:
        if pattern.fullmatch(link.name) and link.is_symlink():
            found[link.name] = Absent(f"merged with other caches ({link.readlink().name})")
    for line in (root / "proc/slabinfo").read_text(encoding="ascii").splitlines():
        name, *counts = line.split()
        if not pattern.fullmatch(name):
            continue
        before = found.get(name)
        more = before if isinstance(before, SlabReading) else SlabReading(0, 0, 0)
        # Old kernels give the caches of all pools one name: their rows add up.
        aliases = _text(sysfs / name / "aliases").strip()
        found[name] = SlabReading(
            active=more.active + int(counts[0]),
            total=more.total + int(counts[1]),
            shared_with=max(more.shared_with, int(aliases or 0)),
        )
    return found
