"""``zpobs verify`` as a command: options, rounds and exit statuses, on a scripted session."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.verify.support import Zspage, zspages
from tests.verify.test_rounds import BUSY, GOOD, KERNEL, ScriptedSession, like, without
from zpobs import cli, session
from zpobs.errors import EXIT_ENVIRONMENT, EXIT_FINDING, EXIT_OK, EXIT_USAGE, EnvironmentLacksError
from zpobs.snapshot import Snapshot
from zpobs.sources import witnesses
from zpobs.wishes import Wishes

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "verify.md"
ALL_BUSY = like(GOOD.values(), counted=None, busy=(62, 107, 254))
RIGHT, WRONG = like(GOOD.values()), like(without("c"))


class WaitingSession(ScriptedSession):
    """Time passes only by waiting, whatever is watched; a signal comes in one of the waits."""

    signal_in_wait: int | None = None

    def wait(self, deadline_s: float, watch: Any = ()) -> bool:
        super().wait(deadline_s, (7,))
        assert watch
        if self.waits == self.signal_in_wait:
            os.kill(os.getpid(), signal.SIGTERM)
            return True
        return False


Run = Callable[..., int]


@pytest.fixture
def wishes() -> list[Wishes]:
    return []


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, wishes: list[Wishes]) -> Run:
    """Run the command on a scripted session; return its status."""

    def one(scripted: ScriptedSession | None, *arguments: str) -> int:
        @contextlib.contextmanager
        def opened(asked: Wishes, **_: Any) -> Iterator[ScriptedSession]:
            wishes.append(asked)
            if scripted is None:
                raise EnvironmentLacksError("no such luck")
            yield scripted

        monkeypatch.setattr(session, "open_session", opened)
        if scripted is not None:
            monkeypatch.setattr(witnesses, "read_witnesses", scripted.read)
            monkeypatch.setattr("zpobs.verify.rounds.time", scripted)
            monkeypatch.setattr("zpobs.commands.verify.time", scripted)
        monkeypatch.setattr(sys, "argv", ["zpobs", "verify", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return one


def scripted(model: Snapshot, *scans: Snapshot) -> WaitingSession:
    return WaitingSession([model], list(scans))


@pytest.mark.parametrize(
    ("model", "scan", "status"),
    [(RIGHT, KERNEL, EXIT_OK), (WRONG, KERNEL, EXIT_FINDING), (RIGHT, ALL_BUSY, EXIT_FINDING)],
    ids=["equal", "a difference", "nothing verified"],
)
def test_the_status_tells_the_verdict(
    run: Run, model: Snapshot, scan: Snapshot, status: int
) -> None:
    """0 is equal; a difference is 1, and so is that nothing could be verified."""
    assert run(scripted(model, scan)) == status


def test_what_the_environment_lacks_is_another_status(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """3, with one line."""
    assert run(None) == EXIT_ENVIRONMENT
    assert capsys.readouterr().err == "zpobs: no such luck\n"


def test_options_reach_the_session(run: Run, wishes: list[Wishes]) -> None:
    """The model is fed as top's is, but by scans only where they must be."""
    options = ("--pool", "zram0", "--attach", "kprobe", "--skip-hook", "x", "--ring-size", "64K")
    assert run(scripted(RIGHT, KERNEL), *options) == EXIT_OK
    assert run(scripted(RIGHT, KERNEL), "--no-scan") == EXIT_OK
    assert wishes == [
        Wishes(attach="kprobe", skip=frozenset("x"), ring_bytes=1 << 16, pool="zram0", rescan_s=0),
        Wishes(scan=False, rescan_s=0),
    ]


def test_the_text_lists_as_many_differences_as_asked_for(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """--limit counts per pool."""
    assert run(scripted(WRONG, KERNEL), "--limit", "1") == EXIT_FINDING
    out = capsys.readouterr().out
    assert out.startswith("zram0: ")
    assert out.count("(model: exact)") == 1
    assert "more differences" in out


def test_live_rounds_keep_their_interval(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """A report an interval until the duration is over; one bad round is enough for status 1."""
    steady = scripted(RIGHT, KERNEL)
    assert run(steady, "--json", "--interval", "2", "--duration", "5") == EXIT_OK
    rounds = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rounds) == 4
    assert steady.now_s == pytest.approx(105)
    healed = WaitingSession([WRONG, WRONG, RIGHT], [KERNEL])
    assert run(healed, "--json", "--interval", "2", "--duration", "5") == EXIT_FINDING
    told = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["differs", "equal", "equal", "equal"]


def test_live_one_verified_round_is_enough(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Rounds in which all was busy do no harm beside one that was not."""
    session_ = scripted(RIGHT, ALL_BUSY, KERNEL)
    assert run(session_, "--json", "--interval", "1", "--duration", "2", "--wait", "0") == EXIT_OK
    told = [json.loads(line)["verdict"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["nothing verified", "equal", "equal"]


def test_live_a_round_waits_no_longer_than_the_interval(run: Run) -> None:
    """--wait does not delay the rounds that follow."""
    busy = scripted(RIGHT, BUSY)
    assert run(busy, "--interval", "1", "--duration", "1", "--wait", "60") == EXIT_OK
    assert busy.now_s < 103


def test_a_signal_ends_it_with_its_report(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Live without end ends at a signal, with the status of what was found."""
    endless = scripted(RIGHT, KERNEL)
    endless.signal_in_wait = 2
    assert run(endless, "--json", "--interval", "5") == EXIT_OK
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    "arguments", [["--interval", "0"], ["--wait", "-1"], ["--limit", "-1"], ["--ring-size", "5"]]
)
def test_wrong_options_are_usage_errors(run: Run, arguments: list[str]) -> None:
    """Out of range is status 2."""
    assert run(scripted(RIGHT, KERNEL), *arguments) == EXIT_USAGE


def options() -> set[str]:
    group = typer.main.get_command(cli.app)
    found = group.commands["verify"].params  # type: ignore[attr-defined]
    return {name for each in found for name in each.opts if name.startswith("--")}


def test_options_and_their_documentation_agree() -> None:
    """docs/verify.md tells of every option and of none that is not there."""
    text = DOCS.read_text(encoding="utf-8")
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `--"))
    assert set(re.findall(r"`(--[\w-]+)", table)) - {"--help"} == options()


def test_the_documented_json_is_what_comes(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Every key of the object, of a pool, a difference, a busy class and a witness is told of."""
    some = [Zspage(each.address, each.index, each.inuse) for each in list(zspages().values())[1:]]
    run(scripted(like(some), BUSY), "--json", "--wait", "0")
    found = json.loads(capsys.readouterr().out)
    text = DOCS.read_text(encoding="utf-8")
    (pool,) = found["pools"]
    for part in (found, pool, pool["differences"][0], pool["busy"][0], found["witnesses"][0]):
        assert [key for key in part if f'"{key}"' not in text] == []
