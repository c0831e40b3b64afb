"""Records what one zsmalloc pool was asked to do, through tracefs kprobe events.

A second way into the kernel that shares nothing with zpobs' probes: no BPF, no
ring, only the kernel's own trace buffer. A recorded trace is replayed through
the tests' true allocator to show that it does as the kernel does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRACEFS = Path("/sys/kernel/tracing")
_GROUP = "zpobs_recorder"
_EVENTS = (
    f"p:{_GROUP}/malloc zs_malloc pool=$arg1:x64 size=$arg2:u64",
    f"r:{_GROUP}/malloced zs_malloc handle=$retval:x64",
    f"p:{_GROUP}/free zs_free pool=$arg1:x64 handle=$arg2:x64",
    f"p:{_GROUP}/compact zs_compact pool=$arg1:x64",
)
_LINE = re.compile(r"^ *\S.*?-(?P<task>\d+) +\[\d+\].*? (?P<event>\w+): \(.*?\)(?P<values>.*)$")
_VALUE = re.compile(r"(\w+)=(\w+)")
_BUFFER_KIB = 32 << 10

# ("malloc", size, name), ("free", name), ("compact",); a name is the handle's number.
Operation = tuple[str | int, ...]


class Recorder:
    """The operations on all pools while :func:`recording` was on."""

    def __init__(self) -> None:
        self._text = ""

    def finish(self) -> None:
        """Take the trace out of the kernel's buffer."""
        lost = re.compile(r"^CPU:\d+ \[LOST", re.MULTILINE)
        self._text = (_TRACEFS / "trace").read_text()
        if lost.search(self._text):
            raise RuntimeError("the kernel's trace buffer was too small for the run")

    def operations(self, pool: int) -> list[Operation]:
        """Return the operations on the pool at an address, in order."""
        return list(self._operations(pool))

    def _operations(self, pool: int) -> Iterator[Operation]:
        asked: dict[str, int] = {}
        for line in self._text.splitlines():
            found = _LINE.match(line)
            if not found:
                continue
            values = {name: int(text, 0) for name, text in _VALUE.findall(found["values"])}
            task, event = found["task"], found["event"]
            if event == "malloced":
                if task in asked:
                    yield "malloc", asked.pop(task), f"{values['handle']:x}"
            elif values.get("pool") != pool:
                continue
            elif event == "malloc":
                asked[task] = values["size"]
            elif event == "free":
                yield "free", f"{values['handle']:x}"
            elif event == "compact":
                yield ("compact",)


def _define(line: str) -> None:
    """Write one line to kprobe_events, which can be appended to but not sought in."""
    descriptor = os.open(_TRACEFS / "kprobe_events", os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record until the block ends; needs root and tracefs with kprobe events."""
    (_TRACEFS / "buffer_size_kb").write_text(str(_BUFFER_KIB))
    (_TRACEFS / "trace").write_text("")
    recorder = Recorder()
    for definition in _EVENTS:
        _define(definition)
    enable = _TRACEFS / "events" / _GROUP / "enable"
    try:
        enable.write_text("1")
        yield recorder
        enable.write_text("0")
        recorder.finish()
    finally:
        enable.write_text("0")
        for definition in _EVENTS:
            _define("-:" + definition.split()[0][2:])
