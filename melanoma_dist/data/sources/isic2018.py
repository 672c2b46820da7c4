"""ISIC 2018, Task 3 (HAM10000): seven diagnoses; and the masks of Task 1."""

from __future__ import annotations

import numpy as np
import pandas as pd

from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.sources.isic import IsicChallenge, make_parts
from melanoma_dist.data.sources.source import Source


class _Isic2018(IsicChallenge):
    def map_labels(self, labels: pd.DataFrame) -> pd.DataFrame:
        """AKIEC is AK or SCC: where it is 1, both stay unknown."""
        ours = labels.reindex(columns=list(LABEL_COLUMNS))
        ours["AK"] = ours["SCC"] = np.where(labels["AKIEC"] == 1, np.nan, 0.0)
        return ours


_SPLITS = {"train": "Training", "2018-validation": "Validation", "2018-test": "Test"}
SOURCE: Source = _Isic2018(
    year=2018,
    id_column="image",
    label_columns=("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    parts=make_parts("ISIC2018_Task3", _SPLITS, "Input", "GroundTruth", "LesionGroupings"),
    metadata={"lesion_id": "lesion_id"},
    # The images of Tasks 1 and 2 have no diagnosis: only their masks are used, for images that another year labels.
    masks=tuple(f"ISIC2018_Task1_{name}_GroundTruth" for name in _SPLITS.values()),
)
