"""What the models say is what they said at validation, and views are averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.predict import load_models, predict_folds
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.loader import EvaluationLoader, Samples
from melanoma_dist.train.device import configure_device
from melanoma_dist.train.fold_data import input_format_of
from melanoma_dist.world import World

from .conftest import FOLDS


def test_a_fold_says_of_its_validation_images_what_it_said_in_training(finished: Path, data: Dataset) -> None:
    subject = open_trained_run(finished)
    folds = pd.read_parquet(finished / "folds.parquet").set_index("image_id")["fold"]
    fold_of = data.manifest["image_id"].map(folds)
    models = load_models(subject.units)
    configure_device(None, threads=1)
    for fold in range(FOLDS):
        images = Images.of(data, (fold_of == fold).to_numpy())
        found = predict_folds(models, subject.units, images, 1, None, World())[fold]
        before = pd.read_parquet(finished / f"fold-{fold}" / "predictions.parquet")
        assert before["image_id"].tolist() == images.table["image_id"].tolist()
        assert np.array_equal(found, before[list(subject.labels)].to_numpy())
        assert len(np.unique(found)) > 50


def test_views_are_averaged(finished: Path, data: Dataset) -> None:
    subject = open_trained_run(finished)
    images = Images(data, np.arange(5, dtype=np.int64))
    models = load_models(subject.units)
    found = predict_folds(models, subject.units, images, 3, 5, World())
    pictures = plain_pictures(images, input_format_of(subject.units[0]))
    for fold, model in enumerate(models.models):
        with torch.inference_mode():
            seen = [
                torch.sigmoid(model.eval()(torch.from_numpy(view.copy()))).numpy()
                for view in (pictures, pictures[..., ::-1], pictures[..., ::-1, :])
            ]
        assert np.abs(found[fold] - np.mean(seen, axis=0)).max() < 1e-5
        assert np.abs(seen[0] - seen[1]).max() > 1e-4


def plain_pictures(images: Images, frame: InputFormat) -> npt.NDArray[np.float32]:
    truth = targets(images.table, LABEL_SETS["isic2019"])
    samples = Samples(ShardReader(images.dataset), images.rows, truth, (64, 64))
    loader = EvaluationLoader(samples, frame, len(images.rows), World())
    return np.array(next(iter(loader))[0])
