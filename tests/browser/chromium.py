"""Measure and print a page in headless Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
_MEASURE = """<pre id="measured"></pre><script>
document.getElementById("measured").textContent = JSON.stringify(
  [...document.querySelectorAll("iframe")].map((frame) => {
    const root = frame.contentDocument.documentElement, wide = [];
    for (const element of frame.contentDocument.querySelectorAll("body *"))
      if (element.getBoundingClientRect().right > root.clientWidth + 1 && !element.closest(".scroll, pre, svg"))
        wide.push(element.tagName + " " + element.textContent.trim().slice(0, 40));
    return {width: root.clientWidth, needed: root.scrollWidth, wide, height: root.scrollHeight};
  }));
</script>"""


def browser() -> str:
    """Return the browser's program; skip the test if none is installed."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"none of {', '.join(NAMES)} is installed")
    return program


def measure(page: Path, widths: tuple[int, ...], folder: Path) -> list[dict[str, Any]]:
    """Return ``width``, ``needed`` width, ``height`` and too ``wide`` elements of a page, for each width in pixels.

    Frames hold the page, since a headless window is never narrower than 500 pixels.
    """
    frames = "".join(f'<iframe src="{page.as_uri()}" width="{width}" height="800" style="border:0"></iframe>'
                     for width in widths)  # fmt: skip
    script = _MEASURE.replace("<script>", "<script>window.onload = () => {").replace("</script>", "}</script>")
    (folder / "frames.html").write_text(f"<!doctype html><body>{frames}{script}</body>")
    flags = ["--allow-file-access-from-files", "--virtual-time-budget=5000", "--dump-dom"]
    text = _run(folder, *flags, (folder / "frames.html").as_uri())
    match = re.search(r'<pre id="measured">(.+?)</pre>', text, re.DOTALL)
    assert match is not None, text[-2000:]
    return list(json.loads(unescape(match[1])))


def paper(page: Path, folder: Path) -> bytes:
    """Return the page as a PDF."""
    _run(folder, "--no-pdf-header-footer", f"--print-to-pdf={folder / 'page.pdf'}", page.as_uri())
    return (folder / "page.pdf").read_bytes()


def _run(folder: Path, *flags: str) -> str:
    fixed = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
    ]
    process = subprocess.run([browser(), *fixed, *flags], capture_output=True, text=True, timeout=120, check=True)
    return process.stdout
