"""The ensemble predicts as validation did, averages orientations, and takes photographs of no data set."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from PIL import Image

import melanoma_dist
from melanoma_dist.artifacts.decision_rules import LabelRules
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.loader import EvaluationLoader
from melanoma_dist.input.samples import Samples
from melanoma_dist.train.fold_data import input_format_of
from melanoma_dist.world import World

from .conftest import FOLDS


def test_a_fold_predicts_its_validation_images_to_the_bit_as_in_training(finished: Path, data: Dataset) -> None:
    ensemble = Ensemble.load(finished, threads=1)
    folds = pd.read_parquet(finished / "folds.parquet").set_index("image_id")["fold"]
    fold_of = data.manifest["image_id"].map(folds)
    for fold in range(FOLDS):
        images = Images.of(data, (fold_of == fold).to_numpy())
        probability = ensemble.predict(images).raw[fold]
        before = pd.read_parquet(finished / f"fold-{fold}" / "predictions.parquet")
        assert before["image_id"].tolist() == images.table["image_id"].tolist()
        assert np.array_equal(probability, before[list(ensemble.labels)].to_numpy())
        assert len(np.unique(probability)) > 50


def test_orientations_are_averaged(finished: Path, data: Dataset) -> None:
    ensemble = Ensemble.load(finished, threads=1)
    images = Images(data, np.arange(5, dtype=np.int64))
    probability = ensemble.predict(images, tta=3, batch_size=5).raw
    pictures = plain_pictures(images, input_format_of(ensemble.units[0]))
    for fold in range(FOLDS):
        model = ensemble.fold_model(fold)
        with torch.inference_mode():
            orientations = [
                torch.sigmoid(model.eval()(torch.from_numpy(view.copy()))).numpy()
                for view in (pictures, pictures[..., ::-1], pictures[..., ::-1, :])
            ]
        assert np.abs(probability[fold] - np.mean(orientations, axis=0)).max() < 1e-5
        assert np.abs(orientations[0] - orientations[1]).max() > 1e-4


def test_a_photograph_is_predicted_like_the_same_image_of_the_data_set(finished: Path, data: Dataset) -> None:
    ensemble = melanoma_dist.load_run(finished).ensemble(threads=1)
    images = Images(data, np.arange(7, dtype=np.int64))
    files = [data.folder.parent / "raw" / source for source in images.table["source"]]
    stored = [images.store.jpeg(int(row)).tobytes() for row in images.rows]
    assert list(Photographs.prepare(files, data.size).jpegs) == stored
    expected, predictions = ensemble.predict(images), ensemble.predict(files)
    assert predictions.image_ids == tuple(map(str, files))
    assert np.abs(predictions.raw - expected.raw).max() < 1e-6
    by_bytes = ensemble.predict([file.read_bytes() for file in files])
    assert np.array_equal(by_bytes.probability, predictions.probability)
    open_images = [Image.open(file) for file in files]
    assert np.array_equal(ensemble.predict(open_images).probability, predictions.probability)
    arrays = [np.asarray(image.convert("RGB")) for image in open_images]
    assert np.array_equal(ensemble.predict(arrays).probability, predictions.probability)


def test_probabilities_are_the_mean_of_calibrated_folds_and_are_called_at_the_points_of_youden(
    finished: Path, data: Dataset
) -> None:
    run = melanoma_dist.load_run(finished)
    predictions = run.ensemble(threads=1).predict(Images(data, np.arange(9, dtype=np.int64)))
    rules = run.decision_rules
    for column, label in enumerate(run.labels):
        of_label = rules.labels[label]
        folds = predictions.raw[..., column]
        if isinstance(of_label, LabelRules):
            folds = np.stack([of_label.calibrator.apply(fold) for fold in folds])
        assert np.allclose(predictions.probability[:, column], folds.mean(axis=0), atol=1e-6)
        points = [point.threshold for point in rules.points(label) if point.name == "Youden"]
        threshold = points[0] if points else run.config.threshold
        called = predictions.table()[f"{label}_positive"].to_numpy()
        assert np.array_equal(called, predictions.probability[:, column] >= np.float32(threshold))


def test_what_cannot_be_predicted_is_refused_by_name(finished: Path, tmp_path: Path) -> None:
    ensemble = Ensemble.load(finished, threads=1)
    page = tmp_path / "lesion.jpg"
    page.write_text("<html>")
    with pytest.raises(DataError, match=r"lesion\.jpg: cannot be read as an image"):
        ensemble.predict([page])
    with pytest.raises(DataError, match="image 0: cannot be read"):
        ensemble.predict([b""])
    with pytest.raises(DataError, match=r"none\.jpg: no such file"):
        ensemble.predict([tmp_path / "none.jpg"])
    with pytest.raises(ConfigError, match="give a list of images"):
        ensemble.predict(str(page))
    with pytest.raises(ConfigError, match="give a list of images"):
        ensemble.predict(np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(DataError, match=r"image 0: .*an array must be uint8 \[height, width, 3\]"):
        ensemble.predict([np.zeros((64, 64, 3))])
    with pytest.raises(ConfigError, match="at least one image"):
        ensemble.predict([])
    with pytest.raises(ConfigError, match="tta"):
        ensemble.predict([page], tta=9)
    with pytest.raises(ConfigError, match="`about` is for runs that take metadata, and this one does not"):
        ensemble.predict([page], about=[{"age": 55}])


def test_a_run_opens_with_its_predictions_and_summary(finished: Path) -> None:
    run = melanoma_dist.load_run(str(finished))
    pd.testing.assert_frame_equal(run.predictions(), pd.read_parquet(finished / "predictions.parquet"))
    assert run.config.data.folds == FOLDS
    assert repr(run) == f"TrainedRun({str(finished)!r})"
    with pytest.raises(ConfigError, match="not the folder of a run"):
        melanoma_dist.load_run(finished / "model")


def plain_pictures(images: Images, frame: InputFormat) -> npt.NDArray[np.float32]:
    truth = targets(images.table, LABEL_SETS["isic2019"])
    samples = Samples(ShardReader(images.dataset), images.rows, truth, (64, 64))
    loader = EvaluationLoader(samples, frame, len(images.rows), World())
    return np.array(next(iter(loader))[0])


def test_the_code_of_the_model_card_predicts(
    run: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "lesion.jpg").write_bytes(ShardReader(data).jpeg(0).tobytes())
    monkeypatch.chdir(run)
    code = (run / "model" / "README.md").read_text().split("```python")[1].split("```")[0]
    exec(compile(code, "card", "exec"), {})  # noqa: S102  # the card's own code
    table = pd.read_csv(io.StringIO(capsys.readouterr().out), sep=r"\s+")
    expected = Ensemble.load(run).predict(["lesion.jpg"]).table()
    assert table["image_id"].tolist() == ["lesion.jpg"]
    assert np.allclose(table[["MEL", "NV"]], expected[["MEL", "NV"]], atol=1e-5)
