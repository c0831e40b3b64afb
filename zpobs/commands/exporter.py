"""``zpobs exporter``: Prometheus metrics."""

from __future__ import annotations

import contextlib
import importlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zpobs.commands.common import (
    AttachChoice,
    AttachOption,
    LoaderChoice,
    LoaderOption,
    ObjectsOption,
    ObjectsRateOption,
    ObjectsSeedOption,
    PoolOption,
    RescanOption,
    RingSizeOption,
    ScanOption,
    SkipHookOption,
    output_checked,
    parse_ring_size,
    progress,
    sampling_of,
    version,
)
from zpobs.commands.replaying import (
    AtOption,
    ReplayOption,
    SpeedOption,
    opened_replay,
    parse_speed,
    refuse_given,
)
from zpobs.errors import EnvironmentLacksError, UsageError, warn

if TYPE_CHECKING:
    from zpobs.session import Session
    from zpobs.views.exporter import ExporterOptions
    from zpobs.views.metrics.board import Board
    from zpobs.views.metrics.metric import Checks
    from zpobs.views.source import SnapshotSource
    from zpobs.wishes import Wishes

# Certificate, key, authority of clients.
_TlsOptions = tuple[Path, Path | None, Path | None]
# How long a verification looks for a quiet moment: pages wait meanwhile.
_VERIFY_WAIT_S = 0.5


class _Buckets(StrEnum):
    COARSE = "coarse"
    FINE = "fine"


_ListenOption = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="HOST:PORT, [ADDRESS]:PORT or unix:PATH; by itself 127.0.0.1:10233, "
        "and nowhere with --textfile or --once.",
    ),
]
_CertificateOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Serve HTTPS with this certificate (PEM).")
]
_KeyOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The certificate's key, if it is not in the same file."),
]
_ClientCaOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Serve only clients with a certificate of this authority."),
]
_TextfileOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Write each page to this file for node_exporter's textfile collector."
    ),
]
_OnceOption = Annotated[
    bool, typer.Option("--once", help="One page to standard output or --textfile, then end.")
]
_IntervalOption = Annotated[
    float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="Time between snapshots.")
]
_VerifyOption = Annotated[
    float,
    typer.Option(
        min=0,
        metavar="SECONDS",
        help="Time between verifications of the model against the kernel, 0 for none.",
    ),
]
_PerClassOption = Annotated[
    bool, typer.Option("--per-class", help="Also eight series for each size class in use.")
]
_PerClassFullnessOption = Annotated[
    bool,
    typer.Option(
        "--per-class-fullness", help="Also the zspages of each size class by fullness group."
    ),
]
_LifeOption = Annotated[
    bool, typer.Option("--life/--no-life", help="Births, ages and deaths of zspages.")
]
_LatencyOption = Annotated[
    bool,
    typer.Option("--latency", help="How long allocations, frees and migrations take."),
]
_LatencyBucketsOption = Annotated[
    _Buckets | None,
    typer.Option(help="As --latency, in coarse or fine buckets: a factor of four or of two."),
]
_BpfStatsOption = Annotated[
    bool,
    typer.Option(
        "--bpf-stats", help="Let the kernel time BPF programs, all of the host: it takes time too."
    ),
]

EXAMPLES = """\
Examples:

\b
  zpobs exporter                               http://127.0.0.1:10233/metrics
  zpobs exporter --listen unix:/run/zpobs/metrics.sock
  zpobs exporter --listen [::]:10233 --tls-cert host.pem --tls-key host.key
  zpobs exporter --textfile /var/lib/prometheus/node-exporter/zpobs.prom
  zpobs exporter --once                        one page on standard output
  zpobs exporter --replay run.zpcap --once     one page of a capture, of its beginning
"""
# What decides what is seen of a kernel; of a capture that is decided.
_OF_SESSIONS = (
    "latency",
    "objects",
    "objects_rate",
    "objects_seed",
    "verify",
    "bpf_stats",
    "loader",
    "attach",
    "skip_hook",
    "ring_size",
    "scan",
    "rescan",
)
_OF_REPLAYS = ("speed", "at")


