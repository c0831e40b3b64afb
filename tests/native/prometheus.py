"""A real Prometheus server, that scrapes what a test names."""

from __future__ import annotations

import http
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

PATIENCE_S = 120.0
# A scrape may take as long: on a busy machine that is more than it looks.
SCRAPE_S = 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Prometheus:
    """A server with a folder of its own; ``targets`` are addresses by job."""

    def __init__(self, folder: Path, targets: Mapping[str, str], rules: Path) -> None:
        self._log = folder / "prometheus.log"
        config = folder / "prometheus.yml"
        # As shipped, but evaluated as often as is scraped.
        shutil.copy(rules, folder / "rules.yml")
        made = {
            "global": {
                "scrape_interval": f"{SCRAPE_S}s",
                "evaluation_interval": f"{SCRAPE_S}s",
            },
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "honor_labels": False,
                    "static_configs": [{"targets": [target]}],
                }
                for job, target in targets.items()
            ],
        }
        config.write_text(yaml.safe_dump(made))
        self._port = free_port()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--storage.tsdb.retention.time=1h",
                ],
                stdout=log,
                stderr=log,
                env=os.environ | {"GOMAXPROCS": "2"},
            )

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    def get(self, path: str, **parameters: str) -> Any:
        """Return the ``data`` of an answer; the error's words fail the test."""
        query = urllib.parse.urlencode(parameters)
        address = f"http://127.0.0.1:{self._port}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(address, timeout=PATIENCE_S) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:
                # It has begun to listen, and is not ready yet.
                raise
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error

    def instant(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an expression now."""
        found: list[dict[str, Any]] = self.get("query", query=expr)["result"]
        return found

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something holds, however long this machine takes."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                if holds():
                    return
            except (urllib.error.URLError, ConnectionError):
                # It does not listen yet.
                assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end_s, f"{what}\n{self._log.read_text()[-3000:]}"
            time.sleep(0.3)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
