from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from sklearn.metrics import roc_auc_score

from melanoma_dist.artifacts.assessment import Assessment, DelongInterval
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.assessment import assess
from melanoma_dist.metrics.classification import Settings
from melanoma_dist.metrics.intervals import Undefined

from ..metrics.samples import exclusive

LABELS = ("MEL", "NV", "BCC")


def table(seed: int = 0) -> pd.DataFrame:
    drawn = exclusive(len(LABELS), images=300, lesions=120, seed=seed)
    columns = {
        "image_id": [f"ISIC_{number:07d}" for number in range(300)],
        "group": drawn.group.astype(str),
        "fold": 0,
    }
    values = dict(zip(LABELS, drawn.probability.T, strict=True))
    truths = {f"{label}_true": column for label, column in zip(LABELS, drawn.truth.T, strict=True)}
    return pd.DataFrame({**columns, **values, **truths})


def read_back(assessment: Assessment) -> Assessment:
    return TypeAdapter(Assessment).validate_json(json.dumps(asdict(assessment), allow_nan=False), strict=True)


def test_every_metric_is_computed_per_image_and_per_lesion_with_intervals() -> None:
    rows = table()
    assessment = assess(rows, LABELS, Settings(), resamples=200)
    assert (assessment.images, assessment.lesions) == (300, rows["group"].nunique())
    known = rows[rows["MEL_true"].notna()]
    assert assessment.by_image.labels["MEL"].auc == pytest.approx(roc_auc_score(known["MEL_true"], known["MEL"]))
    lesions = known.groupby("group")["MEL_true"].first(), rows.astype({"MEL": float}).groupby("group")["MEL"].mean()
    expected = roc_auc_score(lesions[0], lesions[1].loc[lesions[0].index])
    assert assessment.by_lesion.labels["MEL"].auc == pytest.approx(expected, abs=1e-6)
    for unit in (assessment.by_image, assessment.by_lesion):
        auc, delong = unit.intervals["MEL"].auc, unit.delong["MEL"]
        assert isinstance(delong, DelongInterval)
        assert auc.estimate == pytest.approx(unit.labels["MEL"].auc, abs=1e-6)
        assert auc.low < auc.estimate < auc.high  # type: ignore[operator]
        assert delong.low == pytest.approx(auc.low, abs=0.03)
        assert delong.high == pytest.approx(auc.high, abs=0.03)
    assert read_back(assessment) == assessment


@pytest.mark.parametrize("case", ["absent", "unknown", "constant", "one image"])
def test_odd_predictions_give_a_value_or_a_reason(case: str) -> None:
    rows = table()
    if case == "absent":
        rows["MEL_true"] = np.float32(0)
    elif case == "unknown":
        rows["MEL_true"] = np.float32(np.nan)
    elif case == "constant":
        rows["MEL"] = np.float32(0.3)
    else:
        rows = rows.iloc[:1]
    assessment = assess(rows, LABELS, Settings(), resamples=20)
    auc, delong = assessment.by_image.labels["MEL"].auc, assessment.by_image.delong["MEL"]
    if case == "constant":
        assert isinstance(delong, DelongInterval)
        assert auc == delong.auc == 0.5
    else:
        assert auc is None
        assert isinstance(delong, Undefined)
        assert "A variance needs 2 groups" in delong.reason
        assert assessment.by_image.intervals["MEL"].auc.low is None
    assert read_back(assessment) == assessment


def test_no_predictions_are_refused() -> None:
    with pytest.raises(DataError, match="no predictions"):
        assess(table().iloc[:0], LABELS, Settings(), resamples=20)
