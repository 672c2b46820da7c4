"""The model that a fold left, as it was trained."""

from __future__ import annotations

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.errors import DataError
from melanoma_dist.models.classifier import Classifier, build_classifier
from melanoma_dist.train.fold_data import input_format_of
from melanoma_dist.train.unit import Unit


def load_model(unit: Unit) -> Classifier:
    """A unit's model with its weights, on the CPU. Raises DataError for weights damaged or of another model."""
    labels = LABEL_SETS[unit.config.data.labels]
    model = build_classifier(
        unit.config.model, input_format_of(unit).size, len(labels), unit.config.seed, weights="none"
    )
    expected = {"labels": ",".join(labels), "fold": str(unit.fold), "data": unit.fingerprint}
    try:
        with safe_open(unit.model, "pt") as file:
            about = file.metadata() or {}
        model.load_state_dict(load_file(unit.model))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{unit.model}: does not fit the run's model, or is damaged ({reason}). Copy it again."
        ) from error
    wrong = [f"{key} {about.get(key)!r}, not {value!r}" for key, value in expected.items() if about.get(key) != value]
    if wrong:
        raise DataError(f"{unit.model}: is not this fold's model: it says {'; '.join(wrong)}. Copy it again.")
    return model
