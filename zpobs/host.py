"""What the host allows and what its own files tell, asked before anything is loaded."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.snapshot import owner_of
from zpobs.sources.pools import zram_devices

_ZSWAP = Path("/sys/module/zswap/parameters")
_CAPABILITIES = {
    "CAP_SYS_ADMIN": 21,
    "CAP_SYSLOG": 34,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}


def capabilities() -> frozenset[str]:
    """Return those capabilities of this process that matter to zpobs."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = int(re.findall(r"^CapEff:\s*(\w+)$", status, re.MULTILINE)[0], 16)
    return frozenset(name for name, bit in _CAPABILITIES.items() if effective >> bit & 1)


def check_privilege() -> None:
    """Raise EnvironmentLacksError unless this process may load BPF programs."""
    held = capabilities()
    lacking = [name for name in ("CAP_SYSLOG", "CAP_PERFMON", "CAP_BPF") if name not in held]
    if lacking and "CAP_SYS_ADMIN" not in held:
        raise EnvironmentLacksError(
            "loading BPF programs needs root",
            found=f"user {os.geteuid()} without {', '.join(lacking)}",
            hint="sudo zpobs ...",
        )


def pools_in_use() -> set[str]:
    """Return the pools that the host's files tell of; zswap's go by the name ``zswap``."""
    names = {name for name, configured in zram_devices().items() if configured}
    return names | ({"zswap"} if _zswap_enabled() else set())


def _zswap_enabled() -> bool:
    """Tell whether zswap is on, and its pages go to zsmalloc."""
    parameters = {}
    for name in ("enabled", "zpool"):
        with contextlib.suppress(OSError):
            parameters[name] = (_ZSWAP / name).read_text(encoding="ascii").strip()
    # Other allocators, and the choice between them, were removed from kernels.
    return parameters.get("enabled") == "Y" and parameters.get("zpool", "zsmalloc") == "zsmalloc"


def check_pool(name: str) -> None:
    """Raise UsageError for a pool name that nothing on this host can ever have."""
    devices = zram_devices()
    if name in devices or (owner_of(name) == "zswap" and _zswap_enabled()):
        return
    found = [f"{device}{'' if used else ' (not set up)'}" for device, used in devices.items()]
    if _zswap_enabled():
        found.append("zswap pools, by names such as zswap1")
    raise UsageError(
        f"no pool is called {name}",
        found=", ".join(found) or "no zram device, and zswap is off",
        hint="one of these names, or no --pool to see all",
    )
