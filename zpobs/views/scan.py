"""``zpobs scan``: one snapshot as text or JSON, down to zspages and descriptors.

A pool can have millions of zspages: both forms are written part by part, and
only a part at a time stands in memory beside the snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TextIO

import numpy as np

from zpobs.descriptors import UNTOLD, DescriptorDump, Ints
from zpobs.kernel.pageflags import PageFlags
from zpobs.snapshot import Kernel, PoolView, Snapshot, ZspageTable
from zpobs.views.compaction import compaction_lines
from zpobs.views.figures import clock, count, in_bytes
from zpobs.views.pageblocks import pageblock_lines
from zpobs.views.text import (
    ClassRow,
    bar,
    class_rows,
    classes_in_use,
    reason_lines,
    split_text,
)

PART_ZSPAGES = 4096
_DESCRIPTOR_COLUMNS = (
    f"  {'PAGE':>4} {'PFN':>9} {'ADDRESS':<18} {'TYPE':<4} {'OFFSET':>6} {'REFS':>4} "
    f"{'NEXT OR HANDLE':<18} {'ZSPAGE':<6} FLAGS"
)
_LEGEND = "FULLNESS: zspages by group, emptiest first: . none, 0 to 9 tenths of them, * all"


@dataclass(frozen=True, slots=True)
class Choice:
    """What of a snapshot is shown: whether zspages are listed, and which of them.

    ``limit`` is the number of zspages listed of each pool at most. ``pool`` is
    the name of the only pool that the snapshot was asked for.
    """

    zspages: bool = False
    class_index: int | None = None
    zspage: int | None = None
    limit: int | None = None
    pool: str | None = None


@dataclass(frozen=True, slots=True)
class Details:
    """Descriptors by pool id, and the names of their flags."""

    dumps: Mapping[int, DescriptorDump]
    flags: PageFlags


def chosen(pool: PoolView, choice: Choice) -> Ints:
    """Return the rows of a pool's zspages that are wanted, the limit left aside."""
    table = pool.zspage_list
    if table is None:
        return np.zeros(0, dtype=np.int64)
    wanted = np.ones(len(table.address), dtype=bool)
    if choice.class_index is not None:
        wanted &= table.class_index == choice.class_index
    if choice.zspage is not None:
        wanted &= table.address == np.uint64(choice.zspage)
    return np.flatnonzero(wanted)


def warnings(snapshot: Snapshot) -> tuple[str, ...]:
    """Return why a snapshot is not exact, and what of an exact one is not known."""
    health = snapshot.health
    if health.status == "exact":
        return tuple(reason for reason in health.reasons if reason.startswith("page frames"))
    return health.reasons


@dataclass(frozen=True, slots=True)
class _Part:
    """Some zspages of a pool, and their rows in the dump if there is one."""

    zspages: ZspageTable
    dump: DescriptorDump | None
    rows: Ints

    def to_json(self, details: Details | None) -> list[dict[str, Any]]:
        entries = self.zspages.to_json()
        if details and self.dump:
            added = self.dump.to_json(self.rows, details.flags)
            for entry, more in zip(entries, added, strict=True):
                entry.update(more)
        return entries


def _parts(pool: PoolView, choice: Choice, details: Details | None) -> Iterator[_Part]:
    table = pool.zspage_list
    if table is None:
        return
    rows = chosen(pool, choice)[: choice.limit]
    dump = details.dumps.get(pool.id) if details else None
    dumped = dump.rows_of(table.address[rows]) if dump else np.full(len(rows), UNTOLD)
    for at in range(0, len(rows), PART_ZSPAGES):
        part = slice(at, at + PART_ZSPAGES)
        yield _Part(table.take(rows[part]), dump, dumped[part])


# ---- JSON ----------------------------------------------------------------------


def write_json(snapshot: Snapshot, choice: Choice, details: Details | None, out: TextIO) -> None:
    """Write the snapshot object, with its zspages if they are chosen, and end the line."""
    whole = replace(snapshot, pools=()).to_json()
    del whole["pools"]
    out.write(_dumps(whole)[:-1] + ',"pools":[')
    for number, pool in enumerate(snapshot.pools):
        out.write("," if number else "")
        _write_pool(pool, snapshot.kernel, choice, details, out)
    out.write("]}\n")
    out.flush()


def _write_pool(
    pool: PoolView, kernel: Kernel, choice: Choice, details: Details | None, out: TextIO
) -> None:
    table = pool.zspage_list
    if table is None or not choice.zspages:
        out.write(_dumps(replace(pool, zspage_list=None).to_json(kernel)))
        return
    head = replace(pool, zspage_list=table.take(np.zeros(0, dtype=np.int64))).to_json(kernel)
    del head["zspage_list"]
    dump = details.dumps.get(pool.id) if details else None
    if dump:
        head["torn_lists"] = _torn(dump)
    out.write(_dumps(head)[:-1] + ',"zspage_list":[')
    for number, part in enumerate(_parts(pool, choice, details)):
        out.write("," if number else "")
        out.write(_dumps(part.to_json(details))[1:-1])
    out.write("]}")


