from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.artifacts.metadata_use import MetadataUse, Shortcut
from melanoma_dist.artifacts.summary import write_summary
from melanoma_dist.evaluate.report.card import AUTHORS
from melanoma_dist.evaluate.report.checklists import CLAIM, TRIPOD_AI
from melanoma_dist.evaluate.report.statements import ATTRIBUTES
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.subgroups import Gap, attributes

from .conftest import ReportedRun, card_text, report_text
from .folder import about, predictions, write_evaluation, write_run


@pytest.fixture(scope="module")
def card(reported: ReportedRun) -> str:
    return card_text(reported.folder)


def test_the_card_has_the_metrics_of_the_page(reported: ReportedRun, card: str) -> None:
    evaluated = reported.evaluations[0].results
    assert evaluated is not None
    for assessment in (reported.summary.out_of_fold, evaluated.ensemble):
        auc = assessment.by_image.intervals["MEL"].auc
        assert f"**{auc.estimate:.3f} (95 % interval {auc.low:.3f} to {auc.high:.3f})**" in card
        assert f"| {auc.estimate:.3f} ({auc.low:.3f} to {auc.high:.3f}) |" in card
    assert "EVALUATION NUMBER 2" in card
    assert "Not a medical device" in card
    points = reported.summary.operating_points["MEL"]
    assert isinstance(points, tuple)
    assert all(f"{point.name} | {point.threshold:.4f} |" in card for point in points)


def test_every_item_of_both_checklists_is_answered_or_left_to_the_authors(reported: ReportedRun, card: str) -> None:
    claim, tripod = card.split("### TRIPOD+AI")
    for items, text in ((CLAIM, claim), (TRIPOD_AI, tripod)):
        for item in items:
            (answer,) = re.findall(rf"^\| {item.number} \| {re.escape(item.name)} \| (.+) \|$", text, re.MULTILINE)
            assert (answer == AUTHORS) == (not item.answer)
    assert [item.number for item in CLAIM] == [str(number) for number in range(1, 45)]
    assert {item.number.rstrip("abcdefg") for item in TRIPOD_AI} == {str(number) for number in range(1, 28)}


def test_every_row_of_a_table_has_as_many_cells(card: str) -> None:
    widths: set[int] = set()
    for line in card.splitlines():
        if line.startswith("|"):
            widths.add(len(re.findall(r"(?<!\\)\|", line)))
            assert len(widths) == 1
        else:
            widths = set()
    assert "```python" in card
    assert not re.search(r"\n{4,}", card)


def test_a_run_without_evaluations_says_so(tmp_path: Path) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120, synthetic=True)
    card = card_text(tmp_path)
    assert "**SYNTHETIC DATA" in card
    assert "| 33 | Testing on external data | none |" in card


def test_only_a_run_with_metadata_names_its_fields(tmp_path: Path) -> None:
    """Also one whose source or site predicts the label."""
    summary = write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    shortcut = Shortcut("site", Undefined("few"), warns=False)
    for fields, is_named in (((), False), (("age", "sex"), True)):
        write_summary(tmp_path, replace(summary, metadata=MetadataUse(fields, "MEL", (), (shortcut,))))
        for text in (report_text(tmp_path), card_text(tmp_path)):
            assert ("each may be unknown" in text) == is_named
            assert ("age, sex; each may be unknown" in text) == is_named
        assert ("nothing else is an input" in text) != is_named
        assert ("metadata is not an input" in text) != is_named


def test_report_and_card_repeat_that_tables_were_incomplete(tmp_path: Path) -> None:
    text = "The lesion of 7 of 120 images is unknown: two folds may share lesions."
    summary = write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    assert text not in report_text(tmp_path) + card_text(tmp_path)
    write_summary(tmp_path, replace(summary, data=replace(summary.data, incomplete_tables=(text,))))
    assert text in report_text(tmp_path)
    assert text in card_text(tmp_path)


def test_only_another_data_set_is_named_as_a_test_on_external_data(
    reported: ReportedRun, card: str, tmp_path: Path
) -> None:
    assert {each.kind for each in reported.evaluations} == {"holdout"}
    assert "| 33 | Testing on external data | none |" in card
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    write_evaluation(tmp_path, 1, "2017-test")
    write_evaluation(tmp_path, 2, "clinic", kind="data")
    (answer,) = re.findall(r"Testing on external data \| (.+) \|", card_text(tmp_path))
    assert answer.startswith("clinic (evaluation 2): AUC 0.")
    assert answer.endswith("; the authors decide whether it is external")
    assert "2017-test" not in answer


def test_the_checklists_name_the_attributes_of_subgroups_and_flagged_subgroups(tmp_path: Path) -> None:
    summary = write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    some = [
        replace(each, gap=Gap(-0.2, -0.3, -0.1, p=0.01, flagged=each.value == "male"))
        for each in summary.subgroups
        if each.attribute in ("sex", "age")
    ]
    write_summary(tmp_path, replace(summary, subgroups=tuple(some)))
    text = card_text(tmp_path)
    absent = "(no subgroups, because all images share it or lack it: site, year, image size, metadata)"
    for number in ("14", "23b"):
        (answer,) = re.findall(rf"^\| {number} \| (?:Fairness|Results: het[^|]*) \| (.+) \|$", text, re.MULTILINE)
        assert answer.startswith(f"AUC by sex, age {absent}, out of fold. Flagged after Holm's correction: sex male.")
    assert text.count(f"| sex, age {absent}, with counts") == 2


def test_card_and_report_count_the_images_whose_lesion_no_table_names(tmp_path: Path) -> None:
    summary = write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    counts = f"120 images of {summary.data.lesions} lesions"
    assert all(f"{counts} in " in text for text in (card_text(tmp_path), report_text(tmp_path)))
    write_summary(tmp_path, replace(summary, data=replace(summary.data, lesions_unknown=118)))
    counts += " (no table names the lesion of 118 images) in "
    assert all(counts in text for text in (card_text(tmp_path), report_text(tmp_path)))


def test_every_attribute_of_subgroups_has_its_name_in_the_report() -> None:
    table = predictions(1, 30, ("MEL",), 2, "ISIC")
    assert tuple(attributes(about(table)).columns) == ATTRIBUTES


def test_the_card_states_trainings_points_and_the_limits_of_the_search(reported: ReportedRun, card: str) -> None:
    assert "in 3 folds; each model saw 2 of the 3" in card
    assert "one orientation of each image, ensemble of 3 folds" in card
    assert "The sensitivity that a point reaches may therefore differ from the one in its name" in card
    assert "It does not find copies that were rotated, mirrored, cropped, framed or much brightened" in card
