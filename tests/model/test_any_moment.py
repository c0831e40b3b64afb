"""What is called exact is the truth at every moment, not at rest alone.

Compactions, migrations and deferred frees stand half done at each check; so do the
allocations that had to reclaim, and pools come and go. Only at moments at which some class's
lock is held is there nothing to compare: no reader of the kernel could tell either.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.model.observer import NO_PROBES, Observer
from tests.model.support import examples, snapshot

# Below 100 they are operations; above, a look at the model or a scan.
LOOK, SCAN, END = 100, 130, 139
# Not fewer, or most lists would have no more than five.
STEPS = st.lists(st.tuples(st.integers(0, END), st.integers(0, 10_000)), min_size=20, max_size=200)
WARM = st.sampled_from([0, 30, 200])
REACH = st.sampled_from([0, 3, 40])
# How far records overtake each other, and for how long the clock stands still, in ns: where some
# have the same time only their order tells which is the newest. The coarsest clock that kernels
# use, acpi_pm, has steps of 280 ns.
ORDER = st.sampled_from([(0, 1), (3, 1), (40, 1), (0, 500), (0, 500)])
# Shares of the records that find the ring full, and of the runs of probes that the kernel skips.
LOSS = st.sampled_from(
    [(0.003, 0), (0.03, 0), (0.3, 0), (0.7, 0), (0, 0.003), (0, 0.3), (0.03, 0.03)]
)
# How many scans come behind a later one, or what the probes told meanwhile.
OVERTAKEN = st.sampled_from([0, 0.3])


def go(observer: Observer, steps: list[tuple[int, int]]) -> None:
    """Take steps; a scan goes on during some of those that follow it."""
    todo = steps[::-1]
    while todo:
        step, pick = todo.pop()
        if step < LOOK:
            observer.step(step, pick)
        elif step < SCAN:
            observer.check_exact_classes()
        else:
            # Nothing goes on during every other one, so that it tells all even if much is lost.
            during = [todo.pop() for _ in range(min(max(pick % 60 - 30, 0), len(todo)))]
            observer.scan([each for each in during if each[0] < LOOK])
            observer.check_exact_classes()


@settings(max_examples=examples(50), deadline=None)
@given(STEPS, st.integers(0, 1000), WARM, ORDER, OVERTAKEN)
def test_without_loss_the_model_always_equals_the_allocator(
    steps: list[tuple[int, int]], seed: int, warm: int, order: tuple[int, int], overtaken: float
) -> None:
    """Seen from the creation of the pools on, all is exact at each look, scans or not."""
    reach, step_ns = order
    observer = Observer(seed, reach=reach, step_ns=step_ns)
    observer.overtaken = overtaken
    observer.warm_up(warm)
    go(observer, steps)
    check_all(observer)
    observer.rest()
    observer.check_all_exact()


def check_all(observer: Observer) -> None:
    observer.check_exact_classes()
    shot = snapshot(observer.model)
    assert {view.status for view in shot.pools} <= {"exact"}
    assert shot.health.status == "exact"


@settings(max_examples=examples(50), deadline=None)
@given(
    STEPS,
    STEPS,
    st.integers(0, 1000),
    WARM,
    REACH,
    LOSS,
    OVERTAKEN,
)
def test_with_loss_what_is_exact_is_right_and_a_scan_mends_the_rest(
    steps: list[tuple[int, int]],
    after: list[tuple[int, int]],
    seed: int,
    warm: int,
    reach: int,
    loss: tuple[float, float],
    overtaken: float,
) -> None:
    """Whatever is lost, no figure marked exact is wrong; one scan at rest and all is exact.

    Even if the records of a scan come behind those of a later one.
    """
    lost, skipped = loss
    observer = Observer(seed, reach=reach, loss=lost, skipped=skipped)
    observer.overtaken = overtaken
    observer.warm_up(warm)
    go(observer, steps)
    observer.rest()
    observer.overtaken = 0
    observer.scan([])
    observer.check_all_exact()
    observer.loss = observer.machine.skipping = 0
    go(observer, after)
    check_all(observer)


@settings(max_examples=examples(50), deadline=None)
@given(STEPS, STEPS, st.integers(0, 1000), WARM, REACH, st.sampled_from(["first", "later"]))
def test_probes_may_attach_at_any_moment(
    before: list[tuple[int, int]],
    after: list[tuple[int, int]],
    seed: int,
    warm: int,
    reach: int,
    scan: str,
) -> None:
    """Attached in the middle of anything, after scans and before others, nothing is wrong.

    What a scan could not verify, or told before the probes could follow it, the next one at rest
    does.
    """
    observer = Observer(seed, reach=reach, coverage=NO_PROBES)
    observer.warm_up(warm)
    for step, pick in before:
        if step < LOOK:
            observer.workload.step(step, pick)
        elif step >= SCAN:
            observer.scan([])
    observer.attach()
    go(observer, [(SCAN, 20), *after] if scan == "first" else after)
    observer.rest()
    observer.scan([])
    observer.check_all_exact()


def test_looks_meet_what_is_half_done() -> None:
    """The moments of the properties above are not idle: everything is under way at some look."""
    met: dict[str, int] = {}
    reclaims = exact = 0
    for seed in range(8):
        observer = Observer(seed)
        for _ in range(400):
            observer.warm_up(1)
            for what in under_way(observer):
                met[what] = met.get(what, 0) + 1
        exact += observer.check_exact_classes()
        reclaims += observer.workload.reclaimed
    assert len(met) == 6
    assert min(met.values()) > 20
    assert reclaims > 20
    assert exact > 20


def under_way(observer: Observer) -> set[str]:
    met = set()
    for pool in observer.machine.pools:
        moving = [len(zspage.moving) for zspage in pool.zspages]
        told = {
            "compaction": pool.compacting_now,
            "a deferred free has taken something": pool.spliced,
            "a deferred free has given something back": pool.freed_untold,
            "migration": 1 in moving,
            "two migrations in a zspage": 2 in moving,
            "an empty zspage waits": any(zspage.inuse == 0 for zspage in pool.zspages),
        }
        met |= {what for what, so in told.items() if so}
    return met
