"""The account of a session: probes, losses, scans, and what programs cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.factories import make_facts
from tests.ring_producer import Producer, compile_producer, why_not
from zpobs.errors import EnvironmentLacksError
from zpobs.kernel.plan import make_plan
from zpobs.loaders import Attached
from zpobs.model.inputs import CountersReading
from zpobs.sources import bpfmap
from zpobs.upkeep import Upkeep

PLAN = make_plan(make_facts())
READING = CountersReading(
    mono_ns=5,
    ring_full=3,
    unpaired=1,
    missed_runs=4,
    untracked_pools=2,
    missed_counting_runs=7,
)


def attached() -> Attached:
    return Attached(
        form="fentry",
        ring_bytes=4096,
        map_fds={},
        program_fds={},
        failed={PLAN.hooks[0]: "refused"},
        close=lambda: None,
    )


def test_before_anything_is_attached_nothing_is_lost() -> None:
    """No loss is told, not even as 0; every hook that is wanted is there."""
    footing = Upkeep(PLAN).footing()
    assert footing.hooks == {hook.function: False for hook in (*PLAN.hooks, *PLAN.missing)}
    assert (footing.form, footing.lost, footing.programs) == (None, {}, ())


def test_hooks_that_failed_are_not_attached() -> None:
    """Nor those that the kernel lacks."""
    upkeep = Upkeep(PLAN)
    upkeep.attached(attached(), PLAN)
    footing = upkeep.footing()
    assert footing.form == "fentry"
    lacking = {PLAN.hooks[0].function, *(hook.function for hook in PLAN.missing)}
    assert {name for name, there in footing.hooks.items() if not there} == lacking
    assert any(footing.hooks.values())


def test_losses_are_told_by_stage() -> None:
    """As the last reading has them."""
    upkeep = Upkeep(PLAN)
    upkeep.attached(attached(), PLAN)
    upkeep.read(replace(READING, ring_full=1))
    upkeep.read(READING)
    footing = upkeep.footing()
    assert footing.lost == {"ring": 3, "unpaired": 1, "skipped": 4, "skipped_counting": 7}
    assert footing.untracked_pools == 2


def test_scans_add_up() -> None:
    """Their time, and the last one's own."""
    upkeep = Upkeep(PLAN)
    upkeep.scanned(5)
    upkeep.scanned(3)
    footing = upkeep.footing()
    assert (footing.scan_ns, footing.last_scan_ns) == (8, 3)


@pytest.fixture
def producer(tmp_path: Path) -> Iterator[Producer]:
    lacking = why_not()
    if lacking:
        pytest.skip(lacking)
    with Producer(compile_producer(tmp_path), ring_bytes=4096) as made:
        yield made


@pytest.mark.native
def test_programs_are_timed_while_that_is_asked_for(producer: Producer) -> None:
    """Runs and their time; nothing of either once it is closed and nothing ran."""
    program = producer.program_fd("count")
    timed = Upkeep(PLAN, timed=True)
    try:
        timed.watch({"count": program})
        before = timed.footing().programs[0]
        bpfmap.test_run(program)
        after = timed.footing().programs[0]
    finally:
        timed.close()
        timed.close()
    assert before.runs is not None
    assert before.run_ns is not None
    assert after.runs == before.runs + 1
    assert after.run_ns is not None
    assert after.run_ns > before.run_ns
    assert (after.name, after.skipped) == ("count", 0)


@pytest.mark.native
def test_runs_that_are_not_counted_are_unknown(producer: Producer) -> None:
    """Without statistics there is no 0."""
    upkeep = Upkeep(PLAN)
    upkeep.watch({"count": producer.program_fd("count")})
    (program,) = upkeep.footing().programs
    assert (program.runs, program.run_ns) == (None, None)


def test_what_refuses_to_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""

    def refuse() -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bpfmap, "enable_run_stats", refuse)
    with pytest.raises(EnvironmentLacksError, match="Operation not permitted; try: CAP_SYS_ADMIN"):
        Upkeep(PLAN, timed=True)
