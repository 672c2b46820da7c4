"""A look at unseen images, from the command to its record: what is computed, and that it cannot be hidden."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn import metrics

from melanoma_dist.artifacts.decision_rules import read_decision_rules
from melanoma_dist.artifacts.evaluation import EarlierEvaluation
from melanoma_dist.cli import main
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.metrics.classification import METRICS
from melanoma_dist.metrics.intervals import Interval, Undefined

from .commands import record, results, run_evaluate
from .conftest import FOLDS


def calibrated(run: Path, label: str, probability: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """What decision_rules.json says, by hand."""
    rules = json.loads((run / "decision_rules.json").read_text())["labels"][label]
    if "calibrator" not in rules:
        return probability.astype(np.float64)
    assert rules["calibrator"]["kind"] == "logistic"
    clipped = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(expit(rules["calibrator"]["scale"] * logit(clipped) + rules["calibrator"]["shift"]))


def test_an_evaluation_on_a_holdout(run: Path, data: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    text = run_evaluate(capfd, run, "--holdout", "holdout", "--prevalence", "0.02")
    assert "No record in this folder of runs has an earlier evaluation on any of these images" in text
    assert "SYNTHETIC DATA" in text
    assert "MEL, fold 1 alone" in text
    assert "a miss costs 20 false alarms" in text
    assert "MEL at the stated prevalence of 0.02, threshold 0." in text
    assert ": PPV " in text
    images = data.manifest[data.manifest["split"] == "holdout"]
    logged, outcome = record(run, "001-holdout"), results(run, "001-holdout")
    assert (logged.number, logged.kind, logged.tta, logged.earlier) == (1, "holdout", 8, ())
    assert logged.data.images == len(images) == outcome.ensemble.images
    assert logged.started <= outcome.finished
    together = pd.read_parquet(run / "evaluations/001-holdout/predictions.parquet")
    alone = pd.read_parquet(run / "evaluations/001-holdout/folds.parquet")
    assert together["image_id"].tolist() == images["image_id"].tolist()
    assert (together["fold"] == -1).all()
    assert alone["fold"].tolist() == [fold for fold in range(FOLDS) for _ in range(len(images))]
    for label in DIAGNOSES:
        each = [calibrated(run, label, rows[label].to_numpy()) for _, rows in alone.groupby("fold")]
        assert together[label].to_numpy() == pytest.approx(np.mean(each, axis=0), abs=1e-6)
        assert np.array_equal(together[f"{label}_true"], images[label])
    for fold, rows in alone.groupby("fold"):
        entry = outcome.folds[int(str(fold))].labels["MEL"]
        truth = rows["MEL_true"].to_numpy()
        threshold = np.float32(outcome.ensemble.thresholds["MEL"])
        score = calibrated(run, "MEL", rows["MEL"].to_numpy()).astype(np.float32)
        assert entry.auc == pytest.approx(metrics.roc_auc_score(truth, rows["MEL"]))
        assert entry.sensitivity == pytest.approx(metrics.recall_score(truth, score >= threshold))
        assert entry.brier == pytest.approx(metrics.brier_score_loss(truth, score), rel=1e-5)


def test_the_results_of_an_evaluation(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_evaluate(capfd, run, "--holdout", "holdout", "--prevalence", "0.02", "--tta", "2")
    outcome = results(run, "001-holdout")
    together = pd.read_parquet(run / "evaluations/001-holdout/predictions.parquet")
    entry = outcome.ensemble.by_image.labels
    sensitivity, specificity = entry["MEL"].sensitivity, entry["MEL"].specificity
    assert sensitivity is not None
    assert specificity is not None
    if sensitivity + 1 - specificity > 0:
        ppv = sensitivity * 0.02 / (sensitivity * 0.02 + (1 - specificity) * 0.98)
        assert entry["MEL"].ppv == pytest.approx(ppv)
    assert entry["NV"].ppv is None
    rules, evaluated = read_decision_rules(run), outcome.operating_points["MEL"]
    assert isinstance(evaluated, tuple)
    for point, on_holdout in zip(rules.points("MEL"), evaluated, strict=True):
        assert on_holdout.threshold == point.threshold
        called = together["MEL"] >= np.float32(point.threshold)
        assert on_holdout.counts.true_positives == (called & (together["MEL_true"] == 1)).sum()
        if point.rule.kind == "youden":  # the threshold of the metrics: one number has one interval
            shares, intervals = on_holdout.counts, outcome.ensemble.by_image.intervals["MEL"]
            for share, of_metrics in (
                (shares.sensitivity, intervals.sensitivity),
                (shares.specificity, intervals.specificity),
            ):
                assert isinstance(share, Interval)
                assert (share.low, share.high) == pytest.approx((of_metrics.low, of_metrics.high))
    assert set(record(run, "001-holdout").models) == set(range(FOLDS))
    assert {subgroup.attribute for subgroup in outcome.subgroups} <= {"sex", "age", "site", "year", "image size"}
    assert sum(outcome.calibration["MEL"].after.reliability.images) == len(together)
    curve = outcome.decision_curve["MEL"]
    assert curve is not None
    assert len(curve.model) == len(curve.thresholds)


def test_a_second_evaluation_is_marked(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run_evaluate(capfd, run, "--holdout", "holdout")
    text = run_evaluate(capfd, run, "--holdout", "holdout")
    first, second = record(run, "001-holdout"), record(run, "002-holdout")
    count = first.data.images
    assert f"This is evaluation 2 on these images: {count} of {count} were evaluated before" in text
    assert f"the first was on {first.started[:10]} (evaluation 1 of first)" in text
    assert second.earlier == (EarlierEvaluation("first", 1, first.started, count),)
    assert (first.seen_before, second.seen_before) == (0, count)
    assert second.images_sha256 == first.images_sha256
    one, two = (pd.read_parquet(run / f"evaluations/00{n}-holdout/predictions.parquet") for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_evaluations_of_other_runs_and_interrupted_ones_count(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(run, run.parent / "second"))

    def interrupted(*arguments: object) -> None:
        assert record(other, "001-holdout").results is None
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "predict", interrupted)
        assert "RUN/evaluations" in run_evaluate(capfd, other, "--holdout", "holdout", code=130)
    assert not (other / "evaluations/001-holdout/predictions.parquet").exists()
    assert "This is evaluation 2 on these images" in run_evaluate(capfd, run, "--holdout", "holdout")
    interrupted_one = record(other, "001-holdout")
    earlier = EarlierEvaluation("second", 1, interrupted_one.started, interrupted_one.data.images)
    assert record(run, "001-holdout").earlier == (earlier,)
    (other / "evaluations/001-holdout/evaluation.json").write_text("{")
    assert "It records an evaluation on a holdout" in run_evaluate(capfd, run, "--holdout", "holdout", code=2)
    assert not (run / "evaluations/002-holdout").exists()


def test_another_data_set_that_lacks_labels(run: Path, other_data: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    text = run_evaluate(capfd, run, "--data", other_data.folder)
    logged, outcome = record(run, "001-elsewhere"), results(run, "001-elsewhere")
    assert logged.kind == "data"
    assert logged.data.fingerprint == other_data.fingerprint
    assert logged.labels_absent["BKL"] == "no image has this label"
    assert not {"MEL", "NV"} & set(logged.labels_absent)
    for label, why in logged.labels_absent.items():
        entry = outcome.ensemble.by_image.labels[label]
        assert [metric for metric in METRICS if entry.value(metric) is not None] == []
        assert entry.unknown == logged.data.images - entry.positives - entry.negatives
        assert outcome.ensemble.by_lesion.intervals[label].specificity.low is None
        assert outcome.ensemble.by_lesion.delong[label] == Undefined(why)
        assert outcome.folds[0].labels[label].precision is None
        assert f"{label}: not evaluated" in text
    assert outcome.ensemble.by_image.labels["MEL"].auc is not None


def test_help_tells_the_fields(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "--help"])
    text = capfd.readouterr().out
    assert "--holdout" in text
    assert "RUN" in text.upper()
