"""What a guest is made of, as far as no guest is needed to tell."""

from __future__ import annotations

from pathlib import Path

from lab.vm import KERNEL_ARGUMENTS

LAB = Path(__file__).resolve().parents[2] / "docs/lab.md"


def test_every_word_of_the_command_line_has_a_reason() -> None:
    """And no other has: the table of docs/lab.md is the command line."""
    rows = LAB.read_text(encoding="utf-8").split("| Words | Why |")[1].splitlines()
    table = rows[2 : rows.index("", 1)]
    words = [word for row in table for word in row.split("|")[1].replace("`", "").split()]
    assert sorted(words) == sorted(KERNEL_ARGUMENTS.split())
