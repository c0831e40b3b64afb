"""Puts the compiled BPF objects into the wheel, or beside an editable install."""

from __future__ import annotations

import sys
import sysconfig
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BpfObjects(BuildHookInterface[Any]):
    """Compiles bpf/*.bpf.c for the machine's own architecture; needs clang and libbpf's headers."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; for a wheel also say where each object goes and which machines it fits."""
        sys.path.insert(0, self.root)
        from zpobs.bpf_build import build_objects  # noqa: PLC0415 - found by the line above

        made = build_objects()
        if version != "editable":
            build_data["force_include"].update(
                {str(path): f"zpobs/_bpf/{name}" for name, path in made.items()}
            )
            machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{machine}"
