"""The label sets that a training can predict: those with a name, and any list of labels."""

from __future__ import annotations

import re
from collections.abc import Iterable

from melanoma_dist.errors import ConfigError, nearest

NAMES = {
    "MEL": "melanoma",
    "NV": "melanocytic nevus (mole)",
    "BCC": "basal cell carcinoma",
    "AK": "actinic keratosis",
    "BKL": "benign keratosis (seborrheic keratosis, solar lentigo, lichen-planus-like keratosis)",
    "DF": "dermatofibroma",
    "VASC": "vascular lesion",
    "SCC": "squamous cell carcinoma",
    "AKIEC": "actinic keratosis or intraepithelial carcinoma (Bowen's disease), one class in 2018",
}
"""What labels mean, for people."""

MELANOMA = "MEL"


class LabelSet(tuple[str, ...]):
    """Labels in the order of a model's outputs, and the one that leads: ``headline``."""

    headline: str
    """The label whose AUC chooses epochs and configurations, and leads every report."""

    def __new__(cls, labels: Iterable[str], headline: str | None = None) -> LabelSet:
        """``headline``: one of the labels. Default: melanoma, or the only label. Raises ConfigError without one."""
        instance = super().__new__(cls, labels)
        instance.headline = _checked_headline(tuple(instance), headline)
        return instance

    def __getnewargs__(self) -> tuple[tuple[str, ...], str]:  # ranks receive it pickled
        return tuple(self), self.headline

    @property
    def headline_column(self) -> int:
        """The position of the headline label."""
        return self.index(self.headline)


def default_headline(labels: tuple[str, ...]) -> str | None:
    """The label that leads a set unless the user names one: melanoma, or the only label; None for other sets."""
    if MELANOMA in labels:
        return MELANOMA
    return labels[0] if len(labels) == 1 else None


def _checked_headline(labels: tuple[str, ...], headline: str | None) -> str:
    chosen = headline or default_headline(labels)
    if chosen is None:
        raise ConfigError(
            f"--headline: the labels {', '.join(labels)} have no {MELANOMA}, so say which one leads: its AUC chooses "
            f"epochs and heads reports. Type {' or '.join(f'--headline {label}' for label in labels)}."
        )
    if chosen not in labels:
        rule = f"must be one of the labels {', '.join(labels)}"
        near = nearest(chosen, labels)
        raise ConfigError.of("headline", chosen, rule, f"Nearest: {near}." if near else "Choose one.")
    return chosen


DIAGNOSES = LabelSet(("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC"))
"""The eight diagnoses of 2019."""

LABEL_SETS: dict[str, LabelSet] = {
    "isic2019": DIAGNOSES,
    "isic2018": LabelSet(("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC")),
    "isic2017": LabelSet(("MEL", "BKL")),
    "melanoma": LabelSet(("MEL",)),
}
"""The outputs of a model by the name of ``--labels``."""

LABEL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,19}")
"""The name of a label: capital letters, digits and ``_``."""


def label_name(label: str) -> str:
    """A label in words within a sentence: "melanoma"; a label of the user's own as it is."""
    return NAMES.get(label, label).partition(" (")[0]


def label_set(name: str, headline: str | None = None) -> LabelSet:
    """The labels of ``--labels``, a named set or labels with commas between them, led by ``headline``.

    Raises ConfigError for other texts, for a headline that is none of the labels, and for a set that needs one.
    """
    labels = tuple(LABEL_SETS.get(name) or name.split(","))
    if not all(map(LABEL_NAME.fullmatch, labels)):
        known = ", ".join(LABEL_SETS)
        rule = f"must be one of {known}, or labels in capitals such as MEL,NV"
        raise ConfigError.of("labels", name, rule, f"Nearest: {nearest(name, LABEL_SETS) or known}.")
    if len(set(labels)) < len(labels):
        raise ConfigError.of("labels", name, "names a label twice", "Remove one.")
    return LabelSet(labels, headline)
