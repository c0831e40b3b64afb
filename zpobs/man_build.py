"""Makes the manual pages: of the very text that ``--help`` shows, by make and by a package build.

The pages are written here, with a dozen lines of man(7): the tools that make
pages of a command line know only a library that ours may no longer be built on.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer.main

from zpobs.cli import STATUSES, app
from zpobs.views.live.keys import KEYS, shown_keys

_SECTION = 1
_MARK = "\b"
_FILES: Mapping[str, str] = {
    "/sys/kernel/btf/vmlinux": "The kernel's type information, by which its structures are read.",
    "/proc/kallsyms": "The kernel's functions, and the address by which pools are found.",
    "~/.local/state/zpobs/verifier-PROGRAM.log": (
        "All that the kernel's verifier said of a BPF program that it refused; mode 0600. "
        "Below $XDG_STATE_HOME if that is set."
    ),
}


def man_pages() -> dict[str, str]:
    """Return every page by its file name, such as ``zpobs-top.1``."""
    group: Any = typer.main.get_command(app)
    commands: dict[str, Any] = dict(group.commands)
    names = ["zpobs", *(f"zpobs-{name}" for name in commands)]
    pages = {"zpobs": _page("zpobs", group, names, _command_list(commands))}
    for name, command in commands.items():
        keys = _keys() if name == "top" else ()
        pages[f"zpobs-{name}"] = _page(f"zpobs-{name}", command, names, keys)
    return {f"{name}.{_SECTION}": text for name, text in pages.items()}


def build_man_pages(folder: Path) -> list[Path]:
    """Write every page into a folder, which is made; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for name, text in man_pages().items():
        made.append(folder / name)
        made[-1].write_text(text, encoding="utf-8")
    return made


def _page(name: str, command: Any, names: list[str], more: Iterator[str] | tuple[()]) -> str:
    brief, *rest = _paragraphs(command.help)
    usage = name.replace("-", " ", 1)
    lines = [
        f'.TH {_text(name.upper())} {_SECTION} "" "zpobs" "User Commands"',
        # Names of options are not to be parted, nor lines with long ones stretched.
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_text(name)} \\- {_text(brief.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(usage)}",
        _text(" ".join(_synopsis(command))),
        ".SH DESCRIPTION",
        *_parted([brief, *rest]),
        *_told(command, "argument"),
        ".SH OPTIONS",
        *_told(command, "option"),
        *more,
        ".SH EXIT STATUS",
        *(line for each in STATUSES.items() for line in _tagged(str(each[0]), _sentence(each[1]))),
        *_examples(command.epilog or ""),
        ".SH FILES",
        *(line for each in _FILES.items() for line in _tagged(*each)),
        ".SH SEE ALSO",
        *_others([other for other in names if other != name]),
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> list[str]:
    """Return a help text's paragraphs, each in one line."""
    parts = re.split(r"\n\s*\n", text.replace(_MARK, "").replace("\f", "\n\n").strip())
    return [" ".join(part.split()) for part in parts]


def _parted(paragraphs: list[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        yield from (".PP", _text(paragraph))


def _parameters(command: Any, kind: str) -> list[Any]:
    """Return a command's options, ``--help`` among them, or its arguments."""
    return [each for each in command.get_params(_context(command)) if each.param_type_name == kind]


def _context(command: Any) -> Any:
    return command.make_context(command.name or "zpobs", [], resilient_parsing=True)


def _synopsis(command: Any) -> Iterator[str]:
    yield "[OPTIONS]"
    if hasattr(command, "commands"):
        yield "COMMAND [ARGS]..."
    yield from (each.name.upper() for each in _parameters(command, "argument"))


def _told(command: Any, kind: str) -> Iterator[str]:
    """Yield what ``--help`` says of each parameter, by the name it has there."""
    for each in _parameters(command, kind):
        record = each.get_help_record(_context(command))
        if record:
            name, words = (" ".join(part.split()) for part in record)
            yield from _tagged(name, words)


def _command_list(commands: Mapping[str, Any]) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, command in commands.items():
        yield from _tagged(name, _paragraphs(command.help)[0])


def _keys() -> Iterator[str]:
    yield ".SH KEYS"
    for entry in KEYS:
        words = f"{entry.words} (in a replay)" if entry.replay else entry.words
        yield from _tagged(shown_keys(entry), _sentence(words))


def _examples(epilog: str) -> Iterator[str]:
    _, found, examples = epilog.partition(_MARK)
    if found:
        yield from (".SH EXAMPLES", ".nf")
        yield from (_text(line.strip()) for line in examples.strip().splitlines())
        yield ".fi"


def _others(names: list[str]) -> Iterator[str]:
    for name in names:
        yield f".BR {_text(name)} ({_SECTION})" + ("" if name == names[-1] else ",")


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _tagged(tag: str, text: str) -> tuple[str, ...]:
    return ".TP", f"\\fB{_text(tag)}\\fR", _text(text)


def _text(text: str) -> str:
    """Return text so that no character of it is a command of man(7)'s."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    escaped = escaped.replace("'", "\\(aq").replace("~", "\\(ti").replace("^", "\\(ha")
    # A list of choices may be parted behind each.
    escaped = escaped.replace("|", "|\\:")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def main() -> int:
    """Write the pages into the folder that is named; return the exit status."""
    (folder,) = sys.argv[1:]
    build_man_pages(Path(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
