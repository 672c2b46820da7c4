"""The table of predictions and true labels. Every metric is computed from it.

image_id, group, fold     keys
MEL, NV, ...              float32, probability of each label
MEL_true, NV_true, ...    float32, 1, 0 or NaN (unknown)
MEL_calibrated, ...       float32, calibrated probability or NaN (too few images to calibrate); in a run's table alone
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.storage import atomic

Array = npt.NDArray[np.float32]
WITHOUT_METADATA = "predictions-without-metadata.parquet"
"""The file, beside the predictions of models with metadata, of the same models' predictions as if all were unknown."""
CALIBRATED = "_calibrated"
"""Suffix of the columns of calibrated probabilities."""


def predictions_table(
    images: pd.DataFrame, fold: int, labels: tuple[str, ...], probability: Array, truth: Array
) -> pd.DataFrame:
    """The table of one fold; ``images`` has ``image_id`` and ``group``, the arrays [n, L] follow its rows."""
    columns = {"image_id": images["image_id"].to_numpy(), "group": images["group"].to_numpy()}
    table = pd.DataFrame({**columns, "fold": np.full(len(images), fold, dtype=np.int32)})
    for column, label in enumerate(labels):
        table[label] = probability[:, column].astype(np.float32)
    for column, label in enumerate(labels):
        table[label + TRUE] = truth[:, column].astype(np.float32)
    return table


def arrays(table: pd.DataFrame, labels: tuple[str, ...]) -> tuple[Array, Array]:
    """Truth and probability [n, L] of a table."""
    truth = table[[label + TRUE for label in labels]].to_numpy(dtype=np.float32)
    return truth, table[list(labels)].to_numpy(dtype=np.float32)


def write_predictions(table: pd.DataFrame, path: Path) -> None:
    """Write a table, whole or not at all."""
    atomic.write_file(path, lambda aside: table.to_parquet(aside, index=False))


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write the same columns as text: every number has as many digits as tell it from any other float32."""
    atomic.write_file(path, lambda aside: table.to_csv(aside, index=False))


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table. Raises DataError for one that is missing or corrupt."""
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: the predictions cannot be read ({error}). Delete the fold's folder to train it again."
        ) from error
