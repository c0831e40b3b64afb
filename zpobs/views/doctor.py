"""A doctor's report as lines of text: a pure function."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby

from zpobs.doctor.report import Check, Report

COLUMNS = 80
_TITLES = {
    "kernel": "Kernel",
    "btf": "Type information (BTF)",
    "members": "Members of the kernel's structures",
    "hooks": "Functions to hook",
    "hook sets": "Hooks chosen for",
    "attach": "Probes, tried by the core loader",
    "privilege": "Rights",
    "sysctls": "Settings",
    "loaders": "Loaders",
    "scanner": "Scanner, tried",
    "pools": "Pools",
    "memory": "Memory",
    "witnesses": "Witnesses for zpobs verify",
}
_ANSWER_CELLS, _NAME_CELLS = 8, 26
# So many names are told of what one advice is for.
_NAMES_MAX = 6


def render(report: Report) -> list[str]:
    """Return the lines of the whole report, none longer than COLUMNS where words allow it."""
    lines = [f"zpobs doctor  {report.subject}"]
    for section, checks in groupby(report.checks, key=lambda check: check.section):
        lines += ["", _TITLES.get(section, section)]
        if section == "members":
            lines += [line for check in _by_structure(checks) for line in _check(check)]
        else:
            lines += [line for check in checks for line in _check(check)]
    lines += ["", "Verdict"]
    for verdict in report.verdicts:
        lines += _wrapped(f"  {verdict.about}: ", verdict.text, 4)
    if report.hints:
        lines += ["", "What to try"]
    for hint in report.hints:
        names = list(dict.fromkeys(each.name for each in report.lacking if each.hint == hint))
        more = len(names) - _NAMES_MAX
        told = names[:_NAMES_MAX] + [f"and {more} more"] * (more > 0)
        lines += _wrapped("  ", hint, 4)
        lines += _wrapped("    for ", ", ".join(told), 8)
    return lines


def _check(check: Check) -> Iterator[str]:
    name = check.name
    head = f"  {check.answer:<{_ANSWER_CELLS}}{name:<{_NAME_CELLS}}"
    if len(name) >= _NAME_CELLS:
        # A long name has a line of its own.
        yield from _wrapped(f"  {check.answer:<{_ANSWER_CELLS}}", name, 2 + _ANSWER_CELLS)
        head = " " * (2 + _ANSWER_CELLS + _NAME_CELLS)
    yield from _wrapped(head, check.found, len(head))
    if check.costs:
        yield from _wrapped(f"  {'':<{_ANSWER_CELLS}}costs: ", check.costs, 17)
    if check.costs and check.hint:
        yield from _wrapped(f"  {'':<{_ANSWER_CELLS}}try: ", check.hint, 15)


def _wrapped(head: str, text: str, indent: int) -> list[str]:
    """Return a text behind its head; what does not fit goes on, indented."""
    return textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=head,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [head.rstrip()]


def _by_structure(checks: Iterable[Check]) -> Iterator[Check]:
    """Yield one check for all members of a structure that have the same answer and cost."""
    groups: dict[tuple[str, ...], list[Check]] = {}
    for check in checks:
        structure = check.name.partition(".")[0]
        # One that is spared has words of its own.
        own = check.name if check.answer != "present" and not check.costs else ""
        groups.setdefault((structure, check.answer, check.costs, own), []).append(check)
    for (structure, _, _, own), members in groups.items():
        if own:
            yield from members
        else:
            names = dict.fromkeys(each.name.removeprefix(f"{structure}.") for each in members)
            found = (" " if members[0].answer == "present" else ", ").join(names)
            yield replace(members[0], name=structure, found=found)
