"""``zpobs exporter`` on this very kernel, where scans alone feed it: true, steady and bounded."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from lab.workload import PAGE_BYTES
from tests.native.device import NativeDevice
from tests.native.exporter import NO_PROBES, PATIENCE_S, ROOT, Exporter, Series, command, series_of
from tests.native.test_bad_start import holding, the_line
from zpobs.views.metrics.definitions import METRICS
from zpobs.views.metrics.metric import Metric

pytestmark = pytest.mark.native

BY_NAME = {metric.name: metric for metric in METRICS}


@pytest.fixture
def used(device: NativeDevice) -> NativeDevice:
    """Return a device that holds something of everything, with holes."""
    device.fill("mixed", 2000)
    device.fill("incompressible", 200, first=2000, seed=2)
    device.fill("constant", 100, first=2200)
    for first in range(0, 2000, 100):
        device.discard(first, 40)
    return device


def of_pool(found: Series, device: NativeDevice) -> dict[str, float]:
    """Return a pool's series that have no other label."""
    pool = frozenset({("pool", device.name)})
    return {name: value for (name, labels), value in found.items() if labels == pool}


def names_of(found: Series, device: NativeDevice) -> int:
    return sum(("pool", device.name) in labels for _, labels in found)


def test_values_are_the_kernels_own_at_rest(used: NativeDevice) -> None:
    """mm_stat, an independent scan, and the page: one and the same."""
    with Exporter("--per-class-fullness") as exporter:
        found = exporter.renewed()
    mm_stat = used.mm_stat()
    own = of_pool(found, used)
    original, compressed, total, limit, most, same, compacted, huge = mm_stat[:8]
    assert own["zpobs_pool_bytes"] == own["zpobs_zram_used_bytes"] == total > 0
    assert own["zpobs_pool_requested_bytes"] == own["zpobs_zram_compressed_bytes"] == compressed
    assert own["zpobs_pool_objects"] == original // PAGE_BYTES - same
    assert own["zpobs_zram_original_bytes"] == original
    assert (own["zpobs_zram_limit_bytes"], own["zpobs_zram_used_max_bytes"]) == (limit, most)
    assert own["zpobs_zram_same_filled_bytes"] == same * PAGE_BYTES > 0
    assert own["zpobs_zram_huge_bytes"] == huge * PAGE_BYTES > 0
    assert own["zpobs_pool_kernel_compacted_bytes_total"] == compacted * PAGE_BYTES
    parts = ("requested", "rounding", "header", "tail", "free_slot")
    assert sum(own[f"zpobs_pool_{part}_bytes"] for part in parts) == total
    done = subprocess.run(
        [*command()[:-1], "scan", "--json", "--pool", used.name],
        check=True,
        cwd=ROOT,
        capture_output=True,
    )
    (truth,) = json.loads(done.stdout)["pools"]
    assert used.mm_stat() == mm_stat
    status = ("zpobs_pool_status", frozenset({("pool", used.name), ("status", "exact")}))
    assert (truth["status"], found[status]) == ("exact", 1)
    for line in truth["classes"]:
        labels = {("pool", used.name), ("class", str(line["index"]))}
        for name, value in (
            ("object_size_bytes", line["size"]),
            ("objects", line["objects"]),
            ("object_capacity", line["capacity"]),
            ("exact", 1),
            ("bytes", line["zspages"] * line["pages_per_zspage"] * PAGE_BYTES),
        ):
            assert found[f"zpobs_class_{name}", frozenset(labels)] == value
        counts = [
            value
            for (name, has), value in found.items()
            if name == "zpobs_class_fullness_zspages" and labels <= has
        ]
        assert counts == line["fullness"]


