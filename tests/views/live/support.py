"""Scenes for the interactive view, invented but whole: pools, classes, zspages, descriptors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from tests.factories import (
    COUNTERS,
    KERNEL,
    MONO_NS,
    TIME_NS,
    UNCOUNTED,
    ints,
    make_addon,
    make_classes,
    make_forecast,
    make_health,
    make_latency,
    make_life,
    make_pageblocks,
    make_pool,
    make_runs,
    make_snapshot,
)
from tests.object_values import make_objects
from tests.scan_records import FLAGS, addresses, healthy
from tests.views.test_scan import dumped_pool
from zpobs.descriptors import Look, descriptor_dump
from zpobs.migration import PoolMigration, Refusal
from zpobs.rates import rates
from zpobs.runs import PoolRuns
from zpobs.snapshot import (
    ClassTable,
    Event,
    OwnerFigures,
    PoolView,
    Snapshot,
    ZspageTable,
)
from zpobs.spans import Span
from zpobs.views.lines import Line, plain
from zpobs.views.live.scene import Activity, Replayed, Scene
from zpobs.views.live.state import Size, ViewState, followed, pressed, started

KERNEL_56 = replace(KERNEL, zspage_bytes=56)
USUAL = Size(80, 24)
# The class of the busy pool whose zspages are listed.
BUSY_CLASS = 31


def many_classes(count: int = 40, **changed: object) -> ClassTable:
    """Return a table of so many classes, fuller and fuller, spread over the groups."""
    lines = [
        (index * 6 + 1, 16 * (index * 6 + 1) + 32, 9, 2, 4 + index * index, 0)
        for index in range(count)
    ]
    lines = [(i, s, max(p * 4096 // s, 1), p, z, o) for i, s, _, p, z, o in lines]
    lines = [(i, s, n, p, z, n * z * (40 + i * 7 % 61) // 100) for i, s, n, p, z, _ in lines]
    table = make_classes(lines, **changed)
    fullness = np.zeros((count, 12), dtype=np.int64)
    for row, zspages in enumerate(table.zspages.tolist()):
        fullness[row, 11] = zspages // 2
        fullness[row, row % 11] = zspages - zspages // 2
    return replace(table, fullness=fullness)


def zspages_of(class_index: int, objs: int, pages: int, count: int) -> ZspageTable:
    """Return so many zspages of one class, from empty to full and over again."""
    at = np.arange(count)
    frames = 0x10000 + np.arange(count * pages)
    ages_ns = 4_500_000_000 // count * (count - at)
    return ZspageTable(
        address=np.uint64(0xFFFF888001000000) + at.astype(np.uint64) * np.uint64(0x38),
        class_index=np.full(count, class_index),
        inuse=at % (objs + 1),
        fullness=np.minimum(at % (objs + 1) * 11 // objs, 11),
        huge=np.full(count, objs == 1),
        first_seen_ns=(MONO_NS - ages_ns).astype(np.uint64),
        last_seen_ns=(MONO_NS - ages_ns * (at * 7919 % 97) // 97).astype(np.uint64),
        frame_start=np.arange(count + 1) * pages,
        frames=frames.astype(np.uint64),
        freeobj=np.where(at % (objs + 1) == objs, -1, at % max(objs, 1)),
        scanned=at % 5 != 4,
        locked=at % 50 == 7,
        isolated=at % 25 == 7,
        born=at % 3 == 0,
        nodes=np.where(frames % 7 == 0, 1, 0),
    )


def scene_of(shot: Snapshot, old: Snapshot | None = None, **changed: object) -> Scene:
    """Return a scene with rates since an older snapshot and a history that rises and falls."""
    per_second = rates(old, shot)
    history: dict[tuple[int, int], Activity] = {}
    for pool in shot.pools if old else ():
        for index in (-1, *pool.classes.index.tolist()):
            values = [None, *(float((index * step) % 97) for step in range(40))]
            history[pool.id, index] = tuple(values)
    return Scene(shot, per_second, history, **changed)  # type: ignore[arg-type]


def busy() -> Scene:
    """Two pools at work, all hooks attached, the first with zspages of its class 31 listed."""
    classes = many_classes()
    row = 5
    assert int(classes.index[row]) == BUSY_CLASS
    grown = replace(classes, allocs=classes.allocs + ints(range(0, 4000, 100)))
    listed = zspages_of(BUSY_CLASS, *_shape(classes, row), int(classes.zspages[row]))
    owned = int((classes.objects * (classes.size - 20)).sum())
    figures = OwnerFigures(owned, int(classes.objects.sum()), True)
    zswap = make_pool(2, "zswap1", counters=replace(COUNTERS, failures=0))
    old = make_snapshot(make_pool(classes=classes), zswap, kernel=KERNEL_56)
    new = make_snapshot(
        make_pool(
            classes=grown,
            zspage_list=listed,
            owner_figures=figures,
            counters=replace(COUNTERS, allocs=129_456, frees=124_057, moves=1789),
        ),
        zswap,
        at_s=2,
        kernel=KERNEL_56,
        health=make_health(scans=2, last_scan_ns=TIME_NS),
        events=some_events(),
        events_seen=1007,
    )
    return scene_of(new, old)


def _shape(classes: ClassTable, row: int) -> tuple[int, int]:
    return int(classes.objs_per_zspage[row]), int(classes.pages_per_zspage[row])


def some_events() -> tuple[Event, ...]:
    """Return one event of each kind, and one of each outcome."""
    at = MONO_NS + 1_000_000_000
    return (
        Event("pool_created", at, 2, None, ()),
        Event("compact_begin", at + 1_000_000, 1, None, ()),
        Event("compact_end", at + 13_400_000, 1, None, (1234, 56, at + 1_000_000)),
        Event("migration", at + 20_000_000, 1, 0xFFFF888001000038, (4097, 90210, 0)),
        Event("migration", at + 21_000_000, 1, 0xFFFF888001000070, (4098, 90211, -11)),
        Event("alloc_failure", at + 22_000_000, 2, None, (3072, -12)),
        Event("deferred_free", at + 23_500_000, 1, None, (at + 23_000_000,)),
        Event("pool_destroyed", at + 30_000_000, 3, None, ()),
    )


REFUSED = PoolMigration(
    "exact",
    {-16: 4, -11: 1},
    (
        Refusal(0xFFFF888001000038, BUSY_CLASS, 3, -16, TIME_NS - 4_000_000_000),
        Refusal(0xFFFF888001000070, 254, 1, -11, TIME_NS - 9_000_000_000),
    ),
    1,
)


def measured() -> Scene:
    """The busy pools with the lives of their zspages and how long calls take, the second idle."""
    scene = busy()
    first, second = scene.snapshot.pools
    pools = (
        replace(
            first,
            life=make_life(),
            latency=make_latency(),
            objects_told=make_objects(),
            migration=REFUSED,
        ),
        replace(
            second,
            life=make_life(births=ints([0, 1])),
            latency=make_latency(kinds={}),
            objects_told=make_objects(8),
        ),
    )
    health = replace(scene.snapshot.health, addons=(make_addon(),))
    return replace(scene, snapshot=replace(scene.snapshot, pools=pools, health=health))


def unmeasured() -> Scene:
    """The same where the programs that measure could not be attached."""
    scene = busy()
    why = ("no probe is attached: none may",)
    pools = tuple(
        replace(
            each,
            life=make_life(status="unknown", reasons=why),
            latency=make_latency(status="unknown", reasons=why, kinds={}),
            objects_told=make_objects(status="unknown", reasons=why),
        )
        for each in scene.snapshot.pools
    )
    return replace(scene, snapshot=replace(scene.snapshot, pools=pools))


def scans_alone() -> Scene:
    """A kernel that refuses probes: nothing is counted and nothing happens."""
    reason = "no probe attaches (CONFIG_KPROBES is not set): every frame is a scan of its own"
    health = make_health(hooks=0, scans=3, last_scan_ns=TIME_NS - 500_000_000, reasons=(reason,))
    classes = many_classes(allocs=None, frees=None, moves=None)
    pool = make_pool(classes=classes, counters=UNCOUNTED)
    return scene_of(make_snapshot(pool, health=health, kernel=KERNEL_56))


def bounded() -> Scene:
    """Records were lost; some classes are not exact; class spacing is not known."""
    reasons = (
        "17 records found the ring full",
        "3 probe runs were skipped by the kernel",
        "zram0: 2 size classes kept changing while they were scanned",
    )
    health = make_health(
        "bounded", lost=17, missed_runs=3, reasons=reasons, hooks=9, missed_hooks=("obj_malloc",)
    )
    statuses = tuple(("exact", "bounded", "unknown")[row % 3] for row in range(40))
    classes = many_classes(statuses=statuses, size_below=np.full(40, -1))
    pool = make_pool(classes=classes, status="bounded")
    return scene_of(
        make_snapshot(pool, health=health, kernel=KERNEL_56), pace_s=6.3, doing="attaching probes"
    )


def described() -> Scene:
    """The pool of ``scan_records`` with its descriptors read, one of which points elsewhere."""
    pool, _ = dumped_pool()
    look = Look(1, 107, MONO_NS - 1_200_000_000, descriptor_dump(healthy(), FLAGS), FLAGS)
    other = look.dump.descriptors.back.copy()
    chosen = look.dump.zspages.descriptor_start[
        look.dump.rows_of(np.array(addresses(4)[3:], dtype=np.uint64))[0]
    ]
    other[chosen + 1] = 0xFFFF88800BADF000
    dump = replace(look.dump, descriptors=replace(look.dump.descriptors, back=other))
    shot = make_snapshot(pool, kernel=KERNEL_56, health=make_health(hooks=0, scans=1))
    return scene_of(shot, look=replace(look, dump=dump))


def described_huge() -> Scene:
    """The same with the descriptors of its huge class."""
    scene = described()
    assert scene.look is not None
    return replace(scene, look=replace(scene.look, class_index=254))


def unread() -> Scene:
    """The same before descriptors were read."""
    return replace(described(), look=None)


def unreadable() -> Scene:
    """The same where they cannot be."""
    problem = "descriptors need the scanner: CAP_SYS_ADMIN or CAP_BPF with CAP_PERFMON is missing"
    return replace(described(), look=None, look_problem=problem)


def compacted() -> Scene:
    """A pool whose last two runs of compaction had a forecast each, one as it came."""
    pool = make_pool(compaction=make_forecast(), runs=make_runs())
    return scene_of(make_snapshot(pool, make_pool(2, "zram1"), at_s=9, kernel=KERNEL_56))


def compacted_before_612() -> Scene:
    """The same where no move can be forecast, and no probe tells of runs."""
    untold = PoolRuns("unknown", ("no attached probe tells of runs",), {}, (), 0, None)
    pool = make_pool(compaction=make_forecast(bounded=True), runs=untold)
    return scene_of(make_snapshot(pool, kernel=KERNEL_56))


def mapped() -> Scene:
    """A pool whose pages lie in blocks of every kind."""
    return scene_of(make_snapshot(make_pool(), kernel=KERNEL_56), blocks={1: make_pageblocks()})


def mapped_untyped() -> Scene:
    """The same where migratetypes cannot be read."""
    why = "migratetypes of pageblocks cannot be read: the note for crash dumps names no mem_section"
    blocks = make_pageblocks(why_unknown=why)
    return scene_of(make_snapshot(make_pool(), kernel=KERNEL_56), blocks={1: blocks})


def no_pools() -> Scene:
    """A host whose zsmalloc serves nobody."""
    return scene_of(make_snapshot(health=make_health(scans=1)))


def no_such_pool() -> Scene:
    """The pool that was asked for is not there."""
    return replace(no_pools(), wanted="zram7")


def empty_pool() -> Scene:
    """A pool that holds nothing."""
    return scene_of(make_snapshot(make_pool(lines=[(62, 1024, 4, 1, 0, 0)])))


def quiet() -> Scene:
    """Probes are attached, and nothing has happened yet."""
    return scene_of(make_snapshot(make_pool()))


def replayed(at_s: float = 12.5, **changed: object) -> Scene:
    """A capture of 100 s in a session's place, of which the pools at work are one moment."""
    scene = busy()
    now_ns = scene.snapshot.mono_ns
    first_ns = now_ns - round(at_s * 1e9)
    span = Span(first_ns, first_ns + 100_000_000_000, scene.snapshot.time_ns - now_ns)
    at = Replayed(span, now_ns)
    return replace(scene, replay=replace(at, **changed))  # type: ignore[arg-type]


