"""The server on real sockets: many clients, slow ones, and such that break the rules."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import socket
import ssl
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.views.metrics.support import families_of, full_pool, make_moment
from zpobs.errors import EnvironmentLacksError, UsageError
from zpobs.views.metrics.board import Board
from zpobs.views.metrics.listen import (
    SOCKET_MODE,
    Place,
    TlsFiles,
    open_socket,
    parse_place,
    tls_context,
)
from zpobs.views.metrics.pages import CONTENT_TYPES, Page
from zpobs.views.metrics.server import Server

PAGE = Page(families_of(make_moment(full_pool())), 0.0)
# Longer than any wait that is no failure.
PATIENCE_S = 60.0
ANYWHERE = Place("127.0.0.1", 0)
METHODS = (b"GET", b"HEAD")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    made = Board(15.0, clock)
    made.put(PAGE)
    return made


Serve = Callable[..., tuple[str, int]]


@pytest.fixture
def serve(board: Board) -> Iterator[Serve]:
    """Return what starts a server of the board and gives its address."""
    servers = []

    def start(**options: object) -> tuple[str, int]:
        listening = open_socket(ANYWHERE)
        servers.append(Server(listening, board, landing="<h1>zpobs</h1>", **options))  # type: ignore[arg-type]
        servers[-1].start()
        host, port = listening.getsockname()
        return str(host), int(port)

    yield start
    for server in servers:
        server.close()


def ask(
    at: tuple[str, int], path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(*at, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


def say(at: tuple[str, int], what: bytes) -> bytes:
    """Send bytes, and return all that comes back until the end."""
    with socket.create_connection(at, timeout=PATIENCE_S) as connected:
        connected.sendall(what)
        return rest_of(connected)


def rest_of(connected: socket.socket) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connected.recv(65536):
            answer += chunk
    return answer


# ---- answers ---------------------------------------------------------------------


def test_metrics_come_in_the_form_asked_for(serve: Serve) -> None:
    """With the type that belongs to it, and packed for those who take it."""
    at = serve()
    status, headers, body = ask(at)
    assert (status, headers["Content-Type"], body) == (
        200,
        CONTENT_TYPES["text"],
        PAGE.body("text"),
    )
    assert headers["Content-Length"] == str(len(body))
    status, headers, body = ask(
        at, Accept="application/openmetrics-text; version=1.0.0", Accept_Encoding="gzip"
    )
    assert headers["Content-Type"] == CONTENT_TYPES["openmetrics"]
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body) == PAGE.body("openmetrics")


def test_the_other_paths(serve: Serve) -> None:
    """A landing page, health, and nothing else; a query is no other path."""
    at = serve()
    status, headers, body = ask(at, "/")
    assert (status, headers["Content-Type"], body) == (
        200,
        "text/html; charset=utf-8",
        b"<h1>zpobs</h1>",
    )
    assert ask(at, "/healthz")[::2] == (200, b"ok\n")
    assert ask(at, "/metrics?name[]=zpobs_up")[0] == 200
    for path in ("/metric", "/../etc/passwd", "/metrics/"):
        assert ask(at, path)[0] == 404


@pytest.mark.parametrize("path", [b"/metrics", b"/healthz", b"/", b"/nothing"])
def test_head_is_get_without_a_body(serve: Serve, path: bytes) -> None:
    """The same to the byte, the length that the body would have among it."""
    at = serve()
    got, asked = (say(at, method + b" " + path + b" HTTP/1.1\r\n\r\n") for method in METHODS)
    head, _, body = got.partition(b"\r\n\r\n")
    assert asked == head + b"\r\n\r\n"
    assert b"Content-Length: %d\r\n" % len(body) in head + b"\r\n"
    assert body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_other_methods_are_405(serve: Serve, method: str) -> None:
    """And the answer says which there are."""
    status, headers, _ = ask(serve(), "/metrics", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_stale_figures_are_served_no_more(serve: Serve, clock: Clock) -> None:
    """After three intervals only zpobs_up is left, and it is 0; a new page brings all back."""
    at = serve()
    clock.now_s = 15.1
    status, _, body = ask(at)
    assert status == 200
    assert [line for line in body.decode().splitlines() if line[0] != "#"] == ["zpobs_up 0.0"]
    assert ask(at, "/healthz")[0] == 503
    clock.now_s = 14.9
    assert ask(at)[2] == PAGE.body("text")


def test_before_the_first_snapshot_it_is_down(clock: Clock) -> None:
    """As it is once figures are stale."""
    board = Board(15.0, clock)
    assert not board.fresh
    assert b"\nzpobs_up 0.0\n" in board.page.body("text")


# ---- clients -----------------------------------------------------------------------


def test_a_hundred_scrapers_at_once(serve: Serve) -> None:
    """Each gets the whole page."""
    at = serve()
    with ThreadPoolExecutor(100) as pool:
        begin = threading.Barrier(100)

        def scrape(_: int) -> bytes:
            begin.wait(PATIENCE_S)
            return ask(at)[2]

        assert set(pool.map(scrape, range(100))) == {PAGE.body("text")}


def test_clients_that_stall_hinder_nobody(serve: Serve) -> None:
    """Those that send nothing, half a request, or take no answer."""
    at = serve(request_s=PATIENCE_S, head_s=PATIENCE_S)
    with contextlib.ExitStack() as held:
        for what in (b"", b"GET /met", b"GET /metrics HTTP/1.1\r\nHost: x\r\n") * 10:
            connected = held.enter_context(socket.create_connection(at, timeout=PATIENCE_S))
            connected.sendall(what)
        assert ask(at)[2] == PAGE.body("text")


def test_a_request_has_a_deadline(serve: Serve) -> None:
    """Whoever sends a byte now and then is cut off all the same."""
    at = serve(head_s=1.0)
    with socket.create_connection(at, timeout=PATIENCE_S) as connected:
        connected.sendall(b"GET /metrics HTTP/1.1\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(int(PATIENCE_S / 0.2)):
                connected.sendall(b"x")
                time.sleep(0.2)
            pytest.fail("the request was never cut off")
        assert rest_of(connected) == b""


def test_a_request_has_to_come_soon(serve: Serve) -> None:
    """Whoever says nothing, or half of it, loses the connection long before a slow reader."""
    at = serve(request_s=10 * PATIENCE_S, head_s=0.3)
    for what in (b"", b"GET /metrics HTTP/1.1\r\nX: "):
        assert say(at, what) == b""


def test_who_says_nothing_makes_room(serve: Serve) -> None:
    """The longest there first, while all places are taken; those who ask are served."""
    at = serve(connections_max=3, request_s=PATIENCE_S, head_s=PATIENCE_S)
    held = [socket.create_connection(at, timeout=PATIENCE_S) for _ in range(3)]
    # Accepted in their order, all before this one.
    assert ask(at)[2] == PAGE.body("text")
    assert rest_of(held.pop(0)) == b""
    for connected in held:
        connected.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert rest_of(connected).endswith(PAGE.body("text"))


def test_a_flood_of_silence_keeps_nobody_out(serve: Serve) -> None:
    """Every scraper among many more connections than there are places is served at once."""
    at = serve(connections_max=8, request_s=PATIENCE_S, head_s=PATIENCE_S)
    with contextlib.ExitStack() as held:
        for _ in range(20):
            for _ in range(10):
                held.enter_context(socket.create_connection(at, timeout=PATIENCE_S))
            assert ask(at)[2] == PAGE.body("text")


@pytest.fixture
def long_page(board: Board) -> Page:
    """Put up a page that is in no socket's buffer as a whole."""
    page = Page(families_of(make_moment(version="x" * (16 << 20))), 0.0)
    board.put(page)
    return page


