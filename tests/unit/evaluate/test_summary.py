from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter
from sklearn import metrics

from melanoma_dist.artifacts.predictions import predictions_table
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.decision_rules import fit_decision_rules
from melanoma_dist.evaluate.summary import OutOfFold, check_truth, out_of_fold, summarise
from melanoma_dist.metrics.cross_validation import FoldSpread

LABELS = LabelSet(("MEL", "BKL"))
FOLDS = 4
THRESHOLD = 0.4


@pytest.fixture
def folds() -> pd.DataFrame:
    names = [f"ISIC_{number:07d}" for number in range(80)]
    fold = np.random.default_rng(1).permutation(np.arange(80) % FOLDS).astype(np.int32)
    return pd.DataFrame({"image_id": names, "group": [f"group-{name}" for name in names], "fold": fold})


@pytest.fixture
def tables(folds: pd.DataFrame) -> list[pd.DataFrame]:
    """What each fold predicts, in an order of its own; a tenth of the answers is unknown."""
    rng = np.random.default_rng(2)
    predicted = []
    for fold, images in folds.groupby("fold"):
        images = images.sample(frac=1, random_state=0)
        truth = rng.choice([0, 1, np.nan], (len(images), 2), p=[0.5, 0.4, 0.1]).astype(np.float32)
        probability = rng.random((len(images), 2)).astype(np.float32)
        predicted.append(predictions_table(images, int(str(fold)), LABELS, probability, truth))
    return predicted


def summed(table: pd.DataFrame) -> OutOfFold:
    about = pd.DataFrame(index=table["image_id"], columns=["sex", "site"], dtype=object)
    about = about.assign(age=np.float32(40), years="2018", source_width=600, source_height=450)
    return summarise(table, about, LABELS, THRESHOLD, fit_decision_rules(table, LABELS))


def expected(rows: pd.DataFrame, label: str) -> dict[str, Any]:
    known = rows[rows[f"{label}_true"].notna()]
    truth, score = known[f"{label}_true"].to_numpy(), known[label].to_numpy()
    called = score >= np.float32(THRESHOLD)
    return {
        "auc": pytest.approx(metrics.roc_auc_score(truth, score)),
        "average_precision": pytest.approx(metrics.average_precision_score(truth, score)),
        "precision": pytest.approx(metrics.precision_score(truth, called)),
        "sensitivity": pytest.approx(metrics.recall_score(truth, called)),
        "positives": (truth == 1).sum(),
        "negatives": (truth == 0).sum(),
        "unknown": len(rows) - len(known),
        "called_positive": called.sum(),
    }


def require_spread(spread: FoldSpread, values: list[float]) -> None:
    assert spread.mean == pytest.approx(np.mean(values))
    assert spread.sd == pytest.approx(np.std(values, ddof=1))
    assert (spread.low, spread.high) == (None, None)  # fewer than five folds
    assert spread.folds == len(values)


def test_all_folds_become_one_table_sorted_by_image(tables: list[pd.DataFrame], folds: pd.DataFrame) -> None:
    table = out_of_fold(tables[::-1], folds)
    pd.testing.assert_frame_equal(table[["image_id", "group", "fold"]], folds)
    for row in (0, 41, 79):
        source = pd.concat(tables).set_index("image_id").loc[table["image_id"][row]]
        assert table.loc[row, list(LABELS)].tolist() == source[list(LABELS)].tolist()


@pytest.mark.parametrize("damage", ["missing", "doubled", "exchanged", "foreign", "group", "fold", "fold twice"])
def test_anything_but_every_image_once_by_its_fold_is_refused(
    damage: str, tables: list[pd.DataFrame], folds: pd.DataFrame
) -> None:
    first, second, *_ = tables
    if damage == "missing":
        tables[0] = first.iloc[1:]
    elif damage == "doubled":
        tables[0] = pd.concat([first, first.iloc[:1]])
    elif damage == "exchanged":  # as many rows as there should be
        tables[0] = pd.concat([first.iloc[1:], first.iloc[1:2]])
    elif damage == "foreign":
        first.loc[0, "image_id"] = "ISIC_9999999"
    elif damage == "group":
        first.loc[0, "group"] = second.loc[0, "group"]
    elif damage == "fold":  # by a fold that trained on it
        first.loc[0, "fold"] = 1
    elif damage == "fold twice":
        tables[1] = first
    with pytest.raises(DataError, match="must have each of the 80 images once"):
        out_of_fold(tables, folds)


