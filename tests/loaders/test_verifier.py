"""What is told of a program that the verifier refuses, and where all of it is kept."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.loaders.objects import program_names
from tests.refused import compile_refused
from tests.ring_producer import why_not
from zpobs.loaders.libbpf import BpfObject, LibbpfError
from zpobs.loaders.verifier import keep_log, last_useful_line, refusal

TOTALS = "processed 18 insns (limit 1000000) max_states_per_insn 0 total_states 1 peak_states 1\n"
# The ends of logs as kernels wrote them, and the line that says why.
LOGS = {
    "a pointer": (
        "0: R1=ctx() R10=fp0\n; return *p; @ a.c:4\n3: (61) r0 = *(u32 *)(r0 +0)\n"
        "R0 invalid mem access 'scalar'\n" + TOTALS,
        "R0 invalid mem access 'scalar'",
    ),
    "a loop, told behind a jump": (
        "7: (61) r2 = *(u32 *)(r10 -4)         ; R2=scalar() R10=fp0 fp-8=mmmm????\n"
        "8: (5d) if r2 != r1 goto pc-5 infinite loop detected at insn 4\n"
        "cur state: R1=0xffffffff R2=scalar(smin=0) R10=fp0 fp-8=mmmm????\n"
        "old state: R1=0xffffffff R2=scalar(smin=0) R10=fp0 fp-8=mmmm????\n" + TOTALS,
        "infinite loop detected at insn 4",
    ),
    "steps": (
        "9: (0f) r6 += r8                      ; R6=scalar() R8=scalar(id=153844)\n"
        "BPF program is too large. Processed 1000001 insn\n" + TOTALS,
        "BPF program is too large. Processed 1000001 insn",
    ),
    "a stack behind it": (
        "invalid indirect read from stack R2 off -16+0 size 8\n"
        "mark_precise: frame0: last_idx 9 first_idx 0\nstack depth 16\n"
        "verification time 81 usec\n" + TOTALS,
        "invalid indirect read from stack R2 off -16+0 size 8",
    ),
    "a report": (
        "0: (b7) r1 = 0\nVerification failed\n\nReason:\n  R1 is told so.\n\n"
        "Suggestion:\n  Ask for something else.\n" + TOTALS,
        "R1 is told so.",
    ),
    "steps back at the end": ("4: (07) r2 += 1\nR2=scalar() R10=fp0\n" + TOTALS, ""),
    "nothing": ("", ""),
}


@pytest.fixture(autouse=True)
def state_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Have logs kept below the test's folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.mark.parametrize("name", LOGS)
def test_the_last_useful_line_is_found(name: str) -> None:
    """It is neither a total nor a state nor a step, and not what stands behind the reason."""
    log, line = LOGS[name]
    assert last_useful_line(log) == line
    assert bool(refusal("x", log)) == bool(line)


def test_the_log_is_kept_for_its_user_alone(state_home: Path) -> None:
    """Whole, mode 0600, in the folder of state; the next one of a program takes its place."""
    for log in ("first\n", "second, without an end of line"):
        path = keep_log("fexit__obj_malloc", log)
        assert path == state_home / "zpobs" / "verifier-fexit__obj_malloc.log"
        assert path.read_text().strip() == log.strip()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_without_the_variable_it_is_below_home(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """XDG's default, that is."""
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert keep_log("x", "log") == tmp_path / ".local/state/zpobs/verifier-x.log"


def test_a_link_in_its_place_leads_nowhere(state_home: Path, tmp_path: Path) -> None:
    """It is replaced, and what it leads to is left as it is."""
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    (state_home / "zpobs").mkdir(parents=True)
    (state_home / "zpobs" / "verifier-x.log").symlink_to(precious)
    assert keep_log("x", "log").read_text() == "log\n"
    assert precious.read_text() == "as it was"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of another user's")
def test_a_folder_of_somebody_elses_is_not_used(state_home: Path) -> None:
    """As under sudo with the user's HOME: then it is a temporary file, mode 0600 too."""
    state_home.mkdir()
    os.chown(state_home, 65534, 65534)
    path = keep_log("x", "log")
    try:
        assert state_home not in path.parents
        assert path.name.startswith("zpobs-verifier-x-")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(state_home.iterdir()) == []
    finally:
        path.unlink()


def test_a_folder_that_cannot_be_made_is_no_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor is one that the variable names wrongly."""
    (tmp_path / "file").touch()
    for place in (str(tmp_path / "file" / "below"), "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", place)
        path = keep_log("x", "log")
        assert path.read_text() == "log\n"
        path.unlink()


# ---- provoked ------------------------------------------------------------------


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an object of programs that are refused."""
    lacking = why_not()
    if lacking:
        pytest.skip(lacking)
    return compile_refused(tmp_path_factory.mktemp("refused"))


@pytest.mark.native
@pytest.mark.parametrize(
    ("program", "words", "length"),
    [
        ("wild_pointer", "R0 invalid mem access", 200),
        ("endless_loop", "infinite loop detected at insn", 500),
        ("too_many_steps", "BPF program is too large. Processed 1000001 insn", 100_000),
    ],
)
def test_this_kernels_own_refusal_is_told(
    refused: Path, state_home: Path, program: str, words: str, length: int
) -> None:
    """One line with program, reason and file; the file has the whole log, from its first line."""
    with BpfObject(refused) as opened, pytest.raises(LibbpfError) as failed:
        for name in program_names(opened):
            opened.enable(name, name == program)
        opened.load()
    error = failed.value
    told = error.explained()
    path = state_home / "zpobs" / f"verifier-{program}.log"
    assert told == f"{program}: {error.verifier} (whole log in {path})"
    assert error.verifier.startswith(words)
    log = path.read_text()
    assert len(log) > length
    assert "0: R1=ctx() R10=fp0" in log.splitlines()[:3]
    assert log.splitlines()[-1].startswith("processed ")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # An error's own text stays short.
    assert len(str(error)) < 10_000
