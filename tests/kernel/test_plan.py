"""Plans for invented kernels: chosen by what a kernel has, never by its version."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.factories import FUNCTIONS, make_btf, make_facts
from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.kernel.hooks import all_hooks
from zpobs.kernel.plan import AttachWish, ProbePlan, make_plan
from zpobs.snapshot import Kernel

ALWAYS = [
    "fix_fullness_group",
    "obj_malloc",
    "zs_create_pool",
    "zs_destroy_pool",
    "zs_malloc",
    "zs_page_migrate",
    "zs_shrinker_scan",
]
# Kernel -> the hooks that are there beside those of every kernel.
CHOSEN = {
    "7.3": ["__zs_compact", "putback_zspage", "async_free_zspage", "trylock_zspage"],
    "6.18": ["__free_zspage", "__zs_compact", "putback_zspage"],
    "6.12": ["__free_zspage", "zs_compact", "putback_zspage"],
    "6.1": ["__free_zspage", "zs_compact", "insert_zspage"],
}


def functions(plan: ProbePlan) -> list[str]:
    return [hook.function for hook in plan.hooks]


@pytest.mark.parametrize("like", CHOSEN)
def test_each_kernel_gets_the_hooks_it_has(like: str) -> None:
    """Zspage death and compaction are hooked where this kernel has them, and nothing is missing."""
    plan = make_plan(make_facts(like))
    assert sorted(functions(plan)) == sorted(ALWAYS + CHOSEN[like])
    assert plan.missing == ()
    assert functions(plan)[-1] == "zs_create_pool"
    assert plan.trampolines


def test_births_wait_for_the_class_where_that_is_set_late() -> None:
    """Where insert_zspage() is hooked, and only there, it tells of births."""
    told = {like: make_plan(make_facts(like)).births_on_insert for like in CHOSEN}
    assert told == {"7.3": False, "6.18": False, "6.12": False, "6.1": True}
    without = make_plan(make_facts("6.1"), skip=frozenset({"insert_zspage"}))
    assert not without.births_on_insert


@pytest.mark.parametrize(("like", "descriptor"), [("7.3", "zpdesc"), ("6.12", "page")])
def test_the_kernel_is_described(like: str, descriptor: str) -> None:
    """Release, page and chain size come from the facts, all else from the BTF."""
    plan = make_plan(make_facts(like, chain_size=6))
    assert plan.kernel == Kernel(f"{like}.0-invented", 4096, 6, descriptor, 12, 56)
    assert make_plan(make_facts(like, chain_size=None)).kernel.chain_size == 0
    assert plan.size_classes == 255


def test_places_are_those_of_this_kernels_structures() -> None:
    """Constants name sizes and places in structures of the very kernel."""
    new, old = make_plan(make_facts("7.3")).places, make_plan(make_facts("6.12")).places
    assert new["ZS_OFF_zspage_first"] == old["ZS_OFF_zspage_first"] == "16"
    assert new["ZS_OFF_zpdesc_next"] == old["ZS_OFF_zpdesc_next"] == "32"
    wanted = {
        "ZS_OFF_zspage_inuse": "4",
        "ZS_TYPE_zspage_inuse": "u32",
        "ZS_MASK_zspage_fullness": "15",
        "ZS_SIZEOF_zspage": "56",
        "ZS_SIZEOF_page": "64",
        "ZS_CLASSES": "255",
        "ZS_FULLNESS_GROUPS": "12",
    }
    assert {name: new.get(name) for name in wanted} == wanted


@pytest.mark.parametrize("lacking", [*ALWAYS, "putback_zspage"])
def test_a_hook_that_the_kernel_lacks_is_missing(lacking: str) -> None:
    """A function that is not there is listed as missing, and the rest is planned all the same."""
    plan = make_plan(make_facts("6.18", functions=FUNCTIONS["6.18"] - {lacking}))
    assert [hook.function for hook in plan.missing] == [lacking]
    assert sorted([*functions(plan), lacking]) == sorted(ALWAYS + CHOSEN["6.18"])


def test_of_incomplete_sets_the_one_that_lacks_fewest_is_taken() -> None:
    """Where no set is complete, one missing hook is told rather than two."""
    gone = {"__free_zspage", "trylock_zspage", "async_free_zspage"}
    plan = make_plan(make_facts("7.3", functions=FUNCTIONS["7.3"] - gone))
    assert [hook.function for hook in plan.missing] == ["__free_zspage"]


def test_where_every_path_of_death_has_its_function_the_lock_is_watched() -> None:
    """With trylock_zspage a symbol, zs_free may not go through __free_zspage, so that is not it."""
    plan = make_plan(make_facts("7.3", functions=FUNCTIONS["7.3"] | {"__free_zspage"}))
    assert {"trylock_zspage", "async_free_zspage"} <= set(functions(plan))
    assert "__free_zspage" not in functions(plan)


def test_a_skipped_hook_is_missing() -> None:
    """A hook left out by wish counts as missing; no other path is taken in its place."""
    plan = make_plan(make_facts("7.3"), skip=frozenset({"trylock_zspage"}))
    assert [hook.function for hook in plan.missing] == ["trylock_zspage"]
    assert "trylock_zspage" not in functions(plan)
    assert "async_free_zspage" in functions(plan)


def test_an_unknown_hook_cannot_be_skipped() -> None:
    """A hook to skip that does not exist is a usage error that lists those there are."""
    with pytest.raises(UsageError, match="no hook is called nothing") as refused:
        make_plan(make_facts(), skip=frozenset({"nothing", "obj_malloc"}))
    assert [h.function for h in all_hooks() if h.function not in refused.value.found] == []


@pytest.mark.parametrize(
    ("without", "named"),
    [
        ("zspage", "zspage.inuse"),
        ("size_class", "size_class.size"),
        ("zs_pool", "zs_pool.name"),
        ("zpdesc", ""),
        ("page", ""),
    ],
)
def test_unknown_structures_end_it(without: str, named: str) -> None:
    """Without one of zsmalloc's structures nothing can be read; the error names what is absent."""
    like = "6.12" if without == "page" else "7.3"
    descriptor = "page" if like == "6.12" else "zpdesc"
    without_too = {without, "page"} if without == "zpdesc" else {without}
    btf = make_btf(FUNCTIONS[like], descriptor=descriptor, without=without_too)
    with pytest.raises(EnvironmentLacksError, match="not as zpobs knows them") as refused:
        make_plan(make_facts(like, btf=btf))
    assert named in refused.value.found


