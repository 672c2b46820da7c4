"""What a unit leaves beside its checkpoints: a line of figures per epoch, and in the end weights and predictions."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melanoma_dist.artifacts.predictions import predictions_table, write_predictions
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.storage import atomic
from melanoma_dist.train.fold_data import FoldData, input_format_of
from melanoma_dist.train.unit import Unit


def weights_metadata(unit: Unit, epoch: int) -> dict[str, str]:
    """What somebody needs to use the weights of an epoch: how to build the model and what to feed it."""
    model, frame = unit.config.model, input_format_of(unit)
    return {
        "backbone": model.backbone,
        "labels": ",".join(LABEL_SETS[unit.config.data.labels]),
        "image_size": str(frame.size),
        "mean": ",".join(map(str, frame.mean)),
        "std": ",".join(map(str, frame.std)),
        "pooling": model.pooling,
        "hidden": str(model.hidden),
        "head_norm": model.head_norm,
        "fold": str(unit.fold),
        "epoch": str(epoch + 1),
        "data": unit.fingerprint,
    }


def write_metrics(unit: Unit, history: list[dict[str, Any]]) -> None:
    """``metrics.jsonl``, a line per epoch, written whole: no holes and no doubles after a resume."""
    atomic.write_text(unit.folder / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))


def write_result(
    unit: Unit, fold_data: FoldData, labels: tuple[str, ...], weights: Path, probability: npt.NDArray[np.float32]
) -> None:
    """The weights of the best epoch in their place, and what they predict for the validation, which comes last."""
    unit.model.parent.mkdir(exist_ok=True)
    atomic.write_file(unit.model, lambda aside: shutil.copyfile(weights, aside))
    targets = fold_data.validation.targets
    write_predictions(
        predictions_table(fold_data.validated(), unit.fold, labels, probability, targets), unit.predictions
    )
