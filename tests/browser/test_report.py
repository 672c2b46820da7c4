"""The report of a run in headless Chromium: at desktop, phone and paper widths."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.run_results import read_run_results

from ..unit.evaluate.report.folder import write_evaluation, write_run

# A frame can be as narrow as a phone; on some systems a window cannot.
_MEASURE = """<!doctype html><title>measure</title>
<iframe src="{page}" style="width:{width}px;height:900px;border:0" onload="
  const d = this.contentDocument, e = d.documentElement;
  const wide = [...d.querySelectorAll('body *')].filter(
    (each) => each.getBoundingClientRect().right > e.clientWidth + 1 && !each.closest('.scroll, pre'));
  document.title = `${{e.clientWidth}} ${{e.scrollWidth}} ${{wide.map((each) => each.outerHTML.slice(0, 60)).join()}}`;
"></iframe>"""


@pytest.fixture(scope="module")
def browser() -> str:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not on PATH")
    return program


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, labels=("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"), images=300, repeats=2)
    write_evaluation(folder, earlier=1)
    write_report(read_run_results(folder))
    return folder / "report.html"


def run(browser: str, folder: Path, page: Path, *flags: str) -> str:
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
               f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, timeout=240).stdout.decode()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(browser: str, page: Path, tmp_path: Path, width: int) -> None:
    frame = tmp_path / "measure.html"
    frame.write_text(_MEASURE.format(page=page.as_uri(), width=width))
    dom = run(browser, tmp_path, frame, "--allow-file-access-from-files", "--window-size=1400,1000", "--dump-dom")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title is not None
    inner, content, *wide = title[1].split(" ", 2)
    assert int(inner) == width
    assert int(content) <= width, wide
    assert "".join(wide).strip() == ""


@pytest.mark.parametrize("width", [1280, 500])
def test_it_is_drawn(browser: str, page: Path, tmp_path: Path, width: int) -> None:
    picture = tmp_path / "page.png"
    run(browser, tmp_path, page, f"--window-size={width},3000", f"--screenshot={picture}")
    with Image.open(picture) as image:
        assert image.size == (width, 3000)
        pixels = np.asarray(image.convert("L"))
    assert len(np.unique(pixels)) > 50
    assert (pixels.std(axis=1) > 0).mean() > 0.3  # text or a plot in a third of the lines


def test_it_prints(browser: str, page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    run(browser, tmp_path, page, f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 12
