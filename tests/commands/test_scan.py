"""``zpobs scan``: options, what is asked of the scan, and what ends it early."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from tests.factories import make_health, make_snapshot
from tests.scan_records import FLAGS, addresses
from tests.views.test_scan import dumped_pool
from zpobs import cli, single_scan
from zpobs.errors import EXIT_ENVIRONMENT, EXIT_USAGE, EnvironmentLacksError
from zpobs.scans import ScanResult
from zpobs.snapshot import Snapshot

DOCS = Path(__file__).resolve().parents[2] / "docs" / "scan.md"
Run = Callable[..., int]


class Scanned:
    """What a scan finds, in the host's place, and what it was asked for."""

    def __init__(self) -> None:
        self.snapshot: Snapshot = make_snapshot(dumped_pool()[0])
        self.asked: dict[str, Any] = {}

    def scan_once(self, **asked: Any) -> ScanResult:
        self.asked = asked
        return ScanResult(self.snapshot, FLAGS)


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> Scanned:
    made = Scanned()
    monkeypatch.setattr(single_scan, "scan_once", made.scan_once)
    return made


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a runner of ``zpobs scan`` in this process, which returns its status."""

    def runner(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["zpobs", "scan", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    return runner


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], (None, False, False)),
        (["--pool", "zram0"], ("zram0", False, False)),
        (["--zspages"], (None, True, False)),
        (["--class", "107"], (None, True, False)),
        (["--zspage", f"{addresses(1)[0]:x}"], (None, True, False)),
        (["--limit", "0"], (None, True, False)),
        (["--descriptors"], (None, True, True)),
    ],
)
def test_a_scan_is_asked_for_what_is_shown(
    scanned: Scanned, run: Run, arguments: list[str], asked: tuple[str | None, bool, bool]
) -> None:
    """Zspages are gathered if any is listed, details if descriptors are."""
    assert run(*arguments) == 0
    wanted = tuple(scanned.asked[name] for name in ("pool", "zspages", "detail"))
    assert wanted == asked


@pytest.mark.usefixtures("scanned")
def test_json_is_one_object(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """--json writes the snapshot object alone, and nothing else where all is exact."""
    assert run("--json", "--class", "107") == 0
    out, err = capsys.readouterr()
    assert err == ""
    made = json.loads(out)
    assert made["schema"] == 1
    assert {each["class"] for each in made["pools"][0]["zspage_list"]} == {107}


def test_what_is_not_exact_is_said_beside_json(
    scanned: Scanned, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Why a snapshot is not exact goes to standard error too, a line for each reason."""
    reasons = ("zswap is in use, but no pool of it was found", "zram0: busy")
    scanned.snapshot = make_snapshot(health=make_health("unknown", reasons=reasons))
    assert run("--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["health"]["reasons"] == list(reasons)
    assert err.splitlines() == [f"zpobs: {reason}" for reason in reasons]


def test_no_pools_is_status_0(
    scanned: Scanned, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A host without pools is no failure."""
    scanned.snapshot = make_snapshot()
    assert run() == 0
    assert "no pools: nothing on this host uses zsmalloc now" in capsys.readouterr().out


@pytest.mark.usefixtures("scanned")
@pytest.mark.parametrize("text", ["", "0xzz", "-1", "0x1" + 16 * "0", "zram0"])
def test_what_is_no_address_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """An address is a hexadecimal number of 64 bits at most."""
    assert run(f"--zspage={text}") == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert "is no address; found: no hexadecimal number of 64 bits; try:" in err


@pytest.mark.usefixtures("scanned")
def test_an_address_without_a_zspage_is_refused(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A zspage that is not there is told before anything is written."""
    address = f"{addresses(1)[0] + 8:#x}"
    assert run("--zspage", address, "--json") == EXIT_USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert f"no zspage is at {address}; found: 10 others" in err
    there = addresses(4)[3]
    assert run("--zspage", f"{there:#x}", "--class", "62") == EXIT_USAGE
    assert f"no zspage of class 62 is at {there:#x}" in capsys.readouterr().err
    assert run("--zspage", f"{there:#X}") == 0


def test_a_class_that_no_pool_has_is_refused(
    scanned: Scanned, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """A size class that is not there is told before anything is written, if there is a pool."""
    for arguments in (["--class", "300"], ["--class", "300", "--zspage", "1000", "--json"]):
        assert run(*arguments) == EXIT_USAGE
        out, err = capsys.readouterr()
        assert out == ""
        assert "no pool has a size class 300; found: 4 classes from 62 to 254" in err
    assert run("--class", "202") == 0
    scanned.snapshot = make_snapshot()
    assert run("--class", "300") == 0
    assert "no pools: " in capsys.readouterr().out


def test_a_host_that_cannot_scan_is_status_3(
    monkeypatch: pytest.MonkeyPatch, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the environment lacks is one line and status 3."""

    def refuse(**_: Any) -> ScanResult:
        raise EnvironmentLacksError("the scanner cannot be loaded", found="x", hint="y")

    monkeypatch.setattr(single_scan, "scan_once", refuse)
    assert run() == EXIT_ENVIRONMENT
    out, err = capsys.readouterr()
    assert (out, err) == ("", "zpobs: the scanner cannot be loaded; found: x; try: y\n")


@pytest.mark.parametrize("arguments", [["--limit", "-1"], ["--class", "-1"], ["--class", "x"]])
def test_wrong_numbers_are_refused(
    run: Run, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Numbers below zero and words are usage errors that name the option."""
    assert run(*arguments) == EXIT_USAGE
    assert arguments[0] in capsys.readouterr().err


def test_a_long_text_is_whole(
    scanned: Scanned, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text is written in pieces, of which none is lost and none comes twice."""
    pool, _ = dumped_pool()
    table = pool.zspage_list
    assert table is not None
    count = 10_000
    columns = {
        name: np.resize(getattr(table, name), count)
        for name in table.__slots__
        if name not in ("frame_start", "frames", "address")
    }
    many = type(table)(
        **columns,
        address=np.arange(count, dtype=np.uint64) * np.uint64(56) + np.uint64(1 << 40),
        frame_start=np.zeros(count + 1, dtype=np.int64),
        frames=np.zeros(0, dtype=np.uint64),
    )
    scanned.snapshot = make_snapshot(type(pool)(**{**_fields(pool), "zspage_list": many}))
    assert run("--zspages") == 0
    listed = re.findall(r"^0x(\w+)", capsys.readouterr().out, re.MULTILINE)
    assert [int(each, 16) for each in listed] == many.address.tolist()


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}


def test_help_has_examples(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """``zpobs scan --help`` tells of each option with words and gives examples."""
    assert run("--help") == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.startswith("  --")]
    assert [words[0] for words in lines] == [*_options(), "--help"]
    assert all(len(words) > 2 for words in lines)
    assert out.count("zpobs scan") >= 4


def _options() -> list[str]:
    command = typer.main.get_command(cli.app).commands["scan"]  # type: ignore[attr-defined]
    return [name for each in command.params for name in each.opts]


def test_the_documentation_has_every_option_and_no_other() -> None:
    """docs/scan.md tells of every option, and of none that is not there."""
    table = re.findall(r"^\| `(--[\w-]+)", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(table) == sorted([*_options(), "--help"])
