"""The scores by which the ISIC challenges ranked, for the label sets they are defined for.

2017    mean of the AUCs of melanoma and of seborrheic keratosis (our BKL)
2018    normalised multi-class accuracy over its seven classes
2019    the same over its eight classes and UNK, "none of these"

Where the official scorer (isic-challenge-scoring 5.6) and our metrics differ, by definition:
- it calls what is above 0.5, we what is at least at the threshold;
- a sensitivity, a precision, ... that is not defined is 1 there, None here; its report breaks off if a class is absent;
- its macro means have UNK as one more class; its PPV and NPV are at the prevalence of the data;
- ``auc_sens_80`` is another area, see ``classification.partial_auc``;
- its ground truth can weigh images, and ISIC_0035068 has no weight: we count every image that we are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import recall_score, roc_auc_score

from melanoma_dist.data.labels import LABEL_SETS

Floats = npt.NDArray[np.floating[Any]]
NONE_OF_THESE = -1
UNDECIDED = -2
UNKNOWN = -3
OF_2017 = LABEL_SETS["isic2017"]
MULTICLASS = ("isic2018", "isic2019")


def isic_scores(truth: Floats, probability: Floats, labels: tuple[str, ...]) -> dict[str, float | None]:
    """The scores that the labels allow, of 0 to 1, for truth and probability [n, L]; None where not defined."""
    scores: dict[str, float | None] = {}
    if set(OF_2017) <= set(labels):
        scores["isic2017"] = _mean_auc(truth, probability, [labels.index(label) for label in OF_2017])
    for name in multiclass_names(labels):
        scores[name] = multiclass_accuracy(truth, probability)
    return scores


def multiclass_names(labels: tuple[str, ...]) -> list[str]:
    """The challenges whose classes the labels are."""
    return [name for name in MULTICLASS if LABEL_SETS[name] == labels]


def multiclass_accuracy(truth: Floats, probability: Floats) -> float | None:
    """Mean over the classes of the share of a class's images that the arg max finds, for truth and probability [n, L].

    The rules of the official scorer (ImageMarkup/isic-challenge-scoring, ``balanced_multiclass_accuracy``): no
    threshold; two equal greatest probabilities are undecided, which is wrong; a class without images does not count.
    Images of none of the labels (UNK of 2019) are a class of their own, which an arg max over L labels never finds.
    Images whose class is not known do not count.
    """
    actual, predicted = classes_of(truth), decided(probability)
    present = np.unique(actual[actual != UNKNOWN])
    if not len(present):
        return None
    known = actual != UNKNOWN
    return float(recall_score(actual[known], predicted[known], labels=present, average="macro"))


def classes_of(truth: Floats) -> npt.NDArray[np.int_]:
    """The class of every image, [n]: the column of its only 1, NONE_OF_THESE if all are 0, UNKNOWN otherwise.

    A known 1 is enough, as one image has one diagnosis; two of them are a contradiction, and unknown.
    """
    ones = (truth == 1).sum(axis=1)
    classes = np.where(ones == 1, np.argmax(truth == 1, axis=1), UNKNOWN)
    return np.where((truth == 0).all(axis=1), NONE_OF_THESE, classes)


def decided(probability: Floats) -> npt.NDArray[np.int_]:
    """The column of the greatest probability of every image, [n]; UNDECIDED where two are greatest."""
    ties = (probability == probability.max(axis=1, keepdims=True)).sum(axis=1) > 1
    return np.where(ties, UNDECIDED, probability.argmax(axis=1))


def _mean_auc(truth: Floats, probability: Floats, columns: list[int]) -> float | None:
    aucs = []
    for column in columns:
        known = ~np.isnan(truth[:, column])
        actual = truth[known, column].astype(int)
        if not actual.any() or actual.all():
            return None
        aucs.append(float(roc_auc_score(actual, probability[known, column])))
    return sum(aucs) / len(aucs)
