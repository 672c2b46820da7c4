"""Show answers on the terminal: a row per image, and how many there are of each kind."""

from __future__ import annotations

from typing import Any

import pandas as pd

from melanoma_dist import console
from melanoma_dist.app.answers import NOT_CHECKED
from melanoma_dist.app.doubts import Limits
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.manifest import SYNTHETIC

RESEARCH = "For research only: these answers are no diagnosis."


def show_answers(answers: pd.DataFrame, labels: tuple[str, ...], synthetic: bool) -> None:
    """Print a row per image: the probability of melanoma with the lowest and the highest fold, calls and doubts."""
    title = f"Calibrated probabilities{f' — {SYNTHETIC}' if synthetic else ''}"
    header = ["image", f"{HEADLINE} (folds)", "called", "doubts"]
    console.table(title, header, [_row(row, labels) for row in answers.to_dict("records")])


def _row(row: dict[Any, Any], labels: tuple[str, ...]) -> list[str]:
    if row["error"]:
        return [row["image"], "–", "–", f"Cannot be predicted: {row['error']}."]
    called = [label for label in labels if row[f"{label}_positive"]]
    folds = f"{row[HEADLINE + '_low']:.3f} to {row[HEADLINE + '_high']:.3f}"
    return [row["image"], f"{row[HEADLINE]:.3f} ({folds})", " ".join(called) or "none", row["doubts"]]


def show_counts(answers: pd.DataFrame, limits: Limits) -> None:
    """Print how many images are called melanoma, from which probability, and how many are doubtful and why."""
    predicted = answers[answers["error"] == ""]
    threshold = limits.thresholds[limits.labels.index(HEADLINE)]
    console.info(
        f"{int(predicted[f'{HEADLINE}_positive'].sum())} of {len(predicted)} images are called {HEADLINE}: their "
        f"calibrated probability is at least {threshold:.4f}, a threshold that the run fixed out of fold."
    )
    kinds = {
        "seen in training": int((~predicted["seen_in_training"].isin(["", NOT_CHECKED])).sum()),
        "unlike the training images": int(predicted["out_of_distribution"].sum()),
        "too small": int(predicted["too_small"].sum()),
        "blurred": int(predicted["blurred"].sum()),
        "folds disagree": int((predicted["folds_disagree"] != "").sum()),
    }
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.items() if count)
    console.info(f"doubts: {listed or 'none'}")
    console.info(RESEARCH)
