"""Rounds on a scripted session: when they try again, and what they make of busy pools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.factories import make_health, make_snapshot
from tests.scan_records import FLAGS, find, healthy
from tests.verify.support import Zspage, pool_of, zspages
from tests.verify.test_witnesses import reading, zram
from zpobs import wire
from zpobs.scans import ScanResult
from zpobs.snapshot import Health, Snapshot
from zpobs.sources.witnesses import Witnesses
from zpobs.verify import rounds
from zpobs.verify.rounds import Report, Verifier
from zpobs.wire import Words

GOOD = zspages()
WATCHED = make_health()
ALONE = make_health(hooks=0, missed_hooks=("obj_malloc",), scans=3)
QUIET, USED = reading(), reading(zram={"zram0": zram(activity=("used",))})


def like(listed: Iterable[Zspage], health: Health = WATCHED, **changed: Any) -> Snapshot:
    return make_snapshot(pool_of(listed, **changed), health=health)


def without(letter: str) -> list[Zspage]:
    return [each for name, each in GOOD.items() if name != letter]


@dataclass
class ScriptedSession:
    """Gives the models and scans of a list, the last one for ever; time passes by waiting only."""

    models: list[Snapshot]
    scans: list[Snapshot]
    readings: list[Witnesses] = field(default_factory=lambda: [QUIET])
    details: list[Words] = field(default_factory=list)
    missing: tuple[str, ...] = ()
    now_s: float = 100.0
    stop_at_wait: int | None = None
    waits: int = 0
    detailed: int = 0
    zswap_lags: bool = False

    def monotonic(self) -> float:
        return self.now_s

    def wait(self, deadline_s: float, watch: Sequence[int] = ()) -> bool:
        assert watch == (7,)
        self.waits += 1
        self.now_s = max(self.now_s, deadline_s)
        return self.waits == self.stop_at_wait

    def snapshot(self, *, zspages: bool = False, pool: str | None = None) -> Snapshot:
        assert pool in (None, "zram0")
        if not zspages:
            return self.models[0]
        return self.models.pop(0) if len(self.models) > 1 else self.models[0]

    def scan_kernel(
        self, *, pool: str | None = None, zspages: bool = True, detail: bool = False
    ) -> ScanResult:
        assert pool in (None, "zram0")
        if detail:
            self.detailed += 1
            assert not zspages
            words = self.details.pop(0) if len(self.details) > 1 else self.details[0]
            return ScanResult(self.scans[0], FLAGS, {1: words})
        shot = self.scans.pop(0) if len(self.scans) > 1 else self.scans[0]
        return ScanResult(shot, FLAGS, missing=self.missing)

    def read(self) -> Witnesses:
        return self.readings.pop(0) if len(self.readings) > 1 else self.readings[0]


Run = Callable[..., Report]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    def one(session: ScriptedSession, wait_s: float = 2.0, **options: Any) -> Report:
        monkeypatch.setattr(rounds, "time", session)
        return Verifier(session, session.read, **options).round(wait_s, (7,))

    return one


KERNEL = like(GOOD.values(), counted=None)
BUSY = like(GOOD.values(), counted=None, busy=(107,))


def test_a_pool_at_rest_takes_one_try(run: Run) -> None:
    """Equal, at rest, no waiting; what was scanned is in the report."""
    session = ScriptedSession([like(GOOD.values())], [KERNEL])
    report = run(session)
    assert (report.verdict, report.tries, session.waits) == ("equal", 1, 0)
    assert report.resting == {1}
    assert report.invariants is None


def test_a_planted_object_is_found_and_told_in_json(run: Run) -> None:
    """One object in one zspage: the verdict, the difference, and a witness that says so too."""
    wrong = [*without("c"), replace(GOOD["c"], inuse=2)]
    report = run(ScriptedSession([like(wrong)], [KERNEL]))
    assert report.verdict == "differs"
    assert report.differs
    told = json.loads(json.dumps(report.to_json()))
    (pool,) = told["pools"]
    assert (pool["verdict"], pool["at_rest"]) == ("differs", True)
    assert {
        "class": 107,
        "zspage": f"{GOOD['c'].address:#x}",
        "field": "inuse",
        "shadow": 2,
        "kernel": 1,
        "standing": "exact",
    } in pool["differences"]
    assert [each["name"] for each in told["witnesses"] if each["verdict"] == "differs"] == [
        "mm_stat pages stored",
        "zs_size_stat of 3 classes",
    ]


def test_busy_classes_are_tried_again(run: Run) -> None:
    """A scan that could not verify a class is done again, after a pause."""
    session = ScriptedSession([like(GOOD.values())], [BUSY, BUSY, KERNEL])
    report = run(session)
    assert (report.verdict, report.tries, session.waits) == ("equal", 3, 2)
    (pool,) = report.comparison.pools
    assert pool.busy == ()


def test_the_wait_ends(run: Run) -> None:
    """What stays busy is listed as busy; the rest was verified."""
    session = ScriptedSession([like(GOOD.values())], [BUSY])
    report = run(session, 1.0)
    (pool,) = report.comparison.pools
    assert report.verdict == "equal"
    assert [each.index for each in pool.busy] == [107]
    assert session.now_s == pytest.approx(101.0)
    assert report.tries > 2
    assert report.resting == frozenset()


def test_no_wait_is_one_try(run: Run) -> None:
    """--wait 0 does not try again."""
    assert run(ScriptedSession([like(GOOD.values())], [BUSY]), 0).tries == 1


def test_a_signal_ends_the_tries(run: Run) -> None:
    """The report of what there is comes at once."""
    session = ScriptedSession([like(GOOD.values())], [BUSY], stop_at_wait=2)
    assert run(session, 60).tries == 2


def test_if_everything_is_busy_nothing_was_verified(run: Run) -> None:
    """All classes busy to the end is not well."""
    busy = like(GOOD.values(), counted=None, busy=(62, 107, 254))
    report = run(ScriptedSession([like(GOOD.values())], [busy]))
    assert (report.verdict, report.differs, report.verified) == ("nothing verified", False, False)


def test_no_pool_is_verified_unless_one_was_asked_for(run: Run) -> None:
    """That there is no pool on either side is a result; that the wanted one is missing is not."""
    nothing = [make_snapshot()]
    assert run(ScriptedSession(nothing, nothing)).verdict == "equal"
    assert run(ScriptedSession(nothing, nothing), pool="zram0").verdict == "nothing verified"
    hidden = ScriptedSession(nothing, nothing, missing=("zswap is in use, but was not found",))
    report = run(hidden)
    assert report.verdict == "nothing verified"
    assert report.to_json()["missing"] == ["zswap is in use, but was not found"]


def test_in_use_a_class_that_was_steady_is_verified(run: Run) -> None:
    """Probes tell what changed: a pool in use is verified, class by class, without rest."""
    before = like(GOOD.values())
    after = like([*without("c"), replace(GOOD["c"], seen_ns=5000)])
    session = ScriptedSession([before, after], [KERNEL], [QUIET, USED])
    report = run(session, 0)
    (pool,) = report.comparison.pools
    assert sorted(pool.classes) == [62, 254]
    assert [each.index for each in pool.busy] == [107]
    assert "exact" not in {each.standing for each in report.witnesses if each.subject == "zram0"}
    assert not any(each.contradicts for each in report.witnesses)


@pytest.mark.parametrize("health", [ALONE, make_health(missed_hooks=("obj_free",), hooks=10)])
def test_without_probes_a_difference_counts_at_rest_only(run: Run, health: Health) -> None:
    """Nothing tells what changed between two scans but the pool's own activity."""
    wrong = like(without("c"), health)
    at_rest = run(ScriptedSession([wrong], [KERNEL]), 0)
    assert at_rest.differs
    in_use = run(ScriptedSession([wrong], [KERNEL], [QUIET, USED]), 0)
    assert not in_use.differs
    (pool,) = in_use.comparison.pools
    assert [each.index for each in pool.busy] == [107]


