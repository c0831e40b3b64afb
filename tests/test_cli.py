"""The command line: help, options, and one clear line for every refusal."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.factories import make_facts
from zpobs import cli, host, session
from zpobs.commands import common
from zpobs.errors import EXIT_BUG, EXIT_ENVIRONMENT, EXIT_USAGE, UsageError

ROOT = Path(__file__).resolve().parent.parent


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command line in this process and return its status."""
    monkeypatch.setattr(sys, "argv", ["zpobs", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def one_line(captured: pytest.CaptureFixture[str]) -> str:
    """Return the one line on standard error; nothing may be on standard output."""
    out, err = captured.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("zpobs: ")
    return line


@pytest.fixture
def invented_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an invented kernel, root's rights and two zram devices in the host's place."""
    monkeypatch.setattr(session, "check_privilege", lambda **_: None)
    monkeypatch.setattr(session, "probe_kernel", make_facts)
    monkeypatch.setattr(session, "_scanner", lambda *_: (None, "none"))
    monkeypatch.setattr(session, "make_loader", _no_loader)
    monkeypatch.setattr(host, "zram_devices", lambda: {"zram0": True, "zram1": False})
    monkeypatch.setattr(host, "_zswap_enabled", lambda: False)


def _no_loader(name: str) -> None:
    raise UsageError(f"loader {name} was reached")


OPTIONS = [
    "--once",
    "--json",
    "--interval",
    "--duration",
    "--pool",
    "--zspages",
    "--life",
    "--latency",
    "--compaction",
    "--objects",
    "--objects-rate",
    "--objects-seed",
    "--sort",
    "--limit",
    "--ascii",
    "--budget",
    "--log",
    "--loader",
    "--attach",
    "--skip-hook",
    "--ring-size",
    "--scan",
    "--rescan",
    "--replay",
    "--speed",
    "--at",
    "--help",
]


def test_help_lists_every_option_and_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``zpobs top --help`` tells of each option with words, gives examples, and is status 0."""
    assert run(monkeypatch, "top", "--help") == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.split() for line in out.splitlines() if line.startswith("  --")]
    assert [words[0] for words in lines] == OPTIONS
    assert "Examples:" in out
    assert out.count("zpobs top ") >= 4


def test_help_tells_the_exit_statuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``zpobs --help`` lists the commands and what each exit status means."""
    assert run(monkeypatch, "--help") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert " top " in words
    assert "Exit status: 0 well" in words
    assert "70 a bug" in words


def test_help_and_manual_name_what_options_take() -> None:
    """Words such as SECONDS, or the choices; never the names that types have in a library."""
    group: Any = typer.main.get_command(cli.app)
    for command in group.commands.values():
        context = command.make_context(command.name, [], resilient_parsing=True)
        for each in command.get_params(context):
            name = (each.get_help_record(context) or ("",))[0]
            # Upper case, or choices.
            for taken in re.findall(r"^(?:-\S+ )(\S.*)$", name):
                assert re.fullmatch(r"[A-Z]+|<\w+(\|\w+)+>|/ --[\w-]+", taken), name


@pytest.mark.parametrize(
    "arguments", [["scan", "--pool"], ["top", "--skip-hook"], ["scan", "--zspage"]]
)
@pytest.mark.usefixtures("invented_host")
def test_what_was_typed_is_echoed_without_escapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """What would colour a terminal, or part the line, is written out."""
    monkeypatch.setattr(session, "check_pool", host.check_pool)
    assert run(monkeypatch, *arguments, "zr\x1b[31m\nam") == EXIT_USAGE
    assert "zr\\x1b[31m\\nam" in one_line(capsys)


def test_help_needs_no_numpy() -> None:
    """Help comes fast: neither NumPy nor bcc is imported for it."""
    code = "import sys, zpobs.cli; print([m for m in ('numpy', 'bcc') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints one line with the name and ends with status 0."""
    assert run(monkeypatch, "--version") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("zpobs ")
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    "size", ["", "5", "0", "12K", "3M", "1k", "16G", "-4K", "4096 ", "2048", "2048M", "lots"]
)
def test_a_ring_of_wrong_size_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    """What is no power of two from a page to 1024M is a usage error that says what would do."""
    assert run(monkeypatch, "top", f"--ring-size={size}") == EXIT_USAGE
    assert "power of two" in one_line(capsys)


@pytest.mark.parametrize(
    ("size", "count"), [("64K", 1 << 16), ("16M", 1 << 24), ("1024M", 1 << 30), ("65536", 1 << 16)]
)
def test_a_ring_size_is_bytes_k_or_m(size: str, count: int) -> None:
    """K and M are binary units."""
    assert common.parse_ring_size(size) == count