def test_the_figures_are_scikit_learns_per_fold_and_pooled(tables: list[pd.DataFrame], folds: pd.DataFrame) -> None:
    table = out_of_fold(tables, folds)
    summary = summed(table)
    assert list(summary.folds) == [0, 1, 2, 3]
    for label in LABELS:
        assert vars(summary.out_of_fold.by_image.labels[label]).items() >= expected(table, label).items()
        for fold, of_fold in summary.folds.items():
            assert vars(of_fold.labels[label]).items() >= expected(tables[fold], label).items()
    assert summary.out_of_fold.images == 80
    assert summary.out_of_fold.thresholds == {"MEL": THRESHOLD, "BKL": THRESHOLD}


def test_the_spread_is_numpys_over_the_folds(tables: list[pd.DataFrame], folds: pd.DataFrame) -> None:
    summary = summed(out_of_fold(tables, folds))
    for metric in ("auc", "average_precision", "precision", "sensitivity"):
        of = {label: [expected(rows, label)[metric].expected for rows in tables] for label in LABELS}
        of["macro"] = np.mean([of["MEL"], of["BKL"]], axis=0).tolist()
        for name, values in of.items():
            require_spread(summary.over_folds[name].of(metric), values)


def test_a_fold_that_does_not_define_a_figure_is_not_counted(tables: list[pd.DataFrame], folds: pd.DataFrame) -> None:
    tables[2]["BKL_true"] = np.nan
    summary = summed(out_of_fold(tables, folds))
    assert summary.folds[2].labels["BKL"].auc is None
    assert summary.folds[2].labels["BKL"].unknown == 20
    assert summary.folds[2].macro.auc == summary.folds[2].labels["MEL"].auc
    values = [expected(tables[fold], "BKL")["auc"].expected for fold in (0, 1, 3)]
    require_spread(summary.over_folds["BKL"].auc, values)
    assert summary.over_folds["MEL"].auc.folds == FOLDS


def test_one_fold_has_no_spread_and_none_no_mean(tables: list[pd.DataFrame], folds: pd.DataFrame) -> None:
    for table in tables:
        table["BKL_true"] = np.float32(0)
    tables[0].loc[:4, "BKL_true"] = 1
    summary = summed(out_of_fold(tables, folds))
    auc = summary.folds[0].labels["BKL"].auc
    assert summary.over_folds["BKL"].auc == FoldSpread(auc, None, None, None, 1)
    tables[0]["BKL_true"] = np.float32(0)
    summary = summed(out_of_fold(tables, folds))
    assert summary.over_folds["BKL"].auc == FoldSpread(None, None, None, None, 0)
    again = TypeAdapter(OutOfFold).validate_json(
        json.dumps(TypeAdapter(OutOfFold).dump_python(summary), allow_nan=False)
    )
    assert again == summary


def test_the_truth_beside_the_predictions_must_be_the_data_sets(
    tables: list[pd.DataFrame], folds: pd.DataFrame
) -> None:
    table = out_of_fold(tables, folds)
    truth = table[["MEL_true", "BKL_true"]].to_numpy(copy=True)
    assert np.isnan(truth).any()
    check_truth(table, truth, LABELS)
    for place, value in ((np.isnan(truth), 0.0), (truth == 1, 0.0), (truth == 0, np.nan)):
        changed = truth.copy()
        changed[tuple(np.argwhere(place)[0])] = value
        with pytest.raises(DataError, match="truth in the predictions"):
            check_truth(table, changed, LABELS)
    for other in (1 - truth, truth[::-1], truth[:, ::-1], truth[1:]):
        with pytest.raises(DataError, match="truth in the predictions"):
            check_truth(table, other, LABELS)
