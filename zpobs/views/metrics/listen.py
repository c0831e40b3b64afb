"""Where an exporter listens: the address as it is written, the socket, TLS."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from zpobs.errors import EnvironmentLacksError, UsageError

DEFAULT_PORT = 10233
DEFAULT_LISTEN = f"127.0.0.1:{DEFAULT_PORT}"
# Of a unix socket: its owner and group may connect.
SOCKET_MODE = 0o660
_BACKLOG = 256
# What OpenSSL's errors have beside words.
_SSL_MARKS = re.compile(r"\(_ssl\.c:\d+\)|\[[^]]*\]")


@dataclass(frozen=True, slots=True)
class Place:
    """An address: a host and a port, 0 for any free one, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of TLS, all PEM; with ``client_ca`` clients need a certificate of its own."""

    certificate: Path
    key: Path | None
    client_ca: Path | None


def parse_place(text: str) -> Place:
    """Return the place that ``--listen`` names; raise UsageError if it names none."""
    if text.startswith("unix:") and len(text) > len("unix:"):
        return Place(path=Path(text.removeprefix("unix:")))
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.%\w]+)\]|([^:\[\]/]*)):(\d{1,5})", text)
    if not found or int(found[3]) > 65535 or not _can_be_a_name(found[2] or ""):
        raise UsageError(
            f"--listen {text} is no address",
            found="neither HOST:PORT nor unix:PATH",
            hint=f"{DEFAULT_LISTEN}, [::1]:{DEFAULT_PORT} or unix:/run/zpobs.sock",
        )
    return Place(host=found[1] or found[2] or "127.0.0.1", port=int(found[3]))


def _can_be_a_name(host: str) -> bool:
    """Tell whether a host can have this name: getaddrinfo() takes no label that is too long."""
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True


def open_socket(place: Place) -> socket.socket:
    """Return a socket that listens there; raise EnvironmentLacksError if there can be none."""
    try:
        return _unix(place.path) if place.path is not None else _inet(place.host, place.port)
    except socket.gaierror as error:
        raise EnvironmentLacksError(
            f"cannot listen on {place}", found=error.strerror or str(error), hint="another --listen"
        ) from error
    except OSError as error:
        hint = "another --listen"
        if error.errno == errno.EADDRINUSE:
            hint = "another --listen, or end what listens there"
        elif error.errno in (errno.EACCES, errno.EPERM) and place.path is None:
            hint = "a port from 1024 up, or CAP_NET_BIND_SERVICE"
        raise EnvironmentLacksError(
            f"cannot listen on {place}",
            found=os.strerror(error.errno) if error.errno else str(error),
            hint=hint,
        ) from error


def _inet(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _unix(path: Path) -> socket.socket:
    """Listen on a path; a socket that is left of one who listens no more is replaced."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise OSError(errno.EEXIST, "")
            if _answers(path):
                raise OSError(errno.EADDRINUSE, "")
            path.unlink()
        # Nobody else is to have it in the moment before its rights are set.
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        if error.errno is None:
            # The path is longer than sun_path.
            raise OSError(errno.ENAMETOOLONG, "") from error
        raise
    return made


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as tried:
        tried.settimeout(1.0)
        try:
            tried.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the TLS of a server; raise EnvironmentLacksError for files that do not make one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An encrypted key would ask at the terminal; nobody is there.
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (OSError, ValueError) as error:
        raise _tls_error("--tls-cert and --tls-key", error) from error
    if files.client_ca is not None:
        try:
            context.load_verify_locations(cafile=files.client_ca)
        except OSError as error:
            raise _tls_error("--tls-client-ca", error) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _tls_error(option: str, error: OSError | ValueError) -> EnvironmentLacksError:
    if isinstance(error, ssl.SSLError):
        reason = _SSL_MARKS.sub("", str(error)).replace("_", " ").strip().lower()
    else:
        reason = getattr(error, "strerror", None) or str(error)
    return EnvironmentLacksError(
        f"cannot use the files of {option}",
        found=reason,
        hint="PEM files that belong together, which this user may read",
    )
