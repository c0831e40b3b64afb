"""One guest: QEMU with its channels, from the first instruction to the command's status.

The command's stdout, its stderr, its terminal and the lab's own control lines each have a virtio
port that ends in a socket pair, so the end of a command is never told from the text of the console.
That is quoted when a guest is lost, and searched for what the kernel complained of.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import selectors
import shutil
import socket
import stat
import struct
import subprocess
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.console import LOST_BOOT, console_rows, excused, kernel_warnings
from lab.host import (
    EXIT_GUEST_LOST,
    EXIT_KERNEL_WARNED,
    LabError,
    die_with_parent,
    end_group,
    need,
)
from lab.image import HERE, Images, cpio

# Emulation on a busy host is slow: only what is far out of proportion counts as hung.
BEAT_LIMIT = 90.0
_DRAIN = 0.2
_KEPT_LOGS = 20
_QUOTED_LINES = 12
_CHUNK = 1 << 16
# Without AVX: QEMU 7.2 emulates it, but a gather that meets a page being migrated ends in a
# segmentation fault (seen in NumPy's vectorised argsort, whenever memory blocks went offline).
_CPU = "max,la57=off,avx=off,avx2=off,fma=off,f16c=off"
# Boots that are tried until the command runs.
_BOOTS = 3
# Each with its reason in docs/lab.md.
KERNEL_ARGUMENTS = (
    "console=ttyS0 panic=-1 oops=panic loglevel=7 printk.time=1"
    " tsc=reliable no_timer_check mitigations=off cryptomgr.notests"
    " random.trust_cpu=on apparmor=0 audit=0 rcupdate.rcu_expedited=1"
    " watchdog_thresh=60 rcupdate.rcu_cpu_stall_timeout=120"
)


class GuestLost(LabError):  # noqa: N818 - it tells what became of the guest
    """The guest ended, or stopped answering, without the command's status.

    ``console`` is the text of its console.
    """

    status = EXIT_GUEST_LOST

    def __init__(self, what: str, console: str) -> None:
        super().__init__(what)
        self.console = console


class KernelWarned(LabError):  # noqa: N818 - it tells what the kernel did
    """The command ended, but the guest's kernel told of something wrong meanwhile."""

    status = EXIT_KERNEL_WARNED


@dataclass(frozen=True)
class Machine:
    """What a guest is made of besides its images.

    ``console`` is a file to keep its console in, those of boots that were lost first.

    ``environment`` are further variables for the command. ``count_instructions``
    makes the guest's clock advance a nanosecond an instruction, whatever the host does.
    """

    checkout: Path
    memory: str = "2G"
    cpus: int = 2
    share: Path | None = None
    append: str = ""
    console: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    count_instructions: bool = False


@dataclass
class _Ending:
    """What the guest said about the end of the command."""

    status: int | None = None
    left: dict[str, int] = field(default_factory=dict)


def run_guest(
    images: Images,
    machine: Machine,
    command: Sequence[str],
    *,
    logs: Path,
    timeout: float,
    terminal: bool = False,
    started: Callable[[float], None],
    again: Callable[[GuestLost], None],
) -> int:
    """Boot a guest, run the command in it, relay its output, and return its status.

    Raises GuestLost when there is no status to return, KernelWarned when there is one but the
    console shows that something is wrong with the kernel. `started` is called with the seconds the
    boot took when the command is about to run, `again` when a guest died before that of the
    emulator's known fault, see :func:`lab.console.excused`, and another is booted.
    """
    if machine.console is not None:
        machine.console.write_bytes(b"")
    for left in reversed(range(_BOOTS)):
        running: list[float] = []

        def began(seconds: float, running: list[float] = running) -> None:
            running.append(seconds)
            started(seconds)

        try:
            return _run_once(
                images,
                machine,
                command,
                logs=logs,
                timeout=timeout,
                terminal=terminal,
                started=began,
            )
        except GuestLost as lost:
            if running or not left or not excused(lost.console):
                raise
            if machine.console is not None:
                with machine.console.open("a") as kept:
                    kept.write(f"\n{LOST_BOOT}\n")
            again(lost)
    raise AssertionError("the last boot returns or raises")


