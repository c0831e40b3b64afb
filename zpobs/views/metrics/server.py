"""Hands out finished pages over HTTP: whatever clients do, it costs only what serves them.

A thread for each connection, so many at most; a deadline for its request and one for all of it,
from the connection over TLS to the last byte. When all places are taken whoever has asked for
nothing yet, the longest there first, makes room. Each connection serves one request.
"""

from __future__ import annotations

import contextlib
import email.message
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from zpobs.views.metrics.board import Board
from zpobs.views.metrics.pages import CONTENT_TYPES, wanted_form, wants_gzip

CONNECTIONS_MAX = 128
REQUEST_S = 10.0
# How long a request may take to come, TLS included.
HEAD_S = 3.0
# Whoever has taken so long makes room, even though it has asked for something.
STALL_S = 2.0
_HEAD_BYTES_MAX = 16 << 10
_METHODS = ("GET", "HEAD")
# How long those who are being served may take once all ends, and what a refusal may take.
GRACE_S = 2.0
_REFUSAL_S = 0.1
# How long a client that got its answer may take to close the connection.
_GOODBYE_S = 1.0

Answer = tuple[HTTPStatus, str, bytes]


class _BadRequestError(Exception):
    """What came is no request that is answered with more than a status."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


@dataclass(slots=True, eq=False)
class _Client:
    """A connection that has a place, since when (monotonic), and whether its request is there."""

    connection: socket.socket
    since_s: float
    asked: bool = False


class Server:
    """Serves a board on a listening socket until it is closed; TLS with a context."""

    def __init__(
        self,
        listening: socket.socket,
        board: Board,
        *,
        landing: str,
        tls: ssl.SSLContext | None = None,
        request_s: float = REQUEST_S,
        head_s: float = HEAD_S,
        stall_s: float = STALL_S,
        connections_max: int = CONNECTIONS_MAX,
        grace_s: float = GRACE_S,
    ) -> None:
        self._listening = listening
        self._board = board
        self._landing = landing.encode()
        self._tls = tls
        self._request_s = request_s
        self._head_s = head_s
        self._stall_s = stall_s
        self._connections_max = connections_max
        self._grace_s = grace_s
        # The longest there first. Those that made room are to be gone in a moment.
        self._clients: list[_Client] = []
        self._leaving: list[_Client] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._accept, name="zpobs-accept", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def close(self) -> None:
        """Take no more connections, let those that are served end, for a short time."""
        self._closing = True
        # Wakes the thread that waits in accept(); closing alone would not.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(self._grace_s)
        self._listening.close()
        end_s = time.monotonic() + self._grace_s
        with self._changed:
            while self._clients and time.monotonic() < end_s:
                self._changed.wait(end_s - time.monotonic())
            for client in self._clients:
                _cut_off(client)

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                if self._closing:
                    return
                # Too many open files, or a client that is gone already.
                time.sleep(0.05)
                continue
            client = _Client(connection, time.monotonic())
            if not self._placed(client):
                self._refuse(connection)
                continue
            try:
                threading.Thread(
                    target=self._serve, args=(client,), name="zpobs-serve", daemon=True
                ).start()
            except RuntimeError:
                # No thread can be had.
                self._done(client)

    def _placed(self, client: _Client) -> bool:
        """Give a client a place, another's if need be; return whether there was any."""
        with self._changed:
            if len(self._clients) >= self._connections_max:
                stalled_s = client.since_s - self._stall_s
                goes = next((each for each in self._clients if not each.asked), None) or next(
                    (each for each in self._clients if each.since_s < stalled_s), None
                )
                if goes is None or len(self._leaving) >= self._connections_max:
                    return False
                self._clients.remove(goes)
                self._leaving.append(goes)
                _cut_off(goes)
            self._clients.append(client)
            return True

    def _refuse(self, connection: socket.socket) -> None:
        """Close a connection that is one too many, with a word if that can be understood."""
        with contextlib.suppress(OSError), connection:
            if self._tls is None:
                connection.settimeout(_REFUSAL_S)
                connection.sendall(_response(_plain(HTTPStatus.SERVICE_UNAVAILABLE)))

    def _done(self, client: _Client) -> None:
        with self._changed:
            (self._clients if client in self._clients else self._leaving).remove(client)
            # Not before: nobody is to be cut off whose descriptor is another's already.
            client.connection.close()
            self._changed.notify_all()

    def _serve(self, client: _Client) -> None:
        connection = served = client.connection
        end_s = client.since_s + self._request_s
        head_end_s = min(end_s, client.since_s + self._head_s)
        try:
            if self._tls is not None:
                connection.settimeout(_left_s(head_end_s))
                # A socket of its own on a descriptor of its own, so that this one can be closed.
                served = self._tls.wrap_socket(connection.dup(), server_side=True)
            response = self._response(client, served, head_end_s)
            if response:
                served.settimeout(_left_s(end_s))
                served.sendall(response)
                _say_goodbye(served, end_s)
        except (OSError, ValueError):
            # Clients that go, stall or speak something else; it is no matter of ours.
            pass
        finally:
            if served is not connection:
                served.close()
            self._done(client)

    def _response(self, client: _Client, served: socket.socket, end_s: float) -> bytes:
        try:
            try:
                head = _read_head(served, end_s)
            finally:
                # Not once it is answered: making a page takes its time.
                client.asked = True
            if head is None:
                return b""
            method, path, headers = _parsed(head)
        except _BadRequestError as bad:
            return _response(_plain(bad.status))
        if method not in _METHODS:
            return _response(_plain(HTTPStatus.METHOD_NOT_ALLOWED), allow=True)
        return self._answer(method, path, headers)

    def _answer(self, method: str, path: str, headers: email.message.Message) -> bytes:
        bare = method == "HEAD"
        if path == "/metrics":
            form = wanted_form(headers.get("Accept", ""))
            gzipped = wants_gzip(headers.get("Accept-Encoding", ""))
            body = self._board.page.body(form, gzipped=gzipped)
            return _response(
                (HTTPStatus.OK, CONTENT_TYPES[form], body), bare=bare, gzipped=gzipped, varies=True
            )
        if path == "/healthz":
            if self._board.fresh:
                note = self._board.note
                answer = HTTPStatus.OK, _TEXT, "".join(f"{x}\n" for x in ("ok", note) if x).encode()
            else:
                answer = HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"no fresh figures\n"
            return _response(answer, bare=bare)
        if path == "/":
            return _response((HTTPStatus.OK, "text/html; charset=utf-8", self._landing), bare=bare)
        return _response(_plain(HTTPStatus.NOT_FOUND), bare=bare)


