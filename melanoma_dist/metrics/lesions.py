"""From images to lesions: one prediction for all images of a group."""

from __future__ import annotations

import numpy as np
import pandas as pd

from melanoma_dist.data.labels import TRUE


def lesions_of(images: pd.DataFrame) -> pd.Series[str]:
    """The lesion of each row of a manifest.

    A group is a lesion, unless the data set knows patients: then a group has all lesions of a patient, and an image
    without a lesion id is a lesion of its own.
    """
    if "patient_id" not in images:
        return images["group"]
    return images["lesion_id"].where(images["lesion_id"].notna(), images["image_id"])


def by_lesion(
    table: pd.DataFrame, labels: tuple[str, ...], lesions: pd.Series[str] | None = None
) -> tuple[pd.DataFrame, int]:
    """One row per lesion of a table of predictions, and how many answers were contradictory.

    ``lesions`` has the lesion by image id; without it a group is a lesion.
    The probability of a label is the mean over the lesion's images, as all of them are looked at. The truth is what the
    images whose truth is known agree on; NaN where none is known, and NaN where they contradict each other: such an
    answer is counted and left out, since any choice would favour somebody. Rows are sorted by group and lesion,
    ``image_id`` is that of the lesion's first image, and ``fold`` that of all its images.
    """
    # In float64: the mean of equal float32 probabilities must stay equal to them.
    lesion = table["group"] if lesions is None else table["image_id"].map(lesions)
    ordered = table.assign(lesion=lesion).sort_values(["group", "lesion", "image_id"])
    groups = ordered.astype(dict.fromkeys(labels, np.float64)).groupby(["group", "lesion"])
    answers = [label + TRUE for label in labels]
    low, high = groups[answers].min(), groups[answers].max()  # both skip NaN
    contradictory = (low != high) & low.notna()
    rows = groups[["image_id", "fold"]].first()
    rows[list(labels)] = groups[list(labels)].mean().astype(np.float32)
    rows[answers] = low.mask(contradictory).astype(np.float32)
    return rows.reset_index().drop(columns="lesion"), int(contradictory.to_numpy().sum())
