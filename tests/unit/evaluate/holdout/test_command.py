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

from melanoma_dist.cli import main
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.metrics.classification import FIGURES

from .asked import record, said
from .conftest import FOLDS


def calibrated(run: Path, label: str, probability: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """What decision_rules.json says, by hand."""
    kept = json.loads((run / "decision_rules.json").read_text())["calibrators"][label]
    if kept is None:
        return probability.astype(np.float64)
    assert kept["kind"] == "logistic"
    clipped = np.clip(probability.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(expit(kept["scale"] * logit(clipped) + kept["shift"]))


def test_a_look_at_a_holdout(run: Path, data: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    text = said(capfd, run, "--holdout", "holdout", "--prevalence", "0.02")
    assert "No record in this folder of runs tells of an earlier look at any of these images" in text
    assert "SYNTHETIC DATA" in text
    assert "MEL, fold 1 alone" in text
    assert "a miss costs 20 false alarms" in text
    kept = data.manifest[data.manifest["split"] == "holdout"]
    found = record(run, "001-holdout")
    assert (found["number"], found["kind"], found["tta"], found["earlier"]) == (1, "holdout", 1, [])
    assert found["data"]["images"] == len(kept) == found["ensemble"]["images"]
    assert found["begun"] <= found["finished"]
    together = pd.read_parquet(run / "evaluations/001-holdout/predictions.parquet")
    alone = pd.read_parquet(run / "evaluations/001-holdout/folds.parquet")
    assert together["image_id"].tolist() == kept["image_id"].tolist()
    assert (together["fold"] == -1).all()
    assert alone["fold"].tolist() == [fold for fold in range(FOLDS) for _ in range(len(kept))]
    for label in DIAGNOSES:
        each = [calibrated(run, label, rows[label].to_numpy()) for _, rows in alone.groupby("fold")]
        assert together[label].to_numpy() == pytest.approx(np.mean(each, axis=0), abs=1e-6)
        assert np.array_equal(together[f"{label}_true"], kept[label])
    for fold, rows in alone.groupby("fold"):
        figures = found["folds"][str(fold)]["labels"]["MEL"]
        truth = rows["MEL_true"].to_numpy()
        threshold = np.float32(found["ensemble"]["settings"]["thresholds"]["MEL"])
        score = calibrated(run, "MEL", rows["MEL"].to_numpy()).astype(np.float32)
        assert figures["auc"] == pytest.approx(metrics.roc_auc_score(truth, rows["MEL"]))
        assert figures["sensitivity"] == pytest.approx(metrics.recall_score(truth, score >= threshold))
        assert figures["brier"] == pytest.approx(metrics.brier_score_loss(truth, score), rel=1e-5)


def test_the_record_of_a_look(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said(capfd, run, "--holdout", "holdout", "--prevalence", "0.02", "--tta", "2")
    found = record(run, "001-holdout")
    together = pd.read_parquet(run / "evaluations/001-holdout/predictions.parquet")
    entry = found["ensemble"]["by_image"]["labels"]
    sensitivity, specificity = entry["MEL"]["sensitivity"], entry["MEL"]["specificity"]
    if sensitivity + 1 - specificity > 0:
        ppv = sensitivity * 0.02 / (sensitivity * 0.02 + (1 - specificity) * 0.98)
        assert entry["MEL"]["ppv"] == pytest.approx(ppv)
    assert entry["NV"]["ppv"] is None
    frozen = json.loads((run / "decision_rules.json").read_text())
    for point, judged in zip(frozen["points"]["MEL"], found["operating_points"]["MEL"], strict=True):
        assert judged["threshold"] == point["threshold"]
        called = together["MEL"] >= np.float32(point["threshold"])
        assert judged["judged"]["true_positives"] == (called & (together["MEL_true"] == 1)).sum()
    assert set(found["models"]) == {str(fold) for fold in range(FOLDS)}
    assert {entry["attribute"] for entry in found["subgroups"]} <= {"sex", "age", "site", "year", "image size"}
    assert set(found["calibration"]["MEL"]) == {"before", "after"}
    assert len(found["decision_curve"]["MEL"]["model"]) == len(found["decision_curve"]["MEL"]["thresholds"])


def test_a_second_look_is_marked(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said(capfd, run, "--holdout", "holdout")
    text = said(capfd, run, "--holdout", "holdout")
    first, second = record(run, "001-holdout"), record(run, "002-holdout")
    count = first["data"]["images"]
    assert f"This is look 2 at these images: {count} of {count} were looked at before" in text
    assert f"the first was on {first['begun'][:10]} (evaluation 1 of first)" in text
    assert second["earlier"] == [{"run": "first", "number": 1, "begun": first["begun"], "images": count}]
    assert (first["seen_before"], second["seen_before"]) == (0, count)
    assert second["images_sha256"] == first["images_sha256"]
    one, two = (pd.read_parquet(run / f"evaluations/00{n}-holdout/predictions.parquet") for n in (1, 2))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_looks_of_other_runs_and_interrupted_ones_count(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(run, run.parent / "second"))

    def interrupted(*arguments: object) -> None:
        assert "finished" not in record(other, "001-holdout")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Ensemble, "predict", interrupted)
        assert "recorded in RUN/evaluations" in said(capfd, other, "--holdout", "holdout", code=130)
    assert not (other / "evaluations/001-holdout/predictions.parquet").exists()
    assert "This is look 2 at these images" in said(capfd, run, "--holdout", "holdout")
    begun, count = record(other, "001-holdout")["begun"], record(other, "001-holdout")["data"]["images"]
    earlier = [{"run": "second", "number": 1, "begun": begun, "images": count}]
    assert record(run, "001-holdout")["earlier"] == earlier
    (other / "evaluations/001-holdout/evaluation.json").write_text("{")
    assert "may tell of an earlier look" in said(capfd, run, "--holdout", "holdout", code=2)
    assert not (run / "evaluations/002-holdout").exists()


def test_another_data_set_that_lacks_labels(run: Path, other_data: Dataset, capfd: pytest.CaptureFixture[str]) -> None:
    text = said(capfd, run, "--data", other_data.folder)
    found = record(run, "001-elsewhere")
    assert found["kind"] == "data"
    assert found["data"]["fingerprint"] == other_data.fingerprint
    assert found["labels_absent"]["BKL"] == "no image has this label"
    assert not {"MEL", "NV"} & set(found["labels_absent"])
    for label in found["labels_absent"]:
        entry = found["ensemble"]["by_image"]["labels"][label]
        assert [figure for figure in FIGURES if entry[figure] is not None] == []
        assert found["ensemble"]["intervals"]["by_lesion"][label]["specificity"]["low"] is None
        assert found["folds"]["0"]["labels"][label]["precision"] is None
        assert f"{label}: not judged" in text
    assert found["ensemble"]["by_image"]["labels"]["MEL"]["auc"] is not None


def test_help_tells_the_fields(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["evaluate", "--help"])
    text = capfd.readouterr().out
    assert "--holdout" in text
    assert "RUN" in text.upper()