def _run_once(
    images: Images,
    machine: Machine,
    command: Sequence[str],
    *,
    logs: Path,
    timeout: float,
    terminal: bool,
    started: Callable[[float], None],
) -> int:
    logs.mkdir(parents=True, exist_ok=True)
    _prune(logs)
    log = logs / f"{images.release}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    size = _window_size() if terminal else (24, 80)
    try:
        with contextlib.ExitStack() as stack:
            guest = stack.enter_context(
                _started_guest(images, machine, command, log, size if terminal else None)
            )
            if terminal:
                stack.enter_context(_raw_terminal())
            status = _Relay(guest, timeout, started).run()
    finally:
        if machine.console is not None and log.exists():
            with log.open("rb") as said, machine.console.open("ab") as kept:
                shutil.copyfileobj(said, kept)
    complaints = kernel_warnings(log.read_bytes().decode(errors="replace"))
    if complaints:
        what = f"the command ended with status {status}, but the kernel warned; console: {log}"
        quoted = [f"| {row}" for row in complaints[:_QUOTED_LINES]]
        raise KernelWarned("\n".join([what, *quoted]))
    # Of a guest that ended as it should the console is of no interest.
    log.unlink(missing_ok=True)
    return status


def _prune(logs: Path) -> None:
    for old in sorted(logs.glob("*.log"), key=lambda path: path.stat().st_mtime)[:-_KEPT_LOGS]:
        old.unlink(missing_ok=True)


def _quote(argument: bytes) -> bytes:
    return b"'" + argument.replace(b"'", b"'\\''") + b"'"


def _run_file(command: Sequence[str], machine: Machine, size: tuple[int, int] | None) -> bytes:
    """Write what the guest's init reads about this one run."""
    rows, columns = size or (24, 80)
    settings = {
        "SHARED": "no" if machine.share is None else "yes",
        "TERMINAL": "no" if size is None else "yes",
        "TERMINAL_ROWS": str(rows),
        "TERMINAL_COLUMNS": str(columns),
    }
    exported = {
        "HOME": "/root",
        "USER": "root",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb") if size else "dumb",
        **machine.environment,
    }
    rows_of = [f"{name}=".encode() + _quote(os.fsencode(value)) for name, value in settings.items()]
    rows_of += [
        f"export {name}=".encode() + _quote(os.fsencode(value)) for name, value in exported.items()
    ]
    words = b" ".join(_quote(os.fsencode(word)) for word in command)
    rows_of.append(b'lab_command() {\n\t"$@" ' + words + b"\n}\n")
    return b"\n".join(rows_of)


def _initrd(images: Images, run_file: bytes) -> int:
    """Put the initrd of this run into memory and return its descriptor: no file is left behind."""
    program = stat.S_IFREG | 0o755
    init = (HERE / "init.sh").read_bytes()
    entries = [
        ("init", program, init),
        ("lab/init.sh", program, init),
        ("lab/run.sh", program, run_file),
        ("lab/churn", program, images.churn.read_bytes()),
    ]
    handle = os.memfd_create("initrd", 0)
    with open(handle, "wb", closefd=False) as stream:
        stream.write(images.initrd.read_bytes() + cpio(entries))
    return handle


def _escaped(path: Path) -> str:
    """Write a path as QEMU's option parser wants it."""
    return str(path).replace(",", ",,")


