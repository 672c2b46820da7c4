"""The recipe `frozen`: a logistic regression per label on the features of the backbone, which is not trained.

The images pass the program's own evaluation graph. Each fold chooses the penalty by cross-validation inside its
training images.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from recipe_task import Floats, Task
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.loader import EvaluationLoader
from melanoma_dist.input.samples import Samples
from melanoma_dist.models.backbones import published_input
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.world import World


def frozen_features(task: Task) -> Floats:
    """Train on a task's images and predict the others, probabilities [n, L]."""
    features = _features(task.dataset.folder, task.backbone, task.weights, task.image_size)
    predicted = np.empty((len(task.predicted), len(task.labels)), dtype=np.float32)
    for column in range(len(task.labels)):
        known = ~np.isnan(task.truth[:, column])
        model = make_pipeline(
            StandardScaler(),
            LogisticRegressionCV(
                Cs=np.logspace(-5, -1, 5), scoring="roc_auc", max_iter=2000, class_weight="balanced",
                l1_ratios=(0.0,), use_legacy_attributes=False,
            ),
        )  # fmt: skip
        model.fit(features[task.training[known]], task.truth[known, column])
        predicted[:, column] = model.predict_proba(features[task.predicted])[:, 1]
    return predicted


@cache
def _features(data: Path, backbone: str, weights: Path, image_size: int) -> Floats:
    """Pooled features [n, C] of all images of a data set."""
    dataset, expected = load_dataset(data), published_input(backbone)
    rows = np.arange(len(dataset.manifest))
    samples = Samples.of_rows(ShardReader(dataset), dataset.manifest, rows, ("MEL",))
    model = build_classifier(ModelConfig(backbone=backbone, weights=str(weights)), image_size, 1, seed=0).eval()
    loader = EvaluationLoader(samples, InputFormat(image_size, expected.mean, expected.std), 32, World(threads=2))
    with torch.inference_mode():
        return np.concatenate([model.features(images)[: batch.count].numpy() for images, batch in loader])