def test_records_lost_meanwhile_are_as_no_probes(run: Run) -> None:
    """What was lost cannot tell that a class changed."""
    before, after = like(without("c")), like(without("c"), make_health("bounded", lost=3))
    readings = [QUIET, USED]
    assert not run(ScriptedSession([before, after], [KERNEL], readings), 0).differs
    assert run(ScriptedSession([before, before], [KERNEL], [QUIET, USED]), 0).differs


def test_a_difference_survives_later_tries(run: Run) -> None:
    """The model was wrong in the first try; that a rescan healed it does not undo that."""
    wrong = like(without("a"))
    session = ScriptedSession([wrong, wrong, like(GOOD.values())], [BUSY, KERNEL])
    report = run(session)
    assert report.tries == 2
    assert {each.class_index for each in report.comparison.pools[0].differences} == {62}


def test_a_bounded_pool_is_given_time_to_heal(run: Run) -> None:
    """What was lost is scanned anew while the round waits."""
    bounded = like(without("a"), make_health("bounded", lost=3), status="bounded")
    session = ScriptedSession([bounded, bounded, like(GOOD.values())], [KERNEL])
    report = run(session)
    assert (report.verdict, report.tries) == ("equal", 2)


# ---- invariants ----------------------------------------------------------------


def broken(value: int = 0x59) -> Words:
    """Return the scan of a pool in which one zspage has another magic number."""
    words = healthy()
    at = find(words, wire.DETAIL_LINKS, 4)
    words[at, 3] = int(words[at, 3]) & ~0xFFFFFFFF | value
    return words


def checked(run: Run, *details: Words) -> tuple[Report, ScriptedSession]:
    session = ScriptedSession([like(GOOD.values())], [KERNEL], details=list(details))
    return run(session, invariants=True), session


def test_sound_descriptors_are_scanned_once(run: Run) -> None:
    """Nothing broken, nothing to confirm; the counts are in the report."""
    report, session = checked(run, healthy())
    assert report.verdict == "equal"
    assert session.detailed == 1
    (pool,) = report.to_json()["invariants"]
    assert pool["pool"] == "zram0"
    assert {
        "invariant": "magic",
        "unit": "zspage",
        "checked": 10,
        "broken": 0,
        "unchecked": {},
    } in (pool["checks"])


def test_a_violated_invariant_is_a_finding(run: Run) -> None:
    """What two scans find broken is violated, though model and kernel agree."""
    report, session = checked(run, broken())
    assert session.detailed == 2
    assert report.verdict == "differs"
    (pool,) = report.invariants or ()
    assert [(each.invariant, each.found) for each in pool.violated] == [("magic", "0x59")]


@pytest.mark.parametrize("second", [healthy(), broken(0x5A)], ids=["whole again", "otherwise"])
def test_what_only_one_scan_found_is_not_violated(run: Run, second: Words) -> None:
    """A zspage that changed while it was read is not broken."""
    report, session = checked(run, broken(), second)
    assert session.detailed == 2
    assert report.verdict == "equal"