def test_served_is_what_is_documented(used: NativeDevice) -> None:
    """Every metric on the page is one of the table, with its type and its labels."""
    with Exporter("--per-class-fullness", "--bpf-stats") as exporter:
        exporter.renewed()
        page = exporter.page()
    done = subprocess.run(
        ["promtool", "check", "metrics"], check=False, input=page, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    assert used.name in page
    expected: dict[str, Metric] = {name: BY_NAME[name] for name in types}
    shown = {"info": "gauge"}
    assert types == {name: shown.get(each.kind, each.kind) for name, each in expected.items()}
    for name, labels in series_of(page):
        assert {label for label, _ in labels} == set(expected[name].all_labels)
    # All but what takes probes is there.
    missing = [each.name for each in METRICS if each.name not in types]
    assert {BY_NAME[name].needs for name in missing} <= {"probes", "latency", "objects"}


def test_scrapes_never_walk_the_kernel(used: NativeDevice) -> None:
    """A hundred at once, and many one after the other, make no scan more: pages are finished."""
    with Exporter(interval_s=600) as exporter:
        first = exporter.until(lambda found: names_of(found, used) > 0)
        # One more page comes when the probes were tried.
        scans = ("zpobs_scans_total", frozenset[tuple[str, str]]())
        exporter.until(lambda found: found[scans] >= first[scans])
        time.sleep(1.0)
        page = exporter.page()
        with ThreadPoolExecutor(100) as pool:
            assert set(pool.map(lambda _: exporter.page(), range(300))) == {page}


def test_pools_come_and_go_without_a_trace(make_device: Callable[[], NativeDevice]) -> None:
    """A device that is removed has no series; the others keep theirs."""
    stays, goes = make_device(), make_device()
    for device in (stays, goes):
        device.fill("mixed", 200)
    with Exporter() as exporter:
        both = exporter.until(lambda found: names_of(found, stays) and names_of(found, goes) > 0)
        # Zswap's and others' aside.
        assert names_of(both, stays) == names_of(both, goes)
        goes.reset()
        found = exporter.until(lambda found: names_of(found, goes) == 0)
        assert names_of(found, stays) == names_of(both, stays)


def test_counters_never_go_back(used: NativeDevice) -> None:
    """Over rescans, compactions and a reset, of everything that is a counter."""
    before: Series = {}
    with Exporter("--per-class", "--bpf-stats", "--verify", "1", "--rescan", "0.5") as exporter:
        exporter.renewed()
        for round_ in range(6):
            found = exporter.renewed()
            for key, value in found.items():
                if BY_NAME[key[0]].kind == "counter":
                    assert value >= before.get(key, 0), key
                    before[key] = value
            if round_ == 2:
                used.compact()
            if round_ == 4:
                used.reset()
                used.set_up("2G")
                used.fill("mixed", 100)
        name = "zpobs_pool_kernel_compacted_bytes_total", frozenset({("pool", used.name)})
        assert before[name] > 0
        rounds = exporter.until(
            lambda found: found["zpobs_verifications_total", frozenset({("verdict", "equal")})] > 0
        )
        for what in ("model", "witness"):
            assert rounds["zpobs_divergences_total", frozenset({("what", what)})] == 0


def test_a_scrape_at_any_time_gets_a_whole_page(used: NativeDevice) -> None:
    """While it starts, attaches, scans and ends: a whole page, or no connection."""
    pages: list[str] = []
    troubles: list[BaseException] = []
    with Exporter("--rescan", "0.1", interval_s=0.1) as exporter:
        ended = threading.Event()

        def scrape() -> None:
            while not ended.is_set():
                try:
                    pages.append(exporter.page())
                except (urllib.error.URLError, ConnectionError) as error:
                    # It listens no more, or never took this connection.
                    if not isinstance(getattr(error, "reason", error), ConnectionError):
                        troubles.append(error)
                    return
                except BaseException as error:
                    troubles.append(error)
                    raise

        threads = [threading.Thread(target=scrape) for _ in range(8)]
        for thread in threads:
            thread.start()
        exporter.until(lambda found: names_of(found, used) > 0)
        exporter.renewed()
        exporter.end()
        for thread in threads:
            thread.join(PATIENCE_S)
        ended.set()
    assert not troubles
    assert all(page.endswith("\n") and "zpobs_up" in page for page in pages)
    assert any(used.name in page for page in pages)


def test_memory_is_flat_over_many_scrapes(used: NativeDevice) -> None:
    """Thousands of pages, taken over and over, by some who never take them: nothing stays."""
    with Exporter("--per-class-fullness", interval_s=0.1) as exporter:
        exporter.until(lambda found: names_of(found, used) > 0)
        process = psutil.Process(exporter.process.pid)
        host, port = exporter.target.split(":")

        def much() -> int:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda _: len(exporter.page()), range(200)))
            for _ in range(100):
                with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as half:
                    half.sendall(b"GET /me")
            exporter.renewed()
            return int(process.memory_info().rss)

        much()
        warm = much()
        most = max(much() for _ in range(3))
        assert most - warm < 8 << 20
        # Those who were cut off have no thread or descriptor left.
        end_s = time.monotonic() + PATIENCE_S
        while process.num_threads() > 8 or process.num_fds() > 48:
            assert time.monotonic() < end_s
            time.sleep(0.1)


