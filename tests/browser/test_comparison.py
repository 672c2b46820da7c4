"""``comparison.html`` as a browser shows it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melanoma_dist.evaluate.comparison.command import describe
from melanoma_dist.evaluate.comparison.page import write_page
from melanoma_dist.evaluate.comparison.runs import read_out_of_fold_runs

from ..unit.evaluate.comparison.run_folders import images, scores, write_run
from .chromium import browser, measure, paper


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs, six pairs."""
    browser()
    folder, table = tmp_path_factory.mktemp("comparison"), images(90)
    names = ("inceptionresnetv2", "densenet201", "resnet152v2", "inceptionv3")
    runs = [
        write_run(folder, name, table, scores(table, 1.4 - 0.3 * at, at), synthetic=at == 3)
        for at, name in enumerate(names)
    ]
    write_page(describe(read_out_of_fold_runs(runs), resamples=100), folder / "comparison.html")
    return folder / "comparison.html"


def test_nothing_overflows_from_a_phone_to_a_desktop(page: Path, tmp_path: Path) -> None:
    for layout, width in zip(measure(page, (390, 768, 1280), tmp_path), (390, 768, 1280), strict=True):
        assert layout["width"] == width
        assert layout["wide"] == []
        assert layout["needed"] <= width
        assert layout["height"] > 2000  # it has been laid out


def test_it_prints(page: Path, tmp_path: Path) -> None:
    content = paper(page, tmp_path)
    assert content.startswith(b"%PDF")
    pages = len(re.findall(rb"/Type\s*/Page\b", content))
    assert 2 <= pages <= 8


def test_it_needs_nothing_else_and_says_what_its_plots_show(page: Path) -> None:
    text = page.read_text()
    assert not re.search(r'(?:src|href)="(?!#)', text.replace("http://www.w3.org", ""))
    assert "<script" not in text
    plots = re.findall(r'role="img" aria-label="([^"]+)"', text)
    assert len(plots) == 3
    assert all("in the table" in label or "in the table of pairs" in label for label in plots)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert text.index("Highest AUC of MEL") < text.index("<table")
    assert text.count("SYNTHETIC DATA") == 1