def exporter(
    ctx: typer.Context,
    listen: _ListenOption = None,
    tls_cert: _CertificateOption = None,
    tls_key: _KeyOption = None,
    tls_client_ca: _ClientCaOption = None,
    textfile: _TextfileOption = None,
    once: _OnceOption = False,
    interval: _IntervalOption = 5.0,
    per_class: _PerClassOption = False,
    per_class_fullness: _PerClassFullnessOption = False,
    life: _LifeOption = True,
    latency: _LatencyOption = False,
    latency_buckets: _LatencyBucketsOption = None,
    objects: ObjectsOption = False,
    objects_rate: ObjectsRateOption = 1,
    objects_seed: ObjectsSeedOption = None,
    verify: _VerifyOption = 300.0,
    bpf_stats: _BpfStatsOption = False,
    pool: PoolOption = None,
    loader: LoaderOption = LoaderChoice.AUTO,
    attach: AttachOption = AttachChoice.AUTO,
    skip_hook: SkipHookOption = None,
    ring_size: RingSizeOption = "16M",
    scan: ScanOption = True,
    rescan: RescanOption = 60.0,
    replay: ReplayOption = None,
    speed: SpeedOption = "1",
    at: AtOption = None,
) -> None:
    """Serve metrics for Prometheus, on this host alone unless told otherwise.

    Every scrape gets the page of the latest snapshot: none walks the kernel or
    waits for anything. SIGINT, SIGTERM, SIGHUP end it, status 0. --replay: a capture instead.
    """
    _refuse(ctx, replayed=replay is not None)
    place = _place(listen, once=once, textfile=textfile)
    tls = _tls(tls_cert, tls_key, tls_client_ca, place)
    _check_packages(textfile)
    from zpobs.views.exporter import ExporterOptions  # noqa: PLC0415 - --help needs no NumPy
    from zpobs.views.metrics.metric import Choice  # noqa: PLC0415
    from zpobs.wishes import Wishes  # noqa: PLC0415

    sampling = sampling_of(objects, objects_rate, objects_seed)
    chosen = Choice(per_class, per_class_fullness, objects=bool(sampling or replay))
    wishes = Wishes(
        loader=loader.value,
        attach=attach.value,
        skip=frozenset(skip_hook or ()),
        ring_bytes=parse_ring_size(ring_size),
        pool=pool,
        scan=scan,
        rescan_s=rescan,
        life=life,
        latency=latency or latency_buckets is not None,
        objects=sampling,
        timed=bpf_stats,
    )
    options = ExporterOptions(
        interval_s=interval,
        choice=chosen,
        pool=pool,
        once=once,
        textfile=textfile,
        verify_s=verify,
        version=version(),
        fine_latency=latency_buckets is _Buckets.FINE,
    )
    given = None if replay is None else (replay, parse_speed(speed), at)
    _run(_opened(wishes, options, given), options, place, tls)


def _refuse(ctx: typer.Context, *, replayed: bool) -> None:
    """Raise UsageError if an option was given that means nothing where it is."""
    if replayed:
        refuse_given(ctx, _OF_SESSIONS, "--replay, where the capture decides", "without it")
    else:
        refuse_given(ctx, _OF_REPLAYS, "no --replay", "--replay FILE too")


# What figures come from, and what verifies them, if anything does.
_Source = tuple["SnapshotSource", "Callable[[], Checks] | None", bool]


# A capture, its speed, and where to begin.
_Replay = tuple[Path, float | None, str | None]


@contextlib.contextmanager
def _opened(wishes: Wishes, options: ExporterOptions, replay: _Replay | None) -> Iterator[_Source]:
    """Open the host, or a capture in its place."""
    if replay is not None:
        path, speed, at = replay
        step_s = options.interval_s
        with opened_replay(path, speed=speed, at=at, step_s=step_s, life=wishes.life) as source:
            yield source, None, True
        return
    from zpobs.session import open_session  # noqa: PLC0415 - --help needs none of it

    with open_session(wishes, attach=False) as session:
        verified = options.verify_s and session.scans
        yield session, _verifier(session, options.pool) if verified else None, session.scans


def _run(
    opened: contextlib.AbstractContextManager[_Source],
    options: ExporterOptions,
    place: str | None,
    tls: _TlsOptions | None,
) -> None:
    from zpobs.machine import read_machine  # noqa: PLC0415 - --help needs none of it
    from zpobs.views.exporter import fresh_s, run_exporter  # noqa: PLC0415
    from zpobs.views.metrics.board import Board  # noqa: PLC0415
    from zpobs.views.top import StopSignal  # noqa: PLC0415

    board = Board(fresh_s(options.interval_s))
    with (
        output_checked(),
        StopSignal() as stop,
        # First: what an earlier run left is to go if anything else cannot be had.
        _filed(board, options.textfile, once=options.once),
        _served(board, place, tls),
        opened as (source, verify, at_once),
    ):
        run_exporter(
            source,
            replace(options, at_once=at_once),
            board,
            stop,
            machine=read_machine,
            verify=verify,
            progress=progress,
        )