def replay_ended() -> Scene:
    """The same where it is over."""
    return replayed(100.0, ended=True)


def compacted_in_a_replay() -> Scene:
    """A capture has no forecasts."""
    scene = changed_pool(compacted(), compaction=None)
    return replace(scene, replay=replayed().replay)


SCENES: dict[str, Callable[[], Scene]] = {
    each.__name__: each
    for each in (
        busy, measured, unmeasured, scans_alone, bounded, described, described_huge, unread,
        unreadable, no_pools, no_such_pool, empty_pool, quiet, compacted, compacted_before_612,
        mapped, mapped_untyped, replayed, replay_ended, compacted_in_a_replay,
    )
}  # fmt: skip


def without(scene: Scene, *names: str) -> Scene:
    """Return a scene without some pools."""
    pools = tuple(each for each in scene.snapshot.pools if each.name not in names)
    return replace(scene, snapshot=replace(scene.snapshot, pools=pools))


def changed_pool(scene: Scene, **changed: object) -> Scene:
    """Return a scene whose first pool is another one."""
    first, *rest = scene.snapshot.pools
    pool: PoolView = replace(first, **changed)  # type: ignore[arg-type]
    return replace(scene, snapshot=replace(scene.snapshot, pools=(pool, *rest)))


def typed(
    scene: Scene,
    keys: Iterable[str],
    state: ViewState | None = None,
    size: Size = USUAL,
) -> ViewState:
    """Return the state after some keys; a key of one character types it, too."""
    state = followed(state or started(interval_s=2), scene)
    for key in keys:
        text = " " if key == "space" else key if len(key) == 1 else None
        state, _ = pressed(state, key, scene, size, text=text)
    return state


def texts(lines: Iterable[Line]) -> list[str]:
    return [plain(line).rstrip() for line in lines]
