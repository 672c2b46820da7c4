"""The end of a run, of folds that were never trained: their predictions are made up."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import _SigmoidCalibration
from sklearn.metrics import roc_auc_score

from melanoma_dist.artifacts.decision_rules import read_decision_rules
from melanoma_dist.artifacts.epochs import write_epochs
from melanoma_dist.artifacts.predictions import predictions_table, write_predictions
from melanoma_dist.artifacts.run_folder import RunFolder, locate_run, open_run, trainings
from melanoma_dist.artifacts.summary import FoldTraining, read_summary
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.decision_rules import fit_decision_rules, with_calibrated
from melanoma_dist.evaluate.finalize import _over_all, finalize, trained_data
from melanoma_dist.metrics.cross_validation import OverFolds, VarianceComponents, fold_spread, variance_components
from melanoma_dist.metrics.intervals import Undefined

from ..samples import EPOCH, tiny

LABELS = LABEL_SETS["isic2018"]
FOLDS = 3


def trained(dataset: Dataset, runs: Path, repeats: int = 1) -> tuple[RunConfig, RunFolder, pd.DataFrame]:
    """A run whose folds left predictions, each seed others."""
    config = replace(tiny(folds=FOLDS, labels="isic2018", repeats=repeats, seed=5), runs=runs)
    folder = locate_run(config, dataset)
    folds = make_folds(dataset.manifest, LABELS, FOLDS, config.seed)
    open_run(folder, config, folds)
    about = dataset.manifest.set_index("image_id")
    for seeded, place in trainings(config, folder):
        rng = np.random.default_rng(seeded.seed)
        for fold, images in folds.groupby("fold"):
            truth = targets(about.loc[images["image_id"]], LABELS)
            score = np.nan_to_num(truth) + rng.normal(0, 1, truth.shape)
            table = predictions_table(images, int(str(fold)), LABELS, 1 / (1 + np.exp(-score)), truth)
            (place / f"fold-{fold}").mkdir()
            write_predictions(table, place / f"fold-{fold}" / "predictions.parquet")
            write_epochs(place / f"fold-{fold}", [replace(EPOCH, epoch=number, best_epoch=2) for number in (1, 2)])
    return config, folder, folds


def test_a_run_is_concluded_from_its_predictions(dataset: Dataset, tmp_path: Path) -> None:
    config, folder, folds = trained(dataset, tmp_path)
    summary = finalize(config, dataset, folds, folder, 3.0)
    assert read_summary(folder.path) == summary
    table = pd.read_parquet(folder.predictions)
    known = table[table["MEL_true"].notna()]
    auc = summary.out_of_fold.by_image.labels["MEL"].auc
    assert auc == pytest.approx(roc_auc_score(known["MEL_true"], known["MEL"]))
    assert read_decision_rules(folder.path) == fit_decision_rules(table, LABELS)
    assert summary.data.images + summary.data.kept_out == len(dataset.manifest)
    assert summary.training[0] == FoldTraining(
        epochs=2, best_epoch=2, seconds=5.0, device="CPU core", device_seconds=10.0, images_per_s=40.0,
        input_wait_share=0.1,
    )  # fmt: skip
    assert summary.seed_repeats is None


def test_images_without_a_lesion_are_counted(dataset: Dataset) -> None:
    folds = make_folds(dataset.manifest, LABELS, FOLDS, 5)
    unnamed = dataset.manifest["image_id"].isin(folds["image_id"][:7])
    manifest = dataset.manifest.assign(lesion_id=dataset.manifest["lesion_id"].mask(unnamed))
    assert trained_data(dataset, folds).lesions_unknown == 0
    assert trained_data(replace(dataset, manifest=manifest), folds).lesions_unknown == 7
    assert trained_data(replace(dataset, manifest=manifest), folds[5:]).lesions_unknown == 2


def test_calibrated_probabilities_stand_beside_raw_ones_and_no_image_calibrates_itself(
    dataset: Dataset, tmp_path: Path
) -> None:
    config, folder, folds = trained(dataset, tmp_path)
    before = pd.concat([pd.read_parquet(path) for path in folder.path.glob("fold-*/predictions.parquet")])
    finalize(config, dataset, folds, folder, 3.0)
    table = pd.read_parquet(folder.predictions)
    raw = before.sort_values("image_id", ignore_index=True)
    pd.testing.assert_frame_equal(table[raw.columns], raw, check_exact=True)
    assert list(table.columns) == [*raw.columns, *(f"{label}_calibrated" for label in LABELS)]
    for fold in range(FOLDS):
        inside = table["fold"] == fold
        others, own = table[~inside & table["MEL_true"].notna()], table[inside]
        logits = [np.log(rows["MEL"].astype(float) / (1 - rows["MEL"].astype(float))) for rows in (others, own)]
        platt = _SigmoidCalibration().fit(logits[0].to_numpy(), others["MEL_true"].to_numpy())
        np.testing.assert_allclose(own["MEL_calibrated"], platt.predict(logits[1].to_numpy()), atol=1e-3)
    text = pd.read_csv(folder.path / "predictions.csv", dtype={c: str(table[c].dtype) for c in table.columns})
    pd.testing.assert_frame_equal(text, table, check_exact=True)


def test_a_label_with_too_few_images_has_no_calibrated_probability(dataset: Dataset) -> None:
    images = pd.DataFrame({"image_id": list("abcd"), "group": list("abcd")})
    truth = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    probability = np.array([[0.9, 0.1], [0.2, 0.1], [0.4, 0.3], [0.6, 0.2]], dtype=np.float32)
    table = predictions_table(images, 0, ("MEL", "NV"), probability, truth).assign(fold=[0, 0, 1, 1])
    calibrated = with_calibrated(table, ("MEL", "NV"))
    assert calibrated["NV_calibrated"].isna().all()
    assert calibrated["MEL_calibrated"].notna().all()


def test_repeats_tell_the_variance_of_seeds_from_that_of_folds(dataset: Dataset, tmp_path: Path) -> None:
    config, folder, folds = trained(dataset, tmp_path, repeats=3)
    summary = finalize(config, dataset, folds, folder, 3.0)
    repeats = summary.seed_repeats
    assert repeats is not None
    assert repeats.seeds == (5, 6, 7)
    tables = [pd.read_parquet(place / "predictions.parquet") for _, place in trainings(config, folder)]
    expected = [
        [roc_auc_score(*(table.loc[table["fold"] == fold, name] for name in ("MEL_true", "MEL"))) for table in tables]
        for fold in range(FOLDS)
    ]
    np.testing.assert_allclose(repeats.auc["MEL"], expected)
    components, spread = repeats.components["MEL"], repeats.over_folds["MEL"]
    assert isinstance(components, VarianceComponents)
    assert components.seeds == pytest.approx(variance_components(expected).seeds)
    assert components.within_fold == pytest.approx(variance_components(expected).within_fold)
    assert spread == Undefined("an interval needs 5 folds that define it; here are 3")
    five = _over_all(expected + expected[:2])
    assert isinstance(five, OverFolds)
    assert (five.low, five.high) == astuple(fold_spread(np.ravel(expected + expected[:2]).tolist(), repeats=3))[2:4]
    assert read_summary(folder.path) == summary
    assert summary.out_of_fold.by_image.labels["MEL"].auc == pytest.approx(
        roc_auc_score(tables[0]["MEL_true"], tables[0]["MEL"])
    )


def test_a_repeat_whose_predictions_are_not_of_its_folds_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    config, folder, folds = trained(dataset, tmp_path, repeats=2)
    path = folder.path / "seed-6" / "fold-1" / "predictions.parquet"
    write_predictions(pd.read_parquet(path).iloc[1:], path)
    with pytest.raises(DataError, match="must have each of the"):
        finalize(config, dataset, folds, folder, 3.0)
    assert not folder.summary.exists()
