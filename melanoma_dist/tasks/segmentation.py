"""Runs of segmenters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import make_mask_folds, masked_pool
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError

if TYPE_CHECKING:  # PyTorch and scikit-learn take seconds to load
    from melanoma_dist.artifacts.mask_summary import MaskSummary
    from melanoma_dist.models.backbones import TrunkModel


class SegmentationRuns:
    """See `melanoma_dist.tasks.run_task.RunTask`."""

    def check(self, dataset: Dataset, config: RunConfig) -> None:
        """Refuse a data set without masks."""
        if masked_pool(dataset.manifest).empty:
            raise DataError(
                f"{dataset.folder}: none of its {len(dataset.manifest)} images has a lesion mask to train on. Get "
                "those of ISIC 2018 with `data download --years 2018 --parts images masks`, and prepare them into "
                "another folder with `data prepare --years 2018`."
            )

    def members(self, images: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
        """The images of the pool with a mask."""
        return masked_pool(images)

    def make_folds(self, images: pd.DataFrame, config: RunConfig) -> pd.DataFrame:
        """Folds balanced by years."""
        return make_mask_folds(images, config.data.folds, config.seed)

    def fold_table(
        self, images: pd.DataFrame, folds: pd.DataFrame, config: RunConfig
    ) -> tuple[str, list[str], list[list[str]]]:
        """Images and groups."""
        rows = folds.groupby("fold")["group"].agg(["size", "nunique"])
        return "Folds of images with masks", [], [[f"fold {fold}", *map(str, row)] for fold, row in rows.iterrows()]

    def build_model(self, config: RunConfig) -> TrunkModel:
        """Build the segmenter."""
        from melanoma_dist.models.segmenter import build_segmenter

        return build_segmenter(config.model, config.input.image_size or 0, config.seed)

    def finalize(
        self, config: RunConfig, dataset: Dataset, folds: pd.DataFrame, folder: RunFolder, seconds: float
    ) -> MaskSummary:
        """Scores with intervals."""
        from melanoma_dist.evaluate.masks.finalize import finalize_masks

        return finalize_masks(config, dataset, folds, folder, seconds)

    def read_summary(self, folder: RunFolder) -> MaskSummary:
        """Read ``summary.json``."""
        from melanoma_dist.artifacts.mask_summary import read_mask_summary

        return read_mask_summary(folder.path)

    def show(self, summary: MaskSummary, folder: RunFolder) -> dict[str, Path]:
        """Print the scores with their intervals."""
        from melanoma_dist.evaluate.masks.finalize import conclusion, score_rows

        mark = " on SYNTHETIC DATA" if summary.synthetic else ""
        title = f"{summary.encoder}{mark}, masks out of fold at the size of each image"
        console.table(title, ["", "mean (95 % interval)", "over folds"], score_rows(summary))
        for note in summary.incidents:
            console.info(f"note: {note}")
        console.info(conclusion(summary))
        return {"report": folder.report} if folder.report.is_file() else {}  # runs of earlier versions have none