def _place(listen: str | None, *, once: bool, textfile: Path | None) -> str | None:
    """Return where to listen, None for nowhere."""
    if once and listen is not None:
        raise UsageError(
            "--once serves nothing", found=f"--listen {listen}", hint="only one of the two"
        )
    if listen is None and not once and textfile is None:
        from zpobs.views.metrics.listen import DEFAULT_LISTEN  # noqa: PLC0415 - and no sockets

        return DEFAULT_LISTEN
    return listen


def _tls(
    certificate: Path | None, key: Path | None, client_ca: Path | None, place: str | None
) -> _TlsOptions | None:
    """Return the files of TLS, None where none is wanted."""
    if certificate is None:
        if key or client_ca:
            raise UsageError(
                "TLS needs a certificate",
                found="--tls-key or --tls-client-ca alone",
                hint="--tls-cert too",
            )
        return None
    if place is None:
        raise UsageError("--tls-cert serves nothing", found="no --listen", hint="--listen too")
    return certificate, key, client_ca


def _check_packages(textfile: Path | None) -> None:
    """Raise what is wrong before anything is opened: a package, or where a page is to go."""
    for module, package in (("prometheus_client", "prometheus-client"), ("psutil", "psutil")):
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise EnvironmentLacksError(
                f"the exporter needs the Python package {package}",
                found=str(error),
                hint=f"apt install python3-{package}",
            ) from error
    if textfile is not None:
        from zpobs.views.metrics.textfile import check_textfile  # noqa: PLC0415 - nor writes any

        check_textfile(textfile)


@contextlib.contextmanager
def _served(board: Board, listen: str | None, tls_files: _TlsOptions | None) -> Iterator[None]:
    """Serve a board meanwhile, if it is to be served at all."""
    if listen is None:
        yield
        return
    from zpobs.views.exporter import landing_page  # noqa: PLC0415 - --help needs none of it
    from zpobs.views.metrics.listen import (  # noqa: PLC0415
        TlsFiles,
        open_socket,
        parse_place,
        tls_context,
    )
    from zpobs.views.metrics.server import Server  # noqa: PLC0415

    place = parse_place(listen)
    tls = None if tls_files is None else tls_context(TlsFiles(*tls_files))
    listening = open_socket(place)
    server = Server(listening, board, landing=landing_page(version()), tls=tls)
    try:
        server.start()
        where = str(place)
        if place.path is None:
            host, port = listening.getsockname()[:2]
            where = f"{'https' if tls else 'http'}://{replace(place, host=host, port=port)}/metrics"
        warn(f"serving {where}")
        yield
    finally:
        server.close()
        if place.path is not None:
            place.path.unlink(missing_ok=True)


@contextlib.contextmanager
def _filed(board: Board, path: Path | None, *, once: bool) -> Iterator[None]:
    """Have a textfile say what a board says meanwhile, if there is to be one."""
    if path is None:
        yield
        return
    from zpobs.views.metrics.textfile import textfile_kept, textfile_or_none  # noqa: PLC0415

    with textfile_or_none(path) if once else textfile_kept(path, board):
        yield


def _verifier(session: Session, pool: str | None) -> Callable[[], Checks]:
    """Return what verifies the model once, and tells what all the times came to."""
    from zpobs.sources.witnesses import read_witnesses  # noqa: PLC0415 - --help needs none of it
    from zpobs.verify.rounds import Verifier  # noqa: PLC0415
    from zpobs.views.metrics.metric import Checks  # noqa: PLC0415

    verifier = Verifier(session, read_witnesses, pool=pool)
    rounds: Counter[str] = Counter()
    divergences: Counter[str] = Counter()

    def check() -> Checks:
        report = verifier.round(_VERIFY_WAIT_S)
        rounds[report.verdict] += 1
        divergences["model"] += sum(each.differs for each in report.comparison.pools)
        divergences["witness"] += sum(each.contradicts for each in report.witnesses)
        return Checks(dict(rounds), dict(divergences))

    return check
