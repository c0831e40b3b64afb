"""Where a capture was made: what its first block tells, and each key again."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zpobs.capture.blocks import FORMAT_VERSION
from zpobs.capture.layout import TRIGGERS, schema
from zpobs.snapshot import Kernel
from zpobs.wire import WIRE_VERSION

if TYPE_CHECKING:
    from zpobs.session import Session
    from zpobs.wishes import Wishes

# What the columns of a class table are.
CLASS_COLUMNS = ("index", "size", "objs_per_zspage", "pages_per_zspage")


def environment_of(
    session: Session, wishes: Wishes, version: str, class_table: list[list[int]]
) -> dict[str, Any]:
    """Return what there is to tell of a session whose probes were attached.

    ``class_table`` has a row of CLASS_COLUMNS for each size class; empty if no pool was met yet.
    """
    plan, kernel = session.plan, session.plan.kernel
    attached = session.attached
    failed = attached.failed if attached else plan.hooks
    mono_ns = time.monotonic_ns()
    objects = wishes.objects
    return {
        "format": FORMAT_VERSION,
        "wire_version": WIRE_VERSION,
        "zpobs": version,
        "clock": {"time_ns": time.time_ns(), "mono_ns": mono_ns},
        "host": {
            "name": platform.node(),
            "machine": platform.machine(),
            "cpus": os.cpu_count() or 0,
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        },
        "kernel": {
            "release": kernel.release,
            "page_size": kernel.page_size,
            "chain_size": kernel.chain_size,
            "descriptor": kernel.descriptor,
            "fullness_groups": kernel.fullness_groups,
            "zspage_bytes": kernel.zspage_bytes,
        },
        "size_classes": plan.size_classes,
        "class_columns": list(CLASS_COLUMNS),
        "class_table": class_table,
        "attach": {
            "form": attached.form if attached else None,
            "hooks": [hook.function for hook in plan.hooks if hook not in failed],
            "missing_hooks": [hook.function for hook in (*plan.missing, *failed)],
        },
        "scans": wishes.scan,
        "pool": wishes.pool,
        "objects": None
        if objects is None
        else {
            "rate": objects.rate,
            "multiplier": objects.multiplier,
            "timed": wishes.timed_objects,
        },
        "latency": wishes.latency,
        "nodes": session.nodes.to_json(),
        "anonymous": False,
        "records": schema(),
        "triggers": TRIGGERS,
        "units": {"time_ns": "monotonic ns", "size": "bytes", "capacity": "objects"},
    }


def kernel_of(environment: Mapping[str, Any]) -> Kernel:
    """Return the kernel that an environment tells of."""
    told = environment["kernel"]
    return Kernel(
        release=str(told["release"]),
        page_size=int(told["page_size"]),
        chain_size=int(told["chain_size"]),
        descriptor="zpdesc" if told["descriptor"] == "zpdesc" else "page",
        fullness_groups=int(told["fullness_groups"]),
        zspage_bytes=int(told["zspage_bytes"]),
    )
