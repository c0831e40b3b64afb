"""What tests of the traps in a guest need: a witness that counts them, and probes that lack a part.

A guest has no compiler: :func:`build` makes the objects before it boots.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from tests.loaders.objects import program_names
from zpobs.bpf_build import compile_object
from zpobs.bpf_files import bpf_folder
from zpobs.closing import Closing
from zpobs.kernel.facts import probe_kernel
from zpobs.loaders.libbpf import BpfObject
from zpobs.sources import bpfmap

_WITNESS = Path(__file__).with_name("witness.bpf.c")
_FOLDER = Path(__file__).resolve().parent.parent.parent / "build" / "traps"
# What leads to a migration takes no longer.
_AWAIT_S = 1.0
# In the order of enum trap in witness.bpf.c.
TRAPS = (
    "locks refused",
    "deferred runs",
    "empty picked",
    "dying migrated",
    "moved",
    "address reused",
    "handle reused",
    "compacted in malloc",
    "compacted by shrinker",
    "compacted by file",
)


class Hold(IntFlag):
    """Where the witness holds a migration up; twin of enum hold in witness.bpf.c."""

    NOWHERE = 0
    ISOLATED = 1
    LOCKED = 2
    READING = 4


@dataclass(frozen=True, slots=True)
class Mutant:
    """The probes with one text, which stands there ``times``, replaced by another."""

    name: str
    old: str
    new: str
    file: str = "probes.bpf.c"
    times: int = 1

    @property
    def object_file(self) -> Path:
        """Where the compiled probes are."""
        return _FOLDER / self.name / "probes.bpf.o"

    def build(self) -> None:
        """Compile the probes without the part."""
        folder = self.object_file.parent
        folder.mkdir(parents=True, exist_ok=True)
        for source in [bpf_folder() / "probes.bpf.c", *bpf_folder().glob("*.h")]:
            text = source.read_text()
            if source.name == self.file:
                if text.count(self.old) != self.times:
                    raise ValueError(f"{self.file} holds this {text.count(self.old)} times")
                text = text.replace(self.old, self.new)
            (folder / source.name).write_text(text)
        compile_object(folder / "probes.bpf.c", self.object_file)


DEFERRED_UNTOLD = Mutant(
    "deferred-untold",
    "if (entry && entry->deferred_begin_ns)",
    "if (entry && entry->deferred_begin_ns == 1)",
)
DEATH_UNTOLD = Mutant("death-untold", "if ((u32)result == 1)", "if ((u32)result == 9)")
FREE_UNTOLD = Mutant(
    "free-untold",
    "\tdeath_observed(zspage);\n}\nON_ENTRY(__free",
    "\tif (!zspage)\n\t\tdeath_observed(zspage);\n}\nON_ENTRY(__free",
)
FIRST_IS_BIRTH = Mutant(
    "first-is-birth",
    "if (off_list)\n\t\tbirth_observed",
    "if (off_list || ZS_GET(&copy, zspage_inuse) == 1)\n\t\tbirth_observed",
)
SUCCESS_IS_MOVE = Mutant(
    "success-is-move",
    "if (!zspage || zspage_read(&copy, zspage))\n\t\treturn;\n\tpool =",
    "if (!zspage && !error) {\n"
    "\t\tstruct zs_pool_counters *any = pool_counters_lookup(0);\n\n"
    "\t\tif (any)\n\t\t\tany->word[ZS_POOL_MIGRATIONS]++;\n\t}\n"
    "\tif (!zspage || zspage_read(&copy, zspage))\n\t\treturn;\n\tpool =",
)
MOVE_IS_ALLOCATION = Mutant(
    "move-is-allocation",
    "if (off_list && ZS_GET(&copy, zspage_inuse) > 1)",
    "if (off_list && ZS_GET(&copy, zspage_inuse) > 1 << 20)",
)
PUTBACK_UNTOLD = Mutant(
    "putback-untold",
    "\tstate_observed(&copy, zspage, entry->serial);\n\tif (!ZS_GET(&copy, zspage_inuse))",
    "\tif (!ZS_GET(&copy, zspage_inuse))",
)
CALL_BY_TASK = Mutant(
    "call-by-task",
    "PT_REGS_SP(ctx)",
    "(bpf_get_current_pid_tgid() + 0 * PT_REGS_SP(ctx))",
    file="dialect_core.h",
    times=2,
)
MUTANTS = (
    DEFERRED_UNTOLD,
    DEATH_UNTOLD,
    FREE_UNTOLD,
    FIRST_IS_BIRTH,
    SUCCESS_IS_MOVE,
    MOVE_IS_ALLOCATION,
    PUTBACK_UNTOLD,
    CALL_BY_TASK,
)


def build() -> None:
    """Compile everything that is loaded in a guest."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    compile_object(_WITNESS, _FOLDER / "witness.bpf.o")
    for mutant in MUTANTS:
        mutant.build()


class TrapWitness(Closing):
    """The loaded witness; :meth:`met` tells how often each trap was met since."""

    def __init__(self) -> None:
        self._object = BpfObject(_FOLDER / "witness.bpf.o")
        btf = probe_kernel().btf
        # By the name of each its function: entry_zs_malloc, return_zs_malloc.
        functions = {name: name.split("_", 1)[1] for name in program_names(self._object)}
        there = [name for name, function in functions.items() if btf.has_function(function)]
        for name in functions:
            self._object.enable(name, name in there)
        self._object.load()
        for name in there:
            self._object.attach(name)
        self._map_fd = self._object.map_fd("met")

    def met(self) -> dict[str, int]:
        """Return the counts by the names of ``TRAPS``."""
        counts = self._counts()
        return {name: counts[number] for number, name in enumerate(TRAPS)}

    def refused(self) -> tuple[int, int]:
        """Return how many migrations failed, and the last error, a negative errno value."""
        counts = self._counts()
        word = counts[len(TRAPS) + 3]
        return counts[len(TRAPS) + 2], word - (1 << 64) if word >> 63 else word

    @contextlib.contextmanager
    def held_up(self, where: Hold) -> Iterator[Callable[[], bool]]:
        """Hold the next migrations up there, for a second at most, until the block is left.

        ``Hold.READING`` holds whoever reads an object. Yield what waits until one is, and
        tells whether one was.
        """
        before = self._count(len(TRAPS))

        def await_it() -> bool:
            end_s = time.monotonic() + _AWAIT_S
            while self._count(len(TRAPS)) == before and time.monotonic() < end_s:
                time.sleep(0.001)
            return self._count(len(TRAPS)) > before

        self._hold(where)
        try:
            yield await_it
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Hold nobody up any more."""
        self._hold(Hold.NOWHERE)

    def _hold(self, where: Hold) -> None:
        key = (len(TRAPS) + 1).to_bytes(4, sys.byteorder)
        bpfmap.update(self._map_fd, key, where.to_bytes(8, sys.byteorder))

    def _count(self, number: int) -> int:
        return self._counts()[number]

    def _counts(self) -> dict[int, int]:
        rows = bpfmap.items(self._map_fd, 4, 8)
        order = sys.byteorder
        return {int.from_bytes(key, order): int.from_bytes(value, order) for key, value in rows}

    def close(self) -> None:
        """Detach and unload it."""
        self._object.close()
