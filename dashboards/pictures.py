"""``python -m dashboards.pictures``: pictures of the dashboards, drawn by Grafana's own components.

A real exporter over real zram devices, which a workload fills and empties, is scraped by a real
Prometheus; a page bundles ``@grafana/ui`` (from npm), reads the committed dashboards, asks that
Prometheus what each panel asks for, and Chromium takes the picture. It is no Grafana server: what
lays panels out is drawing/page.jsx, and the heatmap, which npm has not, is drawn as lines. Needs
root, zram, npm, prometheus and chromium.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lab.prometheus import Job, Prometheus, Setup
from tests.native.device import NativeDevice
from tests.native.exporter import Exporter

ROOT = Path(__file__).resolve().parent.parent
SOURCE = Path(__file__).resolve().parent / "drawing"
BUILD = ROOT / "build" / "drawing"
PICTURES = ROOT / "docs" / "pictures"
BOARDS = ("zpobs-on-call", "zpobs-developer")
JOB = "zpobs"
# What a picture shows, and what is there at its left edge already.
SHOWN_S, BEFORE_S = 120, 20
SCRAPE_S = 2
PAGES, CHANGED = 3000, 150
# As in drawing/page.jsx.
WIDTH, ROW_PX = 1370, 38
_PAGE = """<!DOCTYPE html>
<meta charset="utf-8"><link rel="stylesheet" href="page.css">
<style>body {{ font: 14px sans-serif; background: #f4f5f5; margin: 8px }}</style>
<div id="page" style="position: relative"></div><pre id="told" hidden></pre>
<script>{values}</script><script src="page.js"></script>
"""
_CHROMIUM = (
    *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
    "--virtual-time-budget=20000",
)


def bundle() -> None:
    """Install what the page is made of, and make one script of it."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "page.jsx"):
        shutil.copy(SOURCE / name, BUILD)
    install = ["npm", "install", "--no-audit", "--no-fund", "--legacy-peer-deps", "--silent"]
    subprocess.run(install, cwd=BUILD, check=True)
    loaders = ("--loader:.svg=dataurl", "--loader:.woff2=dataurl", "--loader:.ttf=empty")
    made = '--define:process.env.NODE_ENV="production"'
    line = ["npx", "esbuild", "page.jsx", "--bundle", "--minify", "--outfile=page.js"]
    subprocess.run([*line, "--log-level=error", *loaders, made], cwd=BUILD, check=True)


def work(devices: list[NativeDevice], end_s: float) -> None:
    """Write and discard pages here and there, and compact one device now and then."""
    made = random.Random(1)
    count = 0
    while time.monotonic() < end_s:
        for device in devices:
            count += 1
            device.discard(made.randrange(PAGES - CHANGED), CHANGED * 2 // 3)
            device.fill("mixed", CHANGED, first=made.randrange(PAGES - CHANGED), seed=count)
        if count % 20 == 0:
            devices[0].compact()
        time.sleep(1.0)


def draw(board: str, address: str) -> dict[str, Any]:
    """Write the picture of a dashboard; return which panels were drawn, empty, or failed."""
    found = json.loads((ROOT / "dashboards" / "grafana" / f"{board}.json").read_text())
    values = {
        "dashboard": found,
        "prometheus": address,
        "seconds": SHOWN_S,
        "variables": {"__rate_interval": "15s", "job": JOB, "instance": ".+", "pool": ".+"},
    }
    script = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    page = BUILD / f"{board}.html"
    page.write_text(_PAGE.format(values=script.replace("</", "<\\/")))
    rows = max(each["gridPos"]["y"] + each["gridPos"]["h"] for each in found["panels"])
    size = f"--window-size={WIDTH},{rows * ROW_PX + 16}"
    picture = PICTURES / f"{board.removeprefix('zpobs-')}.png"
    shot = [*_CHROMIUM, size, f"--screenshot={picture}", page.as_uri()]
    subprocess.run(shot, check=True, capture_output=True)
    dumped = subprocess.run(
        [*_CHROMIUM, size, "--dump-dom", page.as_uri()], check=True, capture_output=True, text=True
    )
    told = re.search(r'<pre id="told"[^>]*>(.*?)</pre>', dumped.stdout, re.DOTALL)
    assert told, "the page says nothing: it was not drawn"
    out: dict[str, Any] = json.loads(told[1])
    return out


def main() -> int:
    """Draw all dashboards; return 1 if any panel failed."""
    bundle()
    failed = False
    with ExitStack() as held:
        devices = []
        for _ in range(2):
            devices.append(NativeDevice("1G"))
            held.callback(devices[-1].remove)
            devices[-1].fill("mixed", PAGES)
        options = ("--per-class-fullness", "--latency", "--bpf-stats", "--verify", "5")
        exporter = held.enter_context(Exporter(*options, interval_s=1.0))
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        rules = (ROOT / "dashboards" / "rules" / "zpobs.rules.yml").read_text()
        setup = Setup((Job(JOB, (exporter.target,)),), rules, interval_s=SCRAPE_S)
        prometheus = Prometheus(folder, setup)
        held.callback(prometheus.close)
        work(devices, time.monotonic() + BEFORE_S + SHOWN_S)
        for board in BOARDS:
            told = draw(board, prometheus.url.rstrip("/"))
            failed |= bool(told["failed"])
            print(f"{board}: {len(told['drawn'])} panels drawn")
            print(f"  without data: {', '.join(told['empty']) or 'none'}")
            for each in told["failed"]:
                print(f"  failed: {each}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
