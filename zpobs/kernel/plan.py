"""What to attach on this kernel: decided from facts alone, touching nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.kernel.facts import KernelFacts
from zpobs.kernel.hooks import CHOICES, Choice, Hook, all_hooks
from zpobs.kernel.layout import constants, members, resolve
from zpobs.snapshot import Kernel

AttachForm = Literal["fentry", "kprobe"]
AttachWish = Literal["auto", "fentry", "kprobe"]


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What a loader is to do.

    ``hooks`` are to be attached, ``missing`` cannot be. ``places`` are the
    constants by which the bcc dialect reads kernel structures.
    ``vmemmap_base`` is the address of the descriptor of frame 0, None if page
    frames cannot be told. ``trampolines`` tells whether BTF describes every
    hook, which fentry needs, ``kprobes`` whether the kernel has them,
    ``realtime`` whether it is PREEMPT_RT. ``btf_object`` is what has the BTF
    of the hooks: vmlinux, or zsmalloc where that is a module. ``functions`` are those of
    the kernel that can be hooked at all.
    """

    kernel: Kernel
    hooks: tuple[Hook, ...]
    missing: tuple[Hook, ...]
    places: Mapping[str, str]
    size_classes: int
    vmemmap_base: int | None
    trampolines: bool
    kprobes: bool
    realtime: bool
    btf_object: str
    functions: frozenset[str]

    @property
    def births_on_insert(self) -> bool:
        """Whether insert_zspage() tells of births: where it is hooked, no class is known before."""
        return any(hook.function == "insert_zspage" for hook in self.hooks)

    def counted_by(self) -> dict[str, dict[str, int]]:
        """Return the functions whose programs only count -> counter -> tellings of each count."""
        return {
            hook.function: dict.fromkeys(hook.uncounted, hook.tellings)
            for hook in self.hooks
            if not hook.unseen
        }

    def forms(self, wish: AttachWish) -> tuple[AttachForm, ...]:
        """Return the form to try first, and what to try if the kernel refuses it."""
        if wish != "auto":
            return (wish,)
        if not self.trampolines:
            return ("kprobe",)
        return ("fentry", "kprobe") if self.kprobes else ("fentry",)


def make_plan(
    facts: KernelFacts, *, skip: frozenset[str] = frozenset(), vmemmap_base: int | None = None
) -> ProbePlan:
    """Decide what to attach; ``skip`` names hooks to leave out although they exist.

    ``vmemmap_base`` is the address of the descriptor of frame 0, as far as it is known.
    """
    known = {hook.function for hook in all_hooks()}
    if skip - known:
        raise UsageError(
            f"no hook is called {', '.join(sorted(skip - known))}",
            found=f"hooks {', '.join(sorted(known))}",
            hint="one or more of these, each by a --skip-hook of its own",
        )
    wanted = [hook for choice in CHOICES for hook in choose_hooks(choice, facts.functions)]
    hooks = tuple(h for h in wanted if h.function in facts.functions and h.function not in skip)
    missing = tuple(hook for hook in wanted if hook not in hooks)
    places, size_classes = _places(facts)
    return ProbePlan(
        kernel=_kernel(facts),
        hooks=hooks,
        missing=missing,
        places=places,
        size_classes=size_classes,
        vmemmap_base=vmemmap_base,
        kprobes=facts.kprobes,
        realtime=facts.realtime,
        btf_object="zsmalloc" if facts.btf.of_a_module else "vmlinux",
        functions=facts.functions,
        trampolines=all(facts.btf.has_function(hook.function) for hook in hooks),
    )


def choose_hooks(choice: Choice, functions: frozenset[str]) -> tuple[Hook, ...]:
    """Return the first complete set of hooks, or else the one that has the most of its hooks."""

    def lacking(hooks: tuple[Hook, ...]) -> tuple[bool, int, int]:
        there = sum(hook.function in functions for hook in hooks)
        complete = there == len(hooks)
        return not complete, 0 if complete else -there, len(hooks) - there

    return min(choice.sets, key=lacking)


def _kernel(facts: KernelFacts) -> Kernel:
    groups = facts.btf.array_length("size_class", "fullness_list")
    return Kernel(
        release=facts.release,
        page_size=facts.page_size,
        chain_size=facts.chain_size or 0,
        descriptor="zpdesc" if facts.btf.has_struct("zpdesc") else "page",
        fullness_groups=groups or 0,
        zspage_bytes=facts.btf.size("zspage") or 0,
    )


def _places(facts: KernelFacts) -> tuple[dict[str, str], int]:
    """Return the -D constants of the bcc dialect and the number of size class slots."""
    btf = facts.btf
    found: dict[str, str] = {}
    absent = []
    for member in members():
        place = resolve(btf, member)
        if place is None:
            absent.append(".".join(member.candidates[0]))
        else:
            found.update(constants(member, place))
    size_classes = btf.array_length("zs_pool", "size_class")
    groups = btf.array_length("size_class", "fullness_list")
    zspage_bytes = btf.size("zspage")
    page_bytes = btf.size("page")
    if absent or not (size_classes and groups and zspage_bytes and page_bytes):
        raise EnvironmentLacksError(
            "zsmalloc's structures are not as zpobs knows them",
            found=f"no {', '.join(absent) or 'size class table'} in the BTF of {facts.release}",
            hint="a newer zpobs, or modprobe zsmalloc if it is a module",
        )
    found["ZS_SIZEOF_zspage"] = str(min(zspage_bytes, 64))
    found["ZS_SIZEOF_page"] = str(page_bytes)
    found["ZS_CLASSES"] = str(size_classes)
    found["ZS_FULLNESS_GROUPS"] = str(groups)
    return found, size_classes
