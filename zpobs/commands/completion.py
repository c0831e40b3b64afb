"""``zpobs completion``: the script by which a shell completes zpobs's command line."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from zpobs.commands.common import output_checked

PROGRAM = "zpobs"
# What the scripts set, and the command-line library answers to.
VARIABLE = "_ZPOBS_COMPLETE"

EXAMPLES = """\
Examples:

\b
  source <(zpobs completion bash)            this shell, until it ends
  zpobs completion bash > ~/.local/share/bash-completion/completions/zpobs
  zpobs completion bash | sudo tee /etc/bash_completion.d/zpobs
  zpobs completion zsh | sudo tee /usr/local/share/zsh/site-functions/_zpobs
  zpobs completion fish > ~/.config/fish/completions/zpobs.fish
"""


class Shell(StrEnum):
    """Shells that can complete."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(help="The shell that is to complete.")],
) -> None:
    """Print the script by which a shell completes commands, options, pools and columns.

    For root, and so for sudo zpobs, it belongs where all users' shells look.
    """
    from typer import _completion_shared  # noqa: PLC0415 - of no use to any other command

    script = _completion_shared.get_completion_script(
        prog_name=PROGRAM, complete_var=VARIABLE, shell=shell.value
    )
    with output_checked():
        sys.stdout.write(f"{script}\n")
        sys.stdout.flush()


def enable_answers() -> None:
    """Have the command-line library answer the scripts, as they ask by the environment."""
    from typer.completion import completion_init  # type: ignore[attr-defined] # noqa: PLC0415

    completion_init()