def _arguments(
    images: Images, machine: Machine, log: Path, initrd: int, ports: dict[str, int]
) -> list[str]:
    folders = {"checkout": machine.checkout}
    if machine.share is not None:
        folders["share"] = machine.share
    accelerator: tuple[str, ...] = ("-accel", "tcg,thread=multi,tb-size=512")
    if machine.count_instructions:
        accelerator = (
            *("-accel", "tcg,thread=single,tb-size=512"),
            *("-icount", "shift=0,sleep=off"),
        )
    arguments = [
        need("qemu-system-x86_64", "qemu-system-x86"),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-machine", "q35", "-cpu", _CPU),
        *accelerator,
        *("-m", machine.memory, "-smp", str(machine.cpus)),
        *("-kernel", str(images.vmlinuz), "-initrd", f"/proc/self/fd/{initrd}"),
        *("-append", f"{KERNEL_ARGUMENTS} {machine.append}".rstrip()),
        *("-chardev", f"file,id=console,path={_escaped(log)}", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci,max_ports=8"),
    ]
    for name, handle in ports.items():
        device = "virtconsole" if name == "tty" else f"virtserialport,name=zpobs.{name}"
        arguments += ["-chardev", f"socket,id={name},fd={handle}"]
        arguments += ["-device", f"{device},chardev={name}"]
    for name, image in (("root", images.root), ("kernel", images.kernel)):
        drive = f"if=none,id={name},format=raw,readonly=on,file={_escaped(image)}"
        arguments += ["-drive", drive, "-device", f"virtio-blk-pci,drive={name},serial={name}"]
    for name, folder in folders.items():
        options = "security_model=none,readonly=on,multidevs=remap"
        arguments += ["-virtfs", f"local,path={_escaped(folder)},mount_tag={name},{options}"]
    return arguments


@dataclass
class _Guest:
    """A running QEMU and the host's ends of its channels."""

    process: subprocess.Popen[bytes]
    ports: dict[str, socket.socket]
    log: Path
    complaints: int

    def lost(self, what: str) -> GuestLost:
        """Say what happened to the guest, where its console is and how that ends."""
        try:
            text = self.log.read_bytes().decode(errors="replace")
        except OSError:
            text = ""
        rows = console_rows(text)
        # Of a panic what matters is where it begins, not the registers that follow.
        panic = [at for at, row in enumerate(rows) if "Kernel panic" in row or "BUG:" in row]
        begin = max(0, panic[0] - 2) if panic else max(0, len(rows) - _QUOTED_LINES)
        quoted = rows[begin : begin + _QUOTED_LINES]
        told = "\n".join([f"{what}; console: {self.log}", *(f"| {r}" for r in quoted)])
        return GuestLost(told, text)

    def gone(self) -> GuestLost:
        """Say how a guest ended that gave no status."""
        code = self.process.wait()
        said = os.pread(self.complaints, _CHUNK, 0).decode(errors="replace")
        if code < 0:
            return self.lost(f"the guest was lost: QEMU was killed by signal {-code}")
        if code > 0:
            reason = said.strip().splitlines()[-1:] or ["no reason given"]
            return self.lost(f"the guest was lost: QEMU failed with status {code}: {reason[0]}")
        with contextlib.suppress(OSError):
            panic = re.search(rb"Kernel panic[^\r\n]*", self.log.read_bytes())
            if panic is not None:
                return self.lost(f"the guest panicked: {panic[0].decode(errors='replace')}")
        return self.lost("the guest stopped without a status (it was reset or switched off)")


@contextlib.contextmanager
def _started_guest(
    images: Images,
    machine: Machine,
    command: Sequence[str],
    log: Path,
    size: tuple[int, int] | None,
) -> Iterator[_Guest]:
    """Start QEMU, and end it by its id whatever happens."""
    names = ("ctl", "tty") if size else ("ctl", "out", "err")
    with contextlib.ExitStack() as stack:
        pairs = {name: socket.socketpair() for name in names}
        for pair in pairs.values():
            stack.callback(pair[0].close)
            stack.callback(pair[1].close)
        initrd = _initrd(images, _run_file(command, machine, size))
        stack.callback(os.close, initrd)
        complaints = os.memfd_create("complaints")
        stack.callback(os.close, complaints)
        theirs = {name: pair[1].fileno() for name, pair in pairs.items()}
        # A session of its own: a ^C typed here is for the lab, which then ends QEMU.
        process = subprocess.Popen(
            _arguments(images, machine, log, initrd, theirs),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=[initrd, *theirs.values()],
            start_new_session=True,
            preexec_fn=die_with_parent(),  # noqa: PLW1509 - the lab has no threads
        )
        stack.callback(end_group, process, 5.0)
        for pair in pairs.values():
            pair[1].close()
            pair[0].setblocking(False)
        yield _Guest(process, {name: pair[0] for name, pair in pairs.items()}, log, complaints)


class _Relay:
    """Carries bytes between a guest and the lab's own streams until the command has ended."""

    def __init__(self, guest: _Guest, timeout: float, started: Callable[[float], None]) -> None:
        self._guest = guest
        self._timeout = timeout
        self._started = started
        self._began = self._beat = time.monotonic()
        self._deadline: float | None = None
        self._control = b""
        self._ending = _Ending()
        self._counts = {"out": 0, "err": 0}
        self._sinks = {"out": 1, "err": 2, "tty": 1}
        self._typed = b""
        self._window: tuple[int, int] | None = None

    def run(self) -> int:
        """Relay until there is a status; raise GuestLost if there will be none."""
        with selectors.DefaultSelector() as selector:
            for name, port in self._guest.ports.items():
                selector.register(port, selectors.EVENT_READ, name)
            if "tty" in self._guest.ports:
                selector.register(0, selectors.EVENT_READ, "typed")
            open_ports = set(self._guest.ports)
            while not self._complete():
                events = selector.select(1.0)
                names = {key.data for key, _ in events}
                for name in sorted(names, key=lambda each: each == "ctl"):
                    if name == "typed":
                        self._forward_typed(selector)
                    elif not self._receive(name):
                        # The sockets close when QEMU ends, but each has to be read to its end.
                        selector.unregister(self._guest.ports[name])
                        open_ports.discard(name)
                if not open_ports:
                    raise self._guest.gone()
                if "ctl" not in names:
                    self._check_alive()
                if "tty" in self._guest.ports:
                    self._forward_window()
        assert self._ending.status is not None
        return self._ending.status

    def _complete(self) -> bool:
        if self._ending.status is None:
            return False
        if "tty" in self._guest.ports:
            # No count here: what is on its way arrives at once, or there is nothing.
            return not self._drain_terminal()
        return all(self._counts[name] >= count for name, count in self._ending.left.items())

    def _drain_terminal(self) -> bool:
        port = self._guest.ports["tty"]
        with selectors.DefaultSelector() as selector:
            selector.register(port, selectors.EVENT_READ)
            return bool(selector.select(_DRAIN)) and self._receive("tty")

    def _receive(self, name: str) -> bool:
        """Take what a port has; return False at its end."""
        try:
            data = self._guest.ports[name].recv(_CHUNK)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        if name == "ctl":
            self._obey(data)
        else:
            if name in self._counts:
                self._counts[name] += len(data)
            _write_all(self._sinks[name], data)
        return bool(data)

    def _obey(self, data: bytes) -> None:
        """Act on the lines of the control port."""
        *lines, self._control = (self._control + data).split(b"\n")
        for line in lines:
            self._beat = time.monotonic()
            word, *rest = line.decode(errors="replace").split(" ")
            if word == "start":
                self._deadline = self._beat + self._timeout
                self._started(self._beat - self._began)
            elif word == "exit":
                status, out, err = (int(number) for number in rest)
                self._ending = _Ending(status, {"out": out, "err": err})
            elif word == "fail":
                raise self._guest.lost(f"the guest could not be set up: {' '.join(rest)}")

    def _check_alive(self) -> None:
        now = time.monotonic()
        if now - self._beat > BEAT_LIMIT:
            raise self._guest.lost(f"the guest hangs: no heartbeat for {BEAT_LIMIT:.0f} s")
        if self._deadline is not None and now > self._deadline:
            raise self._guest.lost(f"the command is still running after {self._timeout:g} s")

    def _forward_typed(self, selector: selectors.BaseSelector) -> None:
        data = os.read(0, _CHUNK)
        if not data:
            selector.unregister(0)
        # A person types less than the socket holds; what does not fit now goes with the next key.
        self._typed += data
        with contextlib.suppress(BlockingIOError):
            sent = self._guest.ports["tty"].send(self._typed)
            self._typed = self._typed[sent:]

    def _forward_window(self) -> None:
        size = _window_size()
        if self._window is not None and size != self._window:
            with contextlib.suppress(BlockingIOError):
                self._guest.ports["ctl"].send(f"{size[0]} {size[1]}\n".encode())
        self._window = size


def _write_all(handle: int, data: bytes) -> None:
    while data:
        data = data[os.write(handle, data) :]


def _window_size() -> tuple[int, int]:
    """Return rows and columns of the lab's own terminal."""
    try:
        packed = fcntl.ioctl(0, termios.TIOCGWINSZ, bytes(8))
    except OSError:
        return 24, 80
    rows, columns, _, _ = struct.unpack("HHHH", packed)
    return rows or 24, columns or 80


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
