"""Hosts where something is lacking: what is said to be, what it costs, and the verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.doctor.support import make_host, named, standings, whole_btf
from tests.factories import make_facts
from zpobs.doctor.facts import Absent, AttachTrial, HostFacts, ScanTrial, Unknown
from zpobs.doctor.judge import judge_host
from zpobs.doctor.report import Report
from zpobs.kernel.hooks import all_hooks
from zpobs.kernel.layout import COST, WALK_COST

REFUSED = Absent("refused: Operation not permitted")
NO_BTF = Absent("no /sys/kernel/btf/vmlinux", "a kernel with BTF")
PARTLY = AttachTrial(("obj_malloc",), {"zs_malloc": "zs_malloc: busy"})
NOBODY: dict[str, Any] = {
    "user": 65534,
    "capabilities": frozenset(),
    "scanner": Unknown("not tried without CAP_BPF", "sudo zpobs doctor"),
    "trials": dict.fromkeys(
        ("fentry", "kprobe"), Unknown("not tried without CAP_BPF", "sudo zpobs doctor")
    ),
}


def judged(**changed: Any) -> Report:
    return judge_host(make_host(**changed))


def trials(**changed: Any) -> dict[str, Any]:
    """Return a whole host's trials, some of them changed."""
    return {"trials": {**make_host().trials, **changed}}


def hidden(**changed: Any) -> dict[str, Any]:
    """Return a kernel whose addresses are hidden, and the scanner that stops there."""
    kernel = make_facts(btf=whole_btf(), shrinker_at=None)
    return {"kernel": kernel, "scanner": Absent("pools cannot be found: no address")} | changed


@pytest.mark.parametrize("like", ["7.3", "6.18", "6.12"])
def test_a_whole_host_lacks_nothing(like: str) -> None:
    """Where all works nothing costs anything, and both verdicts say so."""
    report = judged(like=like)
    assert report.lacking == ()
    assert report.hints == ()
    assert [verdict.standing for verdict in report.verdicts] == ["works", "works"]
    assert report.verdicts[0].text == "works"
    assert report.verdicts[1].text.startswith("core fentry, ")


# Facts changed -> (check, answer, part of its cost), standings of scan and probes.
LACKING: dict[str, tuple[dict[str, Any], tuple[str, str, str], list[str]]] = {
    "no BTF": (
        {"kernel": NO_BTF, "scanner": NO_BTF} | trials(fentry=NO_BTF, kprobe=NO_BTF),
        ("vmlinux", "absent", COST),
        ["fails", "fails"],
    ),
    "BTF that may not be read": (
        {"kernel": Unknown("Permission denied", "sudo zpobs doctor")},
        ("vmlinux", "unknown", COST),
        ["unknown", "unknown"],
    ),
    "no zsmalloc": (
        {
            "kernel": make_facts(
                btf=whole_btf(without=["zs_pool", "zspage"], functions=()), functions=frozenset()
            )
        },
        ("zsmalloc", "absent", COST),
        ["fails", "fails"],
    ),
    "zsmalloc that no symbol tells of": (
        {"kernel": make_facts(btf=whole_btf(), functions=frozenset({"obj_malloc"}))},
        ("zsmalloc", "absent", COST),
        ["fails", "fails"],
    ),
    "a module without BTF": (
        {"kernel": make_facts(btf=whole_btf(without=["zs_pool"], functions=()))},
        ("zsmalloc", "absent", COST),
        ["fails", "fails"],
    ),
    "no chain size": (
        {"kernel": make_facts(btf=whole_btf(), chain_size=None, shrinker_at=1)},
        ("chain size", "unknown", "?"),
        ["works", "works"],
    ),
    "realtime": (
        {"kernel": make_facts(btf=whole_btf(), realtime=True, shrinker_at=1)},
        ("not PREEMPT_RT", "absent", "not counted"),
        ["works", "works"],
    ),
    "fentry refused": (
        trials(fentry=REFUSED),
        ("fentry", "absent", "kprobes do, but cost more"),
        ["works", "works"],
    ),
    "no probes at all": (
        trials(fentry=REFUSED, kprobe=Absent("no kprobes in this kernel")),
        ("kprobe", "absent", "no probes"),
        ["works", "fails"],
    ),
    "a hook refused": (
        {"kernel": make_facts(btf=whole_btf(), kprobes=False, shrinker_at=1)}
        | trials(fentry=PARTLY, kprobe=Absent("no kprobes in this kernel")),
        ("zs_malloc by fentry", "absent", "not counted: failures"),
        ["works", "limited"],
    ),
    "a hook refused in both forms": (
        trials(fentry=PARTLY, kprobe=PARTLY),
        ("zs_malloc by kprobe", "absent", "not counted: failures"),
        ["works", "limited"],
    ),
    "a hook refused by fentry alone": (
        trials(fentry=PARTLY),
        ("fentry", "absent", "kprobes do"),
        ["works", "works"],
    ),
    "hooks refused by fentry, all by kprobes": (
        trials(fentry=PARTLY, kprobe=REFUSED),
        ("fentry", "absent", "no probes"),
        ["works", "fails"],
    ),
    "no libbpf": (
        {
            "libbpf": Absent("no libbpf.so.1", "apt install libbpf1"),
            "scanner": Absent("no libbpf.so.1"),
            "bcc": Absent("no module"),
        }
        | trials(fentry=Absent("no libbpf.so.1"), kprobe=Absent("no libbpf.so.1")),
        ("core: libbpf.so.1", "absent", "neither scans nor probes"),
        ["fails", "fails"],
    ),
    "a stale object": (
        {
            "objects": {"scan.bpf.o": "x", "probes.bpf.o": Absent("out of date", "make setup")},
            "headers": Absent("none"),
        }
        | trials(fentry=Absent("out of date"), kprobe=Absent("out of date")),
        ("core: probes.bpf.o", "absent", "no probes by the core loader"),
        ["works", "fails"],
    ),
    "a scanner refused": (
        {"scanner": Absent("the scanner cannot be loaded: x")},
        ("scanner", "absent", WALK_COST),
        ["fails", "works"],
    ),
    "no frames": (
        {"scanner": ScanTrial(frames=False, direct_map=True)},
        ("page frames", "absent", "unknown"),
        ["limited", "works"],
    ),
    "no direct map": (
        {"scanner": ScanTrial(frames=True, direct_map=False)},
        ("direct map", "absent", "free lists"),
        ["limited", "works"],
    ),
    "a pool not found": (
        {"scanner": ScanTrial(True, True, (), ("zram0 is in use, but no pool of it was found",))},
        ("all of them", "absent", "not seen"),
        ["limited", "works"],
    ),
    "zswap with another allocator": (
        {"zswap": "zbud"},
        ("zswap", "absent", "not in zsmalloc"),
        ["works", "works"],
    ),
    "hidden addresses": (
        hidden(sysctls={"kernel.kptr_restrict": "2"}),
        ("kernel.kptr_restrict", "absent", "no scans"),
        ["fails", "works"],
    ),
    "no compiled programs": (
        {"sysctls": {"net.core.bpf_jit_enable": "0"}, "scanner": Absent("callbacks")},
        ("net.core.bpf_jit_enable", "absent", WALK_COST),
        ["fails", "works"],
    ),
    "lockdown": (
        {"lockdown": "confidentiality", "scanner": Absent("x")}
        | trials(fentry=REFUSED, kprobe=REFUSED),
        ("lockdown permits BPF", "absent", "neither scans nor probes"),
        ["fails", "fails"],
    ),
    "little memory": (
        {"available_bytes": 1 << 24},
        ("for the ring", "absent", "may not start"),
        ["works", "works"],
    ),
    "nobody": (NOBODY, ("CAP_BPF", "absent", "neither scans nor probes"), ["unknown", "unknown"]),
}


