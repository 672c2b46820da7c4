"""A run that sees lesions: trained, finished and evaluated with one side table, and refused with any other."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_dist.app.export.command import export
from melanoma_dist.app.predict import predict
from melanoma_dist.app.server.command import serve
from melanoma_dist.artifacts.gallery import GALLERY, read_gallery
from melanoma_dist.artifacts.lesion_table import lesion_row, write_lesions, write_mask
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.config.export import ExportConfig
from melanoma_dist.config.predict import PredictConfig
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.evaluate.holdout.command import evaluate
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.train.region import LOW_QUALITY

from .conftest import FOLDS, trained


def write_table(folder: Path, data: Dataset, shift: float = 0.0) -> Path:
    """A true mask in the upper left quarter of each image; none in every ninth, a doubtful one in every tenth."""
    rows = []
    for at, (name, width, height) in enumerate(data.manifest[["image_id", "width", "height"]].to_numpy()):
        mask = np.zeros((height, width), dtype=bool)
        if at % 9:
            mask[round(height * (0.2 + shift)) : height // 2, width // 5 : width // 2] = True
        quality = LOW_QUALITY - 0.1 if at % 10 == 0 else 1.0
        rows.append(lesion_row(name, "truth", mask, quality, 0.005))
        write_mask(folder, name, mask)
    return write_lesions(folder, data, pd.DataFrame(rows), None, "truth", "truth").folder


@pytest.fixture(scope="module")
def lesions(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    return write_table(tmp_path_factory.mktemp("lesions") / "table", data)


@pytest.fixture(scope="module")
def lesion_run(tmp_path_factory: pytest.TempPathFactory, data: Dataset, lesions: Path) -> Path:
    return trained(tmp_path_factory.mktemp("lesion-runs"), data, region="lesion", lesions=str(lesions))


def test_a_fold_predicts_its_validation_images_as_in_training(lesion_run: Path, data: Dataset) -> None:
    ensemble = Ensemble.load(lesion_run, threads=1)
    fold_of = data.manifest["image_id"].map(pd.read_parquet(lesion_run / "folds.parquet").set_index("image_id")["fold"])
    for fold in range(FOLDS):
        images = Images.of(data, (fold_of == fold).to_numpy())
        before = pd.read_parquet(lesion_run / f"fold-{fold}" / "predictions.parquet")
        difference = ensemble.predict(images).raw[fold] - before[list(ensemble.labels)].to_numpy()
        assert np.abs(difference).max() < 1e-6


def test_the_summary_counts_images_that_are_seen_whole(lesion_run: Path, data: Dataset) -> None:
    run = open_trained_run(lesion_run)
    folds = pd.read_parquet(lesion_run / "folds.parquet")
    rows = np.flatnonzero(data.manifest["image_id"].isin(folds["image_id"]))
    undetected, doubtful = (rows % 9 == 0).sum(), ((rows % 10 == 0) & (rows % 9 > 0)).sum()
    assert run.summary.incidents[-1] == (
        f"{len(rows) - undetected - doubtful} of {len(rows)} images are seen by their lesion's box, {undetected} whole "
        f"because no lesion was detected, {doubtful} whole because their mask is doubtful (quality below "
        f"{LOW_QUALITY})."
    )
    assert "because no lesion was detected" in (lesion_run / "report.html").read_text()


def test_region_margin_and_table_are_part_of_the_identity(lesion_run: Path, finished: Path) -> None:
    lesion, whole = (open_trained_run(path).folder.identity for path in (lesion_run, finished))
    changed = {key for key in {*lesion, *whole} if lesion.get(key) != whole.get(key)}
    assert changed == {"region.region", "lesions"}
    assert lesion["region.region_margin"] == 0.3


def test_the_gallery_shows_what_the_models_see(lesion_run: Path, data: Dataset) -> None:
    gallery = read_gallery(lesion_run)
    assert gallery is not None
    position = {name: row for row, name in enumerate(data.manifest["image_id"])}
    windows = 0
    for image in (image for kind in gallery.kinds for image in kind.errors):
        row = position[image.image_id]
        with Image.open(lesion_run / GALLERY / image.picture) as picture:
            square = abs(picture.width - picture.height) <= 1
        windows += square
        assert square == (row % 9 > 0 and row % 10 > 0), image.image_id
    assert windows > 0


def test_a_holdout_is_evaluated_with_the_same_table(lesion_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(lesion_run, tmp_path / "runs" / "first"))
    evaluate(EvaluateConfig(run, holdout="holdout", gpus=0, decode_threads=1))
    assert list((run / "evaluations").glob("*/evaluation.json"))


def test_another_table_is_refused(
    lesion_run: Path, lesions: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = lesions.with_name("aside")
    lesions.rename(aside)
    images = Images(data, np.arange(3, dtype=np.int64))
    try:
        with pytest.raises(DataError, match=r"holds no lesions\.json"):
            Ensemble.load(lesion_run, threads=1).predict(images)
        write_table(lesions, data, shift=0.1)
        with pytest.raises(DataError, match=r"but the run was trained with the table of .*\. Bring that table back"):
            Ensemble.load(lesion_run, threads=1).predict(images)
    finally:
        shutil.rmtree(lesions, ignore_errors=True)
        aside.rename(lesions)


def test_another_data_set_is_refused_without_a_segmenter(lesion_run: Path, other_data: Dataset) -> None:
    with pytest.raises(ConfigError, match="holds no segmenter"):
        evaluate(EvaluateConfig(lesion_run, data=str(other_data.folder), gpus=0, decode_threads=1))


def test_without_a_segmenter_photographs_are_refused_by_every_command(
    lesion_run: Path, data: Dataset, tmp_path: Path
) -> None:
    photograph = data.folder.parent / "raw" / data.manifest["source"].iloc[0]
    message = r"sees lesions \(--region lesion\) and holds no segmenter, .* A run on true masks has no segmenter"
    with pytest.raises(ConfigError, match=message):
        Ensemble.load(lesion_run, threads=1).predict([photograph])
    with pytest.raises(ConfigError, match=message):
        predict(PredictConfig(lesion_run, (photograph,)))
    with pytest.raises(ConfigError, match=message):
        serve(ServeConfig(lesion_run))
    with pytest.raises(ConfigError, match=message):
        export(ExportConfig(lesion_run, format="onnx", out=tmp_path / "export"))
    assert not (tmp_path / "export").exists()
