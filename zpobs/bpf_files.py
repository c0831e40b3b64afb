"""The C sources in ``bpf/``: beside the package in a checkout, inside it when installed."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def bpf_folder() -> Path:
    """Return the folder that holds the BPF sources."""
    installed = _PACKAGE / "_bpf"
    return installed if installed.is_dir() else _PACKAGE.parent / "bpf"


def bpf_text(name: str) -> str:
    """Return the text of one BPF source file."""
    return (bpf_folder() / name).read_text(encoding="utf-8")
