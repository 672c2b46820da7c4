from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from melanoma_dist.artifacts.evaluation import EvaluationRecord
from melanoma_dist.artifacts.summary import RunSummary
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.report.run_results import read_run_results

from .folder import write_evaluation, write_run
from .reading import Page


class ReportedRun(NamedTuple):
    folder: Path
    summary: RunSummary
    evaluations: list[EvaluationRecord]
    text: str
    page: Page


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> ReportedRun:
    """A run of three folds and two seeds with two evaluations, the second one of images that were evaluated before."""
    folder = tmp_path_factory.mktemp("run")
    summary = write_run(folder, repeats=2)
    second = write_evaluation(folder, 2, "2019-test", earlier=1, absent=("BKL",), prevalence=0.025)
    evaluations = [write_evaluation(folder, 1), second]
    text = report_text(folder)
    return ReportedRun(folder, summary, evaluations, text, Page(text))


def report_text(folder: Path) -> str:
    write_report(read_run_results(folder))
    return (folder / "report.html").read_text()


def report_page(folder: Path) -> Page:
    return Page(report_text(folder))


def card_text(folder: Path) -> str:
    write_card(read_run_results(folder))
    return (folder / "model" / "README.md").read_text()
