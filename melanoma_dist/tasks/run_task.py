"""The seam between the main command and what its run learns.

The command knows folders, locks, units and Ray. A `RunTask` knows which images take part, what the folds balance, the
model, and the results. `melanoma_dist.train.task` is the same seam within a unit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.manifest import Dataset

if TYPE_CHECKING:  # PyTorch takes seconds to load
    from melanoma_dist.models.backbones import TrunkModel


class RunTask(Protocol):
    """A task of runs. Summaries are of its own type."""

    def check(self, dataset: Dataset, config: RunConfig) -> None:
        """Raise ConfigError or DataError for a data set that cannot be learned from."""

    def members(self, images: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
        """The images of a manifest that are trained on, in folds."""

    def make_folds(self, images: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
        """``image_id, group, fold`` of the members. Raises ConfigError for more folds than the images allow."""

    def fold_table(self, images: pd.DataFrame, folds: pd.DataFrame, config: RunConfig) -> tuple[str, list[str], Any]:
        """Title, further columns and rows of the table of folds."""

    def build_model(self, config: RunConfig) -> TrunkModel:
        """Build the model once, so that errors come before anything is written."""

    def finalize(
        self, config: RunConfig, dataset: Dataset, folds: pd.DataFrame, folder: RunFolder, seconds: float
    ) -> Any:
        """Compute and write the results of a run whose folds are finished, the summary last. Returns the summary."""

    def read_summary(self, folder: RunFolder) -> Any:
        """The summary of a finished run. Raises DataError for one that is corrupt or of another version."""

    def show(self, summary: Any, folder: RunFolder) -> dict[str, Path]:
        """Print the results. Returns the task's own files, by name, for the list at the end."""


def run_task(config: RunConfig) -> RunTask:
    """The task of a configuration."""
    from melanoma_dist.tasks.classification import ClassificationRuns
    from melanoma_dist.tasks.segmentation import SegmentationRuns

    return SegmentationRuns() if config.task == "segmentation" else ClassificationRuns()
