"""Loads the weights of a fold into its model, once they are proved to be that fold's."""

from __future__ import annotations

from collections.abc import Mapping

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from melanoma_dist.errors import DataError
from melanoma_dist.storage.tensors import require_finite
from melanoma_dist.train.unit import Unit


def load_fold_weights(model: nn.Module, unit: Unit, about: Mapping[str, str]) -> None:
    """Load the weights of a unit. ``about``: what their metadata must say besides fold and data set.

    Raises DataError for weights that are corrupt, not finite, or of another fold, data set or model.
    """
    expected = {**about, "fold": str(unit.fold), "data": unit.fingerprint}
    try:
        with safe_open(unit.model, "pt") as file:
            metadata = file.metadata() or {}
        model.load_state_dict(load_file(unit.model))
        require_finite(model.state_dict())
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{unit.model}: is corrupt, or of another model ({reason}). Copy it again.") from error
    wrong = [f"{key} {metadata.get(key)!r}, not {value!r}" for key, value in expected.items()
             if metadata.get(key) != value]  # fmt: skip
    if wrong:
        raise DataError(f"{unit.model}: is not the model of this fold: it has {'; '.join(wrong)}. Copy it again.")
