"""What a kernel's BTF tells: structures, their members, and the functions that can be hooked."""

from __future__ import annotations

from collections.abc import Iterator

from zpobs.doctor.report import Check
from zpobs.kernel.btf import Btf
from zpobs.kernel.hooks import CHOICES, Hook, all_hooks
from zpobs.kernel.layout import (
    COST,
    WALK_COST,
    Member,
    instead,
    members,
    resolve,
    walk_members,
)
from zpobs.kernel.pageflags import page_flags
from zpobs.kernel.plan import choose_hooks

_NEWER = "a newer zpobs"


def has_zsmalloc(btf: Btf) -> bool:
    """Tell whether zsmalloc's structures are described."""
    return btf.has_struct("zs_pool")


def structure_checks(btf: Btf, *, if_none: str) -> Iterator[Check]:
    """Yield what the kernel's page descriptors and size classes are like.

    ``if_none`` is what to try where no structure of zsmalloc is described.
    """
    hint = _NEWER if has_zsmalloc(btf) else if_none
    if not has_zsmalloc(btf):
        yield Check("kernel", "descriptor", "unknown", "no zsmalloc in BTF", COST, hint)
    elif btf.has_struct("zpdesc"):
        yield Check("kernel", "descriptor", "present", "struct zpdesc")
    else:
        yield Check("kernel", "descriptor", "present", "struct page, for there is no struct zpdesc")
    for name, count in (
        ("size class slots", btf.array_length("zs_pool", "size_class")),
        ("fullness groups", btf.array_length("size_class", "fullness_list")),
        ("bytes of struct zspage", btf.size("zspage")),
        ("bytes of struct page", btf.size("page")),
    ):
        if count:
            yield Check("kernel", name, "present", str(count))
        else:
            yield Check("kernel", name, "absent", "not in BTF", COST, hint)
    yield from _flag_checks(btf)


def _flag_checks(btf: Btf) -> Iterator[Check]:
    flags = page_flags(btf)
    for name in ("locked", "isolated"):
        mask = flags.mask(name)
        if mask:
            found = f"bit {mask.bit_length() - 1}"
            yield Check("kernel", f"page flag {name}", "present", found)
        else:
            costs = f"zspages with a page that is {name} are not told from others"
            yield Check("kernel", f"page flag {name}", "absent", "not in BTF", costs, _NEWER)
    if flags.page_type is None:
        found = "none: the whole word is first_obj_offset"
        yield Check("kernel", "page type", "absent", found)
    else:
        yield Check("kernel", "page type", "present", f"{flags.page_type:#x}")


def member_checks(btf: Btf, *, if_none: str) -> Iterator[Check]:
    """Yield every member of ``bpf/zs_layout.h``: where it is, or what its absence costs."""
    hint = _NEWER if has_zsmalloc(btf) else if_none
    for member in members():
        yield _member_check(btf, member, COST, hint)
    for member in walk_members():
        yield _member_check(btf, member, WALK_COST, hint)


def _member_check(btf: Btf, member: Member, costs: str, hint: str) -> Check:
    for structure, field in member.candidates:
        place = btf.place(structure, field)
        if place:
            found = f"byte {place.offset}, {place.bits} bits"
            if place.bit_offset % 8 or place.bits % 8:
                found = f"bit {place.bit_offset}, {place.bits} bits"
            return Check("members", f"{structure}.{field}", "present", found)
    name = " or ".join(map(".".join, member.candidates))
    done = instead(btf, member)
    if done:
        return Check("members", name, "absent", f"not needed: {done}")
    return Check("members", name, "absent", "not in BTF", costs, hint)


def hook_checks(btf: Btf, functions: frozenset[str] | None = None) -> Iterator[Check]:
    """Yield every hook, and the hooks that are chosen for each purpose.

    ``functions`` are those that the running kernel lists; None where only the BTF is known.
    """
    described = frozenset(hook.function for hook in all_hooks() if btf.has_function(hook.function))
    there = described if functions is None else functions
    chosen = {
        hook.function: choice.purpose for choice in CHOICES for hook in choose_hooks(choice, there)
    }
    for hook in all_hooks():
        name = hook.function
        if name in there:
            found = "can be hooked"
            if functions is not None:
                found = "in kallsyms and BTF" if name in described else "in kallsyms, not in BTF"
            yield Check("hooks", name, "present", found if name in chosen else f"{found}, not used")
        elif name not in chosen:
            yield Check("hooks", name, "absent", "not needed: others do")
        else:
            yield Check("hooks", name, "absent", "not in this kernel", cost_of(hook))
    for choice in CHOICES:
        hooks = choose_hooks(choice, there)
        found = ", ".join(hook.function for hook in hooks if hook.function in there)
        whole = all(hook.function in there for hook in hooks)
        # What it costs is said of each hook.
        yield Check("hook sets", choice.purpose, "present" if whole else "absent", found or "none")


def cost_of(hook: Hook) -> str:
    """Return what the lack of a hook costs."""
    parts = [f"{hook.unseen}: seen by scans alone"] if hook.unseen else []
    if hook.uncounted:
        parts.append(f"not counted: {', '.join(hook.uncounted)}")
    if hook.untold:
        parts.append(f"not told: {hook.untold}")
    return "; ".join(parts)


def chosen_hooks(btf: Btf, functions: frozenset[str] | None = None) -> tuple[Hook, ...]:
    """Return the hooks that a session wants on this kernel, there or not."""
    if functions is None:
        functions = frozenset(h.function for h in all_hooks() if btf.has_function(h.function))
    return tuple(hook for choice in CHOICES for hook in choose_hooks(choice, functions))


def structures_lacking(btf: Btf) -> tuple[list[str], list[str]]:
    """Return the members without which nothing works, and those without which no scan does."""
    lacking = [
        [
            " or ".join(map(".".join, member.candidates))
            for member in wanted
            if not resolve(btf, member) and not instead(btf, member)
        ]
        for wanted in (members(), walk_members())
    ]
    counted = {
        "zs_pool.size_class[]": btf.array_length("zs_pool", "size_class"),
        "size_class.fullness_list[]": btf.array_length("size_class", "fullness_list"),
        "struct zspage": btf.size("zspage"),
        "struct page": btf.size("page"),
    }
    return lacking[0] + [name for name, count in counted.items() if not count], lacking[1]
