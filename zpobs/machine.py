"""Figures of the host and of this very process, by psutil."""

from __future__ import annotations

import psutil

from zpobs.footing import MachineFigures


def read_machine() -> MachineFigures:
    """Return the figures as of now."""
    memory, swap = psutil.virtual_memory(), psutil.swap_memory()
    own = psutil.Process()
    with own.oneshot():
        times = own.cpu_times()
        return MachineFigures(
            cpus=psutil.cpu_count() or 1,
            boot_s=psutil.boot_time(),
            memory_bytes=memory.total,
            memory_available_bytes=memory.available,
            swap_bytes=swap.total,
            swap_used_bytes=swap.used,
            process_start_s=own.create_time(),
            process_cpu_s=times.user + times.system,
            process_resident_bytes=own.memory_info().rss,
            process_descriptors=own.num_fds(),
            process_threads=own.num_threads(),
        )