def test_a_textfile_and_one_page(used: NativeDevice, tmp_path: Path) -> None:
    """--once, on standard output or as a file, tells of the pool."""
    path = tmp_path / "zpobs.prom"
    for line in (command("--once"), command("--once", "--textfile", str(path))):
        done = subprocess.run(line, check=True, cwd=ROOT, capture_output=True, text=True)
        assert re.fullmatch(NO_PROBES, done.stderr)
        page = path.read_text() if path.exists() else done.stdout
        assert of_pool(series_of(page), used)["zpobs_pool_bytes"] == used.mm_stat()[2]
    assert done.stdout == ""


def test_a_textfile_is_renewed_until_the_end(used: NativeDevice, tmp_path: Path) -> None:
    """A file an interval; none behind it."""
    path = tmp_path / "zpobs.prom"
    line = command("--textfile", str(path), "--interval", "0.2")
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE) as running:
        seen: set[bytes] = set()
        end_s = time.monotonic() + PATIENCE_S
        while len(seen) < 3:
            assert time.monotonic() < end_s
            # Not there at the very first; then what it says is that there is nothing yet.
            page = path.read_bytes() if path.exists() else b""
            if b"\nzpobs_up 1" in page:
                seen.add(page)
            time.sleep(0.05)
        assert all(used.name.encode() in page for page in seen)
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE_S) == 0
        assert running.stderr and re.fullmatch(NO_PROBES, running.stderr.read().decode())
    assert not list(tmp_path.iterdir())


def test_a_unix_socket_is_served_and_goes_with_the_exporter(
    used: NativeDevice, tmp_path: Path
) -> None:
    """--listen unix:PATH; a second exporter is refused, and after the end nothing is left."""
    path = tmp_path / "metrics.sock"
    line = command("--listen", f"unix:{path}", "--interval", "0.3")
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        assert running.stderr.readline() == f"zpobs: serving unix:{path}\n"
        assert "Address already in use" in refused("--listen", f"unix:{path}")
        end_s = time.monotonic() + PATIENCE_S
        page = b""
        while used.name.encode() not in page:
            assert time.monotonic() < end_s
            with socket.socket(socket.AF_UNIX) as connected:
                connected.settimeout(PATIENCE_S)
                connected.connect(str(path))
                connected.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                page = b"".join(iter(lambda: connected.recv(65536), b""))
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 0
        assert re.fullmatch(NO_PROBES, running.stderr.read())
    assert not path.exists()


# ---- bad starts ----------------------------------------------------------------------


def refused(*arguments: str) -> str:
    done = subprocess.run(
        command(*arguments), check=False, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return the_line(done)


def test_a_port_that_is_taken_is_one_line() -> None:
    """With status 3."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refused("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert "found: Address already in use; try: another --listen" in line


def test_files_that_do_not_do_are_one_line(tmp_path: Path) -> None:
    """A certificate that is none, and a folder that is not there."""
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nonsense")
    line = refused("--listen", "127.0.0.1:0", "--tls-cert", str(wrong))
    assert "cannot use the files of --tls-cert" in line
    line = refused("--textfile", str(tmp_path / "no" / "x.prom"))
    assert "cannot write" in line


def test_what_is_not_permitted_is_one_line(tmp_path: Path) -> None:
    """A low port without CAP_NET_BIND_SERVICE, and a folder that may not be written."""
    first = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip()
    assert int(first) > 1
    line = the_line(holding("bpf perfmon syslog", "exporter --listen 127.0.0.1:1"))
    assert "cannot listen on 127.0.0.1:1; found: Permission denied; try: a port from 1024" in line
    tmp_path.chmod(0o555)
    path = tmp_path / "zpobs.prom"
    line = the_line(holding("bpf perfmon syslog", f"exporter --textfile {path}"))
    assert f"cannot write {path}; found: Permission denied; try: another --textfile" in line


def test_without_rights_it_is_one_line() -> None:
    """Those that are lacking, as for every other command."""
    line = the_line(holding("", "exporter --once"))
    assert "found: root without CAP_BPF, CAP_PERFMON and CAP_SYSLOG; try: all of" in line
    line = the_line(holding("bpf perfmon syslog", "exporter --once --bpf-stats"))
    assert "BPF programs cannot be timed; found: Operation not permitted" in line


def test_the_least_rights_suffice(used: NativeDevice) -> None:
    """CAP_BPF, CAP_PERFMON and CAP_SYSLOG, as the unit gives them."""
    done = holding("bpf perfmon syslog", "exporter --once")
    assert done.returncode == 0
    assert re.fullmatch(NO_PROBES, done.stderr)
    assert of_pool(series_of(done.stdout), used)["zpobs_pool_bytes"] == used.mm_stat()[2]
