from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from melanoma_dist.artifacts.assessment import DelongInterval
from melanoma_dist.artifacts.evaluation import EvaluationRecord, EvaluationResults
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.report.cells import NAMES
from melanoma_dist.evaluate.report.statements import flagged_subgroups, subgroup_threshold
from melanoma_dist.evaluate.report.tables import MAIN, MORE
from melanoma_dist.metrics.classification import predictive_values
from melanoma_dist.metrics.cross_validation import VarianceComponents
from melanoma_dist.metrics.intervals import Interval, MetricInterval, Undefined
from melanoma_dist.metrics.operating_points import OperatingPoint
from melanoma_dist.metrics.subgroups import Gap, Subgroup

from .conftest import ReportedRun, report_page, report_text
from .folder import predictions, write_run

Point = TypeVar("Point", bound=OperatingPoint)
SYNTHETIC = "SYNTHETIC DATA"
GALLERY_ELSEWHERE = json.dumps({"note": "", "kinds": [{"title": "Missed", "errors": [{
    "image_id": "x", "fold": 0, "probability": 0.1, "diagnosis": "MEL", "picture": "../x.jpg", "saliency": None,
    "speaks": "for", "why": "", "width": 1, "height": 1}]}]})  # fmt: skip


def results(record: EvaluationRecord) -> EvaluationResults:
    assert record.results is not None
    return record.results


def points_of(points: Mapping[str, tuple[Point, ...] | Undefined]) -> tuple[Point, ...]:
    of_melanoma = points["MEL"]
    assert not isinstance(of_melanoma, Undefined)
    return of_melanoma


def with_interval(estimate: Interval | MetricInterval | Undefined) -> str:
    assert not isinstance(estimate, Undefined)
    return f"{estimate.estimate:.3f} | {estimate.low:.3f} to {estimate.high:.3f}"


def test_every_metric_of_every_row_is_the_summarys_with_its_interval(reported: ReportedRun) -> None:
    parts = [("Out of fold", reported.summary.out_of_fold), ("2017-test", results(reported.evaluations[0]).ensemble)]
    compared = 0
    for where, assessment in parts:
        for unit, word in ((assessment.by_image, "image"), (assessment.by_lesion, "lesion")):
            for row, intervals in unit.intervals.items():
                for name in (*MAIN, *MORE):
                    suffix = "" if name in MAIN else ", further metrics"
                    raw = " of raw probabilities" * (where == "Out of fold" and name in ("brier", "calibration_error"))
                    cell = reported.page.column(f"{where}, per {word}{suffix}", NAMES[name] + raw)[row]
                    assert cell == with_interval(intervals.of(name))
                    compared += 1
    assert compared == 2 * 2 * 5 * 15


def test_delong_and_counts_stand_beside_the_auc(reported: ReportedRun) -> None:
    own = reported.summary.out_of_fold.by_image
    for label in ("MEL", "NV", "BKL"):
        delong = own.delong[label]
        assert isinstance(delong, DelongInterval)
        cells = reported.page.column("Out of fold, per image", "AUC, DeLong interval")
        assert cells[label] == f"{delong.low:.3f} to {delong.high:.3f}"
        entry = own.labels[label]
        counts = reported.page.column("Out of fold, per image", "positives of known")[label]
        assert counts == f"{entry.positives} of {entry.positives + entry.negatives}"
        assert reported.page.column("Out of fold, per image", "unknown")[label] == str(entry.unknown)


def test_unseen_images_lead_and_the_out_of_fold_auc_is_called_optimistic(reported: ReportedRun) -> None:
    unseen = results(reported.evaluations[0]).ensemble.by_image.intervals["MEL"].auc
    own = reported.summary.out_of_fold.by_image.intervals["MEL"].auc
    title = reported.text[reported.text.index("<h1>") : reported.text.index("</h1>")]
    ends = f"95 % interval {unseen.low:.3f} to {unseen.high:.3f}"
    assert f"{unseen.estimate:.3f} ({ends}) on unseen images, 2017-test (evaluation 1)" in title
    boxes = reported.text[reported.text.index('class="headlines"') : reported.text.index('id="trained"')]
    assert boxes.index(f"{unseen.estimate:.3f}") < boxes.index(f"{own.estimate:.3f}")
    assert "slightly optimistic, because each fold chose its epoch on the images that measure it" in boxes


