"""The documented front: a real nginx with TLS and a password before the exporter's socket."""

from __future__ import annotations

import base64
import contextlib
import grp
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.device import NativeDevice
from tests.native.exporter import PATIENCE_S, ROOT, command, series_of

pytestmark = pytest.mark.native

FRONT = ROOT / "docs" / "front" / "nginx.conf"
PORT, SOCKET = "10234", "/run/zpobs/metrics.sock"
# nginx's own on Debian, which the socket's group lets in.
USER = "www-data"
NAME, PASSWORD = "prometheus", "a secret: of ours"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that nginx's user may enter, as /run/zpobs is."""
    made = Path(tempfile.mkdtemp(prefix="zpobs-front-"))
    shutil.chown(made, group=USER)
    made.chmod(0o750)
    yield made
    shutil.rmtree(made)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def configured(folder: Path, port: int) -> Path:
    """Write a configuration around the documented one, which has this folder and port instead."""
    text = FRONT.read_text(encoding="utf-8")
    for old, new in (
        (f"listen {PORT} ssl", f"listen 127.0.0.1:{port} ssl"),
        (f"unix:{SOCKET}:", f"unix:{folder}/metrics.sock:"),
        ("/etc/nginx/zpobs.", f"{folder}/zpobs."),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "front.conf").write_text(text)
    path = folder / "nginx.conf"
    path.write_text(
        f"user {USER}; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; include {folder}/front.conf; }}\n"
    )
    return path


def credentials(folder: Path) -> None:
    """Write a certificate, its key, and the file of passwords, as the configuration says to."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-out", folder / "zpobs.pem", "-keyout", folder / "zpobs.key"),
        ],
        check=True,
        capture_output=True,
    )
    made = subprocess.run(
        ["openssl", "passwd", "-apr1", "-stdin"],
        input=PASSWORD,
        check=True,
        capture_output=True,
        text=True,
    )
    passwords = folder / "zpobs.htpasswd"
    passwords.write_text(f"{NAME}:{made.stdout}")
    shutil.chown(passwords, group=USER)
    passwords.chmod(0o640)


@contextlib.contextmanager
def running(line: list[str], end: signal.Signals) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(end)
            process.wait(PATIENCE_S)
        assert process.returncode == 0


class Front:
    """The front, as a scraper knows it."""

    def __init__(self, folder: Path, port: int) -> None:
        self._url = f"https://localhost:{port}"
        self._tls = ssl.create_default_context(cafile=folder / "zpobs.pem")

    def ask(self, path: str, password: str | None, method: str = "GET") -> tuple[int, str]:
        request = urllib.request.Request(self._url + path, method=method)
        if password is not None:
            word = base64.b64encode(f"{NAME}:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {word}")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S, context=self._tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def comes(self) -> None:
        """Wait until it listens."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.ask("/", PASSWORD)
            except OSError:
                assert time.monotonic() < end_s
                time.sleep(0.05)
            else:
                return


def test_the_front_lets_those_in_who_have_the_password(device: NativeDevice, folder: Path) -> None:
    """401 without one or with another, the page with it; nothing else is behind it."""
    device.fill("mixed", 100)
    port = free_port()
    configuration = configured(folder, port)
    credentials(folder)
    tried = subprocess.run(
        ["nginx", "-t", "-q", "-c", configuration], check=False, capture_output=True, text=True
    )
    assert (tried.returncode, tried.stderr) == (0, "")
    # As the unit's Group= would have it.
    group = grp.getgrnam(USER).gr_gid
    place = f"unix:{folder}/metrics.sock"
    exporter = [*("setpriv", f"--regid={group}", "--clear-groups"), *command("--listen", place)]
    front = Front(folder, port)
    with running(["nginx", "-c", str(configuration)], signal.SIGQUIT):
        front.comes()
        # Nobody is behind it yet.
        assert front.ask("/metrics", PASSWORD)[0] == 502
        with running([*exporter, "--interval", "0.3"], signal.SIGTERM):
            end_s = time.monotonic() + PATIENCE_S
            page = ""
            while device.name not in page:
                assert time.monotonic() < end_s
                time.sleep(0.05)
                status, page = front.ask("/metrics", PASSWORD)
                assert status in (200, 502)
            found = series_of(page)
            key = "zpobs_pool_bytes", frozenset({("pool", device.name)})
            assert found[key] == device.mm_stat()[2]
            assert front.ask("/healthz", PASSWORD)[0] == 200
            for password in (None, "", "another"):
                for path in ("/metrics", "/healthz"):
                    status, body = front.ask(path, password)
                    assert status == 401
                    assert "zpobs_" not in body
            assert front.ask("/", PASSWORD)[0] == 404
            assert front.ask("/metrics", PASSWORD, "POST")[0] == 403