@pytest.mark.parametrize("name", LACKING)
def test_what_is_lacking_is_told(name: str) -> None:
    """The check that names it says what it costs, and the verdict follows."""
    changed, (check_name, answer, costs), wanted = LACKING[name]
    report = judged(**changed)
    check = named(report, check_name)
    assert check.answer == answer
    assert costs in check.costs
    assert check in report.lacking
    assert standings(report) == wanted


@pytest.mark.parametrize("name", LACKING)
def test_a_cost_is_of_something_that_is_not_there(name: str) -> None:
    """Nothing that is present costs anything, and a hint comes with a cost alone."""
    for check in judged(**LACKING[name][0]).checks:
        assert not (check.costs and check.answer == "present"), check
        assert not check.hint or check.costs, check


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"bcc": Absent("no module", "apt install python3-bpfcc")}, "bcc: Python package"),
        ({"headers": Absent("none", "apt install linux-headers-x")}, "bcc: kernel headers"),
        (trials(kprobe=REFUSED), "kprobe"),
        ({"zswap": Absent("off")}, "zswap"),
        ({"zram": Absent("neither built in nor loaded")}, "zram"),
        ({"available_bytes": Unknown("no MemAvailable")}, "for the ring"),
        ({"capabilities": frozenset({"CAP_SYS_ADMIN", "CAP_SYSLOG"})}, "CAP_BPF"),
        (
            {"capabilities": frozenset({"CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON"})},
            "CAP_SYSLOG",
        ),
    ],
)
def test_what_is_not_needed_costs_nothing(changed: dict[str, Any], name: str) -> None:
    """Beside what works, what is not there is told and no more."""
    report = judged(**changed)
    # BTF has a check called zram too.
    assert any(each.name == name and each.answer != "present" for each in report.checks)
    assert report.lacking == ()


@pytest.mark.parametrize(
    ("held", "scanner", "told"),
    [
        ({"CAP_BPF", "CAP_PERFMON", "CAP_SYSLOG"}, ScanTrial(False, False), {"CAP_SYS_ADMIN"}),
        ({"CAP_SYS_ADMIN"}, Absent("pools cannot be found"), {"CAP_SYSLOG"}),
        ({"CAP_SYSLOG"}, Unknown("not tried"), {"CAP_BPF", "CAP_PERFMON", "CAP_SYS_ADMIN"}),
    ],
)
def test_the_capabilities_that_matter_are_named(
    held: set[str], scanner: Any, told: set[str]
) -> None:
    """What costs something are those that nothing stands in for."""
    kernel = make_facts(btf=whole_btf(), shrinker_at=1 if "CAP_SYSLOG" in held else None)
    report = judged(capabilities=frozenset(held), scanner=scanner, kernel=kernel)
    assert {check.name for check in report.lacking if check.section == "privilege"} == told


