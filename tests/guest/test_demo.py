"""The demonstration can fail: it does as soon as one of the hooks that it needs is taken away."""

from __future__ import annotations

import subprocess
import sys

import pytest

DEMO = [sys.executable, "-m", "lab.demo", "--operations", "8000", "--interval", "1"]

# The hook that is taken away, and a figure that comes out wrong without it.
NEEDED = {
    "zs_create_pool": "status",
    "zs_destroy_pool": "pools after a reset",
    "obj_malloc": "allocations",
    "fix_fullness_group": "frees",
    "putback_zspage": "zspages",
    "trylock_zspage": "bytes",
    "zs_page_migrate": "zspages",
    "__zs_compact": "pages freed by compaction",
}


@pytest.mark.parametrize("hook", NEEDED)
def test_demo_fails_without_a_hook(hook: str) -> None:
    """Without the hook and without scans the figure that it feeds differs: the status is 1."""
    done = subprocess.run(
        [*DEMO, "--", "--no-scan", "--skip-hook", hook],
        check=False,
        capture_output=True,
        text=True,
    )
    differing = [line for line in done.stdout.splitlines() if line.startswith("  DIFFERS")]
    assert any(NEEDED[hook] in line for line in differing), done.stdout[-3000:]
    assert any("missed hooks" in line and hook in line for line in differing)
    assert done.returncode == 1
