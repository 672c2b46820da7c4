from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.data.folds import make_folds, pool, read_folds
from melanoma_dist.data.labels import DIAGNOSES, LABEL_COLUMNS, LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError

from ..hostile import fuzz_reader

FOLDS = 5


def table(lesions: int = 120, melanomas: int = 40, known: float = 1.0) -> pd.DataFrame:
    """A manifest of lesions with one or two images, one diagnosis and one year each; some labels unknown."""
    rng = np.random.default_rng(7)
    rows = []
    for lesion in range(lesions):
        name = "MEL" if lesion < melanomas else DIAGNOSES[1 + lesion % 3]
        for _ in range(1 + (lesion % 5 == 0)):
            answers = {label: float(label == name) for label in LABEL_COLUMNS}
            if rng.random() > known:
                answers["MEL"] = np.nan
            year = "2018+2019" if lesion % 2 else "2019"
            image = f"ISIC_{len(rows):07d}"
            rows.append({"image_id": image, "group": f"lesion-{lesion}", "years": year, "split": "train", **answers})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("known", [1.0, 0.7])
def test_every_image_lies_in_one_fold_with_its_whole_group(seed: int, known: float) -> None:
    manifest = table(400, 120, known)
    folds = make_folds(manifest, DIAGNOSES, FOLDS, seed)
    assert folds["image_id"].tolist() == manifest["image_id"].tolist()
    assert folds["group"].tolist() == manifest["group"].tolist()
    assert set(folds["fold"]) == set(range(FOLDS))
    assert (folds.groupby("group")["fold"].nunique() == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_every_fold_has_its_share_of_each_label_and_year(seed: int, dataset: Dataset) -> None:
    for manifest in (dataset.manifest, table()):
        fold = make_folds(manifest, DIAGNOSES, FOLDS, seed)["fold"]
        counts = manifest[[*DIAGNOSES]].assign(early=manifest["years"] == "2019").groupby(fold.to_numpy()).sum()
        assert (counts.max() - counts.min()).max() <= 2, counts


def test_folds_do_not_depend_on_the_tables_index() -> None:
    manifest = table()
    expected = make_folds(manifest, DIAGNOSES, FOLDS, 0)
    for order in range(3):
        sorted_again = manifest.sample(frac=1, random_state=order, ignore_index=True).sort_values("image_id")
        pd.testing.assert_frame_equal(make_folds(sorted_again, DIAGNOSES, FOLDS, 0), expected)


def test_folds_depend_on_the_seed() -> None:
    manifest = table()
    tables = [make_folds(manifest, DIAGNOSES, FOLDS, seed) for seed in (0, 0, 1, 2)]
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert len({tuple(folds["fold"]) for folds in tables}) == 3


def test_holdouts_and_excluded_images_do_not_change_the_folds() -> None:
    manifest = table()
    expected = make_folds(manifest, DIAGNOSES, FOLDS, 0)
    extra = manifest.iloc[:6].assign(image_id=[f"ISIC_9{number}" for number in range(6)], group="elsewhere")
    extra["split"] = ["2017-test", "2018-validation", "excluded: lesion or copy in 2017-test"] * 2
    both = pd.concat([manifest, extra], ignore_index=True)
    assert pool(both)["image_id"].tolist() == manifest["image_id"].tolist()
    pd.testing.assert_frame_equal(make_folds(both, DIAGNOSES, FOLDS, 0), expected)


@pytest.mark.parametrize(
    ("lesions", "melanomas", "complaint"),
    [
        (4, 2, "--folds 5: the data has only 4 groups"),
        (40, 4, "--folds 5: the data has only 4 melanoma lesions.* At most --folds 4"),
        (40, 37, "--folds 5: the data has only 3 other lesions.* At most --folds 3"),
        (40, 1, "--folds 5: the data has only 1 melanoma lesions.* Prepare more images"),
    ],
)
def test_more_folds_than_the_data_can_fill_are_refused(lesions: int, melanomas: int, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        make_folds(table(lesions, melanomas), DIAGNOSES, FOLDS, 0)


def test_melanomas_of_a_holdout_do_not_count_for_folds() -> None:
    manifest = table()
    manifest.loc[(manifest["MEL"] == 1) & (manifest["group"] >= "lesion-3"), "split"] = "2017-test"
    left = manifest.loc[(manifest["MEL"] == 1) & (manifest["split"] == "train"), "group"].nunique()
    with pytest.raises(ConfigError, match=f"only {left} melanoma lesions"):
        make_folds(manifest, DIAGNOSES, left + 1, 0)


def test_saved_folds_are_read_and_corrupt_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.parquet"
    with pytest.raises(DataError, match=r"folds\.parquet"):
        read_folds(path)
    folds = make_folds(table(), DIAGNOSES, FOLDS, 0)
    folds.to_parquet(path, index=False)
    pd.testing.assert_frame_equal(read_folds(path), folds)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"folds\.parquet"):
        read_folds(path)


def test_rare_strata_are_pooled() -> None:
    """Every pair of label set and year has three images, fewer than folds; melanomas and others suffice together."""
    manifest = table(12, 6).drop_duplicates("group").reset_index(drop=True)
    manifest["years"] = np.resize(["2017", "2018", "2019"], len(manifest))
    folds = make_folds(manifest, LABEL_SETS["melanoma"], 4, 0)
    melanomas = manifest["MEL"].groupby(folds["fold"].to_numpy()).sum()
    assert (melanomas >= 1).all()
    shuffled = make_folds(manifest.sample(frac=1, random_state=1), LABEL_SETS["melanoma"], 4, 0)
    pd.testing.assert_frame_equal(folds, shuffled)


def test_a_corrupt_folds_file_is_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.parquet"
    make_folds(table(), DIAGNOSES, FOLDS, 0).to_parquet(path, index=False)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_folds(path)

    fuzz_reader(read, path.read_bytes(), DataError)
