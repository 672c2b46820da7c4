"""The summary of a segmentation run: ``summary.json``, every number of it from the scores of its folds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, MinLen

from melanoma_dist.artifacts.records import read_record, write_record
from melanoma_dist.artifacts.run_record import Environment, Identity
from melanoma_dist.artifacts.summary import FoldTraining, TrainedData
from melanoma_dist.config.places import SUMMARY
from melanoma_dist.metrics.cross_validation import VarianceComponents
from melanoma_dist.metrics.intervals import Interval, Undefined

SCHEMA = 1
_AGAIN = "Delete it and run the command again: it computes it from the folds."


@dataclass(frozen=True)
class JaccardRepeats:
    """Mean Jaccard index of every fold with every seed, and where its variance comes from."""

    seeds: tuple[int, ...]
    jaccard: tuple[tuple[float, ...], ...]
    """[folds][seeds], over the images of the fold."""
    components: VarianceComponents


@dataclass(frozen=True, kw_only=True)
class MaskSummary:
    """Every number of a segmentation run."""

    task: Literal["segmentation"] = "segmentation"
    synthetic: bool
    encoder: str
    image_size: int
    """Side of the network's input in pixels. Scores are those at the size of each image."""
    seed: int
    threshold: Annotated[float, Ge(0), Le(1)]
    data: TrainedData
    out_of_fold: dict[str, Interval | Undefined]
    """Mean of each score over images, with intervals over lesions; and the share of failures."""
    folds: Annotated[dict[int, dict[str, float]], MinLen(1)]
    """Mean of each score over the images of a fold."""
    seed_repeats: JaccardRepeats | None = None
    """None for a single seed, and in runs of earlier versions."""
    training: dict[int, FoldTraining]
    """By fold, of the first seed."""
    incidents: tuple[str, ...]
    seconds_of_last_command: float
    identity: Identity
    environment: Environment
    finished: str
    """UTC, ISO 8601."""
    files: dict[str, str]
    """The sha256 of the table of scores, by file name."""
    schema: int = field(default=SCHEMA)


def write_mask_summary(folder: Path, summary: MaskSummary) -> None:
    """Write ``summary.json`` into the folder of a run."""
    write_record(folder / SUMMARY, summary)


def read_mask_summary(folder: Path) -> MaskSummary:
    """Read ``summary.json`` of a run. Raises DataError for a file that is missing, corrupt, or of another version."""
    return read_record(folder / SUMMARY, MaskSummary, _AGAIN, (SCHEMA,))
