"""Scrapes of a real exporter over real pools: very many, at once, over TLS, and hostile ones."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.native.device import NativeDevice
from tests.native.exporter import PATIENCE_S, Exporter

pytestmark = pytest.mark.native

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
KINDS = (
    {"Accept": "text/plain"},
    {"Accept": "text/plain", "Accept-Encoding": "gzip"},
    {"Accept": OPENMETRICS},
    {"Accept": OPENMETRICS, "Accept-Encoding": "gzip"},
)
# What resident memory may grow by over 9,000 scrapes, after 1,000: a page of this exporter has some
# 20 KB, so that 300 pages that are kept, or 700 bytes of each scrape, are found.
GROWTH_BYTES_MAX = 6 << 20
WARM, SCRAPES = 1_000, 10_000
SILENT = 256


def page_of(url: str, headers: dict[str, str], tls: ssl.SSLContext | None = None) -> str:
    """Return a page, whole, or fail."""
    request = urllib.request.Request(f"{url}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S, context=tls) as answer:
        assert answer.status == 200
        body = answer.read()
        assert len(body) == int(answer.headers["Content-Length"])
        if answer.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        openmetrics = answer.headers["Content-Type"].startswith("application/openmetrics-text")
    page = str(body.decode())
    assert openmetrics == (headers["Accept"] == OPENMETRICS)
    assert page.endswith("# EOF\n" if openmetrics else "\n")
    return page


def made_at(page: str) -> str:
    found = re.search(r"^zpobs_snapshot_timestamp_seconds (\S+)$", page, re.MULTILINE)
    assert found, page
    return found[1]


def figures_come(url: str, name: str, tls: ssl.SSLContext | None = None) -> None:
    """Wait until a pool is on the page."""
    end_s = time.monotonic() + PATIENCE_S
    while f'pool="{name}"' not in page_of(url, KINDS[0], tls):
        assert time.monotonic() < end_s
        time.sleep(0.05)


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Return the files of a certificate for localhost and of its key."""
    files = tmp_path / "host.pem", tmp_path / "host.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-out", files[0], "-keyout", files[1]),
        ],
        check=True,
        capture_output=True,
    )
    return files


def test_a_hundred_scrapers_at_once_get_whole_pages(device: NativeDevice) -> None:
    """Each asks at the same moment, again and again, in all forms, while pages are renewed."""
    device.fill("mixed", 500)
    with Exporter("--per-class-fullness") as exporter:
        figures_come(exporter.url, device.name)
        begin = threading.Barrier(100)

        def scrape(number: int) -> set[str]:
            made = set()
            for _ in range(5):
                begin.wait(PATIENCE_S)
                page = page_of(exporter.url, KINDS[number % len(KINDS)])
                assert f'pool="{device.name}"' in page
                made.add(made_at(page))
            return made

        with ThreadPoolExecutor(100) as pool:
            made = set().union(*pool.map(scrape, range(100)))
        # Nothing kept the pump from its work meanwhile.
        assert len(made) > 1


def resident(exporter: Exporter) -> int:
    return int(psutil.Process(exporter.process.pid).memory_info().rss)


def scraped(url: str, count: int, tls: ssl.SSLContext | None = None) -> set[str]:
    """Scrape so often, in turn in all forms; return when the pages were made."""
    kinds = itertools.cycle(KINDS)
    return {made_at(page_of(url, next(kinds), tls)) for _ in range(count)}


def test_memory_is_flat_over_ten_thousand_scrapes(device: NativeDevice) -> None:
    """Plain, gzip and OpenMetrics in turn, a new page each second."""
    device.fill("mixed", 500)
    with Exporter(interval_s=1.0) as exporter:
        figures_come(exporter.url, device.name)
        scraped(exporter.url, WARM)
        warm = resident(exporter)
        made = scraped(exporter.url, SCRAPES - WARM)
        grown = resident(exporter) - warm
        print(f"{SCRAPES} scrapes of {len(made)} pages: {warm} bytes, {grown:+} bytes")
        assert len(made) > 5
        assert grown < GROWTH_BYTES_MAX


def test_memory_is_flat_over_scrapes_with_tls(
    device: NativeDevice, certificate: tuple[Path, Path]
) -> None:
    """A handshake each; fewer, for that takes its time."""
    device.fill("mixed", 500)
    tls = ssl.create_default_context(cafile=certificate[0])
    files = ("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    with Exporter(*files, interval_s=1.0) as exporter:
        url = exporter.url.replace("127.0.0.1", "localhost")
        figures_come(url, device.name, tls)
        scraped(url, 300, tls)
        warm = resident(exporter)
        made = scraped(url, 1_200, tls)
        grown = resident(exporter) - warm
        print(f"1,200 scrapes of {len(made)} pages over TLS: {warm} bytes, {grown:+} bytes")
        assert grown < GROWTH_BYTES_MAX


@pytest.mark.parametrize("over_tls", [False, True])
def test_silent_connections_keep_no_scraper_out(
    device: NativeDevice, certificate: tuple[Path, Path], over_tls: bool
) -> None:
    """Twice as many as there are places say nothing, and go on; then they are cut off."""
    device.fill("mixed", 100)
    tls = ssl.create_default_context(cafile=certificate[0]) if over_tls else None
    files = ("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    with Exporter(*files if over_tls else ()) as exporter:
        url = exporter.url.replace("127.0.0.1", "localhost")
        host, port = exporter.target.split(":")
        figures_come(url, device.name, tls)
        with contextlib.ExitStack() as held:
            for round_ in range(3):
                for _ in range(SILENT):
                    held.enter_context(socket.create_connection((host, int(port)), PATIENCE_S))
                assert f'pool="{device.name}"' in page_of(url, KINDS[round_], tls)
            # All of them lose their places though nobody wants those.
            process = psutil.Process(exporter.process.pid)
            end_s = time.monotonic() + PATIENCE_S
            while process.num_threads() > 8:
                assert time.monotonic() < end_s
                time.sleep(0.1)
