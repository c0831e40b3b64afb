"""Shells really complete zpobs's command line by the scripts that it prints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# In bash what is typed, the last word empty or begun; COMPREPLY a line each.
BASH = """
source <(zpobs completion bash)
complete -p zpobs >/dev/null || exit 9
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
{function} zpobs
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
# In zsh what would go to the menu is what _arguments is given.
ZSH = """
autoload -Uz compinit; compinit -u -D
source <(zpobs completion zsh)
[[ ${{_comps[zpobs]}} == {function} ]] || exit 9
_arguments() {{ print -r -- "$@" }}; _files() {{ : }}
words=({words}); CURRENT=${{#words}}
{function}
"""
FISH = """
zpobs completion fish | source
complete -C "{typed}"
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a PATH on which zpobs is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "zpobs"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m zpobs "$@"\n')
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def completed(shell: str, typed: str, path: str) -> str:
    """Return what a shell offers for what was typed."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"needs {shell}")
    words = typed.split(" ")
    quoted = " ".join(f"'{word}'" for word in words)
    script = {"bash": BASH, "zsh": ZSH, "fish": FISH}[shell].format(
        words=quoted, typed=typed, function="_zpobs_completion"
    )
    options = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[shell]
    done = subprocess.run(
        [program, *options, "-c", script],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path, "TERM": "dumb"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "offered", "not_offered"),
    [
        ("zpobs ", ["top", "scan", "verify", "doctor", "completion"], ["--pool"]),
        ("zpobs ver", ["verify"], ["top"]),
        ("zpobs scan --des", ["--descriptors"], ["--zspages"]),
        ("zpobs top --loader ", ["auto", "core", "bcc"], ["fentry"]),
        ("zpobs top --sort fr", ["frees"], ["allocs"]),
        ("zpobs top --skip-hook zs_", ["zs_malloc", "zs_destroy_pool"], ["obj_malloc"]),
        ("zpobs verify --skip-hook o", ["obj_malloc"], ["zs_malloc"]),
    ],
)
def test_it_completes(
    shell: str, typed: str, offered: list[str], not_offered: list[str], path: str
) -> None:
    """Commands, options and choices, and nothing that does not belong there."""
    found = completed(shell, typed, path)
    assert [each for each in offered if each not in found] == []
    assert [each for each in not_offered if each in found] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("command", ["top", "scan", "verify"])
def test_it_completes_this_hosts_pools(shell: str, command: str, path: str) -> None:
    """Every zram device there is, and no other."""
    devices = sorted(each.name for each in Path("/sys/block").glob("zram[0-9]*"))
    found = completed(shell, f"zpobs {command} --pool z", path)
    assert [name for name in devices if name not in found] == []
    assert "zram999" not in found
    assert "zram" not in completed(shell, f"zpobs {command} --pool nothing", path)


def test_it_asks_nothing_of_numpy() -> None:
    """Who waits for a completion does not wait for it to be imported."""
    code = "import sys; from zpobs.commands.common import _hook_names, _pool_names; "
    code += "_pool_names('z'); _hook_names('z'); "
    code += "print([m for m in ('numpy', 'bcc') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_an_unknown_shell_is_a_usage_error(path: str) -> None:
    """Those that there are are named."""
    done = subprocess.run(
        ["zpobs", "completion", "tcsh"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "bash" in done.stderr
