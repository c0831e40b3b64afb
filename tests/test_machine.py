"""Figures of host and process, against the files that they come from."""

from __future__ import annotations

import os
import time
from pathlib import Path

from zpobs.machine import read_machine


def meminfo() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): 1024 * int(words[1]) for words in lines}


def test_the_host_is_as_its_files_say() -> None:
    """In bytes."""
    found, told = read_machine(), meminfo()
    assert found.memory_bytes == told["MemTotal"]
    assert found.swap_bytes == told["SwapTotal"]
    assert 0 < found.memory_available_bytes < found.memory_bytes
    assert found.swap_used_bytes <= found.swap_bytes
    assert found.cpus == os.cpu_count()
    assert found.boot_s < found.process_start_s < time.time() + 1


def test_the_process_is_this_one() -> None:
    """Its time goes on, its memory and descriptors are its own."""
    first = read_machine()
    end_s = time.process_time() + 0.1
    while time.process_time() < end_s:
        pass
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
    second = read_machine()
    for descriptor in held:
        os.close(descriptor)
    assert second.process_cpu_s > first.process_cpu_s
    assert second.process_descriptors == first.process_descriptors + 3
    assert second.process_resident_bytes > 10 << 20
    assert second.process_threads >= 1
    assert second.process_start_s == first.process_start_s
