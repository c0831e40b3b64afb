"""What BTF alone tells: every member and hook, and what each of them costs when it is not there."""

from __future__ import annotations

import pytest

from tests.doctor.support import named, standings, whole_btf
from tests.factories import FUNCTIONS
from zpobs.doctor.judge import judge_btf
from zpobs.doctor.kernel_checks import cost_of
from zpobs.doctor.report import Report
from zpobs.kernel.hooks import CHOICES, Hook, all_hooks
from zpobs.kernel.layout import COST, WALK_COST, Member, members, walk_members

BY_NAME = {hook.function: hook for hook in all_hooks()}


def judged(like: str = "7.3", **changed: object) -> Report:
    return judge_btf(whole_btf(like, **changed), "a file")


@pytest.mark.parametrize("like", FUNCTIONS)
def test_a_whole_kernel_lacks_nothing(like: str) -> None:
    """Whatever a kernel's shape, what it has instead of others' members costs nothing."""
    report = judged(like)
    assert report.lacking == ()
    assert standings(report) == ["works", "works"]


def test_every_member_is_told_once() -> None:
    """There is one check for each line of zs_layout.h."""
    found = [check for check in judged().checks if check.section == "members"]
    assert len(found) == len([*members(), *walk_members()])


def test_every_hook_and_every_choice_is_told_once() -> None:
    """Hooks are those of hooks.py, choices too, in their order."""
    checks = judged().checks
    hooks = [check.name for check in checks if check.section == "hooks"]
    assert hooks == [hook.function for hook in all_hooks()]
    sets = [check.name for check in checks if check.section == "hook sets"]
    assert sets == [choice.purpose for choice in CHOICES]


# Members that are one and the same in BTF, or that another one stands in for.
SHARED = {"sb_shrinker", "sb_shrinker_embedded"}
# Without the lists there is no number of fullness groups either, which every command needs.
COUNTED = {"size_class_lists"}
SPARED = {"zspage_lock_holders", "shrinker_owner", "zs_pool_shrinker"}


def gone(member: Member) -> list[str]:
    return [f"{structure}.{field}" for structure, field in member.candidates]


@pytest.mark.parametrize("member", members(), ids=lambda member: member.name)
def test_without_a_member_of_the_probes_nothing_works(member: Member) -> None:
    """Both verdicts name what is lacking."""
    report = judged(without=gone(member))
    (check,) = [each for each in report.lacking if each.section == "members"]
    assert (check.answer, check.costs) == ("absent", COST)
    assert standings(report) == ["fails", "fails"]
    assert all(gone(member)[0] in verdict.text for verdict in report.verdicts)


@pytest.mark.parametrize(
    "member",
    [each for each in walk_members() if each.name not in SHARED | SPARED | COUNTED],
    ids=lambda member: member.name,
)
def test_without_a_member_of_the_scanner_probes_are_left(member: Member) -> None:
    """What only the scanner reads costs scans alone."""
    report = judged(without=gone(member))
    (check,) = report.lacking
    assert (check.answer, check.costs) == ("absent", WALK_COST)
    assert standings(report) == ["fails", "works"]
    assert gone(member)[0] in report.verdicts[0].text


@pytest.mark.parametrize("name", sorted(SPARED))
def test_what_another_stands_in_for_costs_nothing(name: str) -> None:
    """It is absent, and it is said what is done instead."""
    (member,) = [each for each in walk_members() if each.name == name]
    report = judged(without=gone(member))
    check = named(report, gone(member)[0])
    assert (check.answer, check.costs) == ("absent", "")
    assert check.found.startswith("not needed: ")
    assert standings(report) == ["works", "works"]


def test_two_that_stand_in_for_each_other_are_not_both_spared() -> None:
    """Without both ways to tell whose a shrinker is, there are no scans."""
    report = judged(without=["shrinker.private_data", "zs_pool.shrinker"])
    assert {check.costs for check in report.lacking} == {WALK_COST}
    assert standings(report) == ["fails", "works"]


@pytest.mark.parametrize("like", FUNCTIONS)
@pytest.mark.parametrize("hook", all_hooks(), ids=lambda hook: hook.function)
def test_a_hook_costs_what_it_tells(hook: Hook, like: str) -> None:
    """A hook that is lacking costs what hooks.py says of it, one that no one misses nothing."""
    before = judged(like)
    after = judged(like, functions=FUNCTIONS[like] - {hook.function})
    chosen = {
        each
        for check in before.checks
        if check.section == "hook sets"
        for each in check.found.split(", ")
    }
    if hook.function not in chosen:
        assert after.lacking == ()
        return
    assert all(check.costs == cost_of(BY_NAME[check.name]) for check in after.lacking)
    assert standings(after) == ["works", "limited"]
    assert after.lacking


def test_a_kernel_without_zsmalloc_is_told_as_such() -> None:
    """Nothing is said of what cannot be known; the module's BTF is asked for."""
    zsmalloc = ("zs_pool", "zspage", "zpdesc", "size_class", "zspage_lock")
    report = judged(without=zsmalloc, functions=())
    assert named(report, "descriptor").answer == "unknown"
    assert standings(report) == ["fails", "fails"]
    assert all("no zsmalloc" in verdict.text for verdict in report.verdicts)
    assert any("another --btf" in hint for hint in report.hints)


@pytest.mark.parametrize(("flag", "bit"), [("locked", "bit 0"), ("isolated", "bit 3")])
def test_page_flags(flag: str, bit: str) -> None:
    """The flags that scans ask for are told by bit, or what their absence costs."""
    name = f"page flag {flag}"
    assert named(judged(), name).found == bit
    lacking = named(judged(without=["pageflags"]), name)
    assert lacking.answer == "absent"
    assert flag in lacking.costs


def test_a_page_type_is_no_need() -> None:
    """Kernels that mark no pages lose nothing."""
    check = named(judged(without=["pagetype"]), "page type")
    assert (check.answer, check.costs) == ("absent", "")
    assert named(judged(), "page type").found == "0xf6"


def test_the_descriptor_is_told() -> None:
    """A struct zpdesc, or the page itself."""
    assert named(judged("7.3"), "descriptor").found == "struct zpdesc"
    assert named(judged("6.12"), "descriptor").found.startswith("struct page")