def _torn(dump: DescriptorDump) -> list[dict[str, Any]]:
    """Return the places where the walk of a list ended before its end."""
    table = dump.zspages
    return [
        {
            "class": int(table.class_index[row]),
            "list_group": int(table.list_group[row]),
            "zspage": f"{int(table.address[row]):#x}",
            "magic": f"{int(table.magic[row]):#x}",
            "back_broken": bool(table.back_broken[row]),
            "foreign": bool(table.foreign[row]),
        }
        for row in np.flatnonzero(table.torn).tolist()
    ]


def _dumps(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


# ---- text ----------------------------------------------------------------------


def render(snapshot: Snapshot, choice: Choice, details: Details | None) -> Iterator[str]:
    """Yield the lines of the text."""
    yield from _header(snapshot)
    yield ""
    if not snapshot.pools:
        yield _no_pools(snapshot, choice)
        return
    yield from _pools(snapshot)
    if snapshot.pageblocks is not None and len(snapshot.pools) > 1:
        yield ""
        yield from pageblock_lines("all pools", snapshot.pageblocks)
    for pool in snapshot.pools:
        yield ""
        if pool.compaction is not None:
            yield from compaction_lines(pool.name, pool.compaction, snapshot.kernel.page_size)
            yield ""
        if pool.pageblocks is not None:
            yield from pageblock_lines(pool.name, pool.pageblocks)
            yield ""
        if not choice.zspages:
            yield from _classes(pool, snapshot.kernel)
        elif details:
            yield from _descriptors(pool, choice, details)
        else:
            yield from _zspages(pool, choice)
    if not choice.zspages:
        yield from ("", _LEGEND)


def _no_pools(snapshot: Snapshot, choice: Choice) -> str:
    if choice.pool is not None:
        return f"no pools: none is called {choice.pool} now"
    if snapshot.health.status != "exact":
        return "no pools were found"
    return "no pools: nothing on this host uses zsmalloc now"


def _header(snapshot: Snapshot) -> Iterator[str]:
    kernel, health = snapshot.kernel, snapshot.health
    yield (
        f"zpobs scan  {clock(snapshot.time_ns, '%Y-%m-%d %H:%M:%S UTC')}  {kernel.release}  "
        f"{kernel.descriptor}, chain {kernel.chain_size or '?'}"
    )
    yield f"health {health.status}"
    yield from reason_lines(warnings(snapshot))


def _pools(snapshot: Snapshot) -> Iterator[str]:
    yield (
        f"{'POOL':<10}{'OWNER':<8}{'STATUS':<9}{'BYTES':>11}{'PAGES':>11}"
        f"{'ZSPAGES':>10}{'OBJECTS':>11}{'COMPACTED':>10}"
    )
    for pool in snapshot.pools:
        held = in_bytes(pool.pages * snapshot.kernel.page_size)
        yield (
            f"{pool.name:<9.9} {pool.owner:<8}{pool.status:<9}{held:>11}{pool.pages:>11,}"
            f"{pool.zspages:>10,}{pool.objects:>11,}{count(pool.pages_compacted):>10}"
        )
        yield from split_text(pool, snapshot.kernel)
        if pool.kernel_pages not in (None, pool.pages):
            yield f"{'':10}the kernel counted {pool.kernel_pages:,} pages when the scan ended"


def _classes(pool: PoolView, kernel: Kernel) -> Iterator[str]:
    rows = class_rows(pool, None, kernel, "pages")
    freeable = sum(row.freeable for row in rows)
    yield (
        f"{pool.name}: {classes_in_use(len(rows))} (by pages), {pool.pages:,} pages, "
        f"{freeable:,} freeable ({in_bytes(freeable * kernel.page_size)})"
    )
    if not rows:
        return
    yield (
        f"{'CLASS':>5}{'SIZE':>6}{'ZSPAGES':>8}{'PAGES':>7}{'OBJECTS/CAPACITY':>17} "
        f"{'USED':<12}{'FREEABLE':>9} FULLNESS"
    )
    at = {index: number for number, index in enumerate(pool.classes.index.tolist())}
    for row in rows:
        yield _class_line(row, pool, at[row.index])


def _class_line(row: ClassRow, pool: PoolView, at: int) -> str:
    objects = f"{row.objects:,}/{row.capacity:,}"
    status = pool.classes.statuses[at]
    line = (
        f"{row.index:>5}{row.size:>6}{row.zspages:>8,}{row.pages:>7,}"
        f"{objects:>17} {bar(row.objects, row.capacity)}{row.freeable:>9,} "
        f"{shares(pool.classes.fullness[at].tolist())}"
    )
    return line if status == "exact" else f"{line} {status}"


def shares(counts: list[int]) -> str:
    """Draw a distribution, one character a count: . none, 0 to 9 tenths of all, * all."""
    whole = sum(counts)
    return "".join(
        "." if not count else "*" if count == whole else str(10 * count // whole)
        for count in counts
    )


def _listed(pool: PoolView, choice: Choice) -> tuple[str, str]:
    """Return the lines above and below a list of zspages, the latter empty if all are there."""
    found = len(chosen(pool, choice))
    hidden = 0 if choice.limit is None else max(found - choice.limit, 0)
    above = f"{pool.name}: {found:,} zspage{'' if found == 1 else 's'}"
    if choice.class_index is not None:
        above += f" of class {choice.class_index}"
    if choice.zspage is not None:
        above += f" at {choice.zspage:#x}"
    return f"{above}, by address", f"({hidden:,} more)" if hidden else ""


def _zspages(pool: PoolView, choice: Choice) -> Iterator[str]:
    above, below = _listed(pool, choice)
    yield above
    if not len(chosen(pool, choice)):
        return
    yield (
        f"{'ADDRESS':<18} {'CLASS':>5} {'INUSE/OBJS':>10} {'GROUP':>5} {'FREEOBJ':>7} "
        f"{'STATE':<15} PFNS"
    )
    objs = _objects_by_class(pool)
    for part in _parts(pool, choice, None):
        for each in part.to_json(None):
            inuse = f"{each['inuse']}/{objs.get(each['class'], '?')}"
            yield (
                f"{each['address']:<18} {each['class']:>5} {inuse:>10} {each['fullness']:>5} "
                f"{_or_dash(each['freeobj']):>7} {_state(each):<15} "
                f"{' '.join(map(str, each['pfns'])) or '?'}"
            )
    yield from [below] if below else []


def _descriptors(pool: PoolView, choice: Choice, details: Details) -> Iterator[str]:
    above, below = _listed(pool, choice)
    yield above
    if len(chosen(pool, choice)):
        yield _DESCRIPTOR_COLUMNS
    objs = _objects_by_class(pool)
    for part in _parts(pool, choice, details):
        for each in part.to_json(details):
            yield _zspage_line(each, objs)
            for descriptor in each.get("descriptors") or ():
                yield _descriptor_line(descriptor, each["address"])
    dump = details.dumps.get(pool.id)
    for torn in _torn(dump) if dump else ():
        yield (
            f"class {torn['class']}: the list of group {torn['list_group']} could not be "
            f"followed from {torn['zspage']} (magic {torn['magic']})"
        )
    yield from [below] if below else []


def _zspage_line(entry: dict[str, Any], objs: Mapping[int, int]) -> str:
    line = (
        f"zspage {entry['address']}  class {entry['class']}  "
        f"inuse {entry['inuse']}/{objs.get(entry['class'], '?')}  group {entry['fullness']}"
    )
    if entry.get("descriptors") is None:
        return f"{line}  (its descriptors were not seen)"
    return (
        f"{line}  list {entry['list_group']}  freeobj {_or_dash(entry['freeobj'])}  "
        f"free list {_or_dash(entry['free_list'])}  magic {entry['magic']}  "
        f"lock {entry['lock']}  {_state(entry)}"
    )


def _descriptor_line(descriptor: dict[str, Any], zspage: str) -> str:
    link = descriptor.get("next") or descriptor.get("handle")
    owner = "own" if descriptor["zspage"] == zspage else descriptor["zspage"]
    return (
        f"  {descriptor['page']:>4} {_or_dash(descriptor['pfn']):>9} {descriptor['address']:<18} "
        f"{_or_dash(descriptor['type']):<4} {descriptor['first_obj_offset']:>6} "
        f"{descriptor['refcount']:>4} {_or_dash(link):<18} {owner:<6} "
        f"{','.join(descriptor['flags']) or '-'}"
    )


def _objects_by_class(pool: PoolView) -> dict[int, int]:
    table = pool.classes
    return dict(zip(table.index.tolist(), table.objs_per_zspage.tolist(), strict=True))


def _state(entry: dict[str, Any]) -> str:
    """Return what is remarkable about a zspage; ? where no scan told its locks."""
    if entry["locked"] is None:
        return "huge,?" if entry["huge"] else "?"
    return ",".join(name for name in ("huge", "locked", "isolated") if entry[name]) or "-"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)
