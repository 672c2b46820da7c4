"""The label sets that a training can predict: the one place to add one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

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

# The command line offers exactly these names; a type checker cannot follow a literal that is computed.
if TYPE_CHECKING:
    LabelSet = str
else:
    LabelSet = Literal[tuple(LABEL_SETS)]
