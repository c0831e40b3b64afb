"""What counts as a complaint of a kernel, and what does not."""

from __future__ import annotations

import pytest

from lab.console import LOST_BOOT, all_boots, excused, kernel_warnings

COMPLAINTS = [
    "[  121.114801] WARNING: CPU: 1 PID: 77 at mm/zsmalloc.c:1466 zs_free+0x1a/0x1d0",
    "[   12.000001] WARNING: mm/zsmalloc.c:1466 at zs_free+0x1a/0x1d0, CPU#1: churn/77",
    "[   12.000001][  T123] WARNING: possible circular locking dependency detected",
    "[  121.114801] BUG: kernel NULL pointer dereference, address: 0000000000000008",
    "[  121.114801] BUG: Bad page state in process churn  pfn:12345",
    "[  121.114801] kernel BUG at mm/zsmalloc.c:1000!",
    "[  121.114801] Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "[  121.114801] general protection fault, probably for non-canonical address 0x1: 0000 [#1]",
    "[  242.000001] INFO: task kworker/1:1:33 blocked for more than 120 seconds.",
    "[  242.000001] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "[  242.000001] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [churn:77]",
    "[  242.000001] list_add corruption. next->prev should be prev (x), but was y.",
    "[  242.000001] churn: page allocation failure: order:0, mode:0x820(GFP_ATOMIC)",
    "[  242.000001] refcount_t: underflow; use-after-free.",
    "[  242.000001] ------------[ cut here ]------------",
    "[  242.000001] invalid opcode: 0000 [#1] PREEMPT SMP NOPTI",
    "[  242.000001] divide error: 0000 [#1] PREEMPT SMP NOPTI",
    "[  242.000001] stack segment: 0000 [#1] PREEMPT SMP NOPTI",
    "[  242.000001] int3: 0000 [#1] PREEMPT SMP NOPTI",
    "[  242.000001] ODEBUG: free active (active state 0) object: 00000000a hint: x",
    "[  242.000001] INFO: trying to register non-static key.",
    "[  242.000001] Buffer I/O error on dev zram0, logical block 1, lost async page write",
    "[  242.000001] I/O error, dev zram0, sector 8 op 0x1:(WRITE) flags 0x800 phys_seg 1",
    "[  242.000001] Write-error on swap-device (252:0:123)",
    "[  242.000001] Read-error on swap-device (252:0:123)",
    "[  242.000001] get_swap_device: Bad swap file entry 3ffffffffffff",
    "[  242.000001] _swap_info_get: Unused swap offset entry 00000123",
    "[  242.000001] zram: Decompression failed! err=-22, page=7",
    "[  242.000001] zram: Compression failed! err=-12",
]
FINE = [
    "[    0.000000] Linux version 7.3.4+deb13-amd64 (Debian 7.3.4-1) #1 SMP",
    "[    0.000000] RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable",
    "[    0.000000] [Firmware Bug]: TSC doesn't count with P0 frequency!",
    "[    0.000000] ACPI BIOS Error (bug): Failure creating named object",
    "[   14.000001] traps: python3[77] general protection fault ip:1 sp:2 error:0",
    "[   14.000001] traps: python3[77] trap invalid opcode ip:1 sp:2 error:0",
    "[   14.000001] workqueue: psi_avgs_work hogged CPU for >10000us 4 times",
    "[   14.000001] Memory cgroup out of memory: Killed process 77 (python3)",
    "lab: cannot load virtio.ko",
]


@pytest.mark.parametrize("line", COMPLAINTS)
def test_complaints_are_found(line: str) -> None:
    """In a console's lines, with a terminal's escapes and carriage returns."""
    console = "\r\n".join([FINE[0], f"\x1b[0m{line}", *FINE[1:]])
    assert kernel_warnings(console) == [line]


def test_the_rest_is_none() -> None:
    """What the machine's firmware or a program did wrong is not the kernel's complaint."""
    assert kernel_warnings("\n".join(FINE)) == []


PANIC = "[    1.342519] Kernel panic - not syncing: Fatal exception in interrupt"
PATCHED = f"{FINE[0]}\r\n[    1.333400] Oops: int3: 0000 [#1] SMP NOPTI\r\n{PANIC}\r\n"


@pytest.mark.parametrize(
    ("text", "is_excused"),
    [
        (PATCHED, True),
        (PATCHED.replace("Oops: ", ""), True),
        (f"{COMPLAINTS[0]}\n{PATCHED}", False),
        (PANIC, False),
        ("\n".join(FINE), False),
        ("", False),
    ],
)
def test_only_the_emulators_fault_excuses_a_lost_boot(text: str, is_excused: bool) -> None:
    """A breakpoint that was patched away, and nothing before it."""
    assert excused(text) is is_excused


def test_complaints_of_all_boots() -> None:
    """A boot that is excused is counted; any other that was lost is complained of."""
    lost = f"\n{LOST_BOOT}\n"
    assert all_boots(FINE[0]) == ([], 0)
    assert all_boots(PATCHED) == (kernel_warnings(PATCHED), 0)
    assert all_boots(lost.join([PATCHED, PATCHED, COMPLAINTS[0]])) == ([COMPLAINTS[0]], 2)
    assert all_boots(lost.join([PATCHED, PANIC, FINE[0]])) == ([PANIC], 1)
    assert all_boots(lost.join([FINE[0], FINE[0]])) == (["a boot was lost without a word"], 0)
