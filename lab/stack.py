"""``make stack``: an exporter, Prometheus with the rules, and a workload, up and ended together.

All of it is on the loopback address and works on this machine's own kernel: on scans alone where
that has no probes. A signal ends everything, and so does the end of any part.
"""

from __future__ import annotations

import argparse
import fcntl
import math
import mmap
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from lab.host import EXIT_USAGE, HostError, LabError, need
from lab.prometheus import LOOPBACK, Job, Prometheus, Setup, free_port
from lab.workload import PAGE_BYTES, ZramDevice

CHECKOUT = Path(__file__).resolve().parent.parent
RULES = CHECKOUT / "dashboards" / "rules" / "zpobs.rules.yml"
EXPORTER_PORT, PROMETHEUS_PORT = 10233, 9090
PORT_MAX = 65535
SCRAPE_S = 5
# Of every tier, so that each panel that can be filled is.
EXPORTER_OPTIONS = ("--per-class-fullness", "--latency", "--verify", "60")
ENDED_BY_ITSELF = 1
_PATIENCE_S = 120.0
_GRACE_S = 30.0
_POLL_S = 0.3
_DISKSIZE = "256M"
_PAGES = 16_000
_BATCH = 32
_PAUSE_S = 0.1
# The share of what is written that is discarded swings around so much in so long.
_SWING_S = 300.0
_COMPACTION_S = 60.0
# _IO(0x12, 119), include/uapi/linux/fs.h
_BLKDISCARD = 0x1277


