"""Measure how well age, sex, site, source and missing values predict melanoma without an image, on ISIC 2019's tables.

python benchmarks/metadata.py RAW  # folder of ISIC_2019_Training_Metadata.csv and ISIC_2019_Training_GroundTruth.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist.config.metadata import FIELDS
from melanoma_dist.evaluate.metadata import metadata_use

_FOLDS = 5


def main(raw: Path) -> None:
    """Print the AUC of the metadata within each source, and of each set of facts over all images."""
    about = pd.read_csv(raw / "ISIC_2019_Training_Metadata.csv")
    truth = pd.read_csv(raw / "ISIC_2019_Training_GroundTruth.csv").set_index("image")["MEL"]
    names = {"image": "image_id", "age_approx": "age", "anatom_site_general": "site"}
    about = about.rename(columns=names).assign(years="2019")
    group = about["lesion_id"].fillna(about["image_id"])
    lesion, _ = pd.factorize(group)
    fold = np.random.default_rng(0).integers(0, _FOLDS, lesion.max() + 1)[lesion]
    columns = {"image_id": about["image_id"], "group": group, "fold": fold}
    # No image is predicted here: the columns of a model are constant.
    table = pd.DataFrame({**columns, "MEL": 0.5, "MEL_true": truth.loc[about["image_id"]].to_numpy()})
    use = metadata_use(table, table, about.set_index("image_id"), FIELDS, "MEL")
    for each in use.sources:
        print(f"{each.source}: {each.images} images, {each.positives} melanomas, metadata alone {each.alone}")
    for fact in use.shortcuts:
        print(f"{fact.facts}: {fact.auc}, warns: {fact.warns}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
