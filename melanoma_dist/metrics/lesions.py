"""From images to lesions: one prediction for all images of a group."""

from __future__ import annotations

import numpy as np
import pandas as pd

from melanoma_dist.data.labels import TRUE


def by_lesion(table: pd.DataFrame, labels: tuple[str, ...]) -> tuple[pd.DataFrame, int]:
    """One row per group of a table of predictions, and how many answers were contradictory.

    The probability of a label is the mean over the group's images, as all of them are looked at. The truth is what the
    images whose truth is known agree on; NaN where none is known, and NaN where they contradict each other: such an
    answer is counted and left out, since any choice would favour somebody. Rows are sorted by group, ``image_id`` is
    that of the group's first image, and ``fold`` that of all its images.
    """
    # In float64: the mean of equal float32 probabilities must stay equal to them.
    ordered = table.sort_values(["group", "image_id"]).astype(dict.fromkeys(labels, np.float64))
    groups = ordered.groupby("group")
    answers = [label + TRUE for label in labels]
    low, high = groups[answers].min(), groups[answers].max()  # both skip NaN
    contradictory = (low != high) & low.notna()
    lesions = groups[["image_id", "fold"]].first()
    lesions[list(labels)] = groups[list(labels)].mean().astype(np.float32)
    lesions[answers] = low.mask(contradictory).astype(np.float32)
    return lesions.reset_index(), int(contradictory.to_numpy().sum())
