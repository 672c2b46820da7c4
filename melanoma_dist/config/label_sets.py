"""The label sets that a training can predict: those with a name, and any list of labels."""

from __future__ import annotations

import re

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

DIAGNOSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
"""The eight diagnoses of 2019."""

HEADLINE = "MEL"
"""The label whose AUC chooses epochs and configurations, and leads every report: part of every label set."""

LABEL_SETS: dict[str, tuple[str, ...]] = {
    "isic2019": DIAGNOSES,
    "isic2018": ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    "isic2017": ("MEL", "BKL"),
    "melanoma": ("MEL",),
}
"""The outputs of a model by the name of ``--labels``."""

LABEL_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,19}")
"""The name of a label: capital letters, digits and ``_``."""


def label_set(name: str) -> tuple[str, ...]:
    """The labels of ``--labels``: a named set, or labels with commas between them. Raises ConfigError for others."""
    labels = LABEL_SETS.get(name) or tuple(name.split(","))
    if not all(map(LABEL_NAME.fullmatch, labels)):
        known = ", ".join(LABEL_SETS)
        rule = f"must be one of {known}, or labels in capitals such as MEL,NV"
        raise ConfigError.of("labels", name, rule, f"Nearest: {nearest(name, LABEL_SETS) or known}.")
    if len(set(labels)) < len(labels):
        raise ConfigError.of("labels", name, "names a label twice", "Remove one.")
    if HEADLINE not in labels:
        raise ConfigError.of(
            "labels", name, f"has no {HEADLINE}, whose AUC chooses epochs", f"Add {HEADLINE} to the set."
        )
    return labels
