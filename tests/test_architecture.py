"""Who may import whom: docs/architecture.md's rules as data, checked on the syntax trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "zpobs"

# Module or package -> what else of zpobs it may import; a package may always import itself.
MAY_IMPORT: dict[str, set[str]] = {
    "zpobs": set(),
    "zpobs.__main__": {"zpobs.cli"},
    "zpobs.advice": set(),
    "zpobs.bpf_build": {"zpobs.bpf_files", "zpobs.errors"},
    "zpobs.bpf_files": {"zpobs.errors"},
    "zpobs.closing": set(),
    "zpobs.errors": set(),
    "zpobs.shortage": {"zpobs.advice", "zpobs.errors"},
    "zpobs.wire": {"zpobs.errors"},
    "zpobs.latency": set(),
    "zpobs.snapshot": {
        "zpobs.addons",
        "zpobs.latency",
        "zpobs.compaction",
        "zpobs.footing",
        "zpobs.life",
        "zpobs.migration",
        "zpobs.pageblocks",
        "zpobs.runs",
        "zpobs.objects",
        "zpobs.waste",
    },
    "zpobs.addons": set(),
    "zpobs.objects": {"zpobs.life", "zpobs.wire"},
    "zpobs.footing": set(),
    "zpobs.machine": {"zpobs.footing"},
    "zpobs.migration": set(),
    "zpobs.pageblocks": set(),
    "zpobs.blocks": {
        "zpobs.errors",
        "zpobs.kernel",
        "zpobs.loaders.scan",
        "zpobs.pageblocks",
        "zpobs.snapshot",
        "zpobs.sources",
    },
    "zpobs.runs": {"zpobs.compaction"},
    "zpobs.compaction": {"zpobs.wire"},
    "zpobs.life": set(),
    "zpobs.waste": set(),
    "zpobs.descriptors": {"zpobs.kernel.pageflags", "zpobs.wire"},
    "zpobs.invariants": {"zpobs.descriptors", "zpobs.kernel.pageflags", "zpobs.snapshot"},
    "zpobs.rates": {"zpobs.snapshot"},
    "zpobs.views": {
        "zpobs.addons",
        "zpobs.compaction",
        "zpobs.descriptors",
        "zpobs.doctor.report",
        "zpobs.errors",
        "zpobs.footing",
        "zpobs.kernel.pageflags",
        "zpobs.latency",
        "zpobs.life",
        "zpobs.migration",
        "zpobs.objects",
        "zpobs.pageblocks",
        "zpobs.rates",
        "zpobs.runs",
        "zpobs.snapshot",
        "zpobs.spans",
        "zpobs.verify",
        "zpobs.waste",
    },
    "zpobs.verify": {
        "zpobs.descriptors",
        "zpobs.invariants",
        "zpobs.scans",
        "zpobs.session",
        "zpobs.snapshot",
        "zpobs.sources.witnesses",
    },
    "zpobs.model": {
        "zpobs.addons",
        "zpobs.errors",
        "zpobs.life",
        "zpobs.migration",
        "zpobs.runs",
        "zpobs.objects",
        "zpobs.wire",
        "zpobs.snapshot",
    },
    "zpobs.kernel": {"zpobs.advice", "zpobs.errors", "zpobs.bpf_files", "zpobs.snapshot"},
    "zpobs.sources": {
        "zpobs.addons",
        "zpobs.closing",
        "zpobs.wire",
        "zpobs.errors",
        "zpobs.model.inputs",
    },
    "zpobs.loaders": {
        "zpobs.advice",
        "zpobs.closing",
        "zpobs.kernel",
        "zpobs.errors",
        "zpobs.bpf_files",
        "zpobs.host",
        "zpobs.wire",
        "zpobs.shortage",
    },
    "zpobs.host": {"zpobs.advice", "zpobs.errors", "zpobs.snapshot", "zpobs.sources.pools"},
    "zpobs.scans": {
        "zpobs.compaction",
        "zpobs.errors",
        "zpobs.host",
        "zpobs.kernel",
        "zpobs.loaders",
        "zpobs.model",
        "zpobs.shortage",
        "zpobs.snapshot",
        "zpobs.sources",
        "zpobs.wire",
    },
    "zpobs.forecasts": {"zpobs.compaction", "zpobs.runs", "zpobs.snapshot"},
    "zpobs.wishes": {"zpobs.kernel.plan", "zpobs.loaders", "zpobs.objects"},
    "zpobs.object_probes": {
        "zpobs.addons",
        "zpobs.errors",
        "zpobs.kernel",
        "zpobs.loaders",
        "zpobs.model.objects",
        "zpobs.objects",
        "zpobs.snapshot",
        "zpobs.sources.objects",
    },
    "zpobs.coverage": {"zpobs.host", "zpobs.kernel.plan", "zpobs.loaders", "zpobs.model.inputs"},
    "zpobs.latency_probes": {
        "zpobs.addons",
        "zpobs.errors",
        "zpobs.kernel",
        "zpobs.latency",
        "zpobs.loaders",
        "zpobs.snapshot",
        "zpobs.sources",
        "zpobs.wire",
    },
    "zpobs.extras": {
        "zpobs.kernel.plan",
        "zpobs.latency_probes",
        "zpobs.loaders",
        "zpobs.model.objects",
        "zpobs.object_probes",
        "zpobs.snapshot",
        "zpobs.wishes",
    },
    "zpobs.session": {
        "zpobs.extras",
        "zpobs.blocks",
        "zpobs.bpf_files",
        "zpobs.compaction",
        "zpobs.coverage",
        "zpobs.descriptors",
        "zpobs.errors",
        "zpobs.forecasts",
        "zpobs.host",
        "zpobs.kernel",
        "zpobs.loaders",
        "zpobs.model",
        "zpobs.scans",
        "zpobs.snapshot",
        "zpobs.sources",
        "zpobs.surroundings",
        "zpobs.upkeep",
        "zpobs.wire",
        "zpobs.wishes",
    },
    "zpobs.single_scan": {
        "zpobs.blocks",
        "zpobs.host",
        "zpobs.kernel",
        "zpobs.scans",
        "zpobs.session",
        "zpobs.wishes",
    },
    "zpobs.upkeep": {
        "zpobs.errors",
        "zpobs.footing",
        "zpobs.kernel.plan",
        "zpobs.loaders",
        "zpobs.model.inputs",
        "zpobs.sources.bpfmap",
    },
    "zpobs.surroundings": {
        "zpobs.objects",
        "zpobs.footing",
        "zpobs.snapshot",
        "zpobs.sources.cgroups",
        "zpobs.sources.nodes",
        "zpobs.sources.witnesses",
    },
    # Only one part of the doctor touches the host; the rest judges what it is given.
    "zpobs.doctor": {"zpobs.advice", "zpobs.kernel"},
    "zpobs.doctor.gather": {
        "zpobs.advice",
        "zpobs.bpf_files",
        "zpobs.doctor.facts",
        "zpobs.errors",
        "zpobs.host",
        "zpobs.kernel",
        "zpobs.loaders",
        "zpobs.scans",
        "zpobs.session",
        "zpobs.wishes",
        "zpobs.shortage",
        "zpobs.sources",
    },
    # Two parts of captures touch what is live: where one is made, and what stands in for it.
    "zpobs.capture": {
        "zpobs.addons",
        "zpobs.closing",
        "zpobs.errors",
        "zpobs.footing",
        "zpobs.latency",
        "zpobs.model",
        "zpobs.objects",
        "zpobs.rates",
        "zpobs.snapshot",
        "zpobs.spans",
        "zpobs.waste",
        "zpobs.wire",
    },
    "zpobs.verify.replayed": {
        "zpobs.capture",
        "zpobs.kernel.pageflags",
        "zpobs.model",
        "zpobs.scans",
        "zpobs.snapshot",
        "zpobs.sources.witnesses",
        "zpobs.verify",
    },
    "zpobs.views.info": {"zpobs.capture.summary"},
    "zpobs.capture.environment": {
        "zpobs.capture",
        "zpobs.session",
        "zpobs.snapshot",
        "zpobs.wire",
        "zpobs.wishes",
    },
    "zpobs.capture.replay": {
        "zpobs.capture",
        "zpobs.descriptors",
        "zpobs.errors",
        "zpobs.model",
        "zpobs.objects",
        "zpobs.snapshot",
        "zpobs.sources.nodes",
        "zpobs.spans",
        "zpobs.surroundings",
        "zpobs.wire",
    },
    "zpobs.commands": {
        "zpobs.capture",
        "zpobs.descriptors",
        "zpobs.doctor",
        "zpobs.errors",
        "zpobs.kernel.btf_file",
        "zpobs.kernel.hooks",
        "zpobs.kernel.pageflags",
        "zpobs.objects",
        "zpobs.scans",
        "zpobs.machine",
        "zpobs.session",
        "zpobs.single_scan",
        "zpobs.snapshot",
        "zpobs.sources.witnesses",
        "zpobs.verify",
        "zpobs.views",
        "zpobs.wishes",
    },
    "zpobs.spans": set(),
    "zpobs.cli": {"zpobs.errors", "zpobs.commands", "zpobs.shortage"},
    "zpobs.man_build": {"zpobs.cli", "zpobs.views.live.keys"},
}
# Foreign module -> the only modules of ours that may import it.
ONLY_IN: dict[str, set[str]] = {
    "bcc": {"zpobs.loaders.bcc"},
    "typer": {"zpobs.cli", "zpobs.commands", "zpobs.man_build"},
    "zstandard": {"zpobs.capture.blocks"},
    "ctypes": {"zpobs.loaders.libbpf", "zpobs.sources.bpfmap"},
    # Both take long to load, and no other command waits for them.
    "prometheus_client": {"zpobs.views.metrics.pages"},
    "psutil": {"zpobs.machine"},
    # What Textual paints with are Rich's styles and segments.
    "rich": {"zpobs.views.live.app"},
    "textual": {"zpobs.views.live.app"},
}
# The model opens nothing and reads no clock.
MODEL_MAY_NOT_IMPORT = {"datetime", "io", "os", "pathlib", "select", "socket", "sys", "time"}
MODEL_MAY_NOT_CALL = {"open", "print", "input", "exec", "eval"}
# So is what the interactive view shows: time comes to it in scenes.
VIEW_MAY_NOT_IMPORT = MODEL_MAY_NOT_IMPORT - {"datetime", "io"} | {"threading", "textual", "rich"}
VIEW_WORDS = {f"zpobs.views.{name}" for name in ("figures", "lines", "split", "text")}
VIEW_OPENS = {"zpobs.views.live.app", "zpobs.views.live.feed"}
# What judges a host, too, takes facts and touches nothing.
PURE = [
    "zpobs.doctor.facts",
    "zpobs.doctor.judge",
    "zpobs.doctor.kernel_checks",
    "zpobs.doctor.report",
    "zpobs.doctor.verdicts",
    "zpobs.views.doctor",
]


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield every module that is imported anywhere in a module, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            whole = f"{node.module}"
            submodules = [f"{whole}.{alias.name}" for alias in node.names]
            # ``from package import module`` imports the module.
            named = [name for name in submodules if name in MODULES]
            yield from named if len(named) == len(submodules) else [whole, *named]


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def rule_of(name: str) -> str:
    """Return the key of the most special rule for a module."""
    return max((key for key in MAY_IMPORT if key != "zpobs" and within(name, key)), key=len)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "zpobs"])
def test_a_module_imports_only_what_it_may(name: str) -> None:
    """Imports inside zpobs go along the allowed ways only."""
    own = rule_of(name)
    allowed = MAY_IMPORT[own] | {own}
    wrong = {
        each
        for each in imports(MODULES[name])
        if within(each, "zpobs") and not any(within(each, package) for package in allowed)
    }
    assert wrong == set()


def test_every_rule_is_about_something() -> None:
    """No rule outlives its module, and everything that a rule allows exists."""
    named = set(MAY_IMPORT).union(*MAY_IMPORT.values(), *ONLY_IN.values())
    assert named - MODULES.keys() == set()


def test_nothing_imports_the_command_line() -> None:
    """zpobs.cli is imported by ``python -m zpobs`` and by what makes its manual alone."""
    importers = {name for name, tree in MODULES.items() if "zpobs.cli" in set(imports(tree))}
    assert importers == {"zpobs.__main__", "zpobs.man_build"}


@pytest.mark.parametrize("foreign", ONLY_IN)
def test_a_foreign_module_stays_in_its_place(foreign: str) -> None:
    """bcc, typer, ctypes and the terminal library are each known to few modules."""
    importers = {
        name
        for name, tree in MODULES.items()
        if any(within(each, foreign) for each in imports(tree))
    }
    assert {rule_of(name) if foreign == "typer" else name for name in importers} == ONLY_IN[foreign]


@pytest.mark.parametrize(
    "name", [*(name for name in MODULES if within(name, "zpobs.model")), *PURE]
)
def test_the_model_touches_no_host(name: str) -> None:
    """The model needs NumPy and pure standard modules; it opens no file and reads no clock."""
    tree = MODULES[name]
    roots = {each.split(".")[0] for each in imports(tree)}
    assert roots & MODEL_MAY_NOT_IMPORT == set()
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert called & MODEL_MAY_NOT_CALL == set()


@pytest.mark.parametrize(
    "name", sorted({each for each in MODULES if within(each, "zpobs.views.live")} | VIEW_WORDS)
)
def test_only_two_modules_of_the_view_touch_anything(name: str) -> None:
    """All but the feed and the terminal are functions of scene, state and size."""
    roots = {each.split(".")[0] for each in imports(MODULES[name])}
    assert bool(roots & VIEW_MAY_NOT_IMPORT) == (name in VIEW_OPENS)


def test_foreign_packages_are_those_that_are_declared() -> None:
    """Beside the standard library zpobs needs what pyproject.toml declares, and bcc for some."""
    roots = {each.split(".")[0] for tree in MODULES.values() for each in imports(tree)}
    assert roots - set(sys.stdlib_module_names) == {
        "zpobs",
        "numpy",
        "prometheus_client",
        "psutil",
        "typer",
        "textual",
        "rich",
        "zstandard",
        "bcc",
    }
