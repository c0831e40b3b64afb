"""``python -m dashboards``: writes what is made, or with ``--check`` says what is not as made."""

from __future__ import annotations

import sys
from pathlib import Path

from dashboards.made import made

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str]) -> int:
    """Return 1 if ``--check`` finds a file that differs from what would be written."""
    stale = []
    for name, text in made().items():
        path = ROOT / name
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"written: {name}")
    if "--check" in arguments and stale:
        print(f"not as made: {', '.join(stale)}; try: make dashboards", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