def test_folds_and_their_spread_are_the_summarys(reported: ReportedRun) -> None:
    for fold, metrics in reported.summary.folds.items():
        entry = metrics.labels["MEL"]
        for name in ("auc", "sensitivity", "specificity", "precision"):
            cells = reported.page.column("Each fold (threshold: probability 0.5)", NAMES[name])
            assert cells[f"fold {fold}"] == f"{entry.value(name):.3f}"
    for label, spreads in reported.summary.over_folds.items():
        auc = spreads.auc
        assert reported.page.column("AUC over the folds", "mean")[label] == f"{auc.mean:.3f}"
        ends = reported.page.column("AUC over the folds", "95 % interval, corrected")[label]
        assert ends == "– | an interval needs 5 folds that define it; here are 3"


def test_the_variance_of_folds_stands_against_that_of_seeds(reported: ReportedRun) -> None:
    assert reported.summary.seed_repeats is not None
    parts = reported.summary.seed_repeats.components["MEL"]
    assert isinstance(parts, VarianceComponents)
    caption = "Standard deviation of the AUC by where it comes from"
    assert reported.page.column(caption, "between folds")["MEL"] == f"{parts.folds**0.5:.4f}"
    assert reported.page.column(caption, "between seeds")["MEL"] == f"{parts.seeds**0.5:.4f}"


def test_operating_points_where_chosen_and_evaluated_with_predictive_values(reported: ReportedRun) -> None:
    header, *rows = reported.page.tables["Operating points of MEL"]
    points = points_of(reported.summary.operating_points)
    assert len(rows) == 3 * len(points)
    for at, point in enumerate(points):
        chosen = dict(zip(header, rows[3 * at], strict=True))
        assert (chosen["sensitivity"], chosen["threshold"]) == (
            f"{point.sensitivity:.3f}",
            f"{point.threshold:.4f}",
        )
        assert chosen["where"] == "where it was chosen | out of fold: optimistic"
        evaluated = dict(zip(header, rows[3 * at + 1], strict=True))
        counts = points_of(results(reported.evaluations[0]).operating_points)[at].counts
        assert isinstance(counts.sensitivity, Interval)
        assert isinstance(counts.specificity, Interval)
        assert evaluated["where"] == "2017-test (evaluation 1)"
        assert evaluated["specificity"] == with_interval(counts.specificity)
        assert evaluated["TP"] == str(counts.true_positives)
        values = predictive_values(counts.sensitivity.estimate, counts.specificity.estimate, 0.05)
        names, *others = reported.page.tables["Predictive values of MEL by prevalence"]
        evaluated = dict(zip(names, others[3 * at + 1], strict=True))
        assert [evaluated[f"{kind} at 5% (stated)"] for kind in ("PPV", "NPV")] == [f"{each:.3f}" for each in values]
        assert names[2::2] == ["PPV at 1%", "PPV at 2.5% (stated)", "PPV at 5% (stated)", "PPV at 20%"]
    assert sum(int(rows[0][header.index(name)]) for name in ("TP", "FN")) == points[0].positives


def test_predictive_values_at_the_prevalence_that_the_evaluation_stated(reported: ReportedRun) -> None:
    caption = "2017-test at a prevalence of 0.05, per image, further metrics"
    intervals = results(reported.evaluations[0]).ensemble.by_image.intervals["MEL"]
    assert reported.page.column(caption, "PPV")["MEL"] == with_interval(intervals.ppv)
    assert reported.page.column(caption, "NPV")["MEL"] == with_interval(intervals.npv)


