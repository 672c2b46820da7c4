from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from melanoma_dist.evaluate.report.page import write_report

from .folder import write_evaluation, write_run
from .reading import Page


class ReportedRun(NamedTuple):
    folder: Path
    summary: dict[str, Any]
    evaluations: list[dict[str, Any]]
    text: str
    page: Page


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> ReportedRun:
    """A run of three folds and two seeds with two evaluations, the second one of images that were evaluated before."""
    folder = tmp_path_factory.mktemp("run")
    summary = write_run(folder, repeats=2)
    evaluations = [write_evaluation(folder, 1), write_evaluation(folder, 2, "2019-test", earlier=1, absent=("BKL",))]
    write_report(folder)
    text = (folder / "report.html").read_text()
    return ReportedRun(folder, summary, evaluations, text, Page(text))


def report_page(folder: Path) -> Page:
    write_report(folder)
    return Page((folder / "report.html").read_text())
