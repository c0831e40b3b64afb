"""A Prometheus server of our own on loopback: its configuration, its process, what it answers."""

from __future__ import annotations

import http
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.host import HostError, need

LOOPBACK = "127.0.0.1"
_POLL_S = 0.3
_LOG_TAIL = 3000
# Its folders are thrown away; more than a look back is never asked for.
_RETENTION = "6h"

Series = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """Addresses that are scraped under one name."""

    name: str
    targets: tuple[str, ...]
    path: str = "/metrics"


@dataclass(frozen=True, slots=True)
class Setup:
    """What a server does: ``rules`` is the text of a rules file, ``interval_s`` for both clocks.

    Series whose names match ``written`` go to the server at ``write_to``, with ``labels`` added;
    one that ``takes_writes`` is written to by others. ``copied``: it can be told to copy what it
    has, and to delete of it.
    """

    jobs: Sequence[Job] = ()
    rules: str = ""
    interval_s: int = 15
    labels: Mapping[str, str] = field(default_factory=dict)
    write_to: str = ""
    written: str = ".+"
    takes_writes: bool = False
    copied: bool = False

    def config(self, rules: Path) -> dict[str, Any]:
        """Return prometheus.yml as data; ``rules`` is where the rules file is."""
        made: dict[str, Any] = {
            "global": {
                "scrape_interval": f"{self.interval_s}s",
                "evaluation_interval": f"{self.interval_s}s",
                "external_labels": dict(self.labels),
            },
            "rule_files": [str(rules)] if self.rules else [],
            "scrape_configs": [
                {
                    "job_name": job.name,
                    "metrics_path": job.path,
                    "static_configs": [{"targets": list(job.targets)}],
                }
                for job in self.jobs
            ],
        }
        if self.write_to:
            keep = {"source_labels": ["__name__"], "regex": self.written, "action": "keep"}
            made["remote_write"] = [
                {
                    "url": f"http://{self.write_to}/api/v1/write",
                    "write_relabel_configs": [keep],
                    # What is looked at soon is to be there soon.
                    "queue_config": {"batch_send_deadline": "1s"},
                }
            ]
        return made


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on now."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        return int(taken.getsockname()[1])


class Prometheus:
    """A running server, with all that it keeps in a folder; it ends with this process.

    ``patience_s`` is how long :meth:`until` waits. HostError where there is no such program.
    """

    def __init__(
        self,
        folder: Path,
        setup: Setup,
        *,
        program: str | None = None,
        port: int | None = None,
        patience_s: float = 120.0,
    ) -> None:
        self._patience_s = patience_s
        self._log = folder / "prometheus.log"
        self.address = f"{LOOPBACK}:{port or free_port()}"
        rules, config = folder / "rules.yml", folder / "prometheus.yml"
        rules.write_text(setup.rules)
        # JSON is YAML.
        config.write_text(json.dumps(setup.config(rules), indent=1))
        command = [
            *(need("setpriv", "util-linux"), "--pdeathsig", "KILL", "--"),
            program or need("prometheus", "prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.address}",
            f"--storage.tsdb.retention.time={_RETENTION}",
        ]
        if setup.takes_writes:
            command.append("--web.enable-remote-write-receiver")
        if setup.copied:
            command.append("--web.enable-admin-api")
        with self._log.open("wb") as log:
            # What a terminal interrupts is this process; that one is ended in its turn.
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        return f"http://{self.address}/"

    def log(self) -> str:
        """Return the end of what it said."""
        return self._log.read_text(errors="replace")[-_LOG_TAIL:]

    def get(self, path: str, *, method: str = "GET", **parameters: str) -> Any:
        """Return the ``data`` of an answer; HostError with the server's words for a bad one."""
        query = urllib.parse.urlencode(parameters)
        request = urllib.request.Request(f"{self.url}api/v1/{path}?{query}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._patience_s) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:
                # It has begun to listen, and is not ready yet.
                raise
            raise HostError(f"{path} {parameters}: {error.read().decode()}") from error

    def instant(self, expr: str) -> Series:
        """Return the series of an expression now."""
        found: Series = self.get("query", query=expr)["result"]
        return found

    def rules(self) -> dict[str, dict[str, Any]]:
        """Return what it tells of each rule, by the rule's name."""
        return {
            rule["name"]: rule for group in self.get("rules")["groups"] for rule in group["rules"]
        }

    def targets(self) -> dict[str, str]:
        """Return the health of each target, by its address: up, down or unknown."""
        return {
            each["labels"]["instance"]: each["health"]
            for each in self.get("targets", state="active")["activeTargets"]
        }

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds; HostError if it ends, or patience does."""
        end_s = time.monotonic() + self._patience_s
        while True:
            try:
                if holds():
                    return
            except OSError as error:
                # It does not listen yet, or is busy.
                if self.process.poll() is not None:
                    raise HostError(f"prometheus ended\n{self.log()}") from error
            if time.monotonic() >= end_s:
                raise HostError(f"{what}: not within {self._patience_s:.0f} s\n{self.log()}")
            time.sleep(_POLL_S)

    def close(self) -> None:
        """End it, if it has not ended."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
