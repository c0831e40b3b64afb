"""What a guest's kernel complained of, told from the text of its console."""

from __future__ import annotations

import re

# Begins of messages, after the time. A program that crashed ("traps: ...") is not the kernel's
# fault, and names such as "[Firmware Bug]" or "RETBleed: WARNING: ..." are those of the machine.
_COMPLAINT = re.compile(
    r"""
    -+\[\ cut\ here\ \]-+
    | (?:watchdog:\ )?BUG[:\ ] | kernel\ BUG\ at | WARNING: | Oops: | UBSAN: | KASAN: | KFENCE:
    | Kernel\ panic | general\ protection\ fault | (?:invalid\ opcode|divide\ error):
    | (?:stack\ segment|int3): | ODEBUG: | INFO:\ trying\ to\ register\ non-static\ key
    | Bad\ page\ (?:state|map)
    | INFO:\ task\ .*blocked\ for\ more\ than | INFO:\ (?:possible|inconsistent|rcu_)
    | rcu:\ INFO:\ .*(?:stall|starved) | rcu:\ .*kthread\ (?:starved|timer\ wakeup)
    | possible\ (?:recursive|circular)\ locking | possible\ irq\ lock\ inversion
    | inconsistent\ lock\ state | suspicious\ RCU\ usage
    | (?:list_add|list_del)\ corruption | refcount_t: | slab\ corruption
    | .*page\ allocation\ failure: | .*scheduling\ while\ atomic
    | zsmalloc:\ Freeing\ non-empty\ class | zram:\ (?:Dec|C)ompression\ failed
    | Buffer\ I/O\ error | I/O\ error,\ dev | (?:Read|Write)-error\ on\ swap-device
    | .*(?:Bad|Unused)\ swap\ (?:file|offset)\ entry
    """,
    re.VERBOSE,
)
_PREFIX = re.compile(r"^\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

# The emulator's own fault: QEMU 7.2 with several emulated processors can run a breakpoint that the
# kernel has just patched away, in about one boot of thirty.
_PATCHED = re.compile(r"(?:Oops: )?int3: ")
# Parts the console of a lost boot from that of the next.
LOST_BOOT = "lab: this boot was lost, another follows"


def console_rows(text: str) -> list[str]:
    """Return the lines of a console that say something, without a terminal's escapes."""
    rows = (row.rstrip() for row in _ESCAPE.sub("", text).splitlines())
    return [row for row in rows if row]


def kernel_warnings(text: str) -> list[str]:
    """Return those lines of a console by which the kernel tells that something is wrong.

    Warnings, bugs, faults, stalls, tasks that hang, lock orders, corrupted lists, failed
    allocations of pages, and errors of devices and of swap: each line as it stands there.
    """
    return [row for row in console_rows(text) if _COMPLAINT.match(_PREFIX.sub("", row))]


def excused(text: str) -> bool:
    """Tell of the console of a lost boot if the first complaint is the emulator's known fault.

    Before the command runs nobody but the kernel itself patches its code.
    """
    complaints = kernel_warnings(text)
    return bool(complaints) and _PATCHED.match(_PREFIX.sub("", complaints[0])) is not None


def all_boots(text: str) -> tuple[list[str], int]:
    """Return the complaints in a console of one boot or several, and how many boots were excused.

    A boot that was lost for another reason than the emulator's known fault is a complaint.
    """
    *lost, last = re.split(rf"^{re.escape(LOST_BOOT)}$", text, flags=re.MULTILINE)
    complaints: list[str] = []
    for boot in lost:
        if not excused(boot):
            complaints += kernel_warnings(boot) or ["a boot was lost without a word"]
    return complaints + kernel_warnings(last), sum(map(excused, lost))
