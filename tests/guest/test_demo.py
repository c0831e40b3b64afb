"""The demonstration can fail: it does as soon as one of the hooks that it needs is taken away."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

DEMO = [sys.executable, "-m", "lab.demo", "--operations", "8000", "--interval", "1"]

# The hook that is taken away (of two, the first that the kernel has), and figures that come out
# wrong without it. Every run has a device and a pool of zswap of its own; zswap compacts nothing,
# so two hooks matter to zram alone.
NEEDED = {
    "zs_create_pool": (r"zram\d+ status", r"zswap\w+ status"),
    "zs_destroy_pool": (r"pools after a reset",),
    "obj_malloc": (r"zram\d+ allocations", r"zswap allocations"),
    "fix_fullness_group": (r"zram\d+ frees", r"zswap frees"),
    "putback_zspage or insert_zspage": (r"zram\d+ zspages", r"zram\d+ pages freed by compaction"),
    "trylock_zspage or __free_zspage": (r"zram\d+ bytes", r"zswap bytes"),
    "zs_page_migrate": (r"zram\d+ zspages", r"zswap\w+ zspages"),
    "__zs_compact or zs_compact": (r"zram\d+ compactions",),
}


@pytest.mark.parametrize("hooks", NEEDED)
def test_demo_fails_without_a_hook(hooks: str, features: frozenset[str]) -> None:
    """Without the hook and without scans the figures that it feeds differ: the status is 1."""
    hook = next(each for each in hooks.split(" or ") if f"hook {each}" in features)
    done = subprocess.run(
        [*DEMO, "--", "--no-scan", "--skip-hook", hook],
        check=False,
        capture_output=True,
        text=True,
    )
    differing = [line for line in done.stdout.splitlines() if line.startswith("  DIFFERS")]
    for figure in NEEDED[hooks]:
        pattern = re.compile(rf"  DIFFERS +{figure} ")
        said = done.stderr[-2000:], done.stdout[-5000:]
        assert any(map(pattern.match, differing)), (figure, *said)
    assert any("missed hooks" in line and hook in line for line in differing)
    assert done.returncode == 1
