"""Run in the scorer's own environment: the scores of every NAME-truth.csv and NAME-prediction.csv of a folder, as JSON.

Only isic-challenge-scoring and what it needs can be imported here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from isic_challenge_scoring import metrics
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore
from isic_challenge_scoring.load_csv import parse_csv, parse_truth_csv, sort_rows


def main() -> None:
    folder = Path(sys.argv[1])
    names = sorted(path.name.removesuffix("-truth.csv") for path in folder.glob("*-truth.csv"))
    print(json.dumps({name: scores(folder / f"{name}-truth.csv", folder / f"{name}-prediction.csv") for name in names}))


def scores(truth: Path, prediction: Path) -> dict[str, Any]:
    """``score``: all that the scorer reports, None where it breaks off; ``auc``: its score when asked for AUCs."""
    try:
        score: Any = ClassificationScore.from_file(truth, prediction, ClassificationMetric.BALANCED_ACCURACY)
        auc: Any = ClassificationScore.from_file(truth, prediction, ClassificationMetric.AUC).overall
    except ValueError:
        score, auc = None, None
    return {"score": score and score.to_dict(rocs=False), "auc": auc, "balanced": balanced(truth, prediction)}


def balanced(truth: Path, prediction: Path) -> float:
    """The normalised multi-class accuracy alone, which needs no AUC of every class."""
    with truth.open() as first, prediction.open() as second:
        actual, weights = parse_truth_csv(first)
        predicted = parse_csv(second, actual.columns)
    for table in (actual, weights, predicted):
        sort_rows(table)
    return float(metrics.balanced_multiclass_accuracy(actual, predicted, weights.score_weight))


if __name__ == "__main__":
    main()