def test_subgroups_have_counts_intervals_and_their_flags(reported: ReportedRun) -> None:
    for subgroup in reported.summary.subgroups:
        name = f"{subgroup.attribute}: {subgroup.value}"
        assert reported.page.column("Subgroups, out of fold", "images")[name] == str(subgroup.images)
        cell = reported.page.column("Subgroups, out of fold", "AUC")[name]
        auc = subgroup.auc
        assert cell == (f"– | {auc.reason}" if isinstance(auc, Undefined) else with_interval(auc))
        flag = reported.page.column("Subgroups, out of fold", "flag")[name]
        assert flag == ("differs" if isinstance(subgroup.gap, Gap) and subgroup.gap.flagged else "")


def test_subgroups_state_their_threshold_and_that_p_is_corrected(reported: ReportedRun) -> None:
    (point,) = [each for each in points_of(reported.summary.operating_points) if each.name == "Youden"]
    at = f"{point.threshold:.4f}"
    header = reported.page.tables["Subgroups, out of fold"][0]
    assert {f"sensitivity at {at}", f"specificity at {at}", "p, Holm-corrected"} <= set(header)
    assert f"a calibrated probability of {at}, the operating point of Youden" in reported.page.text


def test_a_missing_flag_is_not_equality() -> None:
    gap, few_images = Gap(-0.01, -0.03, 0.02, p=1.0, flagged=False), Undefined("few")
    tested = Subgroup("sex", "male", 9, 9, 4, 5, few_images, few_images, few_images, gap)
    few = replace(tested, value="female", gap=few_images)
    assert (
        flagged_subgroups([tested, few])
        == "No subgroup is flagged after Holm's correction; that does not show them equal."
    )
    assert (
        flagged_subgroups([replace(tested, gap=replace(gap, flagged=True))])
        == "Flagged after Holm's correction: sex male."
    )
    assert flagged_subgroups([few]) == "No subgroup could be tested: each, or the rest, has too few lesions."
    assert flagged_subgroups([few], "patients").endswith("each, or the rest, has too few patients.")


def test_without_points_subgroups_use_the_runs_threshold(reported: ReportedRun) -> None:
    summary = replace(reported.summary, operating_points={"MEL": Undefined("few")})
    assert subgroup_threshold(summary) == (0.5, "a raw probability of 0.5000, as no operating point could be chosen")


def test_a_label_that_unseen_images_lack_has_its_reason(reported: ReportedRun) -> None:
    assert reported.page.column("2019-test, per image", "AUC")["BKL"] == "– | no image of 2019-test tells it"


def test_nothing_is_fetched_from_elsewhere_and_nothing_runs(reported: ReportedRun) -> None:
    for tag, attributes in reported.page.elements:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name) or ""
            assert value.startswith(("#", "data:")) or not value
    assert not re.findall(r"url\((?!#)", reported.text)
    assert "@import" not in reported.text


def test_every_plot_has_a_text_alternative_and_its_numbers_in_a_table(reported: ReportedRun) -> None:
    plots = [attributes for attributes in reported.page.having("div") if attributes.get("role") == "img"]
    assert (
        len(plots)
        == len(reported.page.having("svg"))
        == reported.text.count("<summary>The numbers behind it</summary>")
    )
    assert len(plots) > 10
    own = reported.summary.out_of_fold.by_image.intervals["MEL"].auc
    texts = [attributes["aria-label"] or "" for attributes in plots]
    assert all(re.search(r"\d", text) for text in texts)
    assert any(f"out of fold AUC {own.estimate:.3f}, 95 % interval {own.low:.3f}" in text for text in texts)


