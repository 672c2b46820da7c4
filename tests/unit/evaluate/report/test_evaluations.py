"""Evaluations of unseen images on the page: repeated, deleted and interrupted ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .conftest import ReportedRun, report_text
from .folder import write_evaluation, write_run


def test_a_repeated_evaluation_is_marked_wherever_it_is_shown(reported: ReportedRun) -> None:
    marks = re.findall(r'<p class="banner note">([^<]*)</p>', reported.text)
    assert len(marks) == 2  # in the leakage audit and above its metrics
    assert all("EVALUATION NUMBER 2 of these images; earlier ones: another #1 (2026-02-20)" in mark for mark in marks)
    assert all("by the remaining records: 150 of 150." in mark for mark in marks)
    assert (
        "no record in the same folder of runs names an earlier evaluation of any of these images" in reported.page.text
    )
    assert "These images were evaluated before: 2019-test (evaluation 2, repeated)" in reported.page.text


def test_the_headline_is_marked_if_only_a_repeated_evaluation_exists(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_evaluation(tmp_path, 1, earlier=1)
    text = report_text(tmp_path)
    boxes = text[text.index('class="headlines"') : text.index('id="trained"')]
    assert "EVALUATION NUMBER 2 of these images" in boxes
    for tag in ("title", "h1"):
        assert "2017-test (evaluation 1, repeated)" in text[text.index(f"<{tag}>") : text.index(f"</{tag}>")]


def test_the_least_repeated_evaluation_leads_and_deleted_records_count(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_evaluation(tmp_path, 1, earlier=2)
    write_evaluation(tmp_path, 2, "2018-test")
    path = tmp_path / "evaluations/002-2018-test/evaluation.json"
    deleted = {"run": "first", "number": 1, "started": None, "images": None, "deleted": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "earlier": [deleted], "seen_before": 0}))
    text = report_text(tmp_path)
    assert "2018-test (evaluation 2, repeated)" in text[text.index("<h1>") : text.index("</h1>")]
    assert "first #1 (at an unknown time, its record was deleted: its images are unknown)" in text
    assert "by the remaining records: 0 of 150." in text


def test_an_interrupted_evaluation_is_not_reported(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_evaluation(tmp_path, 1)
    write_evaluation(tmp_path, 2, "2018-test")
    folder = tmp_path / "evaluations/001-2017-test"
    record = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps({**record, "results": None}))
    (folder / "predictions.parquet").unlink()
    assert "2017-test (evaluation 1" not in report_text(tmp_path)
