"""What tests in a guest may need of its kernel, and which kernels are known to lack it.

A feature is found by its presence in the running kernel, never by the kernel's version. What a
kernel may lack stands in one table, with the reason; the host hands a guest its part of it. A test
that needs what is lacking without being listed fails, and so does a listed reason that no longer
holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from lab.archive import Kernel
from lab.zswap import writes_back
from zpobs.kernel.facts import probe_kernel
from zpobs.kernel.hooks import all_hooks
from zpobs.kernel.layout import stores_every_page

# How the host names to a guest what its kernel may lack: a JSON object, feature to reason.
LACKING_VARIABLE = "ZPOBS_LACKING"

NO_HEADERS = "the archive has none for this kernel: nothing for bcc to compile with"
_PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")
_READERS = "readers of objects hold a spinlock, for which migrations wait"
_PAGES = "its descriptor is struct page: zpdesc came in 6.14"
_TRYLOCK = "inlined; zspages die in __free_zspage()"
_FREE_ZSPAGE = "inlined; zspages die behind trylock_zspage()"
_ZS_COMPACT = "inlined into zs_compact(), which is hooked"
# Series -> feature -> why it is lacking there.
LACKING: Mapping[str, Mapping[str, str]] = {
    "6.1": {
        "zpdesc": _PAGES,
        "readers may sleep": _READERS,
        "hook trylock_zspage": _TRYLOCK,
        "hook __zs_compact": _ZS_COMPACT,
        "hook putback_zspage": "inlined; insert_zspage() ends it",
        "zsmalloc built in": "a module, whose BTF is for CAP_SYS_ADMIN alone: no fentry without",
        "percent groups": "four fullness groups, and chains of at most four pages",
        "zswap writeback": "zsmalloc has no reclaim, and zswap none of its own",
        "zswap entries are objects": "pages of one value repeated are entries without an object",
    },
    "6.12": {
        "zpdesc": _PAGES,
        "readers may sleep": _READERS,
        "hook trylock_zspage": _TRYLOCK,
        "hook __zs_compact": _ZS_COMPACT,
        "hook insert_zspage": "inlined into putback_zspage(), which is hooked",
    },
    **{
        series: {
            "hook trylock_zspage": _TRYLOCK,
            "hook insert_zspage": "inlined into putback_zspage(), which is hooked",
        }
        for series in ("6.16", "6.17", "6.18", "7.2")
    },
    "7.3": {
        "hook __free_zspage": _FREE_ZSPAGE,
        "hook insert_zspage": "inlined into putback_zspage(), which is hooked",
    },
}


def may_lack(kernel: Kernel) -> dict[str, str]:
    """Return what a kernel of the archive is known to lack, and why: feature to reason."""
    found = dict(LACKING.get(kernel.series, {}))
    if not kernel.headers:
        found["headers"] = NO_HEADERS
    return found


def listed_as_lacking() -> dict[str, str]:
    """Return what the host told this guest that its kernel may lack."""
    listed: dict[str, str] = json.loads(os.environ.get(LACKING_VARIABLE, "{}"))
    return listed


def detect() -> dict[str, bool]:
    """Return of every feature whether the running kernel has it; wants zsmalloc loaded.

    Asked for before any test changed a setting.
    """
    facts = probe_kernel()
    found = {
        "zpdesc": facts.btf.has_struct("zpdesc"),
        "headers": Path(f"/lib/modules/{os.uname().release}/build/include").exists(),
        "zsmalloc built in": not facts.btf.of_a_module,
        "percent groups": facts.btf.array_length("size_class", "fullness_list") == 12,
        "zswap writeback": writes_back(),
        "zswap entries are objects": stores_every_page(facts.btf),
        # The reader's count came with that, and another way to take it (zs_obj_read_begin).
        "readers may sleep": facts.btf.has_struct("zspage_lock"),
        # Debian's own setting.
        "perf events for root alone": _PARANOID.read_text() == "3\n",
    }
    found |= {f"hook {hook.function}": hook.function in facts.functions for hook in all_hooks()}
    return found
