"""A process that leaves the machine hardly any memory, and is the first to go if short of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from zpobs.closing import Closing

_CHUNK_BYTES = 1 << 20

_TAKE = """
import ctypes, mmap, os, pathlib, re, sys
pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
left_bytes, chunk_bytes = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
libc.mlockall(3)
held = []
while True:
    free = re.search(r"MemFree: +([0-9]+) kB", pathlib.Path("/proc/meminfo").read_text())[1]
    if int(free) * 1024 <= left_bytes:
        break
    chunk = mmap.mmap(-1, chunk_bytes)
    held.append(chunk)
print("there", flush=True)
sys.stdin.read()
"""


class Scarcity(Closing):
    """All memory but ``left_bytes`` of what is free is taken and locked until it is closed.

    What the kernel takes back from elsewhere is not taken: call :meth:`again` to.
    """

    def __init__(self, left_bytes: int) -> None:
        self._left_bytes = left_bytes
        self._takers: list[subprocess.Popen[str]] = []
        self.again()

    def again(self) -> None:
        """Take what is free by now."""
        command = [sys.executable, "-c", _TAKE, str(self._left_bytes), str(_CHUNK_BYTES)]
        taker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._takers.append(taker)
        assert taker.stdout
        # Nothing, if the kernel ended it: then there was too little, and there is more now.
        taker.stdout.readline()

    def close(self) -> None:
        """Give all of it back."""
        for taker in self._takers:
            taker.kill()
            taker.communicate()


def spare(pid: int) -> None:
    """Have the kernel end any other process before this one when memory is short."""
    Path(f"/proc/{pid}/oom_score_adj").write_text("-1000")
