"""What the kernel's verifier says of a program that it refuses: why, and all of it kept."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

# Newer verifiers tell the reason in a report, with other things behind it.
_REASON = "Reason:"
# What says nothing of the reason: totals, states of registers and stack, steps taken back.
_DULL = re.compile(
    r"processed \d|max_states|peak_states|verification time|stack depth|HINT"
    r"|cur state:|old state:|from \d+ to \d+|mark_precise|last_idx|regs=|parent "
    r"|frame\d|caller:|callee:|to caller at|returning from callee|propagating|Func#|Live regs"
    r"|; |R\d+(_\w+)?=|\d+: R\d|arg#\d+ reference type\('UNKNOWN|\s"
)
_INSTRUCTION = re.compile(r"\d+: \([0-9a-f]{2}\)")
# Some reasons stand behind the jump that led there.
_BEHIND_A_JUMP = re.compile(r"\bpc[+-]\d+ ([a-z].*)$")
_PROGRAM = re.compile(r"[^\w.-]")


def last_useful_line(log: str) -> str:
    """Return the line of a verifier's log that says why, empty if none does."""
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    if _REASON in lines[:-1]:
        return lines[lines.index(_REASON) + 1].strip()
    for line in reversed(lines):
        if _INSTRUCTION.match(line):
            told = _BEHIND_A_JUMP.search(line)
            if told:
                return told[1]
        elif not _DULL.match(line):
            return line
    return ""


def refusal(program: str, log: str) -> str:
    """Return what to say of a refused program and where its whole log is, empty if no reason."""
    line = last_useful_line(log)
    return line and f"{program}: {line} (whole log in {keep_log(program, log)})"


def keep_log(program: str, log: str) -> Path:
    """Write a whole log to a file that only this user can read; return where, whatever it takes."""
    name = f"verifier-{_PROGRAM.sub('_', program)}"
    made = _state_file(f"{name}.log")
    descriptor, path = made if made else tempfile.mkstemp(prefix=f"zpobs-{name}-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
        file.write(log if log.endswith("\n") else f"{log}\n")
    if made is None:
        return Path(path)
    kept = Path(path).with_name(f"{name}.log")
    Path(path).replace(kept)
    return kept


def _state_file(name: str) -> tuple[int, str] | None:
    """Open a new file beside the one of this name in the user's folder of state, None if none is.

    What is in a folder of somebody else's, as under sudo, would be theirs to lead astray.
    """
    state = os.environ.get("XDG_STATE_HOME")
    try:
        folder = (Path(state) if state else Path.home() / ".local" / "state") / "zpobs"
        above = next(each for each in folder.parents if each.exists())
        if not folder.is_absolute() or above.stat().st_uid != os.geteuid():
            return None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            return None
        return tempfile.mkstemp(prefix=f".{name}-", dir=folder)
    except (OSError, RuntimeError):
        return None
