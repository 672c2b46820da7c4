"""ISIC 2019 (HAM10000, BCN20000, MSK): eight diagnoses, and UNK in the test set."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from melanoma_dist.data.labels import DIAGNOSES, LABEL_COLUMNS
from melanoma_dist.data.sources.coverage import Official
from melanoma_dist.data.sources.isic import IsicChallenge, make_parts
from melanoma_dist.data.sources.source import Collection, Source


class _Isic2019(IsicChallenge):
    def map_labels(self, labels: pd.DataFrame) -> pd.DataFrame:
        """The eight keep their names. UNK, which occurs only in the test set, is 0 in all of them."""
        ours = labels.reindex(columns=list(LABEL_COLUMNS))
        ours["AKIEC"] = labels[["AK", "SCC"]].max(axis=1)
        return ours

    def cautions(self, collections: Sequence[Collection]) -> list[str]:
        """2019's training set contains holdouts of 2017, which only the tables of 2017 name."""
        splits = {split for each in collections for split in each.records["split"].unique()}
        texts = {
            "2017-test": "2019's training set contains 595 of the 600 test images of 2017, and only "
            "2017/ISIC-2017_Test_v2_Part3_GroundTruth.csv, which is missing, names them: they are in the training "
            "pool. Report no metric on the 2017 test set.",
            "2017-validation": "2019's training set contains 2017's 150 validation images. Their table is missing, so "
            "they stay in the training pool.",
        }
        return [text for split, text in texts.items() if split not in splits]


_SPLITS = {"train": ("Training", Official(25_331, 23_247, 11_847)), "2019-test": ("Test", Official(8_238))}
SOURCE: Source = _Isic2019(
    year=2019,
    id_column="image",
    label_columns=(*DIAGNOSES, "UNK"),
    parts=make_parts("ISIC_2019", _SPLITS, "Input", "GroundTruth", "Metadata"),
    metadata={"lesion_id": "lesion_id", "age": "age_approx", "sex": "sex", "site": "anatom_site_general"},
)
