"""A BPF object whose every program a verifier refuses, each for a reason of its own."""

from __future__ import annotations

from pathlib import Path

from zpobs.bpf_build import compile_object

_SOURCE = Path(__file__).with_name("refused.bpf.c")


def compile_refused(folder: Path) -> Path:
    """Compile the object into ``folder``; return its file."""
    target = folder / "refused.bpf.o"
    compile_object(_SOURCE, target)
    return target
