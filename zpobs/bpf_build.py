"""Compiles ``bpf/*.bpf.c``: when a package is built, and by make in a checkout.

An installed package does without: this module needs clang and libbpf's headers.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from zpobs.bpf_files import bpf_folder, built_folder, built_name
from zpobs.errors import EnvironmentLacksError, ZpobsError

# As libbpf's bpf_tracing.h calls the architectures.
_TARGETS = {
    "x86_64": "x86",
    "aarch64": "arm64",
    "ppc64le": "powerpc",
    "riscv64": "riscv",
    "s390x": "s390",
}
_PACKAGES = "apt install clang libbpf-dev linux-libc-dev"


def object_names() -> list[str]:
    """Return the names of all objects, such as ``scan.bpf.o``."""
    return sorted(path.with_suffix(".o").name for path in bpf_folder().glob("*.bpf.c"))


def build_objects() -> dict[str, Path]:
    """Compile what is not there yet; return each object's path by its name.

    Raise EnvironmentLacksError if clang or libbpf's headers are missing.
    """
    folder = built_folder()
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: folder / built_name(name) for name in object_names()}
    for name, target in made.items():
        if not target.exists():
            compile_object(bpf_folder() / name.replace(".o", ".c"), target)
    for path in set(folder.glob("*.bpf.o")) - set(made.values()):
        path.unlink(missing_ok=True)
    return made


def compile_object(source: Path, target: Path) -> None:
    """Compile one BPF source file, of the package or beside it.

    Raise EnvironmentLacksError if clang or libbpf's headers are missing.
    """
    # Renamed when it is whole: others may build or load at the same time.
    unfinished = target.with_suffix(f".{os.getpid()}")
    command = ["clang", *_flags(source.parent), "-c", source.name, "-o", str(unfinished)]
    try:
        done = subprocess.run(
            command, check=False, cwd=source.parent, capture_output=True, text=True
        )
    except OSError as error:
        raise EnvironmentLacksError(
            "BPF objects are compiled by clang", found=f"no clang: {error.strerror}", hint=_PACKAGES
        ) from error
    if done.returncode:
        unfinished.unlink(missing_ok=True)
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        raise EnvironmentLacksError(
            f"clang cannot compile bpf/{source.name}",
            found=errors[0] if errors else done.stderr.strip(),
            hint=_PACKAGES,
        )
    unfinished.rename(target)


def _flags(folder: Path) -> Iterator[str]:
    machine = platform.machine()
    # BTF carries the folder of the sources: leave this machine's out.
    yield from ("-target", "bpf", "-mcpu=v2", "-g", "-O2", "-Wall", "-Werror")
    yield f"-ffile-prefix-map={folder}=bpf"
    yield f"-I{bpf_folder()}"
    yield f"-D__TARGET_ARCH_{_TARGETS.get(machine, machine)}"
    multiarch = Path(f"/usr/include/{machine}-linux-gnu")
    if multiarch.is_dir():
        # Where Debian keeps asm/: clang looks there only for its own target.
        yield f"-I{multiarch}"


def main() -> int:
    """Build all objects of the checkout; return the exit status."""
    try:
        build_objects()
    except ZpobsError as error:
        sys.stderr.write(f"zpobs: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