def asking(at: tuple[str, int]) -> socket.socket:
    """Ask for a page, and take the first byte of it alone."""
    connected = socket.socket()
    connected.settimeout(PATIENCE_S)
    # So that it is the server whose buffer is full.
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connected.connect(at)
    connected.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert connected.recv(1) == b"H"
    return connected


def test_connections_that_are_too_many_are_refused(serve: Serve, long_page: Page) -> None:
    """With 503, while all others are being served; once one has ended another is served."""
    at = serve(connections_max=2, request_s=PATIENCE_S, stall_s=PATIENCE_S)
    held = [asking(at) for _ in range(2)]
    with socket.create_connection(at, timeout=PATIENCE_S) as third:
        assert rest_of(third).startswith(b"HTTP/1.1 503 ")
    for connected in held:
        assert rest_of(connected).endswith(long_page.body("text"))
        connected.close()
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        # Until the server has seen that they are gone.
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(at)[0] == 200:
                return
    pytest.fail("refused for ever")


def test_who_takes_too_long_makes_room(serve: Serve, long_page: Page) -> None:
    """Though it has asked for something: it gets half a page, and the next a whole one."""
    at = serve(connections_max=1, request_s=PATIENCE_S, stall_s=0.2)
    with asking(at) as slow:
        time.sleep(0.3)
        assert ask(at)[2] == long_page.body("text")
        assert not rest_of(slow).endswith(long_page.body("text"))


