"""The truth in a user's tables, and the metrics that follow from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist import console
from melanoma_dist.app.doubts import Limits
from melanoma_dist.app.inputs import InputImage
from melanoma_dist.app.scoring import ScoredImage
from melanoma_dist.artifacts.predictions import predictions_table
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.assessment import assess
from melanoma_dist.evaluate.holdout.display import METRICS_HEADER, metric_rows
from melanoma_dist.evaluate.holdout.metrics import ENSEMBLE
from melanoma_dist.metrics.classification import Settings

Array = npt.NDArray[np.float32]
_ANSWERS = {"": np.nan, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0}
_GROUPS = ("group", "patient_id", "lesion_id")
"""Columns of a table that say which images belong together. The first of these that a row fills counts."""


@dataclass(frozen=True)
class Truth:
    """What the tables say about n images."""

    labels: tuple[str, ...]
    """The labels of the run."""
    columns: dict[str, str]
    """The column of truth of each label that has one."""
    values: Array
    """[n, L] 1, 0 or NaN (unknown)."""

    def of(self, label: str) -> Array:
        """The truth of one label, [n]."""
        return self.values[:, self.labels.index(label)]


def read_truth(images: Sequence[InputImage], labels: tuple[str, ...]) -> Truth:
    """Read the columns of truth: ``MEL_true``, or ``MEL`` if it holds nothing but 0, 1 and blanks.

    Raises DataError for a column ``MEL_true`` with another value.
    """
    columns = _truth_columns(images, labels)
    values = np.full((len(images), len(labels)), np.nan, dtype=np.float32)
    for label, column in columns.items():
        values[:, labels.index(label)] = [_ANSWERS[image.values.get(column, "")] for image in images]
    return Truth(labels, columns, values)


def _truth_columns(images: Sequence[InputImage], labels: tuple[str, ...]) -> dict[str, str]:
    names = {name for image in images for name in image.values}
    columns = {}
    for label in labels:
        if label + TRUE in names:
            columns[label] = label + TRUE
            _require_answers(images, label + TRUE)
        elif label in names:
            others = [value for image in images if (value := image.values.get(label, "")) not in _ANSWERS]
            if others:
                console.info(
                    f"No truth for metrics: {label} in the tables has {others[0]!r}, which is not 0, 1 or empty."
                )
            else:
                columns[label] = label
    return columns


def _require_answers(images: Sequence[InputImage], column: str) -> None:
    for image in images:
        if (value := image.values.get(column, "")) not in _ANSWERS:
            raise DataError(f"{image.path}: {column} is {value!r} in its table. It must be 0, 1 or empty (unknown).")


def show_metrics(
    images: Sequence[InputImage], scored: Sequence[ScoredImage], truth: Truth, limits: Limits, checked: bool
) -> None:
    """Print the metrics of the readable images, or why there are none.

    ``checked``: whether it is known which images the run was trained on.
    """
    readable = [at for at, image in enumerate(scored) if image.scores is not None]
    labels = tuple(label for label in truth.columns if {0.0, 1.0} <= set(truth.of(label)[readable].tolist()))
    if reason := _no_metrics(scored, labels, checked):
        console.info(f"No metrics: {reason}")
        return
    thresholds = dict(zip(limits.labels, limits.thresholds, strict=True))
    settings = Settings(tuple(thresholds[label] for label in labels))
    assessment = assess(_table(images, scored, truth, readable, labels), labels, settings)
    console.table("Metrics on the truth of the tables", METRICS_HEADER, metric_rows(assessment))
    if others := [label for label in truth.labels if label not in labels]:
        console.info(f"Not evaluated, as not both answers occur: {', '.join(others)}.")
    console.info("These metrics are logged nowhere. A test that counts is one by `evaluate`, which logs it.")


def _table(
    images: Sequence[InputImage], scored: Sequence[ScoredImage], truth: Truth, rows: list[int], labels: tuple[str, ...]
) -> pd.DataFrame:
    """The table of predictions of the readable images, as those of an evaluation."""
    about = pd.DataFrame(
        {"image_id": [str(images[at].path) for at in rows], "group": [_group(images[at]) for at in rows]}
    )
    columns = [truth.labels.index(label) for label in labels]
    probability = np.stack([image.scores.probability[columns] for image in scored if image.scores is not None])
    return predictions_table(about, ENSEMBLE, labels, probability, truth.values[rows][:, columns])


def _no_metrics(scored: Sequence[ScoredImage], labels: tuple[str, ...], checked: bool) -> str:
    """Why there are no metrics, or why they would mislead; empty if there are good ones."""
    if not checked:
        return "whether the run was trained on these images is not known."
    known = [image for image in scored if image.trained_as]
    if known:
        first = f"{known[0].photo.image_id} is {known[0].trained_as}"
        return f"the run was trained on {len(known)} of {len(scored)} images ({first}). Leave them out."
    held_out = [image for image in scored if image.held_out_as]
    if held_out:
        first = f"{held_out[0].photo.image_id} is {held_out[0].held_out_as}"
        return (
            f"{len(held_out)} of {len(scored)} images are in the run's own data set, outside its folds ({first}). "
            "`evaluate --holdout` tests on such images and logs it."
        )
    return "" if labels else "no label of the run has both images with it and images without it."


def _group(image: InputImage) -> str:
    return next((f"{name} {image.values[name]}" for name in _GROUPS if image.values.get(name)), str(image.path))
