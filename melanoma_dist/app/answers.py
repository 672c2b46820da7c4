"""The table of answers: a row per image in the order of the inputs, as a file or on the terminal.

image                                 its path
MEL_true, ...                         its truth, if the table that names it has one
...                                   the other columns of that table
MEL, MEL_low, MEL_high, MEL_positive  for each label: calibrated probability (the mean over the folds), the lowest and
                                      the highest fold, and whether the mean reaches the label's threshold
region                                what the models saw, if the run sees lesions: "lesion", or "whole" where none was
                                      found or its outline is doubtful
mask                                  the mask that the models saw, if they take masks: "lesion", or "empty" where no
                                      lesion was found or its outline is doubtful
lesion_top, lesion_left, lesion_height, lesion_width, lesion_quality
                                      the lesion's box in shares of the image, and the Jaccard index to expect
                                      of its outline
metadata                              what the models were told of the patient, if they take metadata
seen_in_training                      which training image it is or copies, "not checked", or empty
novelty, out_of_distribution          distance from the training images in units of the limit, and whether it is reached
too_small, blurred, folds_disagree    doubts; ``folds_disagree`` lists labels
doubts                                all doubts as sentences; empty for none
width, height, blur, sha256           of the file
error                                 why it cannot be predicted; empty if it was
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist import console
from melanoma_dist.app.doubts import Doubts, Limits, find_doubts
from melanoma_dist.app.inputs import InputImage
from melanoma_dist.app.patients import in_words
from melanoma_dist.app.scoring import ScoredImage
from melanoma_dist.app.truth import Truth
from melanoma_dist.data.labels import TRUE
from melanoma_dist.storage import atomic

NOT_CHECKED = "not checked"
"""What ``seen_in_training`` says if the run's data set cannot be read."""
LESION_NUMBERS = ("lesion_top", "lesion_left", "lesion_height", "lesion_width", "lesion_quality")
_NUMBERS = ("", "_low", "_high")
_RENAMED = "_input"  # suffix of a user's column whose name is one of ours


def answers_table(scored: Sequence[ScoredImage], limits: Limits, checked: bool) -> pd.DataFrame:
    """The answers alone. ``checked``: whether it is known which images the run was trained on."""
    table = pd.DataFrame([answer_row(image, limits, checked) for image in scored])
    booleans = ["out_of_distribution", "too_small", "blurred", *(f"{label}_positive" for label in limits.labels)]
    of_lesions = LESION_NUMBERS if limits.sight.needs_lesions else ()
    floats = ["novelty", "blur", *of_lesions, *(label + suffix for label in limits.labels for suffix in _NUMBERS)]
    kinds = dict.fromkeys(booleans, "boolean") | dict.fromkeys(floats, "float32")
    return table.astype(kinds | dict.fromkeys(("width", "height"), "Int32"))


def answer_row(image: ScoredImage, limits: Limits, checked: bool) -> dict[str, object]:
    """The answer for one image, by column. Its numbers are NaN or None if the image cannot be read."""
    doubts = None if image.scores is None else find_doubts(image, image.scores, limits)
    photo = image.photo
    return {
        "image": console.printable(photo.image_id),  # a file's name may hold bytes that are no text
        **_label_columns(image, limits.labels),
        **(_lesion_columns(image, limits) if limits.sight.needs_lesions else {}),
        **({"metadata": in_words(image.about, limits.metadata)} if limits.metadata else {}),
        "seen_in_training": _training_image(doubts, checked),
        "novelty": doubts.novelty if doubts else np.nan,
        "out_of_distribution": doubts.out_of_distribution if doubts and not math.isnan(doubts.novelty) else None,
        "too_small": doubts.too_small if doubts else None,
        "blurred": doubts.blurred if doubts else None,
        "folds_disagree": " ".join(doubts.disagree) if doubts else "",
        "doubts": " ".join(doubts.sentences) if doubts else "",
        "width": photo.source_width if doubts else None,
        "height": photo.source_height if doubts else None,
        "blur": image.blur,
        "sha256": photo.source_sha256,
        "error": console.printable(image.error),
    }


def _training_image(doubts: Doubts | None, checked: bool) -> str:
    if doubts is None or (checked and doubts.trained_as is None):
        return ""
    return str(doubts.trained_as) if checked else NOT_CHECKED


def _label_columns(image: ScoredImage, labels: tuple[str, ...]) -> dict[str, object]:
    scores = image.scores
    columns: dict[str, object] = {}
    for at, label in enumerate(labels):
        columns[label] = scores.probability[at] if scores else np.nan
        columns[f"{label}_low"] = scores.folds[:, at].min() if scores else np.nan
        columns[f"{label}_high"] = scores.folds[:, at].max() if scores else np.nan
        columns[f"{label}_positive"] = bool(scores.positive[at]) if scores else None
    return columns


def _lesion_columns(image: ScoredImage, limits: Limits) -> dict[str, object]:
    lesion = None if image.scores is None else image.scores.lesion
    box = (np.nan,) * 4 if lesion is None or lesion.box is None else lesion.box
    numbers = zip(LESION_NUMBERS, (*box, lesion.quality if lesion else np.nan), strict=True)
    mask = {"mask": lesion.mask if lesion else ""} if limits.sight.mask == "channel" else {}
    return {"region": lesion.region if lesion else "", **mask, **dict(numbers)}


def with_inputs(answers: pd.DataFrame, images: Sequence[InputImage], truth: Truth) -> pd.DataFrame:
    """Add the columns of the user's tables and the truth behind the path.

    A column that has the name of an answer gets the suffix ``_input``.
    """
    names = {name: None for image in images for name in image.values if name not in truth.columns.values()}
    columns: dict[str, object] = {label + TRUE: truth.of(label) for label in truth.columns}
    for name in names:
        column = name
        while column in columns or column in answers:
            column += _RENAMED
        columns[column] = [image.values.get(name, "") for image in images]
    return pd.concat([answers[["image"]], pd.DataFrame(columns), answers.drop(columns="image")], axis=1)


def write_answers(table: pd.DataFrame, out: Path) -> None:
    """Write the table by the suffix of ``out``, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_file(out, lambda aside: _write(table, aside, out.suffix.lower()))


def _write(table: pd.DataFrame, path: Path, suffix: str) -> None:
    if suffix == ".csv":
        table.to_csv(path, index=False)
    elif suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_json(path, orient="records", indent=1, double_precision=15, force_ascii=False)
