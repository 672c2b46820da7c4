"""Metadata of images as numbers, the same for training, evaluation and new photographs.

A code is years for the age, and the position of the word in ``VOCABULARY`` for sex and site: one table for all
collections. NaN is unknown, whatever the cause: a blank, the word `unknown`, or a collection without the field. No code
is fitted on data, so nothing of one fold reaches another.

Shapes: n images, F fields.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.tables import ABSENT, OLDEST_YEARS, VOCABULARY
from melanoma_dist.errors import ConfigError, DataError

Floats = npt.NDArray[np.float32]


def metadata_codes(images: pd.DataFrame, fields: tuple[str, ...]) -> Floats:
    """Return the codes [n, F] of a manifest's rows. Raises DataError for a value that no field has."""
    codes = np.full((len(images), len(fields)), np.nan, dtype=np.float32)
    for column, field in enumerate(fields):
        values, known = images[field], images[field].notna().to_numpy()
        if field == "age":
            codes[known, column] = values[known]
            wrong = known & ~values.between(0, OLDEST_YEARS).to_numpy()
        else:
            codes[known, column] = [_position(field, word) for word in values[known]]
            wrong = known & np.isnan(codes[:, column])
        if wrong.any():
            name, value = images["image_id"][wrong].iloc[0], values[wrong].iloc[0]
            raise DataError(f"The data set's {field} of {name} is {value}: it {rule_of(field)}. Prepare it again.")
    return codes


def parse_code(field: str, text: str) -> float:
    """Return the code of a value that a user typed; NaN for a blank or `unknown`. Raises ConfigError for others."""
    value = text.strip().casefold()
    if value in ABSENT:
        return math.nan
    try:
        code = float(value) if field == "age" else _position(field, value)
    except ValueError:
        code = math.nan
    if math.isnan(code) or (field == "age" and not 0 <= code <= OLDEST_YEARS):
        raise ConfigError.of(field, text, rule_of(field))
    return code


def unknown_codes(count: int, fields: tuple[str, ...]) -> Floats:
    """Return the codes [count, F] of images of which nothing is known."""
    return np.full((count, len(fields)), np.nan, dtype=np.float32)


def require_known(manifest: pd.DataFrame, fields: tuple[str, ...]) -> None:
    """Raise ConfigError for a field that is unknown for every image: a model can learn nothing from it."""
    for field in fields:
        if not manifest[field].notna().any():
            rule = f"the data set knows the {field} of none of its images"
            raise ConfigError.of("metadata", field, rule, f"Leave {field} out, or prepare a collection that has it.")


def rule_of(field: str) -> str:
    """Say what a value of a field must be."""
    if field == "age":
        return f"must be an age of 0 to {OLDEST_YEARS} years, or unknown"
    return f"must be one of {', '.join(VOCABULARY[field])}, or unknown"


def describe_field(field: str) -> dict[str, Any]:
    """Describe the values of a field as plain values. All fields are optional: what is absent is unknown."""
    if field == "age":
        return {"unit": "years", "low": 0, "high": OLDEST_YEARS}
    return {"words": list(VOCABULARY[field])}


def _position(field: str, word: str) -> float:
    return float(VOCABULARY[field].index(word)) if word in VOCABULARY[field] else math.nan