def test_headings_are_in_order_and_headers_have_a_scope(reported: ReportedRun) -> None:
    levels = [int(tag[1]) for tag, _ in reported.page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert all(attributes.get("scope") in ("col", "row") for attributes in reported.page.having("th"))
    assert dict(reported.page.having("html")[0])["lang"] == "en"
    anchors = {attributes["id"] for _, attributes in reported.page.elements if "id" in attributes}
    assert {link["href"] for link in reported.page.having("a")} <= {f"#{anchor}" for anchor in anchors}


def test_the_record_is_complete_and_the_page_is_the_same_each_time(reported: ReportedRun) -> None:
    config = (reported.folder / "config.yaml").read_text().strip()
    assert reported.page.text.count(config) == 1
    assert "schedule.plateau_factor" not in reported.page.text  # its identity would repeat it
    assert reported.summary.data.fingerprint in reported.page.text
    assert '"libraries"' in reported.page.text
    assert report_text(reported.folder) == reported.text
    assert len(reported.text) < 4e6


def test_only_synthetic_data_is_called_synthetic(reported: ReportedRun, tmp_path: Path) -> None:
    assert SYNTHETIC not in reported.text
    write_run(tmp_path, labels=("MEL",), folds=2, images=120, synthetic=True)
    page = report_page(tmp_path)
    assert SYNTHETIC in page.text
    assert "No evaluation on unseen images" in page.text
    assert "This run has no pictures" in page.text
    assert "micro" not in page.text  # one label is its own mean


def test_an_undefined_metric_has_a_dash_and_its_reason(tmp_path: Path) -> None:
    """A fold without melanomas, a label without positives, and a label without known truth."""
    table = predictions(1, 240, ("MEL", "NV", "BKL"), 3, "ISIC")
    table.loc[(table["fold"] == 0) & (table["MEL_true"] == 1), "MEL_true"] = 0
    table["NV_true"] = np.where(table["NV_true"] == 1, 0, table["NV_true"]).astype(np.float32)
    table["BKL_true"] = np.float32(np.nan)
    write_run(tmp_path, table=table)
    for fold in range(3):  # a training needs melanomas in its validation
        path = tmp_path / f"fold-{fold}" / "metrics.jsonl"
        path.write_text((tmp_path / "fold-1" / "metrics.jsonl").read_text())
    page = report_page(tmp_path)
    assert page.column("Each fold (threshold: probability 0.5)", "AUC")["fold 0"] == "– | no image has it"
    own = page.column("Out of fold, per image", "AUC")
    assert own["NV"] == "– | no image has it"
    assert own["BKL"] == "– | no truth is known"
    assert page.column("AUC over the folds", "mean")["NV"] == "– | no fold defines it"
    assert "NV: no operating point (" in page.text
    assert "nan" not in page.text.lower().split()


def test_a_leak_is_marked_at_the_top(tmp_path: Path) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    assert "DOES NOT HOLD" not in report_page(tmp_path).text
    path = tmp_path / "predictions.parquet"
    table = predictions(1, 120, ("MEL",), 2, "ISIC")
    assert table.loc[0, "fold"] != table.loc[1, "fold"]
    table.loc[1, "group"] = table.loc[0, "group"]
    table.to_parquet(path)
    page = report_page(tmp_path)
    assert "DOES NOT HOLD: The folds share no lesion" in page.text
    assert "No metric of this page is valid" in page.text


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("summary.json", None, "no finished run"),
        ("summary.json", "{", "cannot be read"),
        ("summary.json", '{"schema": 2}', "another version"),
        ("summary.json", '{"schema": 3, "labels": "MEL"}', "has no synthetic"),
        ("gallery/gallery.json", "[]", "must hold an object"),
        ("gallery/gallery.json", GALLERY_ELSEWHERE, "not the name of a picture"),
        ("gallery/gallery.json", GALLERY_ELSEWHERE.replace("../x", "x"), "cannot be read as a picture"),
    ],
)
def test_an_unfinished_or_corrupt_run_is_refused(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=message):
        report_page(tmp_path)
    assert not (tmp_path / "report.html").exists()