def test_the_base_of_page_descriptors_is_whoever_found_its() -> None:
    """The plan carries the base that it is given; not knowing one is no error."""
    assert make_plan(make_facts(), vmemmap_base=0xFFFFEA0000000000).vmemmap_base == 0xFFFFEA << 40
    assert make_plan(make_facts()).vmemmap_base is None


def test_trampolines_need_every_hook_in_btf() -> None:
    """A hook that BTF does not describe cannot have a trampoline, so none is planned."""
    btf = make_btf(FUNCTIONS["7.3"] - {"obj_malloc"})
    assert not make_plan(make_facts("7.3", btf=btf)).trampolines
    assert make_plan(make_facts("7.3", btf=btf), skip=frozenset({"obj_malloc"})).trampolines


# (wish, trampolines, kprobes) -> forms in the order in which they are tried.
FORMS = {
    ("auto", True, True): ["fentry", "kprobe"],
    ("auto", True, False): ["fentry"],
    ("auto", False, True): ["kprobe"],
    ("auto", False, False): ["kprobe"],
    ("fentry", True, True): ["fentry"],
    ("fentry", True, False): ["fentry"],
    ("fentry", False, True): ["fentry"],
    ("fentry", False, False): ["fentry"],
    ("kprobe", True, True): ["kprobe"],
    ("kprobe", True, False): ["kprobe"],
    ("kprobe", False, True): ["kprobe"],
    ("kprobe", False, False): ["kprobe"],
}


@pytest.mark.parametrize(("wish", "trampolines", "kprobes"), FORMS)
def test_forms_follow_the_wish_and_the_kernel(
    wish: AttachWish, trampolines: bool, kprobes: bool
) -> None:
    """A wish is obeyed; auto takes fentry where it can, with kprobes to fall back on."""
    plan = replace(make_plan(make_facts()), trampolines=trampolines, kprobes=kprobes)
    assert list(plan.forms(wish)) == FORMS[wish, trampolines, kprobes]
