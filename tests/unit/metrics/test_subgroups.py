from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from melanoma_dist.errors import ConfigError
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.subgroups import Gap, Subgroup, attributes, subgroups

LESIONS = 400


def about(images: int, **columns: object) -> pd.DataFrame:
    """Manifest rows of images that all are alike but for ``columns``."""
    alike = {"sex": "male", "age": 40.0, "site": "torso", "years": "2018", "source_width": 600, "source_height": 450}
    return pd.DataFrame({**alike, **columns}, index=[f"ISIC_{number:07d}" for number in range(images)])


def predicted(about: pd.DataFrame, harder: pd.Series[bool], seed: int = 0) -> pd.DataFrame:
    """Two images of each lesion, a third of the lesions with the label; what is harder is told apart by chance."""
    rng = np.random.default_rng(seed)
    lesion = np.arange(len(about)) // 2
    truth = (lesion % 3 == 0).astype(np.float32)
    clue = np.where(harder.to_numpy(), 0.0, 2.0) * truth
    score = clue + rng.normal(0, 0.8, len(about) // 2)[lesion] + rng.normal(0, 0.4, len(about))
    columns = {"image_id": about.index, "group": [f"lesion-{number}" for number in lesion], "fold": 0}
    return pd.DataFrame({**columns, "MEL": (1 / (1 + np.exp(-score))).astype(np.float32), "MEL_true": truth})


def is_flagged(entry: Subgroup) -> bool:
    return isinstance(entry.gap, Gap) and entry.gap.flagged


def by_value(entries: Sequence[Subgroup], attribute: str) -> dict[str, Subgroup]:
    return {entry.value: entry for entry in entries if entry.attribute == attribute}


def test_figures_and_counts_are_scikit_learns_of_the_rows() -> None:
    sex = np.where(np.arange(2 * LESIONS) // 2 % 4 == 0, "female", "male")
    images = about(2 * LESIONS, sex=sex)
    table = predicted(images, images["sex"] == "nobody")
    rows = table[sex == "female"]
    entry = by_value(subgroups(table, images, "MEL", 0.6, resamples=200), "sex")["female"]
    assert entry.images == len(rows)
    assert entry.lesions == rows["group"].nunique()
    assert entry.positives == rows["MEL_true"].sum()
    assert isinstance(entry.auc, Interval)
    assert isinstance(entry.sensitivity, Interval)
    assert isinstance(entry.specificity, Interval)
    assert entry.auc.estimate == pytest.approx(roc_auc_score(rows["MEL_true"], rows["MEL"]))
    called = rows["MEL"] >= np.float32(0.6)
    assert entry.sensitivity.estimate == pytest.approx(recall_score(rows["MEL_true"], called))
    assert entry.specificity.estimate == pytest.approx(recall_score(rows["MEL_true"], called, pos_label=0))
    assert entry.auc.low < entry.auc.estimate < entry.auc.high


def test_a_gap_is_flagged_where_there_is_one_and_not_elsewhere() -> None:
    lesion = np.arange(2 * LESIONS) // 2
    images = about(2 * LESIONS, sex=np.where(lesion % 2, "male", "female"), site=np.where(lesion % 5, "torso", "head"))
    entries = subgroups(predicted(images, images["site"] == "head"), images, "MEL", 0.5, resamples=400)
    head, torso = (by_value(entries, "site")[site].gap for site in ("head", "torso"))
    assert isinstance(head, Gap)
    assert isinstance(torso, Gap)
    assert head.flagged
    assert head.high < 0
    assert head.difference == pytest.approx(-torso.difference)
    assert not any(is_flagged(entry) for entry in by_value(entries, "sex").values())


def test_few_gaps_are_flagged_by_chance() -> None:
    flagged = 0
    for seed in range(40):
        site = np.random.default_rng(seed).choice(["a", "b", "c", "d", "e"], LESIONS // 4)
        images = about(LESIONS // 2, site=np.repeat(site, 2))
        table = predicted(images, images["sex"] == "nobody", seed)
        flagged += any(is_flagged(entry) for entry in subgroups(table, images, "MEL", 0.5, 200))
    assert flagged <= 6


def test_what_is_not_defined_says_why() -> None:
    images = about(80, sex=["female"] * 4 + ["male"] * 70 + [None] * 6)
    table = predicted(images, images["sex"] == "nobody")
    table.loc[:3, "MEL_true"] = 0
    table.loc[74:, "MEL_true"] = np.nan
    entries = by_value(subgroups(table, images, "MEL", 0.5, resamples=50), "sex")
    assert entries["female"].auc == Undefined("none of its images has the label")
    assert entries["female"].sensitivity == Undefined("no image of the kind that it counts")
    gap = entries["female"].gap
    assert isinstance(gap, Undefined)
    assert "fewer than 5 lesions" in gap.reason
    assert entries["unknown"].auc == Undefined("the truth of none of its images is known")
    assert list(entries) == ["female", "male", "unknown"]


def test_an_attribute_that_all_share_makes_no_subgroups() -> None:
    images = about(40)
    assert subgroups(predicted(images, images["sex"] == "nobody"), images, "MEL", 0.5, resamples=10) == ()


def test_bands_and_metadata() -> None:
    images = about(6, age=[np.nan, 0.0, 30.0, 69.0, 70.0, 85.0], source_width=[400, 1000, 2000, 6000, 6000, 6000])
    images = images.assign(source_height=500, sex=[None, *["male"] * 5], site=[None, None, *["torso"] * 4])
    columns = attributes(images)
    assert columns["age"].tolist() == [
        "unknown", "0 to below 30 years", "30 to below 50 years", "50 to below 70 years", "70 years and more",
        "70 years and more",
    ]  # fmt: skip
    assert columns["image size"].tolist()[:3] == [
        "0 to below 0.5 megapixels", "0.5 to below 2 megapixels", "0.5 to below 2 megapixels",
    ]  # fmt: skip
    assert columns["metadata"].tolist()[:3] == ["none", "in part", "complete"]


def test_no_resamples_are_refused() -> None:
    images = about(8, sex=["male", "female"] * 4)
    with pytest.raises(ConfigError, match="--resamples 0"):
        subgroups(predicted(images, images["sex"] == "nobody"), images, "MEL", 0.5, resamples=0)
