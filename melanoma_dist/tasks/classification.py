"""Runs of classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.metadata import field_names
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.audit.checks import fold_table
from melanoma_dist.data.folds import labelled_pool, make_folds
from melanoma_dist.data.labels import check_label_set
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.metadata import require_known

if TYPE_CHECKING:  # PyTorch and scikit-learn take seconds to load
    from melanoma_dist.artifacts.summary import RunSummary
    from melanoma_dist.models.backbones import TrunkModel


class ClassificationRuns:
    """See `melanoma_dist.tasks.run_task.RunTask`."""

    def check(self, dataset: Dataset, config: RunConfig) -> None:
        """Refuse a label set or metadata that cannot be learned from."""
        check_label_set(dataset.manifest, config.data.labels, config.data.headline)
        require_known(dataset.manifest, field_names(config.model.metadata))

    def members(self, images: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
        """The images of the pool with a known label."""
        return labelled_pool(images, config.data.label_set())

    def make_folds(self, images: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
        """Folds balanced by labels and years."""
        return make_folds(images, config.data.label_set(), config.data.folds, config.seed)

    def fold_table(
        self, images: pd.DataFrame, folds: pd.DataFrame, config: RunConfig
    ) -> tuple[str, list[str], list[list[str]]]:
        """Positives per label."""
        labels = config.data.label_set()
        return "Folds: positives per label", [*labels], fold_table(images, folds, labels)

    def build_model(self, config: RunConfig) -> TrunkModel:
        """Build the classifier."""
        from melanoma_dist.models.backbones import published_input
        from melanoma_dist.models.classifier import build_classifier

        size = config.input.image_size or published_input(config.model.backbone).size
        labels = len(config.data.label_set())
        return build_classifier(config.model, size, labels, config.seed, channels=config.region.channels)

    def finalize(
        self, config: RunConfig, dataset: Dataset, folds: pd.DataFrame, folder: RunFolder, seconds: float
    ) -> RunSummary:
        """Metrics, intervals and report."""
        from melanoma_dist.evaluate.finalize import finalize

        return finalize(config, dataset, folds, folder, seconds)

    def read_summary(self, folder: RunFolder) -> RunSummary:
        """Read ``summary.json``."""
        from melanoma_dist.artifacts.summary import read_summary

        return read_summary(folder.path)

    def show(self, summary: RunSummary, folder: RunFolder) -> dict[str, Path]:
        """Print the metrics of each label."""
        from melanoma_dist.evaluate.report.metadata import metadata_notes
        from melanoma_dist.evaluate.summary import conclusion, short_header, short_rows

        mark = " on SYNTHETIC DATA" if summary.synthetic else ""
        title = f"{summary.backbone}{mark}, out of fold; sensitivity and specificity at probability {summary.threshold}"
        console.table(title, short_header(), short_rows(summary))
        for note in (*summary.incidents, *summary.advice, *metadata_notes(summary.metadata)):
            console.info(f"note: {note}")
        console.info(conclusion(summary))
        return {"report": folder.report}