class SlowBoard(Board):
    """A board whose page takes until it may be had; notes that somebody waits for it."""

    def __init__(self) -> None:
        super().__init__(15.0, lambda: 0.0)
        self.waited_for, self.free = threading.Event(), threading.Event()

    @property
    def page(self) -> Page:
        self.waited_for.set()
        assert self.free.wait(PATIENCE_S)
        return PAGE


def test_who_asked_is_not_cut_off_while_the_page_is_made() -> None:
    """The next is refused instead: it is no silent one that could make room."""
    board = SlowBoard()
    listening = open_socket(ANYWHERE)
    at = listening.getsockname()
    server = Server(listening, board, landing="", connections_max=1, stall_s=PATIENCE_S)
    server.start()
    try:
        with socket.create_connection(at, timeout=PATIENCE_S) as first:
            first.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert board.waited_for.wait(PATIENCE_S)
            with socket.create_connection(at, timeout=PATIENCE_S) as second:
                assert rest_of(second).startswith(b"HTTP/1.1 503 ")
            board.free.set()
            assert rest_of(first).endswith(PAGE.body("text"))
    finally:
        board.free.set()
        server.close()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 100_000, b"431"),
        (b"GET /metrics HTTP/1.0\n\n", b"200"),
        (b"GET /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", b"200"),
    ],
)
def test_broken_requests_are_answered(serve: Serve, request_: bytes, status: bytes) -> None:
    """With a status, not with silence; and the next client is served."""
    at = serve()
    assert say(at, request_).split()[1] == status
    assert ask(at)[0] == 200


def test_clients_that_go_early_do_no_harm(serve: Serve) -> None:
    """Reset before the answer, or before the request is whole."""
    at = serve()
    for what in (b"", b"GET /metrics HTTP/1.1\r\n\r\n") * 20:
        with socket.create_connection(at, timeout=PATIENCE_S) as connected:
            connected.sendall(what)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert ask(at)[0] == 200


def test_closing_lets_a_scrape_end(board: Board) -> None:
    """Whoever is being served gets all of it; whoever comes later, nothing."""
    listening = open_socket(ANYWHERE)
    at = listening.getsockname()
    server = Server(
        listening, board, landing="", request_s=PATIENCE_S, head_s=PATIENCE_S, grace_s=PATIENCE_S
    )
    server.start()
    with socket.create_connection(at, timeout=PATIENCE_S) as connected:
        connected.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert ask(at)[0] == 200
        closing = threading.Thread(target=server.close)
        closing.start()
        closing.join(0.2)
        assert closing.is_alive()
        connected.sendall(b"\r\n")
        assert rest_of(connected).endswith(PAGE.body("text"))
        closing.join(PATIENCE_S)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(at, timeout=PATIENCE_S)


# ---- unix sockets and TLS --------------------------------------------------------------


def test_a_unix_socket_is_its_owners_and_groups(board: Board, tmp_path: Path) -> None:
    """A socket that is left behind is replaced, one that answers or another file is not."""
    path = tmp_path / "metrics.sock"
    listening = open_socket(Place(path=path))
    assert stat.S_IMODE(path.stat().st_mode) == SOCKET_MODE
    server = Server(listening, board, landing="")
    server.start()
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(PATIENCE_S)
        connected.connect(str(path))
        connected.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        assert rest_of(connected).endswith(PAGE.body("text"))
    with pytest.raises(EnvironmentLacksError, match="Address already in use"):
        open_socket(Place(path=path))
    server.close()
    open_socket(Place(path=path)).close()
    path.unlink()
    path.write_text("not ours")
    with pytest.raises(EnvironmentLacksError, match="File exists"):
        open_socket(Place(path=path))
    assert path.read_text() == "not ours"


