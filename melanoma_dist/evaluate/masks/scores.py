"""The scores of masks in tables and sentences."""

from __future__ import annotations

from melanoma_dist.evaluate.summary import with_interval
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.segmentation import FAILURES
from melanoma_dist.pages.tables import Cell, measured, undefined

SHOWN = {
    "jaccard": "Jaccard",
    "dice": "Dice",
    "thresholded_jaccard": "thresholded Jaccard (0.65)",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "boundary_distance": "boundary distance (share of the diagonal)",
    FAILURES: "share of images below 0.65",
}
"""The scores of tables, with their names."""


def score_cell(score: Interval | Undefined) -> Cell:
    """A score as a cell of a table."""
    if isinstance(score, Undefined):
        return undefined(score.reason)
    return measured(score.estimate, low=score.low, high=score.high)


def in_words(score: Interval | Undefined) -> str:
    """A score with its interval, or why there is none."""
    return with_interval(score, 3) if isinstance(score, Interval) else score.reason
