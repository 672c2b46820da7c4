"""Does fine-tuning beat frozen features? Both over the same folds, from the same weights, out of fold.

    python benchmarks/transfer.py --data DATA --weights tf_efficientnet_lite0.safetensors

DATA is ISIC 2017, prepared. The main job fine-tunes the backbone over k folds; then the same backbone, frozen, turns
each image (through the same evaluation graph) into features, on which a logistic regression is trained in each fold,
its penalty chosen by cross-validation inside the fold's training images. On 2 CPU cores: about half an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import tyro
from conditions import launch, run_benchmark
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melanoma_dist import console
from melanoma_dist.config.run import ModelConfig
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.loader import EvaluationLoader, Samples
from melanoma_dist.models.backbones import published_input
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.world import World

_LABELS = ("MEL", "BKL")


@dataclass(frozen=True)
class Settings:
    """What is compared."""

    data: Path
    """Prepared data set of ISIC 2017."""
    weights: Path
    """ImageNet weights of the backbone."""
    backbone: str = "tf_efficientnet_lite0"
    """Backbone that the weights are of."""
    image_size: int = 128
    """Side of the input in pixels, for both."""
    epochs: int = 6
    """Epochs of fine-tuning."""
    folds: int = 3
    """Folds, for both."""
    gpus: int = 0
    """GPUs for fine-tuning; 0 for the CPU."""
    runs: Path = Path("runs")
    """Where the run is kept."""
    seed: int = 0
    """Seed of folds and training."""


def main() -> None:
    """Run both and print both."""
    settings = tyro.cli(Settings, description=__doc__)
    tuned = fine_tune(settings)
    frozen = frozen_features(settings, tuned[["image_id", "fold"]])
    rows = []
    for label in _LABELS:
        truth = tuned[f"{label}_true"]
        scores = roc_auc_score(truth, frozen[label]), roc_auc_score(truth, tuned[label])
        rows.append(
            [label, *(f"{score:.4f}" for score in scores), f"{scores[1] - scores[0]:+.4f}", str(int(truth.sum()))]
        )
    title = (
        f"{settings.backbone}, {settings.image_size} px, {settings.folds} folds, {len(tuned)} images: AUC out of fold"
    )
    console.table(title, ["label", "frozen + logistic regression", "fine-tuned", "difference", "positives"], rows)


def fine_tune(settings: Settings) -> pd.DataFrame:
    """The out-of-fold predictions of the main job."""
    name = f"transfer-{settings.backbone}-{settings.image_size}-{settings.epochs}-{settings.folds}-{settings.seed}"
    flags = {
        "backbone": settings.backbone, "weights": settings.weights, "data": settings.data, "labels": "isic2017",
        "folds": settings.folds, "image-size": settings.image_size, "epochs": settings.epochs, "gpus": settings.gpus,
        "runs": settings.runs, "seed": settings.seed, "name": name, "lr": 3e-4, "head-lr-factor": 3, "augment": "light",
        "schedule": "cosine", "patience": settings.epochs,
    }  # fmt: skip
    launch(*(word for flag, value in flags.items() for word in (f"--{flag}", str(value))))
    return pd.read_parquet(settings.runs / name / "predictions.parquet")


def frozen_features(settings: Settings, folds: pd.DataFrame) -> pd.DataFrame:
    """Out-of-fold probabilities of a logistic regression on the frozen backbone's features; rows as ``folds``."""
    images, truth = features(settings, folds["image_id"])
    predicted = pd.DataFrame(index=folds.index, columns=list(_LABELS), dtype=float)
    for fold in sorted(folds["fold"].unique()):
        inside = (folds["fold"] == fold).to_numpy()
        for column, label in enumerate(_LABELS):
            model = make_pipeline(
                StandardScaler(),
                LogisticRegressionCV(
                    Cs=np.logspace(-5, -1, 5), scoring="roc_auc", max_iter=2000, class_weight="balanced",
                    l1_ratios=(0.0,), use_legacy_attributes=False,
                ),
            )  # fmt: skip
            model.fit(images[~inside], truth[~inside, column])
            predicted.loc[inside, label] = model.predict_proba(images[inside])[:, 1]
    return predicted


def features(settings: Settings, image_ids: pd.Series) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Pooled features [n, C] and truth [n, L] of the given images."""
    dataset = load_dataset(settings.data)
    rows = dataset.manifest.reset_index().set_index("image_id").loc[image_ids, "index"].to_numpy(dtype=np.int64)
    samples = Samples.of_rows(ShardReader(dataset), dataset.manifest, rows, _LABELS)
    expected = published_input(settings.backbone)
    frame = InputFormat(settings.image_size, expected.mean, expected.std)
    config = ModelConfig(backbone=settings.backbone, weights=str(settings.weights))
    model = build_classifier(config, settings.image_size, len(_LABELS), settings.seed).eval()
    features = []
    with torch.inference_mode():
        for images, batch in EvaluationLoader(samples, frame, 32, World(threads=2)):
            features.append(model.features(images)[: batch.count].numpy())
    return np.concatenate(features), samples.targets


if __name__ == "__main__":
    run_benchmark(main)
