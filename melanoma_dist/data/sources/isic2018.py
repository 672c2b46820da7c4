"""ISIC 2018, Task 3 (HAM10000): seven diagnoses; and the images and masks of Task 1.

Its training set is also read from Kaggle's ``HAM10000_metadata.csv`` and from isic-cli's ``metadata.csv``.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.raw_folder import RawFolder, TableFile
from melanoma_dist.data.rows import read_header
from melanoma_dist.data.sources.coverage import Official
from melanoma_dist.data.sources.isic import IsicChallenge, MaskPart, Metadata, Part, base_id, make_parts
from melanoma_dist.data.sources.source import Source
from melanoma_dist.data.tables import Column, IdColumn, Problems, read_table

_DIAGNOSES = {
    "MEL": r"melanoma|mel",
    "NV": r"nev(us|i)|nv",
    "BCC": r"basal cell carcinoma|bcc",
    "AKIEC": r"actinic keratosis|squamous cell carcinoma|bowen|akiec",
    "BKL": r"(benign|seborrheic|lichenoid|lichen planus.like) keratosis|solar lentigo|bkl",
    "DF": r"dermatofibroma|df",
    "VASC": r"vascular|\w*angioma|angiokeratoma|pyogenic granuloma|vasc",
}
"""The words for each class in HAM10000 and in the ISIC Archive."""
_WORDS = {label: re.compile(rf"\b({words})\b") for label, words in _DIAGNOSES.items()}
_COLUMNS = ("dx", "diagnosis_3", "diagnosis_2", "diagnosis")
_METADATA: tuple[tuple[Column, str], ...] = (
    ("lesion_id", "lesion_id"),
    ("patient_id", "patient_id"),
    ("sex", "sex"),
    ("age", "age"),
    ("age", "age_approx"),
    ("site", "anatom_site_general"),
)
_IDS = ("image_id", "isic_id")
_TRAINING = "ISIC_0024306", "ISIC_0034320"  # the training set is all 10,015 ids from the first to the second


class _Isic2018(IsicChallenge):
    def map_labels(self, labels: pd.DataFrame) -> pd.DataFrame:
        """AKIEC is AK or SCC: where it is 1, both stay unknown."""
        ours = labels.reindex(columns=list(LABEL_COLUMNS))
        ours["AK"] = ours["SCC"] = np.where(labels["AKIEC"] == 1, np.nan, 0.0)
        return ours

    def labels_table(self, raw: RawFolder, part: Part) -> TableFile | None:
        """The official table, or one that names the diagnosis."""
        return super().labels_table(raw, part) or _named_diagnoses(raw, part)

    def read_labels(self, path: Path, part: Part, problems: Problems) -> pd.DataFrame:
        """Read 0 and 1 of each class, or the names of diagnoses."""
        named = _names_diagnoses(read_header(path))
        return _read(path, part, problems) if named else super().read_labels(path, part, problems)

    def metadata_table(self, raw: RawFolder, part: Part) -> Metadata | None:
        """The official groupings, or the table that names the diagnosis: it names the lesion too."""
        labels = self.labels_table(raw, part)
        table = labels if labels and _names_diagnoses(labels.header) else _named_diagnoses(raw, part)
        if (official := super().metadata_table(raw, part)) or table is None:
            return official
        return Metadata(
            table.path,
            _id_column(table.header),
            {ours: theirs for ours, theirs in _METADATA if theirs in table.header},
        )


def _named_diagnoses(raw: RawFolder, part: Part) -> TableFile | None:
    """The table of the training set that names diagnoses. One of the test set is known by its official name only."""
    tables = [table for table in raw.tables if _names_diagnoses(table.header) and "task3_test" not in table.stem]
    return raw.only(tables, "the diagnoses of HAM10000") if part.split == TRAIN else None


def _names_diagnoses(header: tuple[str, ...]) -> bool:
    return bool(set(_COLUMNS) & set(header) and set(_IDS) & set(header))


def _id_column(header: tuple[str, ...]) -> IdColumn:
    return IdColumn(next(name for name in _IDS if name in header), base_id, "must be ISIC_ and seven digits")


def _read(path: Path, part: Part, problems: Problems) -> pd.DataFrame:
    """``image_id``, ``entry`` and the classes of a part, from the names of diagnoses."""
    header = read_header(path)
    columns = tuple(name for name in _COLUMNS if name in header)
    table = read_table(path, _id_column(header), columns, problems)
    of_part = table["image_id"].between(*_TRAINING) | (part.split != TRAIN)
    if others := int((~of_part).sum()):
        problems.remark(path, f"left out {others} images that are not of the training set of 2018")
    table = table[of_part].reset_index(drop=True)
    texts = [next(filter(None, row), "") for row in table[[*columns]].itertuples(index=False)]
    labels = pd.DataFrame(
        {label: [float(bool(words.search(text.lower()))) for text in texts] for label, words in _WORDS.items()}
    )
    for row in (labels.sum(axis=1) != 1).to_numpy().nonzero()[0]:
        rule = f"is not one of the classes {', '.join(_WORDS)}"
        problems.add(path, table["line"].iloc[row], " or ".join(columns), texts[row], rule)
    return pd.concat([table[["image_id", "entry"]], labels], axis=1)


_SPLITS = {
    "train": ("Training", Official(10_015, 10_015, 7_470)),
    "2018-validation": ("Validation", Official(193)),
    "2018-test": ("Test", Official(1_512)),
}
SOURCE: Source = _Isic2018(
    year=2018,
    id_column="image",
    label_columns=("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    parts=make_parts("ISIC2018_Task3", _SPLITS, "Input", "GroundTruth", "LesionGroupings"),
    metadata={"lesion_id": "lesion_id"},
    # The images of Tasks 1 and 2 have no diagnosis, unless another year knows it.
    masks=tuple(
        MaskPart(split, f"ISIC2018_Task1-2_{name}_Input", f"ISIC2018_Task1_{name}_GroundTruth")
        for split, (name, _) in _SPLITS.items()
    ),
)
