"""Looks at unseen images on the page: repeated, deleted and interrupted ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

from melanoma_dist.evaluate.report.page import write_report

from .conftest import Made
from .folder import write_evaluation, write_run


def test_a_second_look_is_marked_wherever_it_is_shown(made: Made) -> None:
    marks = re.findall(r'<p class="banner mark">([^<]*)</p>', made.text)
    assert len(marks) == 2  # in the audit and above its figures
    assert all("LOOK NUMBER 2 at these images: earlier ones are another #1 (2026-02-20)" in mark for mark in marks)
    assert all("by the records that were left: 150 of 150 images" in mark for mark in marks)
    assert "no record in the same folder of runs tells of an earlier look at any of these images" in made.page.text
    assert "These images had been looked at before: 2019-test (evaluation 2, look 2)" in made.page.text


def test_when_only_a_second_look_exists_the_headline_carries_the_mark(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_evaluation(tmp_path, 1, earlier=1)
    write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    boxes = text[text.index('class="headlines"') : text.index('id="trained"')]
    assert "LOOK NUMBER 2 at these images" in boxes
    for tag in ("title", "h1"):
        assert "2017-test (evaluation 1, look 2)" in text[text.index(f"<{tag}>") : text.index(f"</{tag}>")]


def test_the_evaluation_of_the_fewest_earlier_looks_leads_and_a_deleted_one_counts(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_evaluation(tmp_path, 1, earlier=2)
    write_evaluation(tmp_path, 2, "2018-test")
    path = tmp_path / "evaluations/002-2018-test/evaluation.json"
    gone = {"run": "first", "number": 1, "begun": None, "images": None, "deleted": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "earlier": [gone]}))
    write_report(tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "2018-test (evaluation 2, look 2)" in text[text.index("<h1>") : text.index("</h1>")]
    assert "first #1 (at an unknown time, its record is gone: which images it saw is not known)" in text
    assert "by the records that were left: 0 of 150 images" in text


def test_a_look_that_was_interrupted_has_no_figures_to_report(tmp_path: Path) -> None:
    write_run(tmp_path)
    write_evaluation(tmp_path, 1)
    write_evaluation(tmp_path, 2, "2018-test")
    folder = tmp_path / "evaluations/001-2017-test"
    begun = {key: value for key, value in json.loads((folder / "evaluation.json").read_text()).items()
             if key != "finished"}  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(begun))
    (folder / "predictions.parquet").unlink()
    write_report(tmp_path)
    assert "2017-test (evaluation 1" not in (tmp_path / "report.html").read_text()
