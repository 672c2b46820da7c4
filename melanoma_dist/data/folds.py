"""Cross-validation folds: k stratified folds of whole groups, by image id.

Folds depend only on the seed, the number of folds, the label set and the data set: every backbone gets the same ones.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.api.types import is_integer_dtype, is_string_dtype

from melanoma_dist.config.label_sets import LabelSet, label_name
from melanoma_dist.data.labels import targets
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage.parquet import read_parquet


def pool(manifest: pd.DataFrame) -> pd.DataFrame:
    """The training pool: images outside all holdouts, in groups without an image of a holdout."""
    return manifest[manifest["split"] == "train"]


def labelled_pool(manifest: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
    """The images of the pool with a known label. One of which nothing is known teaches a classifier nothing."""
    images = pool(manifest)
    known = np.asarray(~np.isnan(targets(images, labels))).any(axis=1)
    return images.iloc[np.flatnonzero(known)]


def masked_pool(manifest: pd.DataFrame) -> pd.DataFrame:
    """The images of the pool with a lesion mask."""
    images = pool(manifest)
    return images[images["mask_offset"] >= 0]


def make_folds(manifest: pd.DataFrame, labels: LabelSet, folds: int, seed: int) -> pd.DataFrame:
    """``image_id, group, fold`` of every image of ``labelled_pool``, sorted by id; fold is 0 to ``folds - 1``.

    Stratified by label set and year. Raises ConfigError if there are fewer groups, or fewer with the headline label or
    without it, than folds.
    """
    images = labelled_pool(manifest, labels).sort_values("image_id")
    _check_groups(images, folds)
    _check_both_kinds(images, labels.headline, folds)
    table = _assign(images, _strata(images, labels, folds), folds, seed)
    for number in range(folds):
        _check_headline(images[table["fold"].to_numpy() == number], labels.headline, number, folds)
    return table


def make_mask_folds(manifest: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """The same of every image of ``masked_pool``, stratified by year. Raises ConfigError for too few groups."""
    images = masked_pool(manifest).sort_values("image_id")
    _check_groups(images, folds)
    return _assign(images, images["years"], folds, seed)


def _assign(images: pd.DataFrame, strata: pd.Series, folds: int, seed: int) -> pd.DataFrame:
    """The folds of sorted images: whole groups, the strata spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes seconds to import, and ranks only read folds

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    numbers = pd.factorize(strata, sort=True)[0]
    fold = np.full(len(images), -1, dtype=np.int32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # a rare stratum is spread as far as possible
        splits = list(splitter.split(images, numbers, images["group"]))
    for number, (_, validation) in enumerate(splits):
        fold[validation] = number
    return pd.DataFrame({"image_id": images["image_id"], "group": images["group"], "fold": fold}).reset_index(drop=True)


def _strata(images: pd.DataFrame, labels: LabelSet, folds: int) -> pd.Series:
    """Labels and years of each image as text. Strata smaller than the number of folds are pooled by the headline."""
    known = pd.DataFrame(targets(images, labels), index=images.index).fillna(-1).astype(int).astype(str)
    strata = known.agg("".join, axis=1) + " " + images["years"]
    rare = strata.map(strata.value_counts()) < folds
    return strata.mask(rare, "rare " + images[labels.headline].astype(str))


def read_folds(path: Path) -> pd.DataFrame:
    """Read the folds of a run. Raises DataError if the file is unreadable or invalid."""
    try:
        folds = read_parquet(path)
        for name, is_kind in {"image_id": is_string_dtype, "group": is_string_dtype, "fold": is_integer_dtype}.items():
            if name not in folds or not is_kind(folds[name]) or folds[name].isna().any():
                raise ValueError(f"it needs image_id, group and fold of each image; {name} is missing or wrong")
        if folds["image_id"].duplicated().any():
            raise ValueError("an image occurs twice")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: the run's folds cannot be read ({error}). Bring the file back, or start a new run."
        ) from error
    return folds


def _check_headline(validation: pd.DataFrame, headline: str, number: int, folds: int) -> None:
    """Refuse a fold without the headline label, or with nothing else: its AUC is undefined."""
    if not {0, 1} <= set(validation[headline].dropna().astype(int)):
        only = f"only one kind of image ({len(validation)} of them)"
        rule = f"fold {number} would have {only}, so no AUC of {label_name(headline)}"
        raise ConfigError.of("folds", folds, rule, "Use fewer folds.")


def _check_groups(images: pd.DataFrame, folds: int) -> None:
    groups = images["group"].nunique()
    if groups < folds:
        raise ConfigError.of(
            "folds", folds, f"the data has only {groups} groups (lesions) to train on", "A fold needs at least one."
        )


def _check_both_kinds(images: pd.DataFrame, headline: str, folds: int) -> None:
    for value, what in ((1, label_name(headline)), (0, "other")):
        count = images.loc[images[headline] == value, "group"].nunique()
        if count < folds:
            raise ConfigError.of(
                "folds", folds, f"the data has only {count} {what} lesions, so a fold would have no AUC",
                f"At most --folds {count}." if count > 1 else "Prepare more images.",
            )  # fmt: skip