def _cut_off(client: _Client) -> None:
    """Have whatever waits for a client wait no more."""
    with contextlib.suppress(OSError):
        client.connection.shutdown(socket.SHUT_RDWR)


_TEXT = "text/plain; charset=utf-8"


def _left_s(end_s: float) -> float:
    left = end_s - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _chunks(served: socket.socket, end_s: float) -> Iterator[bytes]:
    while True:
        served.settimeout(_left_s(end_s))
        yield served.recv(4096)


def _read_head(served: socket.socket, end_s: float) -> bytes | None:
    """Return a request's head, None if the client went before it was whole."""
    head = b""
    for chunk in _chunks(served, end_s):
        head += chunk
        end = head.find(b"\r\n\r\n")
        if end >= 0:
            return head[: end + 4]
        if head.endswith(b"\n\n"):
            return head
        if not chunk:
            return None
        if len(head) > _HEAD_BYTES_MAX:
            raise _BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return None


def _parsed(head: bytes) -> tuple[str, str, email.message.Message]:
    """Return method, path without its query, and headers."""
    lines = io.BytesIO(head)
    words = lines.readline().decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _BadRequestError(HTTPStatus.BAD_REQUEST)
    try:
        headers = http.client.parse_headers(lines)
    except http.client.HTTPException as error:
        raise _BadRequestError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE) from error
    return words[0], words[1].partition("?")[0], headers


def _plain(status: HTTPStatus) -> Answer:
    return status, _TEXT, f"{status.phrase}\n".encode()


def _response(
    answer: Answer,
    *,
    bare: bool = False,
    gzipped: bool = False,
    varies: bool = False,
    allow: bool = False,
) -> bytes:
    status, content_type, body = answer
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
    ]
    if gzipped:
        lines.append("Content-Encoding: gzip")
    if varies:
        lines.append("Vary: Accept, Accept-Encoding")
    if allow:
        lines.append(f"Allow: {', '.join(_METHODS)}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if bare else head + body


def _say_goodbye(served: socket.socket, end_s: float) -> None:
    """End the sending side, and read on for a moment.

    What lies unread when a connection is closed resets it, and the client may lose the answer.
    """
    if isinstance(served, ssl.SSLSocket):
        served.settimeout(min(_left_s(end_s), _GOODBYE_S))
        served.unwrap()
        return
    served.shutdown(socket.SHUT_WR)
    for chunk in _chunks(served, min(end_s, time.monotonic() + _GOODBYE_S)):
        if not chunk:
            return
