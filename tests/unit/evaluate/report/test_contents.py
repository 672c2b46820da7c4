"""The first things that a reader sees: the sentence, the labels, the figures of every label, the reasons."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from melanoma_dist.artifacts.decision_rules import read_decision_rules
from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.artifacts.summary import write_summary
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.metrics.cross_validation import over_folds
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import fixed_sensitivity

from .conftest import ReportedRun, report_page, report_text
from .folder import predictions, write_run
from .test_page import points_of, results


def test_five_folds_have_an_interval_that_stays_below_1(tmp_path: Path) -> None:
    table = predictions(1, 300, ("MEL", "NV"), 5, "ISIC")
    table["MEL"] = (0.98 * table["MEL_true"].fillna(0) + 0.02 * table["MEL"]).astype(np.float32)
    table.loc[(table["fold"] == 2) & (table["MEL"] < 0.002), "MEL"] = 0.999
    summary = write_run(tmp_path, ("MEL", "NV"), folds=5, table=table)
    auc = summary.over_folds["MEL"].auc
    assert auc.low is not None
    assert auc.high is not None
    assert over_folds([fold.labels["MEL"].auc or 0.0 for fold in summary.folds.values()]).high > 1
    assert auc.mean is not None
    assert auc.mean < auc.high < 1
    ends = report_page(tmp_path).column("AUC over the folds", "95 % interval, corrected")["MEL"]
    assert ends == f"{auc.low:.3f} to {auc.high:.3f}"


def test_the_decision_curve_is_called_better_where_it_is_and_nowhere_else(tmp_path: Path) -> None:
    """Also where a threshold at which it is not lies between two at which it is."""
    summary = write_run(tmp_path)
    curve = summary.decision_curve["MEL"]
    assert curve is not None
    model = [all_called if 40 < at < 50 else value
             for at, (value, all_called) in enumerate(zip(curve.model, curve.call_all, strict=True))]  # fmt: skip
    changed = replace(curve, model=tuple(model))
    write_summary(tmp_path, replace(summary, decision_curve={**summary.decision_curve, "MEL": changed}))
    pattern = r"better than calling all or none at thresholds of ((?:[0-9.]+[0-9](?: to |, )?)+)"
    (text,) = set(re.findall(pattern, report_text(tmp_path)))
    ranges = [[float(end) for end in part.split(" to ")] for part in text.split(", ")]
    assert len(ranges) > 1
    for threshold, value, all_called in zip(curve.thresholds, model, curve.call_all, strict=True):
        is_named = any(ends[0] - 0.005 < threshold < ends[-1] + 0.005 for ends in ranges)
        assert is_named == (value > max(all_called, 0) + 1e-9), threshold


def test_a_sentence_says_what_the_point_of_90_percent_finds(reported: ReportedRun) -> None:
    (at,) = [at for at, point in enumerate(points_of(reported.summary.operating_points))
             if point.rule == fixed_sensitivity(0.90)]  # fmt: skip
    threshold = points_of(reported.summary.operating_points)[at].threshold
    rules = read_decision_rules(reported.folder)
    table = rules.calibrate(read_predictions(reported.folder / "predictions.parquet"), reported.summary.labels)
    known = table[table["MEL_true"].notna()]
    counts = confusion_matrix(known["MEL_true"], known["MEL"] >= np.float32(threshold)).ravel().tolist()
    negatives, alarms, missed, hits = counts
    assert (
        f"Out of fold, at 90 % sensitivity: {hits} of {hits + missed} images with melanoma found, {alarms} of "
        f"{alarms + negatives} others flagged; optimistic, because these images chose the threshold."
        in reported.page.text
    )
    unseen = points_of(results(reported.evaluations[0]).operating_points)[at].counts
    assert (
        "On unseen images, 2017-test (evaluation 1), at the threshold chosen for 90 % sensitivity out of fold: "
        f"{unseen.true_positives} of {unseen.true_positives + unseen.false_negatives} images with melanoma found"
        in reported.page.text
    )


def test_labels_are_explained_and_curves_come_before_tables(reported: ReportedRun) -> None:
    entry = reported.summary.out_of_fold.by_image.labels["NV"]
    assert f"melanocytic nevus (mole): {entry.positives} of {entry.positives + entry.negatives} images" in (
        reported.page.text
    )
    assert reported.text.index("<svg") < reported.text.index("<table")
    assert reported.text.index('id="curves"') < reported.text.index('id="points"') < reported.text.index('id="metrics"')


def test_the_diagonal_of_the_confusion_of_all_labels_is_the_challenges_score(tmp_path: Path) -> None:
    labels = LABEL_SETS["isic2019"]
    summary = write_run(tmp_path, labels, images=400)
    header, *rows = report_page(tmp_path).tables["Images by class and highest probability, out of fold"]
    counts = np.array([[int(cell) for cell in row[1:]] for row in rows])
    assert (header[1:], [row[0] for row in rows]) == ([*labels], [*labels])
    recall = np.mean(np.diag(counts) / counts.sum(axis=1))
    assert recall == pytest.approx(summary.out_of_fold.by_image.isic_scores["isic2019"])


def test_images_without_any_label_are_a_row_and_contradictions_are_counted(
    reported: ReportedRun, tmp_path: Path
) -> None:
    table = predictions(1, 200, ("MEL", "BKL"), 2, "ISIC").fillna(0)
    table.loc[:4, ["MEL_true", "BKL_true"]] = 1
    table.loc[5:9, ["MEL_true", "BKL_true"]] = 0
    table.loc[7, ["MEL", "BKL"]] = 0.5  # undecided, of none of them: on no diagonal
    table.loc[10, ["MEL", "BKL"]] = 0.5
    write_run(tmp_path, ("MEL", "BKL"), folds=2, table=table)
    page = report_page(tmp_path)
    header, *rows = page.tables["Images by class and highest probability, out of fold"]
    assert header[1:] == ["MEL", "BKL", "undecided"]
    assert rows[-1][0] == "none of these"
    assert sum(int(cell) for row in rows for cell in row[1:]) == 195
    assert "5 images whose class is unknown are left out" in page.text
    one = table[table[["MEL_true", "BKL_true"]].sum(axis=1) == 1]
    right = ((one["MEL"] > one["BKL"]) == (one["MEL_true"] == 1)) & (one["MEL"] != one["BKL"])
    assert f"names the class of {right.sum()} of the {len(one)} images that have one of the labels. Rows" in page.text
    assert "The count leaves out the last row" in page.text


def test_the_page_says_why_its_calibration_was_chosen(reported: ReportedRun) -> None:
    label = reported.summary.calibration.labels["MEL"]
    assert not isinstance(label, Undefined)
    losses = {"raw": label.before, **label.after}
    text = ", ".join(f"{kind} {quality.log_loss:.3f}" for kind, quality in losses.items())
    assert "Every run uses logistic calibration: unlike isotonic regression it keeps the ranks" in reported.page.text
    assert f"Log loss, cross-fitted: {text}" in reported.page.text


def test_thresholds_count_with_the_calibration_that_they_belong_to(reported: ReportedRun) -> None:
    """And not on the cross-fitted columns of predictions.csv."""
    raw = read_predictions(reported.folder / "predictions.parquet")
    point = points_of(reported.summary.operating_points)[0]
    table = read_decision_rules(reported.folder).calibrate(raw, reported.summary.labels)
    positive = table["MEL_true"] == 1
    assert (table.loc[positive, "MEL"] >= np.float32(point.threshold)).mean() == pytest.approx(point.sensitivity)
    assert "(stated)" not in str(reported.page.tables["Predictive values of NV by prevalence"])
    assert "They do not apply to the calibrated columns of predictions.csv" in reported.page.text


def test_histograms_have_the_quantiles_of_both_kinds_of_images(reported: ReportedRun) -> None:
    table = read_predictions(reported.folder / "evaluations" / "001-2017-test" / "predictions.parquet")
    cells = reported.page.column("Quantiles of calibrated probabilities, 2017-test (evaluation 1)", "50% quantile")
    for truth, name in ((1, "with it"), (0, "without it")):
        assert cells[f"MEL, images {name}"] == f"{table.loc[table['MEL_true'] == truth, 'MEL'].median():.3f}"
