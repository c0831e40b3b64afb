"""A real exporter on this very kernel."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0
NO_PROBES = r"(zpobs: (no probe is|not) attached.*\n)?"

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


ZPOBS = (sys.executable, "-m", "zpobs")


def command(*arguments: str, program: Sequence[str] = ZPOBS) -> list[str]:
    return [*program, "exporter", *arguments]


def series_of(page: str) -> Series:
    """Return the series of a page, each once."""
    samples = [
        sample for family in text_string_to_metric_families(page) for sample in family.samples
    ]
    found = {(each.name, frozenset(each.labels.items())): each.value for each in samples}
    assert len(found) == len(samples)
    return found


class Exporter:
    """``zpobs exporter`` on a free port, until the block ends; then it must end well."""

    def __init__(
        self, *arguments: str, interval_s: float = 0.3, program: Sequence[str] = ZPOBS
    ) -> None:
        options = ("--listen", "127.0.0.1:0", "--interval", str(interval_s), *arguments)
        line = command(*options, program=program)
        self.process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        told = self.process.stderr.readline()
        found = re.fullmatch(r"zpobs: serving (https?://127\.0\.0\.1:\d+)/metrics\n", told)
        assert found, told
        self.url = found[1]

    @property
    def target(self) -> str:
        return self.url.partition("://")[2]

    def page(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE_S) as answer:
            return str(answer.read().decode())

    def series(self) -> Series:
        return series_of(self.page())

    def value(self, name: str, **labels: str) -> float | None:
        return self.series().get((name, frozenset(labels.items())))

    def until(self, holds: Callable[[Series], bool]) -> Series:
        """Scrape until something holds of a page; return that."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            found = self.series()
            if holds(found):
                return found
            assert time.monotonic() < end_s, found
            time.sleep(0.1)

    def renewed(self) -> Series:
        """Return a page of a snapshot that was begun from now on."""
        name = "zpobs_snapshot_timestamp_seconds", frozenset[tuple[str, str]]()
        now_s = time.time()
        return self.until(lambda found: found.get(name, 0) >= now_s)

    def end(self) -> None:
        """End it, unless it has ended already: well, and without a word but of probes."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.stderr is not None
        told = self.process.stderr.read()
        assert self.process.wait(PATIENCE_S) == 0
        # What probes this kernel refuses, and nothing else.
        assert re.fullmatch(NO_PROBES, told), told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.end()
        else:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