class Workload:
    """Writes and discards pages of a zram device of its own, which grows and shrinks by turns."""

    def __init__(self) -> None:
        try:
            self.device = ZramDevice(_DISKSIZE)
        except (OSError, subprocess.CalledProcessError) as error:
            raise HostError(f"no zram device to work on: {error}") from error
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.trouble = ""

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """End the work, and remove the device."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        end_s = time.monotonic() + _GRACE_S
        while True:
            try:
                self.device.remove()
                return
            except OSError:
                # Somebody, such as udev, looks at it for a moment.
                if time.monotonic() > end_s:
                    raise
                time.sleep(_POLL_S)

    def _run(self) -> None:
        try:
            disk = os.open(f"/dev/{self.device.name}", os.O_RDWR | os.O_DIRECT)
            try:
                self._work(disk)
            finally:
                os.close(disk)
        except OSError as error:
            self.trouble = f"the workload on {self.device.name} ended: {error}"

    def _work(self, disk: int) -> None:
        made = random.Random(1)
        begin_s = compacted_s = time.monotonic()
        with mmap.mmap(-1, PAGE_BYTES) as page:
            while not self._over.wait(_PAUSE_S):
                now_s = time.monotonic()
                swing = math.sin((now_s - begin_s) * 2 * math.pi / _SWING_S)
                for _ in range(_BATCH):
                    noise = made.randrange(PAGE_BYTES)
                    page[:] = made.randbytes(noise) + bytes(PAGE_BYTES - noise)
                    os.pwritev(disk, [page], made.randrange(_PAGES) * PAGE_BYTES)
                for _ in range(round(_BATCH * (1 - swing))):
                    place = struct.pack("QQ", made.randrange(_PAGES) * PAGE_BYTES, PAGE_BYTES)
                    fcntl.ioctl(disk, _BLKDISCARD, place)
                if now_s - compacted_s > _COMPACTION_S:
                    compacted_s = now_s
                    self.device.compact()


class Exporter:
    """``zpobs exporter`` as a child, that ends with this process at the latest."""

    def __init__(self, port: int, log: Path) -> None:
        self._log = log
        command = [need("setpriv", "util-linux"), "--pdeathsig", "TERM", "--"]
        command += [sys.executable, "-m", "zpobs", "exporter"]
        command += ["--listen", f"{LOOPBACK}:{port}", *EXPORTER_OPTIONS]
        with log.open("wb") as out:
            # What a terminal interrupts is this process; the rest is ended in its order.
            self.process = subprocess.Popen(
                command, cwd=CHECKOUT, stdout=out, stderr=out, start_new_session=True
            )

    @property
    def address(self) -> str | None:
        """Where it serves, None as long as it does not."""
        found = re.search(r"^zpobs: serving http://(\S+)/metrics$", self.log(), re.MULTILINE)
        return found[1] if found else None

    def log(self) -> str:
        """Return what it said."""
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End it."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class Stack:
    """All parts; :meth:`run` ends when a signal came, or a part of it ended."""

    def __init__(self, exporter_port: int, prometheus_port: int) -> None:
        self._ports = exporter_port, prometheus_port
        self._stop = threading.Event()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: self._stop.set())

    def run(self) -> None:
        """Start everything, tell where it is, wait, and end it all; LabError if a part ended."""
        with ExitStack() as parts:
            folder = Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="zpobs-stack-")))
            workload = Workload()
            parts.callback(workload.close)
            workload.start()
            _say(f"workload:   /dev/{workload.device.name}")
            exporter = Exporter(_port(self._ports[0]), folder / "exporter.log")
            parts.callback(exporter.close)
            address = self._served(exporter)
            if address is None:
                return
            setup = Setup(
                jobs=[Job("zpobs", (address,))], rules=RULES.read_text(), interval_s=SCRAPE_S
            )
            server = Prometheus(folder, setup, port=_port(self._ports[1]), patience_s=_PATIENCE_S)
            parts.callback(server.close)
            server.until(
                lambda: self._stop.is_set() or server.targets().get(address) == "up",
                "prometheus scrapes the exporter",
            )
            if not self._stop.is_set():
                _tell(address, server)
                self._watch(exporter, server, workload)
            _say("ending")

    def _served(self, exporter: Exporter) -> str | None:
        """Wait until the exporter serves; None if a signal came first."""
        while not self._stop.wait(_POLL_S):
            if exporter.address:
                return exporter.address
            if exporter.process.poll() is not None:
                raise HostError(f"the exporter ended\n{exporter.log()}")
        return None

    def _watch(self, exporter: Exporter, server: Prometheus, workload: Workload) -> None:
        while not self._stop.wait(_POLL_S):
            if exporter.process.poll() is not None:
                raise PartEndedError(f"the exporter ended\n{exporter.log()}".rstrip())
            if server.process.poll() is not None:
                raise PartEndedError(f"prometheus ended\n{server.log()}".rstrip())
            if workload.trouble:
                raise PartEndedError(workload.trouble)


class PartEndedError(LabError):
    """A part ended that nobody had asked to."""

    status = ENDED_BY_ITSELF


class PortError(LabError):
    """A port was asked for that is none."""

    status = EXIT_USAGE


def _port(wanted: int) -> int:
    """Return a port if it is free, else any that is."""
    try:
        with socket.create_server((LOOPBACK, wanted)):
            return wanted
    except OSError:
        return free_port()


def _tell(address: str, server: Prometheus) -> None:
    _say(f"exporter:   http://{address}/metrics")
    _say(f"Prometheus: {server.url} ({server.url}alerts, {server.url}targets)")
    _say("dashboards: dashboards/grafana/*.json, for a Grafana that asks that Prometheus")
    _say("up; Ctrl-C ends all of it")


def _say(text: str) -> None:
    print(f"stack: {text}", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stack; 0 if a signal ended it, 1 if a part ended, 2 or 3 if it cannot be had."""
    parser = argparse.ArgumentParser(
        prog="python -m lab.stack", description="Exporter, Prometheus and rules over a workload."
    )
    for name, port in (("exporter", EXPORTER_PORT), ("prometheus", PROMETHEUS_PORT)):
        parser.add_argument(
            f"--{name}-port", type=int, default=port, help=f"default {port}, if that is free"
        )
    options = parser.parse_args(argv)
    try:
        for name in ("exporter", "prometheus"):
            port = getattr(options, f"{name}_port")
            if not 0 <= port <= PORT_MAX:
                raise PortError(f"--{name}-port {port} is no port; try: 0 to {PORT_MAX}, 0 for any")
        if os.geteuid() != 0:
            raise HostError("a zram device and BPF want root; try: sudo make stack")
        need("prometheus", "prometheus")
        Stack(options.exporter_port, options.prometheus_port).run()
    except LabError as error:
        print(f"stack: {error}", file=sys.stderr)
        return error.status
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
