"""A small data set from the real preparation, and configurations of tiny models, for many tests."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_dist.artifacts.epochs import EpochRecord
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.labels import DIAGNOSES, LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.samples import Samples

from .data.conftest import Raw

FRAME = InputFormat(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EPOCH = EpochRecord(
    epoch=1, train_loss=0.7, validation_loss=0.8, gradient_norm=2.5, learning_rate=1e-4, images_per_s=40.0,
    wait_share=0.1, seconds=2.5, devices=2, device="CPU core", skipped_steps=0, accumulate=1, corrupt_images=0,
    score_name="AUC", score=0.75, best_score=0.75, best_epoch=1,
    validation={"images": 7, "labels": {"MEL": {"auc": 0.75, "precision": None}}},
)  # fmt: skip
_SIZES = ((64, 48), (48, 64), (40, 40), (91, 57), (33, 47))


def small_dataset(folder: Path, images: int = 60) -> Dataset:
    """Images of all diagnoses, a third of them melanomas; every fifth lesion has a second photograph."""
    raw = Raw(folder / "raw")
    for number in range(images):
        label = "MEL" if number % 3 == 0 else DIAGNOSES[1 + number % 7]
        lesion = number - 10 if number % 10 == 9 and label != "MEL" and number > 10 else number
        raw.image_2019(number, label, lesion=f"LESION_{lesion:04d}", size=_SIZES[number % len(_SIZES)])
    return prepare(Request(raw.folder, ("2019",), size=64, synthetic=True), folder / "prepared")


def all_samples(dataset: Dataset, labels: str = "isic2019") -> Samples:
    rows = np.arange(len(dataset.manifest), dtype=np.int64)
    return Samples.of_rows(ShardReader(dataset), dataset.manifest, rows, LABEL_SETS[labels])


def config(**values: Any) -> RunConfig:
    """Build a configuration from field names, without their sections."""
    sections = {}
    for item in fields(RunConfig):
        default = getattr(RunConfig(), item.name)
        if is_dataclass(default) and not isinstance(default, type):
            chosen = {inner.name: values.pop(inner.name) for inner in fields(default) if inner.name in values}
            sections[item.name] = type(default)(**chosen)
    return RunConfig(**sections, **values)


def tiny(**values: Any) -> RunConfig:
    """A model without batch statistics and without randomness in training, on the CPU."""
    chosen: dict[str, Any] = {
        "backbone": "test_vit", "weights": "none", "image_size": 32, "head_norm": "none", "dropout": 0.0,
        "batch_size": 8, "optimizer": "sgd", "lr": 0.01, "schedule": "constant", "warmup_epochs": 0.0, "gpus": 0,
    }  # fmt: skip
    return config(**{**chosen, **values})
