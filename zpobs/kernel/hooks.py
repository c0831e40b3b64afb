"""The kernel functions that zpobs hooks, and what each of them tells.

A hook is chosen by what the running kernel has, never by its version. The
programs of the same names are in ``bpf/probes.bpf.c``; a test compares the
two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Moment = Literal["entry", "return"]


@dataclass(frozen=True, slots=True)
class Hook:
    """One kernel function to attach to.

    ``moments`` are the programs that it has. ``unseen`` says what part of the
    state stays unknown without it; ``uncounted`` names the counters of a
    snapshot that it feeds; each count is told by so many runs of its programs
    (``tellings``, at least) that it is only hidden if the kernel skips all of them. ``untold``
    says what else is not known without it.
    """

    function: str
    moments: tuple[Moment, ...]
    tells: str
    unseen: str = ""
    uncounted: tuple[str, ...] = ()
    tellings: int = 1
    untold: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """A thing to observe, and the sets of hooks that observe it, the best one first."""

    purpose: str
    sets: tuple[tuple[Hook, ...], ...]


_CREATE = Hook(
    "zs_create_pool",
    ("return",),
    "a pool is born",
    unseen="the creation of pools",
)
_DESTROY = Hook("zs_destroy_pool", ("entry",), "a pool is gone", unseen="the end of pools")
_MALLOC = Hook(
    "obj_malloc",
    ("return",),
    "allocations, moves, births of zspages with their page frames",
    unseen="births of zspages",
    uncounted=("allocs", "frees", "moves"),
)
_FIX = Hook(
    "fix_fullness_group",
    ("return",),
    "state of a zspage after an allocation or a free",
    unseen="allocations and frees in zspages that exist",
    uncounted=("frees",),
)
_PUTBACK = Hook(
    "putback_zspage",
    ("return",),
    "state of a zspage after a compaction",
    unseen="what compaction leaves in zspages",
    uncounted=("pages_freed",),
)
_INSERT = Hook(
    "insert_zspage",
    ("entry",),
    "births of zspages, state of a zspage after a compaction",
    unseen="births of zspages and what compaction leaves in them",
    uncounted=("allocs", "pages_freed"),
)
_TRYLOCK = Hook("trylock_zspage", ("return",), "death of a zspage", unseen="deaths of zspages")
_ASYNC_FREE = Hook(
    "async_free_zspage",
    ("entry", "return"),
    "deaths that waited for a page lock",
    unseen="deaths of zspages that waited for a page lock",
)
_FREE_ZSPAGE = Hook("__free_zspage", ("entry",), "death of a zspage", unseen="deaths of zspages")
_MIGRATE = Hook(
    "zs_page_migrate",
    ("return",),
    "page migrations, their results, and the new page frames",
    unseen="page frames after a migration",
    uncounted=("migrations", "migration_failures"),
)
# Two programs for each class of its own that a pool has: above 100 with pages of 4 KiB.
_COMPACT_CLASS = Hook(
    "__zs_compact",
    ("entry", "return"),
    "compaction runs, class by class, whoever starts them",
    uncounted=("compactions",),
    tellings=32,
)
_COMPACT = Hook(
    "zs_compact",
    ("entry", "return"),
    "compaction runs",
    uncounted=("compactions",),
)
_SHRINKER = Hook(
    "zs_shrinker_scan",
    ("entry", "return"),
    "compaction runs that memory pressure starts",
    untold="what starts compactions",
)
# Called with preemption on, and often: a preempted program makes the kernel skip its
# other runs on that CPU. What they hide is at most a failure, and they are counted.
_FAILURE = Hook("zs_malloc", ("return",), "failed allocations", uncounted=("failures",))

# trylock_zspage is a symbol only where zs_free() no longer goes through
# __free_zspage() (7.3), so it goes first; the deferred worker must then be watched
# by itself. zs_compact() is inlined into zs_shrinker_scan() from 6.16 on, where
# __zs_compact() is a symbol. putback_zspage() is inlined in 6.1, the insert_zspage() that
# ends it is not; a new zspage has its class only from then on.
CHOICES: tuple[Choice, ...] = (
    Choice("pool destruction", ((_DESTROY,),)),
    Choice("allocation", ((_MALLOC,),)),
    Choice("free", ((_FIX,),)),
    Choice("zspage death", ((_TRYLOCK, _ASYNC_FREE), (_FREE_ZSPAGE,))),
    Choice("migration", ((_MIGRATE,),)),
    Choice(
        "compaction",
        ((_COMPACT_CLASS, _PUTBACK), (_COMPACT, _PUTBACK), (_COMPACT, _INSERT)),
    ),
    Choice("compaction trigger", ((_SHRINKER,),)),
    Choice("allocation failure", ((_FAILURE,),)),
    # Last: a pool whose creation is seen is then seen by every other hook too.
    Choice("pool creation", ((_CREATE,),)),
)


# Of the add-on that tells of objects (bpf/objects.bpf.c). What is told of an object's store is
# attached before the store itself, so that no object is known by half.
OBJECT_HOOKS: tuple[Hook, ...] = (
    Hook("zswap_store", ("entry", "return"), "swap slots and cgroups of what zswap stores"),
    Hook("zswap_frontswap_store", ("entry", "return"), "the same, before 6.6"),
    Hook("zram_submit_bio", ("entry", "return"), "cgroups of what zram stores"),
    Hook("slot_free", ("entry",), "blocks of what zram stores"),
    Hook("zram_free_page", ("entry",), "the same, before 7.2"),
    Hook("zs_malloc", ("return",), "requested sizes, commands", unseen="requested sizes"),
    Hook("zs_free", ("entry",), "ends of objects", unseen="ends of objects"),
    Hook("insert_zspage", ("entry",), "classes of first objects, where they are told there"),
    Hook("obj_malloc", ("return",), "stores and moves of objects", unseen="stores of objects"),
)


def object_hooks(*, timed: bool) -> tuple[Hook, ...]:
    """Return the hooks of objects; ``timed``: with what sees allocations begin."""
    if not timed:
        return OBJECT_HOOKS
    return tuple(
        replace(hook, moments=("entry", "return")) if hook.function == "zs_malloc" else hook
        for hook in OBJECT_HOOKS
    )


def all_hooks() -> tuple[Hook, ...]:
    """Return every hook of every choice, once each."""
    found: dict[str, Hook] = {}
    for choice in CHOICES:
        for hooks in choice.sets:
            found.update((hook.function, hook) for hook in hooks)
    return tuple(found.values())


def hookable() -> frozenset[str]:
    """Return the names of all functions that anything may hook, add-ons included."""
    return frozenset(hook.function for hook in (*all_hooks(), *LATENCY_HOOKS, *OBJECT_HOOKS))


# Of the add-on that measures how long calls take (bpf/latency.bpf.c).
LATENCY_HOOKS: tuple[Hook, ...] = (
    Hook("zs_malloc", ("entry", "return"), "how long allocations take"),
    Hook("obj_malloc", ("entry",), "how long allocations take until they hold the class lock"),
    Hook("zs_free", ("entry", "return"), "how long frees take"),
    Hook("obj_free", ("entry",), "the class of a free, and how long it takes to the class lock"),
    Hook("zs_page_migrate", ("entry", "return"), "how long migrations take"),
)
