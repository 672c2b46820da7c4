"""ISIC 2017, Part 3: melanoma, seborrheic keratosis, nevus."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.sources.coverage import Official
from melanoma_dist.data.sources.isic import IsicChallenge, MaskPart, make_parts
from melanoma_dist.data.sources.source import Collection, Source


class _Isic2017(IsicChallenge):
    def map_labels(self, labels: pd.DataFrame) -> pd.DataFrame:
        """Seborrheic keratosis is a benign keratosis; what is neither it nor melanoma is a nevus."""
        ours = pd.DataFrame(0.0, index=labels.index, columns=list(LABEL_COLUMNS))
        ours["MEL"] = labels["melanoma"]
        ours["BKL"] = labels["seborrheic_keratosis"]
        ours["NV"] = 1.0 - ours["MEL"] - ours["BKL"]
        return ours

    def cautions(self, collections: Sequence[Collection]) -> list[str]:
        """Without 2019 the lesions of 2017 are unknown."""
        if "2019" in {each.name for each in collections}:
            return []
        return [
            "2017 does not name lesions, and 2019's metadata, which names them, is missing: only copies of an image of "
            "2017 stay in one fold. `data download --years 2019 --parts labels` gets it."
        ]


_SPLITS = {
    "train": ("Training", Official(2_000)),
    "2017-validation": ("Validation", Official(150)),
    "2017-test": ("Test_v2", Official(600)),
}
SOURCE: Source = _Isic2017(
    year=2017,
    id_column="image_id",
    label_columns=("melanoma", "seborrheic_keratosis"),
    parts=make_parts("ISIC-2017", _SPLITS, "Data", "Part3_GroundTruth", "Data_metadata"),
    metadata={"age": "age_approximate", "sex": "sex"},
    masks=tuple(
        MaskPart(split, f"ISIC-2017_{name}_Data", f"ISIC-2017_{name}_Part1_GroundTruth")
        for split, (name, _) in _SPLITS.items()
    ),
    unlabelled_rows=True,
)