def test_an_unknown_lockdown_matters_only_where_it_may_be_the_reason() -> None:
    """It costs something where rights suffice and something is refused all the same."""
    unknown = Unknown("securityfs is not mounted", "mount it")
    refused = trials(fentry=REFUSED, kprobe=REFUSED)
    report = judged(lockdown=unknown, scanner=Absent("refused"), **refused)
    assert "may be what hinders" in named(report, "lockdown permits BPF").costs
    assert named(judged(lockdown=unknown, **NOBODY), "lockdown permits BPF").costs == ""


def test_programs_that_were_loaded_tell_what_lockdown_is_not() -> None:
    """Whether it was the scanner or probes; a trial that was refused in part tells nothing."""
    unknown = Unknown("securityfs is not mounted", "mount it")
    refused = trials(fentry=REFUSED, kprobe=REFUSED)
    for changed in (refused, {"scanner": Absent("refused")}):
        check = named(judged(lockdown=unknown, **changed), "lockdown permits BPF")
        assert (check.answer, check.costs, check.hint) == ("present", "", "")
        assert check.found.startswith("not confidentiality")
    check = named(judged(lockdown=unknown, scanner=Absent("x"), **refused), "lockdown permits BPF")
    assert check.answer == "unknown"


def test_too_few_files_cost_something() -> None:
    """What can be opened decides, not the limit alone; the advice raises the limit."""
    check = named(judged(files_left=191, files_limit=1 << 20), "open files")
    assert (check.answer, check.hint) == ("absent", "ulimit -n 1024")
    assert check.costs
    assert "191" in check.found
    assert "1,048,576" in check.found
    assert named(judged(files_left=192, files_limit=200), "open files").answer == "present"


def test_bcc_is_an_answer_where_core_lacks_its_parts() -> None:
    """Probes may then come by bcc; that is not tried, and said so."""
    lacking = Absent("no libbpf.so.1", "apt install libbpf1")
    report = judged(libbpf=lacking, **trials(fentry=lacking, kprobe=lacking))
    (_, probes) = report.verdicts
    assert probes.standing == "unknown"
    assert probes.text.startswith("bcc, which was not tried")


def test_a_hook_outside_btf_leaves_kprobes() -> None:
    """Kallsyms lists it, so it is there; the check of fentry says what that costs."""
    functions = frozenset(hook.function for hook in all_hooks())
    btf = whole_btf(functions=functions - {"obj_malloc"})
    kernel = make_facts(btf=btf, functions=functions, shrinker_at=1)
    report = judged(kernel=kernel, **trials(fentry=Absent("a hook is not in BTF", "x")))
    assert named(report, "obj_malloc").found == "in kallsyms, not in BTF"
    assert named(report, "fentry").costs


def test_the_verdicts_name_the_reasons() -> None:
    """A verdict that is not good says why, reason by reason."""
    report = judged(**trials(fentry=REFUSED, kprobe=Absent("no kprobes in this kernel")))
    assert report.verdicts[1].text == (
        "none: scans alone, because fentry: refused: Operation not permitted; "
        "kprobe: no kprobes in this kernel"
    )
    report = judged(scanner=ScanTrial(False, True, (), ("zram0 was not found",)))
    assert report.verdicts[0].text == "works, but page frames stay unknown; zram0 was not found"


def test_json_has_every_check_and_verdict() -> None:
    """The object has a schema number and survives JSON."""
    report = judged(**NOBODY)
    made = json.loads(json.dumps(report.to_json()))
    assert made["schema"] == 1
    assert made["subject"] == "7.3.0-invented"
    assert len(made["checks"]) == len(report.checks)
    assert set(made["checks"][0]) == {"section", "name", "answer", "found", "costs", "hint"}
    assert {each["answer"] for each in made["checks"]} == {"present", "absent", "unknown"}
    assert [set(each) for each in made["verdicts"]] == [{"about", "standing", "text"}] * 2
    assert made["try"] == list(dict.fromkeys(made["try"]))


def test_facts_know_their_btf() -> None:
    """There is BTF where the kernel is known, and none else."""
    host: HostFacts = make_host()
    assert host.btf is not None
    assert replace(host, kernel=Absent("none")).btf is None


def test_one_cause_is_one_advice() -> None:
    """What is known to hinder the scanner is all there is to try; nothing else is suspected."""
    changed = hidden(
        sysctls={"kernel.kptr_restrict": "2"}, lockdown=Unknown("securityfs is not mounted", "x")
    )
    report = judged(**changed)
    assert report.hints == ("sysctl kernel.kptr_restrict=1",)
    assert {check.name for check in report.lacking} == {"kernel.kptr_restrict", "scanner"}