def test_paths_that_cannot_be_are_refused(tmp_path: Path) -> None:
    """No folder, or a name that is too long for a socket."""
    for path in (tmp_path / "no" / "x", tmp_path / ("x" * 200)):
        with pytest.raises(EnvironmentLacksError, match="cannot listen on unix:"):
            open_socket(Place(path=path))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("127.0.0.1:80", Place("127.0.0.1", 80)),
        (":80", Place("127.0.0.1", 80)),
        ("localhost:0", Place("localhost", 0)),
        ("[::1]:80", Place("::1", 80)),
        ("unix:/run/x", Place(path=Path("/run/x"))),
    ],
)
def test_addresses_are_parsed(text: str, place: Place) -> None:
    """And written as they are read."""
    assert parse_place(text) == place
    assert str(place).endswith(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "80", "x", "::1:80", "x:80000", "unix:", "http://x:80", "x:"),
        # No name of a host, which the resolver would not even look up.
        *("a..b:80", f"{'x' * 64}:80", ".:80", "\udcff:80"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """As wrong usage."""
    with pytest.raises(UsageError, match="is no address"):
        parse_place(text)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two self-signed certificates, and their keys."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("host", "client"):
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
                *("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"),
            ],
            check=True,
            capture_output=True,
        )
    return folder


def scrape_over_tls(at: tuple[str, int], client: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(at, timeout=PATIENCE_S) as plain,
        client.wrap_socket(plain, server_hostname="localhost") as connected,
    ):
        connected.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        answer = connected.recv(100)
        if not answer:
            raise ConnectionError
        return answer + rest_of(connected)


def test_tls_serves_those_with_a_certificate(serve: Serve, certificates: Path) -> None:
    """With --tls-client-ca nobody else; whoever speaks no TLS hinders nobody."""
    files = TlsFiles(
        certificates / "host.pem", certificates / "host.key", certificates / "client.pem"
    )
    at = serve(tls=tls_context(files), request_s=PATIENCE_S)
    silent = socket.create_connection(at, timeout=PATIENCE_S)
    say(at, b"GET /metrics HTTP/1.1\r\n\r\n")
    client = ssl.create_default_context(cafile=certificates / "host.pem")
    client.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    assert scrape_over_tls(at, client).endswith(PAGE.body("text"))
    nobody = ssl.create_default_context(cafile=certificates / "host.pem")
    with pytest.raises(OSError):
        scrape_over_tls(at, nobody)
    silent.close()


def test_files_that_make_no_tls_are_refused(certificates: Path, tmp_path: Path) -> None:
    """One clear line each: not there, not PEM, not of each other, with a password."""
    host = certificates / "host.pem"
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nonsense")
    locked = tmp_path / "locked.key"
    lock = ("openssl", "rsa", "-aes256", "-passout", "pass:secret")
    key = certificates / "host.key"
    subprocess.run([*lock, "-in", key, "-out", locked], check=True, capture_output=True)
    for files, words in (
        (TlsFiles(tmp_path / "no.pem", None, None), "No such file"),
        (TlsFiles(wrong, None, None), "pem lib"),
        (TlsFiles(host, certificates / "client.key", None), "key values mismatch"),
        (TlsFiles(host, locked, None), "encrypted"),
    ):
        with pytest.raises(EnvironmentLacksError) as refused:
            tls_context(files)
        assert words in str(refused.value)
        assert "--tls-cert and --tls-key" in str(refused.value)
    with pytest.raises(EnvironmentLacksError, match="--tls-client-ca"):
        tls_context(TlsFiles(host, certificates / "host.key", wrong))


def test_a_port_that_is_taken_is_refused() -> None:
    """With what to do."""
    with open_socket(ANYWHERE) as listening:
        place = Place("127.0.0.1", listening.getsockname()[1])
        with pytest.raises(EnvironmentLacksError, match="Address already in use; try: another"):
            open_socket(place)


@pytest.mark.skipif(not os.path.exists("/proc/net/if_inet6"), reason="needs IPv6")  # noqa: PTH110
def test_it_listens_on_ipv6() -> None:
    """In brackets, as it is written elsewhere."""
    with open_socket(parse_place("[::1]:0")) as listening:
        assert listening.getsockname()[0] == "::1"
