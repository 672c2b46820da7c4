"""Show answers on the terminal: a row per image, and how many there are of each kind."""

from __future__ import annotations

from typing import Any

import pandas as pd

from melanoma_dist import console
from melanoma_dist.app.answers import NOT_CHECKED
from melanoma_dist.app.doubts import Limits
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.data.manifest import SYNTHETIC

RESEARCH = "For research only: these answers are no diagnosis."


def show_answers(answers: pd.DataFrame, labels: LabelSet, synthetic: bool) -> None:
    """Print a row per image: the headline label's probability with the lowest and highest fold, calls and doubts."""
    title = f"Calibrated probabilities{f' — {SYNTHETIC}' if synthetic else ''}"
    header = ["image", f"{labels.headline} (folds)", "called", "doubts"]
    console.table(title, header, [_row(row, labels) for row in answers.to_dict("records")])


def _row(row: dict[Any, Any], labels: LabelSet) -> list[str]:
    if row["error"]:
        return [row["image"], "–", "–", f"Cannot be predicted: {row['error']}."]
    called = [label for label in labels if row[f"{label}_positive"]]
    headline = labels.headline
    folds = f"{row[headline + '_low']:.3f} to {row[headline + '_high']:.3f}"
    return [row["image"], f"{row[headline]:.3f} ({folds})", " ".join(called) or "none", row["doubts"]]


def _untrusted(predicted: pd.DataFrame) -> int:
    """How many images have no lesion whose outline is trusted."""
    empty = predicted["mask"] == "empty" if "mask" in predicted else predicted["region"] == "whole"
    return int(empty.sum())


def show_counts(answers: pd.DataFrame, limits: Limits) -> None:
    """Print how many images have the headline label, from which probability, and how many are doubtful and why."""
    predicted = answers[answers["error"] == ""]
    headline, threshold = limits.labels.headline, limits.thresholds[limits.labels.headline_column]
    console.info(
        f"{int(predicted[f'{headline}_positive'].sum())} of {len(predicted)} images are called {headline}: their "
        f"calibrated probability is at least {threshold:.4f}, a threshold that the run fixed out of fold."
    )
    kinds = {
        "seen in training": int((~predicted["seen_in_training"].isin(["", NOT_CHECKED])).sum()),
        "unlike the training images": int(predicted["out_of_distribution"].sum()),
        **({"lesion not found, or doubtful": _untrusted(predicted)} if limits.sight.needs_lesions else {}),
        "too small": int(predicted["too_small"].sum()),
        "blurred": int(predicted["blurred"].sum()),
        "folds disagree": int((predicted["folds_disagree"] != "").sum()),
    }
    listed = ", ".join(f"{kind} {count}" for kind, count in kinds.items() if count)
    console.info(f"doubts: {listed or 'none'}")
    console.info(RESEARCH)
