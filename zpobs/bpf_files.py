"""The C in ``bpf/`` and the objects made of it: beside the package in a checkout, else inside it.

In a checkout the name of an object carries a digest of its sources, so that
one whose sources have changed since is not found rather than used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from zpobs.errors import EnvironmentLacksError

_PACKAGE = Path(__file__).resolve().parent
_DIGEST_DIGITS = 16


class StaleObjectError(EnvironmentLacksError):
    """The object was compiled from sources that have changed since."""


def installed() -> bool:
    """Tell whether the package carries sources and objects within it, as from a wheel."""
    return (_PACKAGE / "_bpf").is_dir()


def bpf_folder() -> Path:
    """Return the folder that holds the BPF sources."""
    return _PACKAGE / "_bpf" if installed() else _PACKAGE.parent / "bpf"


def built_folder() -> Path:
    """Return the folder that holds the compiled objects."""
    return _PACKAGE / "_bpf" if installed() else _PACKAGE.parent / "build" / "bpf"


def bpf_text(name: str) -> str:
    """Return the text of one BPF source file."""
    return (bpf_folder() / name).read_text(encoding="utf-8")


def bpf_object(name: str) -> Path:
    """Return the compiled object of this name, such as ``scan.bpf.o``.

    Raise StaleObjectError if its sources have changed since it was compiled,
    another EnvironmentLacksError if there is none.
    """
    path = built_folder() / (name if installed() else built_name(name))
    if path.exists():
        return path
    stem = name.partition(".")[0]
    older = next(built_folder().glob(f"{stem}-*.bpf.o"), None)
    if older:
        raise StaleObjectError(
            f"the BPF object {name} is out of date",
            found=f"sources in {bpf_folder()} that have changed since {older.name} was built",
            hint="make setup",
        )
    raise EnvironmentLacksError(
        f"the BPF object {name} is not there",
        found=f"no {path}",
        hint="the package anew" if installed() else "make setup",
    )


def built_name(name: str) -> str:
    """Return the file name that a checkout gives the object of the present sources."""
    stem = name.partition(".")[0]
    digest = hashlib.sha256()
    for path in (bpf_folder() / f"{stem}.bpf.c", *sorted(bpf_folder().glob("*.h"))):
        data = path.read_bytes() if path.exists() else b""
        digest.update(f"{path.name} {len(data)}\n".encode() + data)
    return f"{stem}-{digest.hexdigest()[:_DIGEST_DIGITS]}.bpf.o"
