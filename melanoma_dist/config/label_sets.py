"""The label sets that a training can predict: the one place to add one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

DIAGNOSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
"""The eight diagnoses of 2019: melanoma, nevus, basal cell carcinoma, actinic keratosis, benign keratosis,
dermatofibroma, vascular lesion, squamous cell carcinoma."""

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
