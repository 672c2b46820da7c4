"""Explains the answers of `predict`: a picture per image and label, and a table of what the pictures are worth.

``explanations.csv`` has a row per picture:

image, label, probability    as in the answers
picture                      file: the image, and beside it the same with the evidence for the label over it
change_marked                of the raw probability when the marked part of the image is blurred
change_elsewhere             the median of that for the same shape in other places
trust                        the share of these places that matter less, 0 to 1
explanation                  that in words, or why there is no map
similar_1, similar_2, ...    the most similar images of the run, with diagnosis, source and licence
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from melanoma_dist import console
from melanoma_dist.app.predictor import Predictor
from melanoma_dist.app.scoring import ScoredImage, Scores
from melanoma_dist.app.similar_cases import similar_cases
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.inference.explanation import Explanation, explain, overlay
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.storage import atomic
from melanoma_dist.storage.images import open_image

TABLE = "explanations.csv"
_SIDE = 512  # pixels of a picture's longer side


def write_explanations(predictor: Predictor, scored: Sequence[ScoredImage], folder: Path) -> None:
    """Explain the headline label and every label that is called, for all images that could be read."""
    folder.mkdir(parents=True, exist_ok=True)
    readable = [(number, image) for number, image in enumerate(scored, start=1) if image.scores is not None]
    rows: list[dict[str, object]] = []
    for number, image in console.progress(readable, len(readable), "explaining"):
        rows += _explain(predictor, image, folder / f"{number:05d}-{Path(image.photo.image_id).stem}")
    atomic.write_file(folder / TABLE, lambda aside: pd.DataFrame(rows).to_csv(aside, index=False))


def _explain(predictor: Predictor, image: ScoredImage, start: Path) -> list[dict[str, object]]:
    """The rows of one image. Its pictures are ``start``, a label and a suffix."""
    ensemble = predictor.ensemble
    photograph = Photographs.prepare([image.photo.image_id], predictor.run.image_size, [image.about])
    predictions = ensemble.predict(photograph, tta=1, features=True)
    (cases,) = similar_cases(ensemble, predictor.own_dataset, predictions)
    rows = []
    for label, probability in _labels(image.scores, ensemble.labels):
        (explanation,) = explain(ensemble, photograph, label)
        rows.append(
            {
                "image": console.printable(image.photo.image_id),
                "label": label,
                "probability": probability,
                "picture": _write_picture(photograph, explanation, start.with_name(f"{start.name}-{label}.jpg")),
                "change_marked": -explanation.fall,
                "change_elsewhere": -explanation.fall_elsewhere,
                "trust": explanation.trust,
                "explanation": explanation.sentence,
                **{f"similar_{at}": case.sentence for at, case in enumerate(cases, start=1)},
            }
        )
    return rows


def _labels(scores: Scores | None, labels: LabelSet) -> list[tuple[str, float]]:
    """The labels to explain, with their probabilities."""
    if scores is None:
        return []
    each = zip(labels, scores.probability, scores.positive, strict=True)
    return [
        (label, float(probability)) for label, probability, positive in each if positive or label == labels.headline
    ]


def _write_picture(photograph: Photographs, explanation: Explanation, path: Path) -> str:
    """Write the image and its overlay side by side. Returns the file's name; empty where there is no map."""
    if explanation.evidence is None:
        return ""
    with open_image(photograph.jpegs[0]) as image:
        image.thumbnail((_SIDE, _SIDE))
        picture = image.convert("RGB")
    both = Image.new("RGB", (2 * picture.width, picture.height))
    both.paste(picture, (0, 0))
    both.paste(overlay(picture, explanation.evidence, explanation.window), (picture.width, 0))
    atomic.write_file(path, lambda aside: both.save(aside, "JPEG", quality=90))
    return path.name
