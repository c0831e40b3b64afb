"""The demonstration can fail: it does as soon as one of the hooks that it needs is taken away."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

DEMO = [sys.executable, "-m", "lab.demo", "--operations", "8000", "--interval", "1"]

# The hook that is taken away, and figures that come out wrong without it. The number of a pool of
# zswap rises with every run; zswap compacts nothing, so two hooks matter to zram alone.
NEEDED = {
    "zs_create_pool": (r"zram0 status", r"zswap\w+ status"),
    "zs_destroy_pool": (r"pools after a reset",),
    "obj_malloc": (r"zram0 allocations", r"zswap\w+ allocations"),
    "fix_fullness_group": (r"zram0 frees", r"zswap\w+ frees"),
    "putback_zspage": (r"zram0 zspages",),
    "trylock_zspage": (r"zram0 bytes", r"zswap\w+ bytes"),
    "zs_page_migrate": (r"zram0 zspages", r"zswap\w+ zspages"),
    "__zs_compact": (r"zram0 pages freed by compaction",),
}


@pytest.mark.parametrize("hook", NEEDED)
def test_demo_fails_without_a_hook(hook: str) -> None:
    """Without the hook and without scans the figures that it feeds differ: the status is 1."""
    done = subprocess.run(
        [*DEMO, "--", "--no-scan", "--skip-hook", hook],
        check=False,
        capture_output=True,
        text=True,
    )
    differing = [line for line in done.stdout.splitlines() if line.startswith("  DIFFERS")]
    for figure in NEEDED[hook]:
        pattern = re.compile(rf"  DIFFERS +{figure} ")
        assert any(map(pattern.match, differing)), (figure, done.stdout[-5000:])
    assert any("missed hooks" in line and hook in line for line in differing)
    assert done.returncode == 1
