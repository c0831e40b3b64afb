"""Puts the BPF sources and compiled objects and the manual pages into the wheel."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BpfObjects(BuildHookInterface[Any]):
    """Compiles bpf/*.bpf.c for the machine's own architecture; needs clang and libbpf's headers.

    An editable install uses both where the checkout has them.
    """

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; for a wheel also say where all of it goes and which machines it fits."""
        sys.path.insert(0, self.root)
        from zpobs.bpf_build import build_objects  # noqa: PLC0415 - found by the line above

        made = build_objects()
        if version != "editable":
            objects = {str(path): f"zpobs/_bpf/{name}" for name, path in made.items()}
            build_data["force_include"].update({"bpf": "zpobs/_bpf"} | objects)
            from zpobs.man_build import build_man_pages  # noqa: PLC0415 - needs more than objects

            pages = build_man_pages(Path(self.root, "build", "man"))
            build_data["shared_data"].update(
                {str(page): f"share/man/man1/{page.name}" for page in pages}
            )
            machine = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{machine}"