@pytest.mark.usefixtures("invented_host")
def test_an_unknown_pool_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pool that nothing on the host can have is a usage error that names those there are."""
    assert run(monkeypatch, "top", "--once", "--pool", "zram7") == EXIT_USAGE
    line = one_line(capsys)
    assert "no pool is called zram7; found: zram0, zram1 (not set up); try:" in line


@pytest.mark.usefixtures("invented_host")
@pytest.mark.parametrize("name", ["zram0", "zram1"])
def test_a_pool_that_may_come_is_taken(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A device that is not set up yet can have a pool later, so its name is good."""
    assert run(monkeypatch, "top", "--once", "--pool", name) == EXIT_USAGE
    assert "loader auto was reached" in one_line(capsys)


@pytest.mark.usefixtures("invented_host")
def test_an_unknown_hook_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A hook to skip that does not exist is a usage error that lists the hooks."""
    arguments = ("top", "--skip-hook", "obj_malloc", "--skip-hook", "nothing")
    assert run(monkeypatch, *arguments) == EXIT_USAGE
    line = one_line(capsys)
    assert "no hook is called nothing" in line
    assert "obj_malloc" in line


@pytest.mark.parametrize(
    "arguments",
    [["--interval", "0"], ["--interval", "x"], ["--sort", "age"], ["--attach", "?"], ["--nothing"]],
)
def test_wrong_options_are_usage_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """An option that is unknown or out of range gives status 2 and names it."""
    assert run(monkeypatch, "top", *arguments) == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert arguments[0] in err


@pytest.mark.usefixtures("invented_host")
def test_a_log_is_its_owners_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """--log makes a file that only its owner can read, and keeps what a file had."""
    log = tmp_path / "log"
    run(monkeypatch, "top", "--log", str(log))
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    log.write_text("before\n")
    run(monkeypatch, "top", "--log", str(log))
    assert log.read_text() == "before\n"
    capsys.readouterr()


def test_a_log_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A log in a folder that does not exist is status 3, before anything is attached."""
    log = tmp_path / "nowhere" / "log"
    assert run(monkeypatch, "top", "--log", str(log)) == EXIT_ENVIRONMENT
    assert f"cannot write {log}; found: No such file or directory" in one_line(capsys)


def test_without_root_it_says_so() -> None:
    """A user without capabilities gets status 3 and one line that names what is lacking."""
    code = (
        "import os, sys, zpobs.session, zpobs.views.top\n"
        "from zpobs.cli import main\n"
        # As setpriv --reuid does, but after the imports: that user may not read this folder.
        "if os.geteuid() == 0: os.setgroups([]); os.setuid(65534)\n"
        "sys.argv = ['zpobs', 'top', '--once']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True
    )
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"zpobs: BPF programs may not be loaded; found: user \d+ without "
        r"CAP_BPF, CAP_PERFMON and CAP_SYSLOG; try: sudo, or all of "
        r"CAP_BPF, CAP_PERFMON and CAP_SYSLOG \(CAP_SYS_ADMIN for page frames\)",
        line,
    )
    assert (done.returncode, done.stdout) == (EXIT_ENVIRONMENT, "")


def test_a_bug_shows_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody expected ends with status 70, a traceback and a request to report it."""

    def broken(**_: bool) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(session, "check_privilege", broken)
    assert run(monkeypatch, "top", "--once") == EXIT_BUG
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("zpobs: this is a bug")


@pytest.mark.parametrize("command", ["top --once", "scan --json", "verify", "--help"])
def test_a_closed_output_is_one_line(command: str) -> None:
    """``zpobs ... >&-`` says so, with status 3, whatever the command."""
    script = f"{sys.executable} -m zpobs {command} >&-"
    done = subprocess.run(
        ["sh", "-c", script], check=False, cwd=ROOT, capture_output=True, text=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("zpobs: cannot write the output; found: standard output is closed; try:")
    assert done.returncode == EXIT_ENVIRONMENT


def test_a_closed_error_output_does_no_harm() -> None:
    """Status and output are as ever."""
    script = f"{sys.executable} -m zpobs scan --class x 2>&-"
    done = subprocess.run(["sh", "-c", script], check=False, cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout) == (EXIT_USAGE, b"")


# ---- examples -------------------------------------------------------------------


def examples() -> list[str]:
    """Return every example of every --help, as it would be copied into a shell."""
    group: Any = typer.main.get_command(cli.app)
    lines = [
        line.strip()
        for command in group.commands.values()
        for line in (command.epilog or "").partition("\b")[2].splitlines()
    ]
    # What stands behind is words, as far away as they are.
    return [re.split(r" {2,}| [|>] ", line)[0] for line in lines if line]


def test_every_command_has_examples() -> None:
    """Three at least."""
    group: Any = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        assert command.epilog.count(f"zpobs {name}") >= 3


@pytest.mark.parametrize("example", examples())
def test_an_example_is_a_command_line(example: str) -> None:
    """Its options are there and take what is given to them; what follows it is no part of it."""
    line = example.removeprefix("source <(").removesuffix(")").removeprefix("sudo ")
    program, name, *arguments = line.split()
    assert program == "zpobs"
    group: Any = typer.main.get_command(cli.app)
    context = group.commands[name].make_context(name, arguments)
    assert context.params.keys()
